from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pickle
import shutil
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from kills import Disk, Killed
from tiny_model import write_tiny

from trtseg import BundleError, atomic, bundle
from trtseg.bundle import contents


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
        ({"candidates": 0}, "candidates: expected 1 to 256, got 0"),
        ({"candidates": True}, "candidates: expected int"),
        ({"threshold": float("nan")}, "threshold"),
        ({"threshold": 1.5}, "threshold: expected 0 to 1, got 1"),
        ({"base__stride": 3}, "is no multiple of 3"),
        ({"base__channels": 16}, "expected float32 \\[16, 5\\]"),
        ({"base__image_term": True}, "no array 'image_weight'"),
        ({"image__mean": [1, 2]}, "image.mean: expected 3 numbers"),
        ({"candidates": 10**400}, "candidates: expected 1 to"),
        ({"candidates": 10**9}, "candidates: expected 1 to 256"),
        ({"base__levels": 10**9}, "base.levels: expected 0 to 8"),
        ({"base__levels": 9}, "base.levels: expected 0 to 8"),
        ({"base__levels": 0}, "base.levels: expected at least 1, got 0"),
        ({"base__channels": 10**9}, "channels"),
        ({"working_size__long_side_px": 32 * 1024}, "long_side_px: expected 1 to 8192"),
        ({"base__stride": 1, "working_size__long_side_px": 8192}, "268,435,456 values"),
        ({"select_inputs": [{}]}, "select_inputs"),
        ({"select_inputs": ["masks", "masks"]}, "select_inputs"),
        ({"graphs__evil": {"fp32": "segment.onnx"}}, "graphs: expected encoder, segment, select"),
        ({"files__../../etc/passwd": "0" * 64}, "is not a plain file name"),
        ({"files__/etc/passwd": "0" * 64}, "is not a plain file name"),
        ({"files__x": "0" * 63}, "files: x: expected a SHA-256"),
        ({"name": ["x" * 10**6]}, "name: expected str"),
        ({"threshold": 10**400}, "threshold: expected 0 to 1, got 1"),
        ({"image__mean": [1, 2, 10**400]}, "image.mean: expected 3 numbers"),
        ({"image__mean": [1, 2, "3"]}, "image.mean: expected 3 numbers"),
        ({"guidance__channels": 6}, "guidance.previous_mask and region do not fit"),
        ({"guidance__previous_mask": False}, "do not fit 5 channels"),
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


def test_messages_are_short_whatever_is_in_the_file(tiny: Path) -> None:
    for changes in ({"name": ["x" * 10**6]}, {"format": "1" * 10**6}, {"files__x": "y" * 10**6}):
        edit(tiny, **changes)
        with pytest.raises(BundleError) as caught:
            bundle.read(tiny)
        assert len(str(caught.value)) < 500


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
    read_file = atomic.read_file
    monkeypatch.setattr(atomic, "read_file", lambda p, n: seen.append(p.name) or read_file(p, n))
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


def files_of(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.iterdir()}


