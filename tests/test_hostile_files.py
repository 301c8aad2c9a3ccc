"""Whatever is in a file, reading it gives a value or the one error that is promised for it.

`TRTSEG_FUZZ=100000 pytest tests/test_hostile_files.py` tries longer than the default does.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import tempfile
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
from tiny_model import write_tiny

from trtseg import BundleError, bundle, parse

EXAMPLES = int(os.environ.get("TRTSEG_FUZZ", "60"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from([10**9, 2**63, 10**400, -1, 0, "segment.onnx", "../x", "x" * 10**5]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)  # fmt: skip
MUTATIONS = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from("sdi"), st.integers(0, 255)), max_size=6
)

with tempfile.TemporaryDirectory() as folder:
    FILES = {p.name: p.read_bytes() for p in write_tiny(Path(folder) / "tiny").iterdir()}
MANIFEST = json.loads(FILES["manifest.json"])


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


PLACES = [path for path in places(MANIFEST) if path]


def changed(data: bytes, mutations) -> bytes:
    mutated = bytearray(data)
    for at, kind, value in mutations:
        place = at % max(1, len(mutated))
        if kind == "s" and mutated:
            mutated[place] = value
        elif kind == "d":
            del mutated[place : place + 1 + value]
        else:
            mutated.insert(place, value)
    return bytes(mutated)


def read(files: dict[str, bytes]) -> bundle.Bundle | None:
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        with contextlib.suppress(BundleError):
            return bundle.read(folder)
    return None


@hypothesis.given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
@hypothesis.settings(max_examples=EXAMPLES)
def test_a_manifest_with_other_values(changes):
    manifest = copy.deepcopy(MANIFEST)
    for path, value in changes:
        target = manifest
        with contextlib.suppress(KeyError, IndexError, TypeError):
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = value
    found = read({**FILES, "manifest.json": json.dumps(manifest).encode()})
    if found is not None:
        m = found.manifest
        assert max(m.channels, m.candidates) * (m.long_side_px // m.base_stride) ** 2 <= 2**28


@hypothesis.given(MUTATIONS)
@hypothesis.settings(max_examples=EXAMPLES)
def test_a_manifest_of_other_bytes(mutations):
    read({**FILES, "manifest.json": changed(FILES["manifest.json"], mutations)})


@hypothesis.given(MUTATIONS | st.binary(max_size=100))
@hypothesis.settings(max_examples=EXAMPLES)
def test_parameters_of_other_bytes(mutations):
    old = FILES["parameters.npz"]
    data = mutations if isinstance(mutations, bytes) else changed(old, mutations)
    manifest = copy.deepcopy(MANIFEST)
    manifest["files"]["parameters.npz"] = hashlib.sha256(data).hexdigest()
    found = read({**FILES, "parameters.npz": data, "manifest.json": json.dumps(manifest).encode()})
    if found is not None:
        assert found.parameters["bias"].shape == (found.manifest.channels,)


@hypothesis.given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@hypothesis.settings(max_examples=EXAMPLES)
def test_json_of_any_bytes(data):
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(ValueError):
            parse.read_json(file.name)
