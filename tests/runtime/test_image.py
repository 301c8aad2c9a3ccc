from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from trtseg.runtime.image import as_picture, load_image, prepare, working_size

MEAN, SCALE = (120.0, 110.0, 100.0), (0.02, 0.018, 0.016)
ROUNDING = 2e-6  # some roundings of numbers of up to 3 in float32


def prepared(
    image: np.ndarray, image_format: str | None = None, size: tuple = (64, 96)
) -> np.ndarray:
    picture = as_picture(image, image_format)
    out = np.empty((1, 3, *size), np.float32)
    prepare(picture, (0, 0, *picture.size), MEAN, SCALE, out)
    return out


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (130, 190, 3), np.uint8)


def test_every_format_means_the_same_picture(rgb: np.ndarray) -> None:
    expected = prepared(rgb, "RGB")
    opaque = np.full((*rgb.shape[:2], 1), 255, np.uint8)
    rgba = np.concatenate((rgb, opaque), 2)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    np.testing.assert_array_equal(prepared(rgb), expected)
    np.testing.assert_array_equal(prepared(bgr, "BGR"), expected)
    # weighted by an alpha of one, sums round once more
    for image, kind in ((rgba, "RGBA"), (np.concatenate((bgr, opaque), 2), "BGRA")):
        np.testing.assert_allclose(prepared(image, kind), expected, atol=ROUNDING, rtol=0)
    np.testing.assert_array_equal(prepared(Image.fromarray(rgb)), expected)


def test_the_digest_is_of_the_pixels_alone(rgb: np.ndarray) -> None:
    same = [(rgb, None), (rgb[..., ::-1], "BGR"), (np.asfortranarray(rgb), "RGB")]
    digests = {as_picture(image, kind).digest() for image, kind in same}
    assert len(digests) == 1
    changed = rgb.copy()
    changed[100, 100, 1] ^= 1
    others = [changed, rgb[::-1], rgb[:-1], rgb[..., 0], rgb.astype(np.uint16), rgb.astype(">u2")]
    found = [as_picture(image).digest() for image in others]
    assert len({*found, *digests}) == 6, "big endian is the same picture"
    assert found[-1] == found[-2]


def test_every_dtype_means_the_same_picture(rgb: np.ndarray) -> None:
    expected = prepared(rgb)
    for other in (
        rgb.astype(np.uint16) * 257,
        (rgb.astype(np.uint16) * 257).astype(">u2"),
        (rgb / 255).astype(np.float32),
        rgb / 255,
        (rgb / 255).astype(np.longdouble),
    ):
        np.testing.assert_allclose(prepared(other), expected, atol=ROUNDING, rtol=0)
    half = prepared((rgb / 255).astype(np.float16))
    np.testing.assert_allclose(half, expected, atol=255 * 2**-11 * max(SCALE), rtol=0)


def test_grey_is_three_equal_channels(rgb: np.ndarray) -> None:
    grey = rgb[..., 0]
    expected = prepared(np.stack([grey] * 3, -1))
    np.testing.assert_array_equal(prepared(grey), expected)
    np.testing.assert_array_equal(prepared(grey[..., None], "GRAY"), expected)


@pytest.mark.parametrize(
    "view",
    [
        np.s_[::-1, ::-1],
        np.s_[:, :, ::-1],
        np.s_[::2, ::3],
        np.s_[5:100, 7:150],
        np.s_[:1, :1],
        np.s_[:, :1],
    ],
)
def test_strided_views_are_read_as_they_are(rgb: np.ndarray, view: tuple) -> None:
    np.testing.assert_array_equal(
        prepared(rgb[view]), prepared(np.ascontiguousarray(rgb[view]))
    )
    grey = rgb[..., 1][view[:2]]
    np.testing.assert_array_equal(prepared(grey), prepared(np.ascontiguousarray(grey)))
    fortran = np.asfortranarray(rgb)[view]
    np.testing.assert_array_equal(prepared(fortran), prepared(np.ascontiguousarray(rgb[view])))
    broadcast = np.broadcast_to(rgb[:1, :1], rgb.shape)[view]
    np.testing.assert_array_equal(prepared(broadcast), prepared(np.array(broadcast)))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_an_unaligned_image_is_read(rgb: np.ndarray, dtype: type) -> None:
    image = rgb.astype(dtype) / 255 if dtype == np.float32 else rgb.astype(dtype) * 257
    data = b"-" + image.astype(dtype).tobytes()
    unaligned = np.frombuffer(data, dtype, offset=1).reshape(image.shape)
    assert not unaligned.flags.aligned
    np.testing.assert_array_equal(prepared(unaligned), prepared(image.astype(dtype)))


