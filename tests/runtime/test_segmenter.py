from __future__ import annotations

import dataclasses
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from tiny_model import write_tiny

from trtseg import BackendUnavailable, BundleError, Segmenter
from trtseg.runtime.encoding_cache import EncodingCache
from trtseg.runtime.segmenter import availability


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name_or_path": "nothing"}, BundleError, "nothing: no such bundle"),
        ({"backend": "abacus"}, ValueError, "backend: expected auto"),
        ({"threads": 0}, ValueError, "threads: expected an integer"),
        ({"threads": 1.5}, ValueError, "threads: expected an integer"),
        ({"threads": True}, ValueError, "threads: expected an integer"),
        ({"backend": "onnxruntime", "threads": 2**31}, ValueError, "threads: expected less than"),
        ({"precision": "int8"}, ValueError, "precision: expected fp32 or fp16"),
        ({"device": 0}, TypeError, "device: expected a name such as"),
        ({"backend": "onnxruntime", "device": "tpu"}, ValueError, "device: expected cpu"),
        ({"backend": "onnxruntime", "device": "cpu:x"}, ValueError, "device: expected cpu"),
        ({"backend": "onnxruntime", "device": ""}, ValueError, "device: expected cpu"),
        ({"backend": "onnxruntime", "precision": "fp16"}, BundleError, "no fp16 graph"),
    ],
)
def test_load_refuses(tiny_path: Path, arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Segmenter.load(**{"name_or_path": tiny_path, **arguments})


def test_a_missing_provider_is_named(tiny_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(BackendUnavailable, match="no CUDAExecutionProvider"):
        Segmenter.load(tiny_path, backend="onnxruntime", device="cuda")


def test_backends_explain_themselves() -> None:
    states = availability()
    assert states["onnxruntime"].usable
    assert all(state.reason for state in states.values())


def test_what_a_segmenter_is(segmenter: Segmenter) -> None:
    assert segmenter.candidates == 3
    assert segmenter.accepts("mask")
    assert "tiny" in repr(segmenter)


def test_an_encoding_is_immutable(segmenter: Segmenter, photo: np.ndarray) -> None:
    encoded = segmenter.encode(photo)
    assert not encoded.base.flags.writeable
    with pytest.raises(dataclasses.FrozenInstanceError):
        encoded.base = None  # type: ignore[misc]
    assert encoded.image_size == (120, 160)
    guide = (96 * 128 + 24 * 32) * 4
    assert encoded.nbytes == encoded.base.nbytes + guide == 8 * 24 * 32 * 4 + guide
    assert encoded.source.pixels is photo


def test_an_encoding_survives_the_disk(segmenter: Segmenter, photo: np.ndarray) -> None:
    encoded = segmenter.encode(photo)
    data = pickle.dumps(encoded)
    assert len(data) < encoded.nbytes + 2000, "the image itself stays behind"
    again = pickle.loads(data)
    assert again.source is None
    assert not again.base.flags.writeable
    p = segmenter.session(encoded, focus=None).add_click(80, 60)
    session = segmenter.session(again)
    np.testing.assert_array_equal(session.add_click(80, 60).mask, p.mask)
    with pytest.raises(ValueError, match="expected an image"):
        session.prediction.cutout()
    whole = again.with_image(photo)
    one, two = segmenter.session(whole), segmenter.session(encoded)
    for click in ((80, 60), (84, 61)):
        np.testing.assert_array_equal(one.add_click(*click).mask, two.add_click(*click).mask)
    with pytest.raises(ValueError, match="image: expected size"):
        again.with_image(photo[1:])


def test_an_encoding_moves_between_precisions(segmenter: Segmenter, photo: np.ndarray) -> None:
    """As from another backend of the same model."""
    encoded = segmenter.encode(photo)
    half = dataclasses.replace(encoded, base=encoded.base.astype(np.float16))
    session = segmenter.session(half)
    assert session.encoded.base.dtype == np.float32
    assert not session.encoded.base.flags.writeable
    p, q = session.add_click(80, 60), segmenter.session(encoded).add_click(80, 60)
    np.testing.assert_allclose(p.probability, q.probability, atol=0.02)
    assert segmenter.session(encoded).encoded is encoded


def test_an_encoding_belongs_to_its_model(
    tmp_path: Path, segmenter: Segmenter, photo: np.ndarray
) -> None:
    other = Segmenter.load(write_tiny(tmp_path / "other", seed=9), threads=1)
    with pytest.raises(ValueError, match=r"expected an encoding by this model \(tiny\)"):
        other.session(segmenter.encode(photo))
    with pytest.raises(TypeError, match="encoded: expected an EncodedImage, got ndarray"):
        segmenter.session(photo)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="focus: expected 'auto' or None"):
        segmenter.session(segmenter.encode(photo), focus="always")


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 2), (1, 12000), (12000, 1), (7, 5), (33, 65), (480, 640), (2000, 3)]
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_size_gives_a_mask_of_that_size(
    segmenter: Segmenter, size: tuple[int, int], channels: int
) -> None:
    shape = size if channels == 1 else (*size, channels)
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    session = segmenter.session(segmenter.encode(image))
    height, width = size
    p = session.add_click((width - 1) / 2, (height - 1) / 2)
    assert p.mask.shape == size
    p = session.add_click(width - 1, height - 1)
    p = session.add_click(0, 0, positive=False)
    assert p.mask.shape == p.probability.shape == size
    assert p.candidates.shape == (3, *size)
    assert np.isfinite(p.probability).all()
    assert p.cutout().shape == (*size, 4)
    session.undo()


