"""Bundles that somebody made to harm, or that were damaged: 420 of them."""

from __future__ import annotations

import copy
import hashlib
import io
import itertools
import json
import os
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from runtime.pipeline.test_trial import DISAGREEING, segment
from test_bundle import HOSTILE_ARRAYS
from test_bundle_graph import REFUSED
from test_hostile_files import FILES, MANIFEST, PLACES, changed
from tiny_model import CHANNELS

Files = dict[str, bytes]
Make = Callable[[Path], None]
COUNT = 420
MIB = 2**20


def folder(files: Files) -> Make:
    def make(path: Path) -> None:
        path.mkdir()
        for name, data in files.items():
            (path / name).write_bytes(data)

    return make


def archive(files: Files, method: int = zipfile.ZIP_DEFLATED, **large: int) -> Make:
    """A zip file; `large` are more members, of so many MiB of blanks."""

    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", method, compresslevel=1) as target:
            for name, data in files.items():
                target.writestr(name, data)
            for name, mib in large.items():
                with target.open(name, "w", force_zip64=True) as stream:
                    for _ in range(mib):
                        stream.write(b" " * MIB)

    return make


def linked(name: str, target: str) -> Make:
    def make(path: Path) -> None:
        folder({key: data for key, data in FILES.items() if key != name})(path)
        (path / name).symlink_to(target)

    return make


def endless(name: str, kind: str) -> Make:
    def make(path: Path) -> None:
        folder({key: data for key, data in FILES.items() if key != name})(path)
        if kind == "pipe":
            os.mkfifo(path / name)
        else:
            with (path / name).open("wb") as stream:
                stream.write(FILES[name])
                stream.truncate(8 * 2**30)

    return make


def raw(data: bytes) -> Make:
    def make(path: Path) -> None:
        path.write_bytes(data)

    return make


def zipped(files: Files) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in files.items():
            target.writestr(name, data)
    return stream.getvalue()


def with_files(**changes: bytes) -> Files:
    """The sound bundle with other contents, whose hashes are right."""
    files = {**FILES, **{name.replace("_onnx", ".onnx"): data for name, data in changes.items()}}
    manifest = copy.deepcopy(MANIFEST)
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256(files[name]).hexdigest()
    return {**files, "manifest.json": json.dumps(manifest).encode()}


def listing(name: str, digest: str = "0" * 64) -> Files:
    manifest = copy.deepcopy(MANIFEST)
    manifest["files"][name] = digest
    return {**FILES, "manifest.json": json.dumps(manifest).encode()}


def containers() -> Iterator[tuple[str, Make]]:
    rest = {name: data for name, data in FILES.items() if name != "manifest.json"}
    yield "a zip whose manifest is 200 MiB", archive(rest, **{"manifest.json": 200})
    yield "a zip with a listed file of 1,100 MiB", archive(
        listing("pad.bin"), **{"pad.bin": 1100}
    )
    digest = hashlib.sha256()
    for _ in range(900):
        digest.update(b" " * MIB)
    yield "a zip with a listed file of 900 MiB", archive(
        listing("pad.bin", digest.hexdigest()), **{"pad.bin": 900}
    )
    yield "a zip with many listed files", archive(
        {**FILES, "manifest.json": json.dumps(
            {**MANIFEST, "files": {f"f{i}": "0" * 64 for i in range(100_000)}}
        ).encode()}
    )  # fmt: skip
    yield "a zip of 60,000 more", archive({**FILES, **{f"{i}": b"" for i in range(60_000)}})
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        yield f"a zip of method {method}", archive(FILES, method)
    outside = {"../../outside": b"x", "/tmp/outside": b"x"}
    yield "a zip with paths out of it", archive({**FILES, **outside})
    encrypted = bytearray(zipped(FILES))
    encrypted[encrypted.find(b"PK\x01\x02") + 8] |= 1
    yield "a zip that says it is encrypted", raw(bytes(encrypted))
    for end in (0, 1, 30, 1000, len(zipped(FILES)) - 30):
        yield f"a zip that ends after {end} bytes", raw(zipped(FILES)[:end])
    for name in ("../../etc/passwd", "/etc/passwd", "manifest.json", "a\0b", "x" * 300, ""):
        yield f"lists {name[:20]!r}", folder(listing(name))
    for name in FILES:
        for target in ("/dev/zero", "/etc/passwd", "/proc/self/mem", "/proc/kcore", "nothing"):
            yield f"{name} is a link to {target}", linked(name, target)
        for kind in ("pipe", "8 GiB"):
            yield f"{name} is a {kind}", endless(name, kind)
        yield f"no {name}", folder({key: data for key, data in FILES.items() if key != name})


