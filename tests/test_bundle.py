from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tiny_model import write_tiny

from trtseg import BundleError, bundle


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny")


def edit(path: Path, **changes: object) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    for key, value in changes.items():
        target = manifest
        *folders, last = key.split("__")
        for folder in folders:
            target = target[folder]
        if value is None:
            del target[last]
        else:
            target[last] = value
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_a_written_bundle_reads_back(tiny: Path) -> None:
    read = bundle.read(tiny)
    assert read.name == "tiny"
    assert read.manifest.candidates == 3
    assert read.manifest.guidance.previous_mask
    assert read.parameters["guidance_weight"].shape == (8, 5)
    assert not read.parameters["bias"].flags.writeable
    assert read.graph("segment") == (tiny / "segment.onnx").read_bytes()
    assert read.precisions("segment") == ("fp32",)
    with pytest.raises(BundleError, match=r"no fp16 graph for 'segment' \(has: fp32\)"):
        read.graph("segment", "fp16")


def test_directory_and_zip_are_the_same_model(tmp_path: Path, tiny: Path) -> None:
    zipped = write_tiny(tmp_path / "tiny.trtseg")
    assert zipfile.is_zipfile(zipped)
    assert bundle.read(zipped).fingerprint == bundle.read(tiny).fingerprint
    again = write_tiny(tmp_path / "again.trtseg")
    assert again.read_bytes() == zipped.read_bytes()


def test_fingerprint_follows_the_weights_and_not_the_provenance(
    tmp_path: Path, tiny: Path
) -> None:
    other = write_tiny(tmp_path / "other", seed=1)
    assert bundle.read(other).fingerprint != bundle.read(tiny).fingerprint
    before = bundle.read(tiny).fingerprint
    edit(tiny, accuracy={"grabcut": 2.5})
    assert bundle.read(tiny).fingerprint == before
    edit(tiny, threshold=0.4)
    assert bundle.read(tiny).fingerprint != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format: expected 1, got 2"),
        ({"format": None}, "format: expected 1"),
        ({"name": None}, "name is missing"),
        ({"candidates": "six"}, "candidates: expected int"),
        ({"candidates": 0}, "candidates: expected 1 to inf"),
        ({"candidates": True}, "candidates: expected int"),
        ({"threshold": float("nan")}, "threshold"),
        ({"threshold": 1.5}, "threshold: expected 0.0 to 1.0"),
        ({"base__stride": 3}, "is no multiple of 3"),
        ({"base__channels": 16}, "expected float32 \\[16, 5\\]"),
        ({"base__image_term": True}, "no array 'image_weight'"),
        ({"image__mean": [1, 2]}, "image.mean: expected 3 numbers"),
        ({"candidates": 10**400}, "candidates: expected 1 to"),
        ({"threshold": 10**400}, "threshold: expected 0.0 to 1.0"),
        ({"image__mean": [1, 2, 10**400]}, "image.mean: expected 3 numbers"),
        ({"image__mean": [1, 2, "3"]}, "image.mean: expected 3 numbers"),
        ({"guidance__channels": 6}, "guidance.previous_mask and region do not fit"),
        ({"guidance__previous_mask": False}, "does not fit 5 channels"),
        ({"guidance__click_map": "star"}, "unknown kind 'star'"),
        ({"guidance__sigma_grid_px": 0}, "sigma_grid_px"),
        ({"working_size": []}, "working_size.multiple_px is missing"),
        ({"working_size__long_side_px": 100}, "is no multiple of 32"),
        ({"select_inputs": ["masks", "moon"]}, "select_inputs"),
        ({"select_inputs": []}, "select_inputs"),
        ({"graphs__segment": None}, "graphs.segment is missing"),
        ({"graphs__segment__fp32": "../segment.onnx"}, "is not in files"),
        ({"graphs__segment__fp32": None}, "graphs.segment.fp32 is missing"),
        ({"parameters": "other.npz"}, "'other.npz' is not in files"),
        ({"files": None}, "files is missing"),
    ],
)
def test_a_wrong_manifest_is_refused(tiny: Path, changes: dict, message: str) -> None:
    edit(tiny, **changes)
    with pytest.raises(BundleError, match=message):
        bundle.read(tiny)


