"""Every reader on a tiny tree in its official layout, and what bad files do."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets import detect_layout, open_dataset

HEIGHT, WIDTH = 12, 18


def picture(seed=0, height=HEIGHT, width=WIDTH):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = array[..., ::-1] if array.ndim == 3 else array
    assert cv2.imwrite(str(path), channels)


def write_palette(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels, mode=None).convert("P") if labels.ndim == 3 else None
    image = image or Image.frombytes("P", labels.shape[::-1], labels.tobytes())
    image.putpalette([(7 * i) % 256 for i in range(768)])
    image.save(path)


def two_objects(void=True):
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[2:6, 2:8] = 1
    labels[7:11, 9:16] = 2
    if void:
        labels[6, :] = 255
    return labels


def folder(root, names=("a", "b")):
    for seed, name in enumerate(names):
        write(root / "images" / f"{name}.png", picture(seed))
        write(root / "masks" / f"{name}.png", two_objects())
    return root


def test_folder_gives_one_sample_per_object(tmp_path):
    dataset = open_dataset(folder(tmp_path))
    assert dataset.layout == "folder"
    assert [sample.name for sample in dataset] == ["a#1", "a#2", "b#1", "b#2"]
    sample = dataset[1]
    np.testing.assert_array_equal(sample.image, picture(0))
    assert sample.mask.dtype == np.uint8
    assert (sample.mask == 1).sum() == 4 * 7
    assert (sample.mask == 255).sum() == WIDTH
    assert sample.mask[3, 3] == 0  # the other object is background
    assert [sample.name for sample in dataset[1:3]] == ["a#2", "b#1"]


def test_images_are_accessible_without_enumerating_objects(tmp_path):
    dataset = open_dataset(folder(tmp_path))
    image, labels = dataset.images[0].read_pair()
    assert image.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(labels, two_objects())
    assert dataset.images[0].object_areas() == {1: 24 / 216, 2: 28 / 216}


def test_small_objects_can_be_left_out(tmp_path):
    dataset = open_dataset(folder(tmp_path), min_area=0.12)
    assert [sample.name for sample in dataset] == ["a#2", "b#2"]
    with pytest.raises(DatasetError, match=r"no object of at least 0\.5"):
        len(open_dataset(tmp_path, min_area=0.5))


def test_masks_that_mean_object_by_255_get_a_hint(tmp_path):
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[2:6, 3:9] = 255
    write(tmp_path / "images" / "a.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    write(tmp_path / "masks" / "a.png", values)
    with pytest.raises(DatasetError, match=r"255 is void; objects are 1, 2"):
        len(open_dataset(tmp_path, "folder"))


def test_grabcut(tmp_path):
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[3:8, 4:9] = 255
    values[3, 4:9] = 128
    write(tmp_path / "data_GT" / "flower.jpg", picture())
    write(tmp_path / "boundary_GT" / "flower.bmp", values)
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, dataset[0].name) == ("grabcut", "flower")
    assert (dataset[0].mask == 1).sum() == 20
    assert (dataset[0].mask == 255).sum() == 5


def test_berkeley_is_told_from_a_folder_by_its_values(tmp_path):
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[3:8, 4:9] = 255
    write(tmp_path / "images" / "bear.jpg", picture())
    write(tmp_path / "masks" / "bear.png", values)
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "berkeley"
    assert (dataset[0].mask == 1).sum() == 25
    assert not (dataset[0].mask == 255).any()
    # read as a folder the same file has no object at all
    with pytest.raises(DatasetError, match="no object"):
        len(open_dataset(tmp_path, "folder"))


def test_davis_as_single_frames(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    mask[1:5, 1:5] = 200
    write(tmp_path / "img" / "swan_0.jpg", picture())
    write(tmp_path / "gt" / "swan_0.png", mask)
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, dataset[0].name) == ("davis", "swan_0")
    assert (dataset[0].mask == 1).sum() == 16


def test_davis_2016_tree_with_its_list(tmp_path):
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    for sequence in ("bear", "camel"):
        write(tmp_path / "JPEGImages/480p" / sequence / "00000.jpg", picture())
        write(tmp_path / "Annotations/480p" / sequence / "00000.png", mask)
    names = tmp_path / "ImageSets/480p/val.txt"
    names.parent.mkdir(parents=True)
    names.write_text("/JPEGImages/480p/camel/00000.jpg /Annotations/480p/camel/00000.png\n")
    assert [s.name for s in open_dataset(tmp_path)] == ["bear/00000", "camel/00000"]
    assert [s.name for s in open_dataset(tmp_path, subset="val")] == ["camel/00000"]


def sbd(root):
    labels = two_objects(void=False)
    for name in ("2008_1", "2008_2"):
        write(root / "img" / f"{name}.jpg", picture())
        (root / "inst").mkdir(exist_ok=True)
        entry = np.zeros((1, 1), [("Segmentation", "O"), ("Categories", "O")])
        entry["Segmentation"][0, 0] = labels
        entry["Categories"][0, 0] = np.array([[3], [8]])
        savemat(root / "inst" / f"{name}.mat", {"GTinst": entry})
    (root / "val.txt").write_text("2008_2\n")
    (root / "train.txt").write_text("2008_1\n\n")
    return root


def test_sbd(tmp_path):
    sbd(tmp_path)
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "sbd"
    assert [sample.name for sample in dataset] == ["2008_2#1", "2008_2#2"]
    assert (dataset[1].mask == 1).sum() == 28
    assert open_dataset(tmp_path, subset="train").images[0].name == "2008_1"


def test_sbd_with_a_damaged_annotation(tmp_path):
    sbd(tmp_path)
    file = tmp_path / "inst" / "2008_2.mat"
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(DatasetError, match=r"2008_2\.mat"):
        len(open_dataset(tmp_path))


def test_voc_reads_palette_indices(tmp_path):
    for name in ("2007_1", "2007_2"):
        write(tmp_path / "JPEGImages" / f"{name}.jpg", picture())
    write_palette((tmp_path / "SegmentationObject").joinpath("2007_2.png"), two_objects())
    names = tmp_path / "ImageSets/Segmentation/val.txt"
    names.parent.mkdir(parents=True)
    names.write_text("2007_2\n")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "voc"
    assert [sample.name for sample in dataset] == ["2007_2#1", "2007_2#2"]
    np.testing.assert_array_equal(dataset.images[0].read_labels(), two_objects())


def coco(root):
    def box(x, y, w, h):
        return [x, y, x + w, y, x + w, y + h, x, y + h]

    write(root / "val2017" / "000007.jpg", picture())
    large, small = box(1, 1, 10, 8), box(3, 3, 4, 4)
    crowd = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * (WIDTH - 2), HEIGHT * 2]}
    annotations = [
        {"id": 11, "segmentation": [large], "iscrowd": 0, "area": 80},
        {"id": 12, "segmentation": [small], "iscrowd": 0, "area": 16},
        {"id": 13, "segmentation": crowd, "iscrowd": 1, "area": HEIGHT * 2},
    ]
    for annotation in annotations:
        annotation.update(image_id=7, category_id=1, bbox=[0, 0, 1, 1])
    content = {
        "images": [{"id": 7, "file_name": "000007.jpg", "height": HEIGHT, "width": WIDTH}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}],
    }
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return root


def test_coco(tmp_path, capsys):
    dataset = open_dataset(coco(tmp_path))
    assert dataset.layout == "coco"
    assert [sample.name for sample in dataset] == ["000007#1", "000007#2"]
    assert (dataset[0].mask == 1).sum() == 80  # whole, though the other lies on it
    assert (dataset[0].mask == 255).sum() == HEIGHT * 2
    labels = dataset.images[0].read_labels()
    assert ((labels == 1).sum(), (labels == 2).sum()) == (64, 16)
    assert capsys.readouterr().out == ""
    by_file = open_dataset(tmp_path / "annotations" / "instances_val2017.json")
    assert [sample.name for sample in by_file] == ["000007#1", "000007#2"]


def test_coco_with_a_foreign_json(tmp_path):
    file = tmp_path / "annotations" / "instances_val.json"
    file.parent.mkdir()
    for text in ("{}", "[1]", "{"):
        file.write_text(text)
        with pytest.raises(DatasetError, match=r"instances_val\.json"):
            open_dataset(tmp_path)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_truncated_image_is_named(tmp_path, suffix, part):
    folder(tmp_path, ["b"])
    file = tmp_path / "images" / f"a{suffix}"
    write(file, picture(height=64, width=64))
    write(tmp_path / "masks" / "a.png", np.ones((64, 64), np.uint8))
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(DatasetError, match=rf"a\{suffix}: the file is truncated"):
        open_dataset(tmp_path)[0].image  # noqa: B018


def test_jpeg_thumbnail_does_not_hide_truncation(tmp_path):
    folder(tmp_path, ["a"])
    file = tmp_path / "images" / "a.jpg"
    (tmp_path / "images" / "a.png").unlink()
    write(file, picture(height=HEIGHT, width=WIDTH))
    data = file.read_bytes()
    thumbnail = b"\xff\xd8 thumbnail \xff\xd9"
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    file.write_bytes(data[:2] + segment + data[2:])
    assert open_dataset(tmp_path)[0].image.shape == (HEIGHT, WIDTH, 3)
    file.write_bytes(data[:2] + segment + data[2:-30])
    with pytest.raises(DatasetError, match="truncated"):
        open_dataset(tmp_path)[0].image  # noqa: B018


@pytest.mark.parametrize("content", [b"", b"this is no image", b"\xff\xd8\xff"])
def test_foreign_bytes_are_named(tmp_path, content):
    folder(tmp_path)
    (tmp_path / "masks" / "b.png").write_bytes(content)
    with pytest.raises(DatasetError, match=r"masks/b\.png"):
        len(open_dataset(tmp_path))


def test_mask_of_another_size_is_named(tmp_path):
    folder(tmp_path)
    write(tmp_path / "masks" / "b.png", np.ones((5, 7), np.uint8))
    dataset = open_dataset(tmp_path)
    with pytest.raises(DatasetError, match=r"b\.png: the mask is 7x5, its image .* is 18x12"):
        dataset[2].mask  # noqa: B018
    with pytest.raises(DatasetError, match=r"b\.png: the mask is 7x5"):
        dataset.images[1].read_pair()


def test_coloured_and_deep_masks_are_named(tmp_path):
    folder(tmp_path)
    write(tmp_path / "masks" / "b.png", picture())
    with pytest.raises(DatasetError, match=r"b\.png: expected a mask of one channel"):
        len(open_dataset(tmp_path))
    write(tmp_path / "masks" / "b.png", np.full((HEIGHT, WIDTH), 700, np.uint16))
    with pytest.raises(DatasetError, match=r"b\.png: expected an 8-bit mask"):
        len(open_dataset(tmp_path))


def test_missing_and_empty(tmp_path):
    with pytest.raises(DatasetError, match="nowhere"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="none of the known layouts"):
        detect_layout(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(DatasetError, match="images: expected images, found none"):
        open_dataset(tmp_path)
    write(tmp_path / "images" / "a.png", picture())
    with pytest.raises(DatasetError, match="no mask for the image"):
        open_dataset(tmp_path)
    with pytest.raises(ValueError, match="layout: expected one of"):
        open_dataset(tmp_path, "cityscapes")
    with pytest.raises(ValueError, match="min_area"):
        open_dataset(tmp_path, min_area=1.5)
