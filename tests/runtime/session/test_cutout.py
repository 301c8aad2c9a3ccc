"""Cutouts: hard and soft edges, depth, and colour profiles on their way through files."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from trtseg.commands.output import write_images
from trtseg.runtime.image import as_picture, load_image
from trtseg.runtime.session import cutout as module
from trtseg.runtime.session.cutout import cutout

SIZE = (90, 120)
GREEN, RED = (20, 200, 30), (220, 30, 40)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """(a green disk on red with an edge of 4 pixels, its true alpha)."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    alpha = np.clip((30 - np.hypot(y - 45, x - 60)) / 4 + 0.5, 0, 1)[..., None]
    image = np.rint(alpha * GREEN + (1 - alpha) * np.array(RED)).astype(np.uint8)
    return image, alpha[..., 0].astype(np.float32)


@pytest.fixture
def without_matting(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        module.importlib.util, "find_spec", lambda name: None if name == "pymatting" else find(name)
    )


def test_a_hard_cutout_leaves_no_hidden_colours() -> None:
    image, alpha = scene()
    mask = (alpha >= 0.5).astype(np.uint8) * 255
    cut = cutout(as_picture(image), mask)
    np.testing.assert_array_equal(cut[..., 3], mask)
    assert not cut[mask == 0].any()
    np.testing.assert_array_equal(cut[mask > 0][:, :3], image[mask > 0])


@pytest.mark.usefixtures("without_matting")
def test_without_the_extra_the_edge_is_the_probability() -> None:
    image, alpha = scene()
    mask = (alpha >= 0.5).astype(np.uint8)
    probability = np.clip(alpha, 0.05, 0.95)  # unsure everywhere
    cut = cutout(as_picture(image), mask, probability)
    assert set(np.unique(cut[30:60, 50:70, 3])) == {255}  # but the inside is opaque,
    assert not cut[:10].any()  # and the outside empty
    edge = (alpha > 0.3) & (alpha < 0.7)
    assert np.abs(cut[edge, 3] / 255 - alpha[edge]).max() < 0.01


@pytest.mark.usefixtures("without_matting")
def test_soft_edges_of_masks_without_an_edge() -> None:
    image, _ = scene()
    picture = as_picture(image)
    for value in (0, 255):
        mask = np.full(SIZE, value, np.uint8)
        cut = cutout(picture, mask, np.full(SIZE, 0.5, np.float32))
        np.testing.assert_array_equal(cut[..., 3], mask)
    point = np.zeros(SIZE, np.uint8)
    point[45, 60] = 255
    assert cutout(picture, point, np.full(SIZE, 0.5, np.float32)).any()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("pymatting") is None, reason="needs PyMatting")
@pytest.mark.filterwarnings("ignore::Warning:numba")
def test_matting_takes_the_backgrounds_colour_from_the_edge() -> None:
    image, alpha = scene()
    mask = (alpha >= 0.5).astype(np.uint8)
    probability = mask.astype(np.float32)
    cut = cutout(as_picture(image), mask, probability)
    # the estimate knows nothing of the disk but its colours
    assert np.abs(cut[..., 3] / 255 - alpha).mean() < 0.01
    edge = (cut[..., 3] > 50) & (cut[..., 3] < 205)
    assert edge.any()
    assert np.abs(cut[edge][:, :3].astype(int) - GREEN).mean() < 25
    assert np.abs(image[edge].astype(int) - GREEN).mean() > 40


def test_sixteen_bits_and_the_profile_are_kept(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    deep = np.random.default_rng(0).integers(0, 65536, (*SIZE, 3), np.uint16)
    write_images({tmp_path / "deep.png": deep}, profile)
    picture = load_image(tmp_path / "deep.png")
    assert picture.icc == profile
    mask = np.zeros(SIZE, np.uint8)
    mask[20:50, 30:80] = 255
    cut = cutout(picture, mask)
    assert cut.dtype == np.uint16
    paths = {tmp_path / f"cut{suffix}": cut for suffix in (".png", ".webp", ".tif")}
    write_images(paths, picture.icc)
    for name in ("cut.png", "cut.tif"):
        read = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(read, cv2.cvtColor(cut, cv2.COLOR_RGBA2BGRA))
    with Image.open(tmp_path / "cut.png") as image:
        assert image.info["icc_profile"] == profile
    with Image.open(tmp_path / "cut.webp") as image:
        assert image.info["icc_profile"] == profile
        assert image.mode == "RGBA"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_profiles_are_read(tmp_path: Path, kind: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    buffer = io.BytesIO()
    Image.fromarray(scene()[0]).save(buffer, kind, icc_profile=profile)
    (tmp_path / "photo").write_bytes(buffer.getvalue())
    assert load_image(tmp_path / "photo").icc == profile


def test_a_phones_photo_is_read_or_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 32)
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "pillow_heif", None)
        with pytest.raises(ValueError, match=r"photo.heic: HEIC needs pillow-heif.*trtseg\[heic\]"):
            load_image(path)
    heif = pytest.importorskip("pillow_heif")
    with pytest.raises(ValueError, match=r"photo.heic: cannot be decoded"):
        load_image(path)
    image, _ = scene()
    heif.from_bytes("RGB", SIZE[::-1], image.tobytes()).save(path, quality=100, chroma=444)
    read = load_image(path)
    assert read.size == SIZE
    # what the codec loses
    assert np.abs(read.rgb().astype(int) - image).mean() < 3