@pytest.mark.slow
def test_the_largest_image(segmenter: Segmenter) -> None:
    image = np.zeros((12000, 12000), np.uint8)
    image[5000:5400, 6000:6600] = 200
    session = segmenter.session(segmenter.encode(image))
    out = np.empty(image.shape, np.uint8)
    for x in (6300, 6350, 6250):
        p = session.add_click(x, 5200, out=out)
    assert p.mask[5200, 6300] == 255
    assert p.grid_region != (0, 0, 12000, 12000)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (2160, 3840), (3000, 2000)])
def test_the_memory_plan_holds(tiny_path: Path, height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    clicks = 6
    segmenter = Segmenter.load(tiny_path, threads=1)
    # Buffers are small beside what loading leaves: a larger model would hide that.
    plan = segmenter.memory_plan(height, width)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    encoded = segmenter.encode(image)
    session = segmenter.session(encoded, focus=None)
    for index in range(clicks):
        session.add_click(width / 2 + index, height / 2).grid_probabilities.max()
    held, peak = (value - before for value in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    planned = plan.total(clicks=clicks)
    assert 0.8 * planned < peak < 1.2 * planned
    assert held < planned
    for sides in ((0, 5), (5, 40000)):
        with pytest.raises(ValueError, match="expected 1 to"):
            segmenter.memory_plan(*sides)
    assert segmenter.memory_plan(*np.array([height, width])) == plan
    with pytest.raises(TypeError, match="height: expected an integer"):
        segmenter.memory_plan(1.5, 2)  # type: ignore[arg-type]


def test_a_cache_keys_on_pixels_model_and_region(
    tmp_path: Path, segmenter: Segmenter, photo: np.ndarray
) -> None:
    cache = EncodingCache()
    first = cache.encode(segmenter, photo)
    again = cache.encode(segmenter, photo.copy())
    assert again.base is first.base
    assert again.source is not None
    changed = photo.copy()
    changed[60, 80, 0] ^= 1
    other = Segmenter.load(write_tiny(tmp_path / "other", seed=9), threads=1)
    different = [
        cache.encode(segmenter, changed),
        cache.encode(segmenter, photo, "BGR"),
        cache.encode(segmenter, photo, region=(0, 0, 100, 100)),
        cache.encode(other, photo),
    ]
    assert len({id(e.base) for e in [first, *different]}) == 5
    assert len(cache) == 5
    assert cache.nbytes == sum(e.nbytes for e in [first, *different])
    strided = cache.encode(segmenter, np.asfortranarray(photo))
    assert strided.base is first.base
    cache.clear()
    assert len(cache) == cache.nbytes == 0


def test_a_cache_is_bounded_and_forgets_the_oldest(segmenter: Segmenter, photo: np.ndarray) -> None:
    size = segmenter.encode(photo).nbytes
    cache = EncodingCache(max_bytes=2 * size)
    images = [np.roll(photo, k, 0) for k in range(3)]
    first, second, third = (cache.encode(segmenter, image) for image in images[:2] + images[2:])
    assert len(cache) == 2
    assert cache.encode(segmenter, images[2]).base is third.base
    assert cache.encode(segmenter, images[1]).base is second.base
    assert cache.encode(segmenter, images[0]).base is not first.base
    nothing = EncodingCache(max_bytes=0)
    nothing.encode(segmenter, photo)
    assert len(nothing) == 0
    with pytest.raises(ValueError, match="max_bytes: expected at least 0"):
        EncodingCache(max_bytes=-1)
    with pytest.raises(TypeError, match="max_bytes: expected an integer"):
        EncodingCache("a lot")  # type: ignore[arg-type]


@pytest.mark.parametrize("adapt", [3, True, "image"])
def test_what_is_no_adapter_is_refused(segmenter, adapt) -> None:
    encoded = segmenter.encode(np.zeros((40, 60, 3), np.uint8))
    with pytest.raises(TypeError, match="adapt: expected an adapter or None, got"):
        segmenter.session(encoded, adapt=adapt)


def test_a_warm_up_runs_every_network_and_leaves_nothing(
    segmenter: Segmenter, photo: np.ndarray, monkeypatch
) -> None:
    encoded = segmenter.encode(photo)
    before = segmenter.session(encoded).add_click(30, 40).mask
    ran: list[tuple[int, int]] = []
    encode = type(segmenter).encode
    monkeypatch.setattr(
        type(segmenter), "encode",
        lambda self, image, *rest: ran.append(image.shape[:2]) or encode(self, image, *rest),
    )  # fmt: skip
    segmenter.warm_up(50, 70)
    assert ran == [(50, 70)]
    np.testing.assert_array_equal(segmenter.session(encoded).add_click(30, 40).mask, before)
    with pytest.raises(ValueError, match="height: expected 1 to"):
        segmenter.warm_up(0, 70)
