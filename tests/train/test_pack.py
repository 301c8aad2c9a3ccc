"""A run's images as one file: what comes back, how large it is, and clear errors."""

import json

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from train.conftest import write_image
from trtseg import cli
from trtseg.errors import DatasetError
from trtseg.train.samples.images import DataConfig, LabelledImages
from trtseg.train.samples.pack import write_pack
from trtseg.train.samples.packed import FORMAT


@pytest.fixture
def sources(data):
    """Four images in two groups of unequal weight, one of them with parts."""
    (data / "masks_parts").mkdir()
    parts = np.zeros((96, 128), np.uint8)
    parts[10:60, 10:60] = 7
    cv2.imwrite(str(data / "masks_parts" / "a_0.png"), parts)
    return LabelledImages([DataConfig(str(data), weights={"a_": 3, "b_": 1})])


def members(images):
    return [image for group in images.groups for image in group]


def test_what_is_packed_comes_back(sources, tmp_path):
    path = tmp_path / "pack.safetensors"
    report = write_pack(sources, path, 1)
    assert report == {"images": 4, "parts": 1, "side_px": 1024, "mib": pytest.approx(0.02, abs=0.1)}
    packed = LabelledImages([DataConfig(str(path))])
    np.testing.assert_allclose(packed.chances, sources.chances)
    assert [len(group) for group in packed.groups] == [2, 2]
    for one, other in zip(members(sources), members(packed), strict=True):
        assert one.name == other.name
        (image, labels), (packed_image, packed_labels) = one.read_pair(), other.read_pair()
        assert np.array_equal(labels, packed_labels)
        # noise of deviation 10 is what WebP leaves out
        assert np.abs(image.astype(float) - packed_image).mean() < 10
        parts, packed_parts = sources.parts.get(one.path), packed.parts.get(other.path)
        assert (parts is None) == (packed_parts is None)
        if parts is not None:
            assert np.array_equal(parts.read_labels(), packed_parts.read_labels())
            assert np.array_equal(packed_parts.read_image(), packed_image)


def test_every_label_is_kept(tmp_path):
    """All 256 values, as lossless as a PNG."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    labels = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8)
    labels.ravel()[:256] = np.arange(256)
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), labels)
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((40, 50, 3), np.uint8))
    write_pack(LabelledImages([DataConfig(str(tmp_path), "folder")]), tmp_path / "p.safetensors", 1)
    (image,) = members(LabelledImages([DataConfig(str(tmp_path / "p.safetensors"))]))
    assert np.array_equal(image.read_labels(), labels)


def test_the_side_follows_the_limit(tmp_path, sources):
    limit = 0.008
    report = write_pack(sources, tmp_path / "small.safetensors", limit)
    assert (tmp_path / "small.safetensors").stat().st_size <= limit * 2**20
    assert 64 <= report["side_px"] < 128
    image, labels = members(LabelledImages([DataConfig(str(tmp_path / "small.safetensors"))]))[
        0
    ].read_pair()
    assert max(labels.shape) == report["side_px"]
    assert image.shape[:2] == labels.shape
    with pytest.raises(ValueError, match=r"limit_mib: expected at least 0\.\d for 4 images"):
        write_pack(sources, tmp_path / "none.safetensors", 0.001)
    assert not (tmp_path / "none.safetensors").exists()


def test_reduced_objects_stay_where_they_were(tmp_path):
    """The centre of an object, in parts of the image, to half a pixel of the reduced one."""
    write_image(tmp_path / "d", "a", 0)
    whole = LabelledImages([DataConfig(str(tmp_path / "d"))])
    write_pack(whole, tmp_path / "p.safetensors", 0.003)
    centres = []
    for images in (whole, LabelledImages([DataConfig(str(tmp_path / "p.safetensors"))])):
        labels = members(images)[0].read_labels()
        centres.append((np.argwhere(labels == 2).mean(0) + 0.5) / labels.shape)
    np.testing.assert_allclose(*centres, atol=0.5 / 64)


def test_weights_choose_among_packed_images(sources, tmp_path):
    path = tmp_path / "pack.safetensors"
    write_pack(sources, path, 1)
    only = LabelledImages([DataConfig(str(path), layout="packed", weights={"b_": 1})])
    assert {image.name for image in members(only)} == {"b_1", "b_3"}
    with pytest.raises(DatasetError, match="no image has one of the prefixes"):
        LabelledImages([DataConfig(str(path), weights={"z": 1})])


def test_bad_files_are_named(sources, tmp_path):
    path = tmp_path / "pack.safetensors"
    write_pack(sources, path, 1)
    tensors = load_file(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DatasetError, match=r"pack.safetensors: cannot be read as a pack"):
        LabelledImages([DataConfig(str(path))])
    with pytest.raises(DatasetError, match=r"none.safetensors: cannot be read as a pack"):
        LabelledImages([DataConfig(str(tmp_path / "none.safetensors"))])
    save_file(tensors, path)
    with pytest.raises(DatasetError, match="expected a pack of trtseg-pack-1"):
        LabelledImages([DataConfig(str(path))])
    index = {"names": ["a"] * 4, "groups": [[1.0, [0, 9]]]}
    save_file(tensors, path, {"format": FORMAT, "index": json.dumps(index)})
    with pytest.raises(DatasetError, match="index is damaged"):
        LabelledImages([DataConfig(str(path))])
    index["groups"] = [[1.0, [0]]]
    tensors["images"] = np.zeros_like(tensors["images"])
    save_file(tensors, path, {"format": FORMAT, "index": json.dumps(index)})
    with pytest.raises(DatasetError, match=r"pack.safetensors/0 \(a\): its image cannot be"):
        members(LabelledImages([DataConfig(str(path))]))[0].read_pair()


def test_the_command(config, tmp_path, capsys):
    path, out = tmp_path / "c.json", tmp_path / "pack.safetensors"
    path.write_text(json.dumps(config().to_dict()))
    assert cli.main(["pack", str(path), str(out), "--limit-mib", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 4
    assert cli.main(["pack", str(path), str(out)]) == 2
    assert "pass --force to replace it" in capsys.readouterr().err
    assert cli.main(["pack", str(path), str(tmp_path / "pack.bin")]) == 2
    assert "expected a name ending in one of .safetensors" in capsys.readouterr().err
