"""Batches made on the device, against the samples that the processor makes one by one.

The random numbers differ, so distributions are compared: means of N draws of one side and N of the
other within five standard errors, which a true equality misses once in a million.
"""

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from train.conftest import NETWORK
from trtseg import ops
from trtseg.errors import DatasetError
from trtseg.nn.checkpoint import read_checkpoint
from trtseg.nn.network import LatentDiversity
from trtseg.train.device.clicks import (
    correction_clicks,
    distance,
    initial_clicks,
    interior_distance,
)
from trtseg.train.device.data import (
    DeviceImages,
    cut_images,
    cut_labels,
    device_batch,
    jitter_colours,
    reduce_targets,
)
from trtseg.train.device.objective import DeviceObjective
from trtseg.train.device.prompts import boxes, initial_prompts, loops, strokes
from trtseg.train.latent_diversity import LatentDiversityTask
from trtseg.train.objective import Objective
from trtseg.train.parallel import Parallel
from trtseg.train.samples import clicks, crops, prompts
from trtseg.train.samples.clicks import PromptConfig
from trtseg.train.samples.crops import Batch, CropConfig, Crops, collate, place_crops
from trtseg.train.samples.images import DataConfig, LabelledImages
from trtseg.train.samples.randomness import StepRandomness
from trtseg.train.trainer import Trainer

DRAWS = 400
EVERY_PROMPT = {
    "corrections": 2, "stroke_fraction": 0.25, "region_fraction": 0.25, "repair_fraction": 0.25,
    "edge_fraction": 0.3, "slip_px": 1, "group_fraction": 0.5,
}  # fmt: skip

NETWORK_OF_REGIONS = {"network": {**NETWORK, "region": True}}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def assert_same_mean(first, second, slack=0.0):
    """`slack` is a difference that is meant."""
    first, second = np.asarray(first, float), np.asarray(second, float)
    assert len(first) >= 50
    assert len(second) >= 50
    error = np.hypot(first.std() / len(first) ** 0.5, second.std() / len(second) ** 0.5)
    assert abs(first.mean() - second.mean()) <= 5 * error + slack + 1e-6, (
        first.mean(), second.mean(), error
    )  # fmt: skip


@pytest.fixture
def target():
    """A crescent (1) beside another object, and a void strip; uint8 [64, 64] and bool."""
    target = np.zeros((64, 64), np.uint8)
    cv2.circle(target, (28, 30), 18, 1, -1)
    cv2.circle(target, (40, 30), 10, 0, -1)
    others = np.zeros((64, 64), bool)
    others[30:60, 44:60] = True
    others &= target == 0
    target[:4] = 255
    return target, others & (target == 0)


def batched(target, count=DRAWS):
    return tuple(torch.from_numpy(one)[None].expand(count, -1, -1).contiguous() for one in target)


# ---- distances and clicks -----------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 65)])
def test_distances_are_exact(size):
    """Integers up to the root, which torch rounds to the last place or the one beside it."""
    rng = np.random.default_rng(0)
    masks = rng.random((6, *size)) < np.array([0, 1, 0.5, 0.1, 0.02, 0.9])[:, None, None]
    wanted = np.stack([ops.distance_transform(mask) for mask in masks])
    np.testing.assert_allclose(distance(torch.from_numpy(masks)), wanted, rtol=2.0**-23)
    wanted = np.stack([clicks.interior_distance(mask) for mask in masks])
    np.testing.assert_allclose(interior_distance(torch.from_numpy(masks)), wanted, rtol=2.0**-23)


def test_a_large_batch_is_cut_in_pieces(monkeypatch):
    masks = torch.rand(5, 9, 9, generator=generator()) < 0.2
    whole = distance(masks)
    monkeypatch.setattr("trtseg.train.device.clicks._LARGEST_ELEMENTS", 2 * 9**3)
    assert torch.equal(distance(masks), whole)


def measures(rows, target):
    """What is compared of the clicks of one sample: rows [P, 3] without padding."""
    inside, away = clicks.interior_distance(target == 1), ops.distance_transform(target == 1)
    y, x, label = rows.astype(int).T
    positive, negative = label == 1, label == 0
    values = {"positives": positive.sum(), "negatives": negative.sum(), "single": len(rows) == 1}
    if positive.any():
        values["depth"] = inside[y[positive], x[positive]].mean()
        values["y"], values["x"] = y[positive].mean(), x[positive].mean()
    if negative.any():
        values["away"] = away[y[negative], x[negative]].mean()
    if len(rows) > 1:
        pairs = np.linalg.norm(rows[:, None, :2] - rows[None, :, :2], axis=2)
        values["nearest"] = pairs[np.triu_indices(len(rows), 1)].min()
    return values