def manifests() -> Iterator[tuple[str, Make]]:
    numbers = (0, -1, 7, 576, 8192, 32768, 10**9, 2**63, 10**400, float("nan"), 1e308, True, "x")
    for place in PLACES:
        if isinstance(place[-1], str) and place[0] not in ("files", "graphs"):
            for value in numbers[:: 3 if len(place) > 1 else 6]:
                manifest = copy.deepcopy(MANIFEST)
                target = manifest
                for key in place[:-1]:
                    target = target[key]
                target[place[-1]] = value
                text = json.dumps(manifest).encode()
                name = f"{'.'.join(map(str, place))} = {str(value)[:12]}"
                yield name, folder({**FILES, "manifest.json": text})
    sound = FILES["manifest.json"]
    for name, text in {
        "lists in lists": b"[" * 200_000,
        "objects in objects": b'{"a":' * 100_000,
        "a number of 5,000 digits": b'{"format": ' + b"9" * 5000 + b"}",
        "no UTF-8": b"\xff\xfe{}",
        "UTF-16": sound.decode().encode("utf-16"),
        "twice the same key": b'{"format":1,"format":2}',
        "nothing": b"",
        "10 MB of blanks": b" " * 10_000_000 + sound,
        "15 MB of lists": b'{"format":1,"files":{},"x":[' + b"[]," * 5_000_000 + b"1]}",
        "100 MB of lists": b'{"format":1,"files":{},"x":[' + b"[]," * 33_000_000 + b"1]}",
        "a name of 10 MB": json.dumps({**MANIFEST, "name": "x" * 10**7}).encode(),
    }.items():
        yield f"manifest: {name}", folder({**FILES, "manifest.json": text})


def amplifying(*nodes: tuple[str, list[str], str], **constants: list[int]) -> bytes:
    """A network whose masks hang on an array, `large`, that is made from small ones."""
    model = onnx.load_from_string(segment())
    for node in model.graph.node:
        if node.input[0] == "x":
            node.input[0] = "y"
    made = [
        helper.make_node(kind, inputs, [out], **({"axis": 1} if kind == "Concat" else {}))
        for kind, inputs, out in nodes
    ]
    made += [
        helper.make_node("ReduceMean", ["large"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    sound = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*made, *sound])
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
    for name, values in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(values), name))
    return model.SerializeToString()


def amplifiers() -> Iterator[tuple[str, bytes]]:
    for side in (4_000, 14_000, 40_000, 2**30):
        resize = "Resize", ["x", "", "", "sizes"], "large"
        yield f"Resize to {side}", amplifying(resize, sizes=[1, CHANNELS, side, side])
        pads = [0, 0, side, side] * 2
        yield f"Pad by {side}", amplifying(("Pad", ["x", "pads"], "large"), pads=pads)
    column, row = ("Reshape", ["x", "column"], "c"), ("Reshape", ["x", "row"], "r")
    shapes = {"column": [-1, 1], "row": [1, -1]}
    for kind in ("Add", "MatMul"):
        yield f"{kind} of all with all", amplifying(
            column, row, (kind, ["c", "r"], "large"), **shapes
        )
    yield "Add of all with all with all", amplifying(
        column, row, ("Reshape", ["x", "deep"], "d"), ("Add", ["c", "r"], "e"),
        ("Add", ["d", "e"], "large"), **shapes, deep=[-1, 1, 1],
    )  # fmt: skip
    doubling = [("Concat", [f"d{i}", f"d{i}"], f"d{i + 1}") for i in range(24)]
    doubling[0] = ("Concat", ["x", "x"], "d1")
    yield "Concat 24 times", amplifying(*doubling[:-1], ("Concat", ["d23", "d23"], "large"))


def graphs() -> Iterator[tuple[str, Make]]:
    for index, (model, message) in enumerate(REFUSED):
        data = model.SerializeToString()
        yield f"graph {index}: {message}", folder(with_files(segment_onnx=data))
    for index, (changes, message) in enumerate(DISAGREEING):
        files = with_files(**{f"{role}_onnx": data for role, data in changes.items()})
        yield f"network {index}: {message}", folder(files)
    for name, data in amplifiers():
        yield name, folder(with_files(segment_onnx=data))
    for index, array in enumerate(HOSTILE_ARRAYS):
        files = with_files(**{"parameters.npz": zipped({"guidance_weight.npy": array})})
        yield f"array {index}", folder(files)


def damaged() -> Iterator[tuple[str, Make]]:
    """Bytes changed at random: of a folder, a zip, or of files whose hashes are right."""
    generator = random.Random(0)
    for number in itertools.count():
        mutations = [
            (generator.randrange(10**6), generator.choice("sdi"), generator.randrange(256))
            for _ in range(generator.choice([1, 1, 2, 8]))
        ]
        kind, name = number % 4, generator.choice(sorted(FILES))
        if kind == 0:
            yield f"damage {number}", folder({**FILES, name: changed(FILES[name], mutations)})
        elif kind == 1:
            yield f"damage {number} of a zip", raw(changed(zipped(FILES), mutations))
        else:
            name = generator.choice(["encoder.onnx", "segment.onnx", "select.onnx"])
            name = name if kind == 2 else "parameters.npz"
            yield f"damage {number} of {name}", folder(
                with_files(**{name: changed(FILES[name], mutations)})
            )


def cases() -> Iterator[tuple[str, Make]]:
    """(what it is, a function that writes it to a path)"""
    made = itertools.chain(containers(), manifests(), graphs(), damaged())
    return itertools.islice(made, COUNT)
