"""The model bundle: the file format in which training and runtime meet.

A bundle is a directory, or one zip file, named `NAME.trtseg` (or just `NAME` for those inside the
package). It holds `manifest.json`, ONNX graphs and `parameters.npz`. Everything is read through
`read`, which checks the format version, every required entry, every hash and every shape, so that
the runtime may trust what it gets.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trtseg.atomic import is_empty, write_atomically, write_folder
from trtseg.bundle.contents import LARGEST_BYTES, read_arrays, read_contents, write_zip
from trtseg.bundle.graph import GraphRefused, check_graph, self_contained
from trtseg.bundle.manifest import (
    FORMAT,
    MANIFEST,
    SELECT_INPUTS,
    Guidance,
    ImageMap,
    Manifest,
    check_file_name,
    check_manifest,
    expect,
    listed_files,
    parse_manifest,
)
from trtseg.errors import BundleError
from trtseg.parse import quoted

__all__ = [
    "FORMAT", "LARGEST_BYTES", "MANIFEST", "MODELS", "SELECT_INPUTS",
    "Bundle", "Guidance", "ImageMap", "Manifest",
    "check_manifest", "find", "names", "read", "write",
]  # fmt: skip

MODELS = Path(__file__).parents[1] / "models"


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and verified.

    Attributes:
        path: the directory or zip file it came from.
        manifest: its checked manifest.
        parameters: read-only float32 arrays: `guidance_weight` [C, G], `bias` [C] and, with an
            image term, `image_weight` [C, 3].
        fingerprint: hexadecimal SHA-256 over the manifest's meaning and all files: two bundles
            with one fingerprint give the same masks.
    """

    path: Path
    manifest: Manifest
    parameters: Mapping[str, np.ndarray]
    fingerprint: str
    _files: Mapping[str, bytes] = field(repr=False)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    def precisions(self, role: str) -> tuple[str, ...]:
        """The precisions in which graph `role` is there, for instance ("fp32", "fp16")."""
        return tuple(self.manifest.graphs.get(role, {}))

    def graph(self, role: str, precision: str = "fp32") -> bytes:
        """The serialised ONNX graph of "encoder", "segment" or "select".

        Raises:
            BundleError: the bundle has no such graph in that precision.
        """
        try:
            return self_contained(self._files[self.manifest.graphs[role][precision]], self._files)
        except KeyError:
            have = ", ".join(self.precisions(role)) or "none"
            raise BundleError(
                f"{self.path}: no {precision} graph for {role!r} (has: {have})"
            ) from None


def names() -> tuple[str, ...]:
    """Names of the models inside the package, sorted."""
    if not MODELS.is_dir():
        return ()
    found = (p for p in MODELS.iterdir() if p.suffix == ".trtseg" or (p / MANIFEST).is_file())
    return tuple(sorted(p.stem for p in found))