def assert_same_measures(rows, other_rows, target, **slack):
    names = {}
    for side, samples in enumerate((rows, other_rows)):
        for one in samples:
            for name, value in measures(np.asarray(one), target).items():
                names.setdefault(name, ([], []))[side].append(value)
    for name, (one, other) in names.items():
        assert_same_mean(one, other, slack.get(name, 0.0))


def unpadded(rows):
    return [one[one[:, 2] >= 0].numpy() for one in rows]


@pytest.mark.parametrize("single", [0.0, 0.65, 1.0])
def test_initial_clicks_are_drawn_alike(target, single):
    config = PromptConfig(single_fraction=single, margins=(2, 4), steps=(5, 8), band=20)
    rng = np.random.default_rng(0)
    wanted = [clicks.initial_clicks(*target, config, rng) for _ in range(DRAWS)]
    masks, others = batched(target)
    found = initial_clicks(masks, others, interior_distance(masks == 1), config, generator())
    # OpenCV's disks are not quite round
    assert_same_measures(wanted, unpadded(found), target[0], nearest=0.3)


def test_an_object_that_is_not_there_gets_no_click(target):
    empty = np.zeros_like(target[0]), target[1]
    masks, others = batched(empty, 8)
    config = PromptConfig(**EVERY_PROMPT)
    rows, regions, spoiled = initial_prompts(masks, others, config, 2, generator())
    assert (rows == -1).all()
    assert not regions.any()
    assert not spoiled.any()


@pytest.mark.parametrize("at_edge", [0.0, 0.5])
def test_corrections_are_drawn_alike(target, at_edge):
    predicted = np.roll(target[0] == 1, (6, -5), (0, 1))
    rng = np.random.default_rng(0)
    wanted = [clicks.correction_click(predicted, target[0], rng, at_edge) for _ in range(DRAWS)]
    wanted = np.array(wanted)
    masks, maps = batched((predicted, target[0]))
    found = correction_clicks(masks, maps, generator(), at_edge).numpy()
    for column in range(3):
        assert_same_mean(wanted[:, column], found[:, column])
    wrong = (target[0] != 255) & ((target[0] == 1) != predicted)
    y, x, label = found.astype(int).T
    assert wrong[y, x].all()
    assert np.array_equal(target[0][y, x], label)
    assert (correction_clicks(maps == 1, maps, generator()) == -1).all()


# ---- other prompts ------------------------------------------------------------------------


def test_strokes_are_drawn_alike(target):
    inside = target[0] == 1
    rng = np.random.default_rng(0)
    wanted = [prompts.stroke(inside, rng) for _ in range(DRAWS)]
    (masks,) = batched((inside,))
    found = unpadded(strokes(masks, interior_distance(masks), generator()))
    extents = [
        [np.ptp(rows[:, :2], axis=0).max() for rows in samples] for samples in (wanted, found)
    ]
    # disks of the processor's thinning against squares
    assert_same_mean([len(rows) for rows in wanted], [len(rows) for rows in found], 1.0)
    assert_same_mean(*extents, 1.5)
    for rows in found:
        y, x, label = rows.astype(int).T
        assert inside[y, x].all()
        assert (label == 1).all()


def test_boxes_and_loops_are_drawn_alike(target):
    inside = target[0] == 1
    rng = np.random.default_rng(0)
    (masks,) = batched((inside,))
    for one, other, slack in ((prompts.box, boxes, 0.0), (prompts.loop, loops, 0.06)):
        outlines = [(one(inside, rng) + 0.5) / 2 - 0.5 for _ in range(DRAWS)]
        wanted = np.stack([prompts.fill_outline(outline, (32, 32)) for outline in outlines])
        found = other(masks, 2, generator()).numpy()
        areas = [maps.sum((1, 2)) / (inside.sum() / 4) for maps in (wanted, found)]
        assert_same_mean(*areas, slack)
        # where they are inside, cell by cell
        assert np.abs(wanted.mean(0) - found.mean(0)).mean() < 0.02
    regions = initial_prompts(
        *batched(target, 8), PromptConfig(region_fraction=1.0), 2, generator()
    )[1]
    assert regions.shape == (8, 32, 32)
    for region in regions.numpy():
        wanted = prompts.region_map((region > 0).astype(np.uint8))
        np.testing.assert_allclose(region, wanted, atol=1e-6)