def write_files(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """As a zip file, with the hashes that fit."""
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = {
        name: hashlib.sha256(files[name]).hexdigest() for name in files if name != "manifest.json"
    }
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in {**files, "manifest.json": json.dumps(manifest).encode()}.items():
            archive.writestr(name, data)
    return path


def test_a_kill_while_a_bundle_is_replaced_leaves_one(tiny: Path, tmp_path: Path) -> None:
    other = write_tiny(tmp_path / "other", seed=1)
    before, after = bundle.read(tiny).fingerprint, bundle.read(other).fingerprint
    raw = dict(bundle.read(other).manifest.raw)
    files = {name: data for name, data in files_of(other).items() if name != "manifest.json"}
    outcomes = set()
    for last in range(40):
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(last)
            patch.setattr(atomic, "os", disk)
            with contextlib.suppress(Killed):
                bundle.write(tiny, raw, files, overwrite=True)
        outcomes.add(bundle.read(tiny).fingerprint)
    assert outcomes == {before, after}
    assert files_of(tiny).keys() == files_of(other).keys()


def test_a_bomb_in_a_zip_is_not_unpacked(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, limit = files_of(tiny), 2**19
    monkeypatch.setattr(contents, "LARGEST_BYTES", limit)
    monkeypatch.setattr(contents, "LARGEST_HEAD_BYTES", limit)
    tracemalloc.start()
    for name, data in (("pad.bin", b" " * 2**24), ("manifest.json", b" " * 2**24)):
        bomb = write_files(tmp_path / "bomb", {**files, "pad.bin": b""})
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
            manifest = json.loads(files["manifest.json"])
            manifest["files"]["pad.bin"] = "0" * 64
            text = json.dumps(manifest).encode()
            for each, content in {**files, "manifest.json": text, name: data}.items():
                archive.writestr(each, content)
        del content
        tracemalloc.reset_peak()
        held = tracemalloc.get_traced_memory()[0]
        with pytest.raises(BundleError, match=f"{name}: larger than"):
            bundle.read(bomb)
        assert tracemalloc.get_traced_memory()[1] - held < 4 * limit
        # one whose directory lies about the size is cut at what it says
        data = bomb.read_bytes().replace(struct.pack("<I", 2**24), struct.pack("<I", 1000))
        bomb.write_bytes(data)
        tracemalloc.reset_peak()
        with pytest.raises(BundleError):
            bundle.read(bomb)
        assert tracemalloc.get_traced_memory()[1] - held < 4 * limit + len(data)
    tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_what_unpacks_within_a_limit_is_unpacked(
    tiny: Path, tmp_path: Path, method: int
) -> None:
    with pytest.raises(BundleError, match="expected it stored or deflated"):
        bundle.read(write_files(tmp_path / "x.trtseg", files_of(tiny), method))


def npy(shape: tuple[int, ...], data: bytes = b"", kind: str = "<f4") -> bytes:
    stream = io.BytesIO()
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + data


def header(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00\x76\x00" + text.ljust(117) + b"\n"


HOSTILE_ARRAYS = [
    npy((2**40,)),
    npy((2**62, 2**62)),
    npy((2**29,), bytes(2**24)),
    npy((8, 5), bytes(159)),
    npy((8, 5), bytes(164)),
    npy((8, 5), bytes(160), "|V4"),
    npy((8, 5), bytes(160), "|O"),
    npy((8, 5), bytes(160), "<f8"),
    header(b"(" * 117),
    header(b"{'a':'''"),
    header(b"{'descr': 1, 'fortran_order': 2, 'shape': (-1,)}"),
    b"\x93NUMPY\x03\x00",
    b"",
]


@pytest.mark.parametrize("array", HOSTILE_ARRAYS)
def test_a_hostile_array_is_refused(tiny: Path, tmp_path: Path, array: bytes) -> None:
    files = files_of(tiny)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("guidance_weight.npy", array)
        archive.writestr("bias.npy", npy((8,), bytes(32)))
    path = write_files(tmp_path / "x.trtseg", {**files, "parameters.npz": stream.getvalue()})
    with pytest.raises(BundleError, match=r"parameters\.npz: guidance_weight: "):
        bundle.read(path)


@pytest.mark.parametrize("data", [b"", b"PK", npy((3,), bytes(12)), pickle.dumps([1])])
def test_parameters_that_are_no_archive_are_refused(
    tiny: Path, tmp_path: Path, data: bytes
) -> None:
    path = write_files(tmp_path / "x.trtseg", {**files_of(tiny), "parameters.npz": data})
    with pytest.raises(BundleError, match=r"parameters\.npz"):
        bundle.read(path)


def test_a_graph_that_is_not_allowed_is_refused(tiny: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny / "segment.onnx")
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    files = {**files_of(tiny), "segment.onnx": model.SerializeToString()}
    with pytest.raises(BundleError, match=r"segment\.onnx \(segment, fp32\): weights in "):
        bundle.read(write_files(tmp_path / "x.trtseg", files))


def test_pipes_and_devices_in_a_folder_are_refused(tiny: Path) -> None:
    for name in ("manifest.json", "segment.onnx"):
        content = (tiny / name).read_bytes()
        (tiny / name).unlink()
        (tiny / name).symlink_to("/dev/zero")
        with pytest.raises(BundleError, match=r"not a plain file|no such bundle"):
            bundle.read(tiny)
        (tiny / name).unlink()
        (tiny / name).write_bytes(content)
    assert bundle.read(tiny)


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
