"""Data sets of the papers in their official layouts, on tiny trees."""

import json

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from evaluate.test_datasets import HEIGHT, WIDTH, picture, two_objects, write, write_palette
from trtseg.errors import DatasetError
from trtseg.evaluate.datasets import detect_layout, open_dataset


def youtube_vos(root):
    """Object 1 is there from the first frame, object 2 from the second."""
    for frame in ("00000", "00005", "00010"):
        write(root / "JPEGImages" / "walk" / f"{frame}.jpg", picture())
        write_palette(root / "Annotations" / "walk" / f"{frame}.png", two_objects(void=False))
    objects = {
        "1": {"category": "person", "frames": ["00000", "00005", "00010"]},
        "2": {"category": "dog", "frames": ["00005", "00010"]},
    }
    (root / "meta.json").write_text(json.dumps({"videos": {"walk": {"objects": objects}}}))


def test_youtube_vos_gives_the_first_frame_of_each_object(tmp_path):
    youtube_vos(tmp_path / "valid")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "youtube-vos"
    assert [sample.name for sample in dataset] == ["walk/00000#1", "walk/00005#2"]
    labels = two_objects(void=False)
    for sample, label in zip(dataset, (1, 2), strict=True):
        np.testing.assert_array_equal(sample.mask == 1, labels == label)
    with pytest.raises(DatasetError, match=r"train/meta\.json: no such file"):
        open_dataset(tmp_path, subset="train")
    (tmp_path / "valid" / "meta.json").write_text('{"videos": {"walk": {}}}')
    with pytest.raises(DatasetError, match=r"meta\.json: expected YouTube-VOS' videos"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("folder", ["experts_anotation", "experts_annotation"])
def test_drions_takes_the_first_expert(tmp_path, folder):
    write(tmp_path / "images" / "image_001.jpg", picture())
    (tmp_path / folder).mkdir()
    for expert, right in ((1, 9), (2, 7)):
        corners = [(2, 3), (right, 3), (right, 8), (2, 8)]
        text = "\n".join(f"{x:.1f} , {y:.1f}" for x, y in corners)
        (tmp_path / folder / f"anotExpert{expert}_001.txt").write_text(text + "\n\n")
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, [sample.name for sample in dataset]) == ("drions", ["image_001"])
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[3:9, 2:10] = True
    np.testing.assert_array_equal(dataset[0].mask == 1, expected)
    second = open_dataset(tmp_path, subset="expert2")
    assert (second[0].mask == 1).sum() == 6 * 6
    with pytest.raises(DatasetError, match="expected the subset expert1 or expert2, got 'third'"):
        open_dataset(tmp_path, subset="third")
    contour = tmp_path / folder / "anotExpert1_001.txt"
    for damaged, message in (("2 , 3\nx", "expected lines"), ("1 , 1", "expected outlines of")):
        contour.write_text(damaged)
        with pytest.raises(DatasetError, match=rf"anotExpert1_001\.txt: {message}"):
            _ = open_dataset(tmp_path)[0].mask
    contour.unlink()
    with pytest.raises(DatasetError, match=r"anotExpert1_001\.txt: no such file"):
        open_dataset(tmp_path)


def test_rooftop_polygons_count_from_one(tmp_path):
    write(tmp_path / "house_1.jpg", picture())
    cells = np.empty((1, 2), object)
    cells[0, 0] = np.array([[1.0, 1], [5, 1], [5, 4], [1, 4]])
    cells[0, 1] = np.array([[4.0, 3], [10, 3], [10, 9], [4, 9]])
    savemat(tmp_path / "house_1.mat", {"gt": cells})
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "rooftop"
    assert [sample.name for sample in dataset] == ["house_1#1", "house_1#2"]
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[0:4, 0:5] = True
    np.testing.assert_array_equal(dataset[0].mask == 1, expected)  # whole, though overlapped
    labels = dataset.images[0].read_labels()
    assert ((labels == 1).sum(), (labels == 2).sum()) == (20 - 4, 49)
    (tmp_path / "house_1.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(DatasetError, match=r"house_1\.mat: no cell array gt"):
        len(open_dataset(tmp_path))


@pytest.mark.parametrize("where", ["images/validation/a/abbey", "images/ADE/validation/abbey"])
def test_ade20k_instances(tmp_path, where):
    write(tmp_path / where / "ADE_val_00000001.jpg", picture())
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb[1:4, 1:4] = (20, 7, 40)
    rgb[5:9, 5:9] = (20, 7, 200)
    rgb[0, :] = (0, 0, 90)  # no class
    write(tmp_path / where / "ADE_val_00000001_seg.png", rgb)
    write(tmp_path / where / "ADE_val_00000001_parts_1.png", rgb)
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "ade20k"
    assert [sample.name.rpartition("#")[2] for sample in dataset] == ["1", "2"]
    assert [int((sample.mask == 1).sum()) for sample in dataset] == [9, 16]
    with pytest.raises(DatasetError, match=r"training: expected images with \*_seg\.png"):
        open_dataset(tmp_path, "ade20k", subset="training")


def test_berkeley_100_has_several_masks_of_an_image(tmp_path):
    for name in ("113044", "1130"):
        write(tmp_path / "images" / f"{name}.jpg", picture())
    for name in ("113044-1", "113044-2", "1130"):
        values = np.zeros((HEIGHT, WIDTH), np.uint8)
        values[2:5, 2:6] = 255
        write(tmp_path / "ground-truth" / f"{name}.png", values)
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "berkeley-100"
    assert [sample.name for sample in dataset] == ["1130", "113044-1", "113044-2"]
    assert [sample.source.path.stem for sample in dataset] == ["1130", "113044", "113044"]
    assert (dataset[1].mask == 1).sum() == 12
    write(tmp_path / "ground-truth" / "2.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(DatasetError, match=r"2\.png: no image of this name"):
        open_dataset(tmp_path)


def coco(root, per_class):
    """Images of two donuts and a dog each, and one of a bench."""
    names = ["dog", "donut", "bench"]
    images, annotations = [], []
    for number in range(per_class):
        write(root / "val2017" / f"{number:06}.jpg", picture())
        images.append(
            {"id": number, "file_name": f"{number:06}.jpg", "height": HEIGHT, "width": WIDTH}
        )
        classes = [2, 2, 1] + ([3] if number == 0 else [])
        for place, category in enumerate(classes):
            x = 1 + 4 * place
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": category,
                "segmentation": [[x, 2, x + 3, 2, x + 3, 6, x, 6]], "iscrowd": 0, "area": 12,
                "bbox": [0, 0, 1, 1],
            })  # fmt: skip
    categories = [{"id": k, "name": name} for k, name in enumerate(names, start=1)]
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "instances_val2017.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return root