def test_repairs_are_drawn_alike(target):
    config = PromptConfig(repair_fraction=1.0)
    rng = np.random.default_rng(0)
    wanted = [prompts.initial_prompt(*target, config, 2, rng) for _ in range(DRAWS)]
    rows, _, masks = initial_prompts(*batched(target), config, 2, generator())
    assert_same_mean([prompt.mask.sum() for prompt in wanted], masks.sum((1, 2)))
    both = [np.stack([prompt.mask for prompt in wanted]), masks.numpy()]
    assert np.abs(both[0].mean(0) - both[1].mean(0)).mean() < 0.02
    labels = [prompt.clicks[0, 2] for prompt in wanted if len(prompt.clicks)]
    assert_same_mean(labels, [one[0, 2] for one in unpadded(rows) if len(one)])


# ---- crops --------------------------------------------------------------------------------


def test_crops_show_what_the_processor_cuts(data):
    """The same places: the same labels, and nearly the same pixels."""
    images = LabelledImages([DataConfig(str(data))])
    crop = CropConfig(size=64, object_side=(20, 90), objects=1, min_area_px=50)
    store = DeviceImages(images, crop, torch.device("cpu"), 2)
    crops = Crops(images, crop, PromptConfig(), 2, 0)
    members = [image for group in images.groups for image in group]
    maps, objects = store.draw(12, np.random.default_rng(1))
    for number, thing in zip(maps, objects, strict=True):
        pair = members[store.image_of[number]].read_pair()
        value = int(store.values[thing])
        image, labels = crops._cut(*pair, value, np.random.default_rng(number))
        extents = store.extents[[number]]
        scale, matrix = place_crops(
            store.boxes[[thing]], extents, crop, np.random.default_rng(number)
        )
        placed = np.stack([1 / matrix[:, [0, 1], [0, 1]], matrix[:, :, 2], extents], 1)
        placed = torch.from_numpy(placed.astype(np.float32))
        index = torch.tensor([number])
        found = cut_labels(store.labels, index, placed, 64)[0].numpy()
        # OpenCV rounds places to 1/1024 of a pixel: ties fall otherwise
        assert (found != labels).mean() < 0.02, scale
        found = cut_images(store.pixels, index, placed, 64)[0].numpy().transpose(1, 2, 0)
        difference = np.abs(found.astype(float) - image)
        # the noise of deviation 10 is averaged over slightly other pixels
        assert difference[labels != 255].mean() < 6, scale
        grey = [(one == 127).all(2) for one in (found, image)]
        # OpenCV blends the image's outermost pixels with the grey: a line at each of two edges
        assert (grey[0] != grey[1]).mean() <= 2 / 64


def test_colours_change_alike():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    rng = np.random.default_rng(0)
    wanted = np.stack([crops.jitter_colour(image, rng) for _ in range(DRAWS)])
    batch = torch.from_numpy(image.transpose(2, 0, 1))[None].expand(DRAWS, -1, -1, -1)
    found = jitter_colours(batch, generator()).permute(0, 2, 3, 1).numpy()
    for measure in (np.mean, np.std):
        assert_same_mean(measure(wanted, axis=(1, 2, 3)), measure(found, axis=(1, 2, 3)))
    grey = [(one == one[..., :1]).all((1, 2, 3)).mean() for one in (wanted, found)]
    assert abs(grey[0] - grey[1]) < 0.05


def test_targets_are_reduced_alike():
    target = np.random.default_rng(0).choice([0, 1, 255], (3, 16, 16), p=[0.5, 0.45, 0.05])
    target = target.astype(np.uint8)
    for stride in (1, 2, 4):
        wanted = np.stack([crops.reduce_target(one, stride) for one in target])
        assert np.array_equal(reduce_targets(torch.from_numpy(target), stride).numpy(), wanted)


def samples(config, count):
    """(targets, numbers of clicks) of either side."""
    images = LabelledImages(config.data)
    crops = Crops(images, config.crop, config.clicks, config.network.base_stride, 0)
    one = collate([crops[index] for index in range(count)])
    store = DeviceImages(images, config.crop, torch.device("cpu"), 1)
    other = device_batch(store, dataclasses.replace(config, batch=count), [0, 0, 0])
    return one, other


def test_samples_are_drawn_alike(config, data):
    """Groups by weight, objects, groups of objects, parts: through what is in the targets."""
    (data / "masks_parts").mkdir()
    part = np.zeros((96, 128), np.uint8)
    part[70:90, 5:60] = 7
    cv2.imwrite(str(data / "masks_parts" / "a_0.png"), part)
    for share in (0.0, 0.8):
        made = config(
            data={"path": str(data), "weights": {"a_": 3, "b_": 1}},
            crop={"size": 64, "object_side": [20, 60], "objects": 3, "part_fraction": 0.5},
            clicks={**EVERY_PROMPT, "group_fraction": share},
            **NETWORK_OF_REGIONS,
        )
        one, other = samples(made, 150)
        assert one.images.shape == other.images.shape
        assert one.targets.shape == other.targets.shape
        assert (other.targets == 1).flatten(1).any(1).all()
        for value in (1, 255):
            assert_same_mean(
                *((b.targets == value).float().mean((1, 2)) for b in (one, other))
            )
        for place in (one.regions, other.regions), (one.masks, other.masks):
            assert_same_mean(*((maps != 0).flatten(1).any(1).float() for maps in place))
        assert_same_mean(*(b.images.float().mean((1, 2, 3)) for b in (one, other)))