def test_a_read_only_image_is_not_written(rgb: np.ndarray) -> None:
    before = rgb.copy()
    rgb.flags.writeable = False
    prepared(rgb)
    np.testing.assert_array_equal(rgb, before)


def test_transparent_pixels_say_nothing(rgb: np.ndarray) -> None:
    alpha = np.zeros((*rgb.shape[:2], 1), np.uint8)
    np.testing.assert_allclose(prepared(np.concatenate((rgb, alpha), 2)), 0, atol=1e-5)
    alpha[:, :95] = 255
    half = prepared(np.concatenate((rgb, alpha), 2))
    np.testing.assert_allclose(half[..., 50:], 0, atol=1e-5)
    np.testing.assert_allclose(half[..., :46], prepared(rgb)[..., :46], atol=ROUNDING, rtol=0)


def test_normalisation_and_region_are_exact() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[20:52, 40:104] = (250, 10, 90)
    out = np.empty((1, 3, 32, 64), np.float32)
    prepare(as_picture(image), (20, 40, 52, 104), MEAN, SCALE, out)
    expected = ((np.array([250, 10, 90], np.float32) - MEAN) * SCALE)[:, None, None]
    np.testing.assert_allclose(out[0], np.broadcast_to(expected, out[0].shape), rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (288, 384)),
        ((640, 480), (384, 288)),
        ((1, 1), (384, 384)),
        ((1, 12000), (32, 384)),
        ((12000, 12000), (384, 384)),
        ((333, 500), (256, 384)),
    ],
)
def test_working_size(size: tuple, expected: tuple) -> None:
    assert working_size(*size, long_side_px=384, multiple_px=32) == expected


@pytest.mark.parametrize(
    ("image", "image_format", "error", "message"),
    [
        (None, None, TypeError, "image: expected a NumPy array, got NoneType"),
        ([[1, 2]], None, TypeError, "image: expected a NumPy array, got list"),
        (np.zeros((4, 4), np.int32), None, TypeError, "got int32"),
        (np.zeros((4, 4), bool), None, TypeError, "got bool"),
        (np.zeros((4, 4), complex), None, TypeError, "got complex128"),
        (np.zeros((4, 4), object), None, TypeError, "got object"),
        (np.zeros(4, np.uint8), None, ValueError, "expected \\[H, W\\]"),
        (np.zeros((), np.uint8), None, ValueError, "expected \\[H, W\\]"),
        (np.zeros((4, 4, 2), np.uint8), None, ValueError, "expected \\[H, W\\]"),
        (np.zeros((1, 3, 4, 4), np.uint8), None, ValueError, "expected \\[H, W\\]"),
        (np.zeros((0, 4, 3), np.uint8), None, ValueError, "sides of 1 to"),
        (np.zeros((1, 40000), np.uint8), None, ValueError, "sides of 1 to"),
        (np.zeros((4, 4, 3), np.uint8), "HSV", ValueError, "image_format: expected GRAY"),
        (np.zeros((4, 4, 3), np.uint8), "RGBA", ValueError, "does not fit 3 channels"),
        (np.zeros((4, 4, 3), np.uint8), ["RGB"], ValueError, "image_format: expected GRAY"),
        (np.full((4, 4), np.nan), None, ValueError, "floats in \\[0, 1\\]"),
        (np.full((4, 4), np.inf), None, ValueError, "floats in \\[0, 1\\]"),
        (np.full((4, 4), 200.0), None, ValueError, "floats in \\[0, 1\\], got 200 to 200"),
        (np.full((4, 4), -1.0), None, ValueError, "floats in \\[0, 1\\]"),
    ],
)
def test_what_is_no_image_is_refused(
    image: object, image_format: str, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        as_picture(image, image_format)  # type: ignore[arg-type]


def exif(orientation: int, order: str = "<") -> bytes:
    header = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(f"{order}I", 8)
    value = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    return header + struct.pack(f"{order}H", 1) + value + struct.pack(f"{order}I", 0)


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "rgba", "webp", "rgba.webp"])
def test_files_are_turned_upright(tmp_path: Path, orientation: int, kind: str) -> None:
    pixels = np.zeros((16, 24, 4 if "rgba" in kind else 3), np.uint8)
    pixels[:8, :8] = 255
    pixels[8:, :16, 1] = 200
    path = tmp_path / f"a.{'png' if kind == 'rgba' else kind}"
    block = b"Exif\x00\x00" + exif(orientation, "<>"[orientation % 2])
    options = {} if kind == "png" else {"quality": 95, "exact": True}  # colours under alpha 0
    Image.fromarray(pixels).save(path, exif=block, **options)
    picture = load_image(path)
    expected = UPRIGHT[orientation](pixels)[..., :3]
    assert picture.size == expected.shape[:2]
    # JPEG and WebP are lossy
    assert np.abs(picture.rgb().astype(int) - expected).mean() < 8