def test_coco_seen_and_unseen_classes(tmp_path):
    root = coco(tmp_path, per_class=14)
    assert detect_layout(root) == "coco"  # the classes must be asked for
    seen = open_dataset(root, "coco-classes", subset="seen")
    assert len(seen) == 10
    assert {sample.label for sample in seen} == {3}
    unseen = open_dataset(root, "coco-classes")
    labels = [sample.label for sample in unseen]
    assert len(labels) == 10 + 1  # ten of the donuts, and the only bench
    assert labels.count(4) == 1
    assert 0 < labels.count(1) < 10  # a draw
    again = open_dataset(root, "coco-classes", subset="unseen@val2017")
    assert [sample.name for sample in again] == [sample.name for sample in unseen]
    assert len(open_dataset(root, "coco-classes", subset="unseen-6k")) == 28 + 1


def test_coco_sequence_of_a_class(tmp_path):
    root = coco(tmp_path, per_class=3)
    donuts = open_dataset(root, "coco-classes", subset="donut")
    assert [sample.name for sample in donuts] == [
        f"{number:06}#{label}" for number in range(3) for label in (1, 2)
    ]
    assert [sample.name for sample in open_dataset(root, "coco-classes", subset="bench")] == [
        "000000#4"
    ]
    with pytest.raises(DatasetError, match=r"a class that has objects, got 'zebra'"):
        open_dataset(root, "coco-classes", subset="zebra")


def test_a_tenth_of_davis_is_the_same_each_time(tmp_path):
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    for sequence in ("bear", "camel"):
        for frame in range(15):
            write(tmp_path / "JPEGImages/480p" / sequence / f"{frame:05}.jpg", picture())
            write(tmp_path / "Annotations/480p" / sequence / f"{frame:05}.png", mask)
    names = [image.name for image in open_dataset(tmp_path, "davis-tenth").images]
    assert len(names) == 3
    assert names == sorted(names)
    assert [image.name for image in open_dataset(tmp_path, "davis-tenth").images] == names
    # a frame that the object has left has no sample
    gone = tmp_path / "Annotations/480p" / f"{names[0]}.png"
    write(gone, np.zeros((HEIGHT, WIDTH), np.uint8))
    assert len(open_dataset(tmp_path, "davis-tenth")) == 2


def test_davis_585_begins_with_a_mask(tmp_path):
    truth, faulty = (np.zeros((HEIGHT, WIDTH), np.uint8) for _ in range(2))
    truth[2:8, 2:8] = 255
    faulty[2:8, 2:5] = 255
    write(tmp_path / "bear" / "00009.jpg", picture())
    write(tmp_path / "bear" / "object1_00009.png", truth)
    write(tmp_path / "bear" / "init_sp_object1_00009.png", faulty)
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, dataset[0].name) == ("davis-585", "bear/object1_00009")
    assert (dataset[0].mask == 1).sum() == 36
    np.testing.assert_array_equal(dataset[0].initial_mask, faulty > 0)
    with pytest.raises(DatasetError, match=r"init_stm_object1_00009\.png: no such file"):
        open_dataset(tmp_path, subset="stm")


def test_pairs_may_have_masks_to_begin_with(tmp_path):
    for name in "ab":
        write(tmp_path / "images" / f"{name}.png", picture())
        write(tmp_path / "masks" / f"{name}.png", two_objects())
    assert open_dataset(tmp_path)[0].initial_mask is None
    faulty = two_objects(void=False)
    faulty[:5] = 0
    write(tmp_path / "init_masks" / "a.png", faulty)
    dataset = open_dataset(tmp_path)
    for sample in dataset[:2]:
        np.testing.assert_array_equal(sample.initial_mask, faulty == sample.label)
    assert dataset[2].initial_mask is None
    small = cv2.resize(faulty, (4, 4), interpolation=cv2.INTER_NEAREST)
    write(tmp_path / "init_masks" / "a.png", small)
    with pytest.raises(DatasetError, match="the mask is 4x4, its image"):
        _ = open_dataset(tmp_path)[0].initial_mask


def test_binary_pairs_may_have_masks_to_begin_with(tmp_path):
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[2:8, 2:8] = 255
    for folder, suffix in (("img", "jpg"), ("gt", "png"), ("init_masks", "png")):
        write(tmp_path / folder / f"a.{suffix}", picture() if folder == "img" else values)
    np.testing.assert_array_equal(open_dataset(tmp_path)[0].initial_mask, values > 0)