def test_an_altered_missing_or_broken_file_is_refused(tiny: Path) -> None:
    graph = (tiny / "encoder.onnx").read_bytes()
    (tiny / "encoder.onnx").write_bytes(graph[:-1] + b"x")
    with pytest.raises(BundleError, match=r"encoder\.onnx was altered"):
        bundle.read(tiny)
    (tiny / "encoder.onnx").unlink()
    with pytest.raises(BundleError, match=r"encoder\.onnx is listed in the manifest but missing"):
        bundle.read(tiny)
    (tiny / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match="is not JSON"):
        bundle.read(tiny)
    (tiny / "manifest.json").write_text("[]")
    with pytest.raises(BundleError, match="expected an object"):
        bundle.read(tiny)


def test_a_truncated_zip_is_refused(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.trtseg")
    data = path.read_bytes()
    for size in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(BundleError, match=r"tiny\.trtseg"):
            bundle.read(path)


def test_a_flipped_byte_in_a_zip_changes_nothing_or_is_refused(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.trtseg")
    data, fingerprint = path.read_bytes(), bundle.read(path).fingerprint
    refusals = []
    for at in np.random.default_rng(0).integers(0, len(data), 300):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :])
        try:
            assert bundle.read(path).fingerprint == fingerprint
        except BundleError as error:
            refusals.append(str(error))
    assert refusals
    assert all("tiny.trtseg" in message for message in refusals)


def test_what_lies_beside_a_bundle_is_not_read(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tiny / "photo.raw").write_bytes(b"gigabytes")
    seen = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda p: seen.append(p.name) or read_bytes(p))
    bundle.read(tiny)
    assert "segment.onnx" in seen
    assert "photo.raw" not in seen


def test_a_bottomless_manifest_is_refused(tiny: Path) -> None:
    (tiny / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(BundleError, match="is not JSON"):
        bundle.read(tiny)


@pytest.mark.parametrize("name", ["no-such-model", "a/b", "", "..", "x\0y"])
def test_a_missing_bundle_names_those_there_are(name: str) -> None:
    with pytest.raises(BundleError, match=r"models in this package|null"):
        bundle.read(name)


def test_a_bundle_is_a_name_or_a_path() -> None:
    with pytest.raises(TypeError, match="bundle: expected a name or a path, got int"):
        bundle.read(3)  # type: ignore[arg-type]


def test_writing_never_leaves_half_a_bundle(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(FileExistsError):
        write_tiny(tiny)
    read = bundle.read(tiny)
    manifest = {k: v for k, v in read.manifest.raw.items() if k not in ("format", "files")}
    files = {p.name: p.read_bytes() for p in tiny.iterdir() if p.name != "manifest.json"}
    target = tmp_path / "new"
    with pytest.raises(BundleError, match="threshold"):
        bundle.write(target, {**manifest, "threshold": 7}, files)
    with pytest.raises(BundleError, match="plain file name"):
        bundle.write(target, manifest, {**files, "../evil": b""})
    assert not target.exists()
    bundle.write(tiny, {**manifest, "threshold": 0.25}, files, overwrite=True)
    assert bundle.read(tiny).manifest.threshold == 0.25
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny"]


def test_shipped_names_are_found_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tmp_path / "models"
    write_tiny(models / "one")
    write_tiny(models / "two.trtseg", seed=1)
    monkeypatch.setattr(bundle, "MODELS", models)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one").mkdir()
    assert bundle.names() == ("one", "two")
    assert bundle.read("one").path == models / "one"
    assert bundle.read("two").path == models / "two.trtseg"
    shutil.rmtree(models)
    assert bundle.names() == ()


def test_every_shipped_model_is_sound() -> None:
    for name in bundle.names():
        read = bundle.read(name)
        assert read.name == name
        assert all(np.isfinite(array).all() for array in read.parameters.values())
