"""Samples: reproducible, well formed, and clear about bad files."""

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from train.conftest import write_image
from trtseg.errors import DatasetError
from trtseg.train.samples.clicks import PromptConfig
from trtseg.train.samples.crops import (
    CropConfig,
    Crops,
    StepSampler,
    collate,
    pad_clicks,
    reduce_target,
)
from trtseg.train.samples.images import DataConfig, LabelledImages

CROP = CropConfig(size=64, object_side=(20, 60), objects=2)


def crops(root, seed=0, crop=CROP, **source):
    return Crops(LabelledImages([DataConfig(str(root), **source)]), crop, PromptConfig(), 2, seed)


def assert_same(first, second):
    for one, other in zip(first[:2], second[:2], strict=True):
        assert np.array_equal(one, other)
    for one, other in zip(first[2], second[2], strict=True):
        assert np.array_equal(one.clicks, other.clicks)


def test_a_sample_depends_on_its_index_and_the_seed_alone(data):
    assert_same(crops(data)[5], crops(data)[5])
    assert not np.array_equal(crops(data)[5][0], crops(data)[6][0])
    assert not np.array_equal(crops(data)[5][0], crops(data, seed=1)[5][0])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there is one core
def test_batches_do_not_depend_on_the_workers(data):
    batches = []
    cv2.setNumThreads(1)
    for workers in (0, 2):
        loader = DataLoader(crops(data), batch_sampler=StepSampler(0, 3, 2), collate_fn=collate,
                            num_workers=workers)
        batches.append(list(loader))
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)
        for first, second in zip(one.clicks, other.clicks, strict=True):
            assert np.array_equal(first, second)


def test_samples_are_well_formed(data):
    dataset = crops(data)
    for index in range(30):
        image, targets, prompts = dataset[index]
        assert image.shape == (3, 64, 64)
        assert image.dtype == np.uint8
        assert targets.shape == (2, 32, 32)
        assert set(np.unique(targets)) <= {0, 1, 255}
        assert (targets == 1).any((1, 2)).all()
        for rows in (prompt.clicks for prompt in prompts):
            assert len(rows) >= 1
            assert rows[0, 2] == 1
            assert ((rows[:, :2] >= 0) & (rows[:, :2] < 64)).all()


def test_processes_share_the_samples_of_a_step():
    alone = list(StepSampler(3, 6, 4))
    shared = [list(StepSampler(3, 6, 2, rank, 2)) for rank in range(2)]
    assert [a + b for a, b in zip(*shared, strict=True)] == alone
    assert len(StepSampler(3, 6, 4)) == 3


def test_targets_are_reduced_by_majority_and_void_wins():
    target = np.array([[1, 1, 0, 0], [0, 0, 0, 1], [255, 1, 1, 1], [1, 1, 1, 0]], np.uint8)
    assert reduce_target(target, 2).tolist() == [[1, 0], [255, 1]]
    assert reduce_target(target, 1) is target


def test_clicks_are_padded():
    padded = pad_clicks([np.zeros((0, 3), np.float32), np.ones((2, 3), np.float32)])
    assert padded[:, :, 2].tolist() == [[-1, -1], [1, 1]]
    assert pad_clicks([np.zeros((0, 3), np.float32)]).shape == (1, 0, 3)


# ---- where images come from ---------------------------------------------------------------


def test_weights_choose_groups_by_prefix(data):
    images = LabelledImages([DataConfig(str(data), weights={"a_": 3, "b_": 1})])
    rng = np.random.default_rng(0)
    names = [images.draw(rng).name[0] for _ in range(400)]
    assert 260 < names.count("a") < 340
    only = LabelledImages([DataConfig(str(data), weights={"b_": 1})])
    assert {only.draw(rng).name[0] for _ in range(20)} == {"b"}
    assert len(images) == 4
    assert len(only) == 2


def test_the_longest_prefix_counts(data):
    images = LabelledImages([DataConfig(str(data), weights={"a_": 1, "a_0": 0, "": 0})])
    rng = np.random.default_rng(0)
    assert {images.draw(rng).name for _ in range(20)} == {"a_2"}


def test_sources_of_different_layouts_are_mixed(data, tmp_path):
    other = tmp_path / "grab"
    write_image(other, "g", 9)
    (other / "images").rename(other / "data_GT")
    (other / "masks").rename(other / "boundary_GT")
    images = LabelledImages(
        [DataConfig(str(data)), DataConfig(str(other), layout="grabcut", weight=3.0)]
    )
    rng = np.random.default_rng(0)
    names = [images.draw(rng).name for _ in range(200)]
    assert 125 < names.count("g") < 175


def test_parts_are_drawn_where_there_are_any(data):
    parts = data / "masks_parts"
    parts.mkdir()
    labels = np.zeros((96, 128), np.uint8)
    labels[10:60, 10:60] = 7
    cv2.imwrite(str(parts / "a_0.png"), labels)
    images = LabelledImages([DataConfig(str(data), weights={"a_0": 1})])
    rng = np.random.default_rng(0)
    seen = {7 in images.draw(rng, 0.5).read_labels() for _ in range(30)}
    assert seen == {True, False}
    assert 7 not in images.draw(rng, 0.0).read_labels()


def test_an_empty_data_set_is_named(tmp_path, data):
    (tmp_path / "empty" / "images").mkdir(parents=True)
    (tmp_path / "empty" / "masks").mkdir()
    with pytest.raises(DatasetError, match="empty/images: expected images, found none"):
        LabelledImages([DataConfig(str(tmp_path / "empty"), layout="folder")])
    with pytest.raises(DatasetError, match="none: no such file or folder"):
        LabelledImages([DataConfig(str(tmp_path / "none"))])
    with pytest.raises(DatasetError, match="data: no image has one of the prefixes"):
        LabelledImages([DataConfig(str(data), weights={"z": 1})])


def test_a_missing_mask_is_named(data):
    (data / "masks" / "a_0.png").unlink()
    with pytest.raises(DatasetError, match="masks/a_0: no mask for the image"):
        LabelledImages([DataConfig(str(data), layout="folder")])


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_a_truncated_file_is_named(data, folder):
    path = data / folder / "a_0.png"
    path.write_bytes(path.read_bytes()[:200])
    dataset = crops(data, layout="folder", weights={"a_0": 1})
    with pytest.raises(DatasetError, match=f"{folder}/a_0.png: the file is truncated"):
        dataset[0]


def test_a_mask_of_the_wrong_size_is_named(data):
    cv2.imwrite(str(data / "masks" / "a_0.png"), np.ones((50, 60), np.uint8))
    dataset = crops(data, layout="folder", weights={"a_0": 1})
    with pytest.raises(DatasetError, match=r"masks/a_0.png: the mask is 60x50, its image .*128x96"):
        dataset[0]


def test_images_without_objects_are_named(data):
    for path in (data / "masks").iterdir():
        cv2.imwrite(str(path), np.zeros((96, 128), np.uint8))
    with pytest.raises(DatasetError, match=r"masks/.*\.png: neither this nor 999 other draws"):
        crops(data, layout="folder")[0]