def test_a_batch_depends_on_its_number_the_process_and_the_seed(config):
    config = config(clicks=EVERY_PROMPT, batch=3, **NETWORK_OF_REGIONS)
    store = DeviceImages(LabelledImages(config.data), config.crop, torch.device("cpu"), 1)
    first, again = (device_batch(store, config, [1, 5, 0]) for _ in range(2))
    for name in ("images", "targets", "clicks", "regions", "masks"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    for key in ([2, 5, 0], [1, 6, 0], [1, 5, 1]):
        assert not torch.equal(device_batch(store, config, key).images, first.images)


def test_images_without_objects_are_named(data, config):
    for path in (data / "masks").iterdir():
        cv2.imwrite(str(path), np.zeros((96, 128), np.uint8))
    images = LabelledImages([DataConfig(str(data), layout="folder")])
    with pytest.raises(DatasetError, match=r"masks/.*\.png: neither this nor 3 other images"):
        DeviceImages(images, CropConfig(), torch.device("cpu"), 1)


# ---- the objective and the loop -----------------------------------------------------------


@pytest.mark.parametrize("stage", ["segment", "select"])
def test_the_losses_are_the_same(config, stage):
    config = config(clicks={**EVERY_PROMPT, "corrections": 0, "slip_px": 4},
                    loss={"cross_entropy_weight": 1.0, "focus": 1.0, "edge_weight": 2.0,
                          "shuffle_masks": False}, **NETWORK_OF_REGIONS)  # fmt: skip
    torch.manual_seed(0)
    network = LatentDiversity(config.network)
    store = DeviceImages(LabelledImages(config.data), config.crop, torch.device("cpu"), 1)
    batch = device_batch(store, dataclasses.replace(config, batch=6), [0, 0, 0])
    listed = Batch(batch.images, batch.targets, unpadded(batch.clicks), batch.regions, batch.masks)
    randomness = StepRandomness(0, 0, 0)
    found = DeviceObjective(network, config, stage)(batch, randomness)
    wanted = Objective(network, config, stage)(listed, randomness)
    for name, value in wanted.items():
        # sums over 1024 pixels in another order
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_every_round_adds_a_click(config):
    config = config(clicks={"corrections": 3, "single_fraction": 1.0})
    network = LatentDiversity(config.network)
    store = DeviceImages(LabelledImages(config.data), config.crop, torch.device("cpu"), 1)
    batch = device_batch(store, config, [0, 0, 0])
    objective = DeviceObjective(network, config, "segment")
    seen = []
    objective._masks = lambda encoded, rows, *rest: (
        seen.append(rows), Objective._masks(objective, encoded, rows, *rest)
    )[1]  # fmt: skip
    for step in range(6):
        objective(batch, StepRandomness(0, 0, step))
    assert {rows.shape[1] for rows in seen} == {1, 2, 3, 4}
    longest = max(seen, key=lambda rows: rows.shape[1])
    assert torch.equal(longest[:, :1], batch.clicks)
    cells = (longest[..., :2] + 0.5) / 2 - 0.5
    cell = cells[:, 1:].long()
    index = cell[..., 0] * batch.targets.shape[2] + cell[..., 1]
    there = longest[:, 1:, 2] >= 0
    assert there.any()
    labels = batch.targets.flatten(1).gather(1, index)
    assert torch.equal(labels[there].float(), longest[:, 1:, 2][there])


@pytest.mark.parametrize("stop", [2, 5])
def test_resumed_equals_uninterrupted(config, tmp_path, stop):
    made = config(clicks=EVERY_PROMPT, device_data=True, **NETWORK_OF_REGIONS)

    def trainer(folder):
        return Trainer(LatentDiversityTask(made), folder, Parallel("cpu"), 0, 1000)

    assert trainer(tmp_path / "whole").run()
    left = iter(range(stop - 1))
    assert not trainer(tmp_path / "parts").run(stopped=lambda: next(left, None) is None)
    rest = trainer(tmp_path / "parts")
    rest.resume()
    assert rest.run()
    whole, parts = (read_checkpoint(tmp_path / name / "last")[0] for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name