def find(name_or_path: str | os.PathLike[str]) -> Path:
    """The path of a bundle given by path, or by the name of a model inside the package.

    Raises:
        TypeError: neither a string nor a path.
        BundleError: there is no such bundle; the message lists the shipped names.
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise TypeError(f"bundle: expected a name or a path, got {type(name_or_path).__name__}")
    path = Path(name_or_path)
    candidates = [path]
    if path.name == str(name_or_path) and path.name not in ("", ".", ".."):
        candidates = [MODELS / path.name, MODELS / f"{path.name}.trtseg", path]
    try:
        for candidate in candidates:
            if candidate.is_file() or (candidate / MANIFEST).is_file():
                return candidate
    except (OSError, ValueError) as error:
        raise BundleError(f"{name_or_path!r}: {error}") from error
    shipped = ", ".join(names()) or "none"
    raise BundleError(f"{name_or_path}: no such bundle (models in this package: {shipped})")


def read(name_or_path: str | os.PathLike[str]) -> Bundle:
    """Read and verify a bundle.

    Nothing but the files that the manifest lists is read, and they are data alone: graphs that
    refer to any other file, branch, loop, or use operators beyond those of networks are refused.

    Args:
        name_or_path: a name from `names()`, a bundle directory, or a bundle zip file.

    Raises:
        BundleError: missing, incomplete, altered (a hash differs), of another format version,
            of more than `LARGEST_BYTES`, with parameters whose shapes do not fit the manifest, or
            with graphs that are not allowed.
    """
    path = find(name_or_path)
    raw, files = read_contents(path)
    for filename, expected in listed_files(path, raw).items():
        if filename not in files:
            if path.is_dir() and os.path.lexists(path / filename):
                raise BundleError(f"{path}: {filename} was altered (its SHA-256 differs)")
            raise BundleError(f"{path}: {filename} is listed in the manifest but missing")
        if hashlib.sha256(files[filename]).hexdigest() != expected:
            raise BundleError(f"{path}: {filename} was altered (its SHA-256 differs)")
    manifest, parameters = _checked(path, raw, files)
    return Bundle(path, manifest, parameters, _fingerprint(raw), files)


def write(
    path: str | os.PathLike[str],
    manifest: Mapping[str, Any],
    files: Mapping[str, bytes],
    *,
    overwrite: bool = False,
) -> Path:
    """Write a bundle atomically: a reader sees the old one, the new one, or none.

    Args:
        path: where to. A directory is written, unless the name ends in ".trtseg": then one zip.
        manifest: everything but `format` and `files`, which are filled in here.
        files: contents by file name; every graph the manifest names, and its parameters.
        overwrite: replace what is at `path`; files in a directory that belong to no bundle stay.

    Returns:
        The path written.

    Raises:
        FileExistsError: something is at `path` and `overwrite` is False.
        BundleError: the manifest and the files do not make a valid bundle; nothing is written.
        OSError: it cannot be written; what was there still is.
    """
    path = Path(path)
    if not is_empty(path) and not overwrite:
        raise FileExistsError(f"{path}: exists already")
    for filename in files:
        check_file_name(path, filename)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    raw = {**manifest, "format": FORMAT, "files": hashes}
    _checked(path, raw, files)
    text = json.dumps(raw, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    contents = {MANIFEST: text, **files}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".trtseg":
        write_atomically(path, write_zip(contents), 0o666)
    else:
        write_folder(path, MANIFEST, contents, _listed)
    return path


def _listed(text: bytes) -> dict[str, str]:
    try:
        return listed_files(MANIFEST, parse_manifest(MANIFEST, text))
    except BundleError:
        return {}


def _checked(
    path: Path, raw: Mapping[str, Any], files: Mapping[str, bytes]
) -> tuple[Manifest, dict[str, np.ndarray]]:
    manifest = check_manifest(path, raw, files)
    for role, by_precision in manifest.graphs.items():
        for precision, filename in by_precision.items():
            try:
                check_graph(files[filename], files)
            except GraphRefused as error:
                raise BundleError(f"{path}: {filename} ({role}, {precision}): {error}") from None
    filename = expect(path, raw, "parameters", str)
    if filename not in files:
        raise BundleError(f"{path}: {MANIFEST}: parameters: {quoted(filename)} is not in files")
    channels = manifest.channels
    shapes = {"guidance_weight": (channels, manifest.guidance.channels), "bias": (channels,)}
    if manifest.image_term:
        shapes["image_weight"] = (channels, 3)
    try:
        return manifest, read_arrays(files[filename], shapes)
    except ValueError as error:
        raise BundleError(f"{path}: {filename}: {error}") from None


def _fingerprint(raw: Mapping[str, Any]) -> str:
    """Over what decides the masks: provenance such as `accuracy` may be edited freely."""
    decisive = (
        "format", "kind", "working_size", "image", "base", "maps", "guidance", "candidates",
        "threshold", "select_inputs", "graphs", "parameters", "files",
    )  # fmt: skip
    text = json.dumps({key: raw[key] for key in decisive if key in raw}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