def test_files_keep_their_depth_and_alpha(tmp_path: Path) -> None:
    deep = (np.arange(20 * 30 * 3).reshape(20, 30, 3) * 36).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    picture = load_image(tmp_path / "deep.png")
    assert picture.image_format == "BGR"
    np.testing.assert_array_equal(picture.pixels, deep)
    cv2.imwrite(str(tmp_path / "grey.png"), deep[..., 0])
    picture = load_image(tmp_path / "grey.png")
    assert picture.image_format == "GRAY"
    np.testing.assert_array_equal(picture.pixels, deep[..., 0])
    alpha = np.dstack((deep, deep[..., 0]))
    cv2.imwrite(str(tmp_path / "alpha.png"), alpha)
    picture = load_image(tmp_path / "alpha.png")
    assert picture.image_format == "BGRA"
    np.testing.assert_array_equal(picture.pixels, alpha)
    np.testing.assert_array_equal(picture.rgb(), (deep // 257)[..., ::-1])


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    broken = {"empty.png": b"", "text.jpg": b"no image", "cut.png": b"\x89PNG\r\n\x1a\n"}
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=name):
            load_image(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((5, 6), np.int16), "got int16"),
        (np.zeros((5, 6, 3), np.int32), "got int32"),
        (np.full((5, 6, 3), 9, np.float32), "floats in"),
        (np.full((5, 6, 4), np.nan, np.float32), "floats in"),
    ],
)
def test_a_file_with_other_pixels_is_named(
    tmp_path: Path, pixels: np.ndarray, message: str
) -> None:
    path = tmp_path / "odd.tif"
    assert cv2.imwrite(str(path), pixels)
    with pytest.raises(ValueError, match=f"odd.tif: image: expected .*{message}"):
        load_image(path)


def test_pillow_images_mean_what_they_say() -> None:
    rgb = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    photo = Image.fromarray(rgb)
    np.testing.assert_array_equal(as_picture(photo).pixels, rgb)
    for mode in ("P", "CMYK", "YCbCr", "HSV", "LA", "1", "I"):
        with pytest.raises(ValueError, match=f"got {mode}; convert it"):
            as_picture(photo.convert(mode))


def test_rgb_of_every_dtype(rgb: np.ndarray) -> None:
    np.testing.assert_array_equal(as_picture(rgb[::2], "BGR").rgb(), rgb[::2, :, ::-1])
    np.testing.assert_array_equal(as_picture(rgb.astype(np.uint16) * 257).rgb(), rgb)
    np.testing.assert_array_equal(as_picture(rgb / 255).rgb(), rgb)
    assert as_picture(rgb[..., 0]).rgb().shape == rgb.shape


def test_dlpack_in_host_memory_is_read_in_place() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(24, dtype=torch.uint8).reshape(2, 4, 3)
    picture = as_picture(tensor)
    np.testing.assert_array_equal(picture.pixels, tensor.numpy())
    assert picture.pixels.ctypes.data == tensor.data_ptr()
    assert not picture.on_device
