"""The model bundle: the file format in which training and runtime meet.

A bundle is a directory, or one zip file, named `NAME.trtseg` (or just `NAME` for those inside the
package). It holds `manifest.json`, ONNX graphs and `parameters.npz`. Everything is read through
`read`, which checks the format version, every required entry, every hash and every shape, so that
the runtime may trust what it gets.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trtseg.errors import BundleError

FORMAT = 1
MANIFEST = "manifest.json"
LARGEST = 1e9  # of all numbers in a manifest
MOST_MAPS = 8
MODELS = Path(__file__).with_name("models")
SELECT_INPUTS = ("guidance", "masks", "image", "features")
# What a damaged or hostile archive can make the standard library raise.
_UNREADABLE = (
    OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Guidance:
    """How clicks become channels; see `trtseg.runtime.pipeline.guidance_maps`.

    Attributes:
        channels: 4 (S_p, S_n, T_p, T_n), and one each for the previous mask and the region.
        click_map: "point" or "gaussian", the shape of S; "none" where its weights are zero.
        sigma_grid_px: standard deviation of the gaussian, in base-grid pixels.
        distance_limit_px: distances are truncated at this, in working-size pixels.
        previous_mask: whether channel 4 is the previous probability map.
        region: whether the last channel is a box or a loop, see `trtseg.runtime.region`.
    """

    channels: int
    click_map: str
    sigma_grid_px: float
    distance_limit_px: float
    previous_mask: bool
    region: bool


@dataclass(frozen=True)
class ImageMap:
    """What the encoder hands to `segment` beside the base, as its input `map_0`, `map_1`, ...

    Attributes:
        channels: of the map.
        stride: working pixels per cell.
    """

    channels: int
    stride: int


@dataclass(frozen=True)
class Manifest:
    """The checked contents of `manifest.json`.

    Attributes:
        name: the model's name.
        kind: the method, for instance "latent-diversity".
        long_side_px: the longer side of the working image.
        multiple_px: both sides of the working image are multiples of this.
        mean, scale: per RGB channel, on 0..255 pixels: input = (pixel - mean) * scale.
        base_stride: working pixels per base-grid pixel.
        channels: C, channels of the base.
        levels: number of encoder outputs `level_0 ...`; 0 for a model without an encoder.
        maps: the encoder's outputs `map_0 ...`, which `segment` reads as they are.
        image_term: whether the base has an image term.
        candidates: M, number of masks that `segment` makes.
        threshold: probability from which a pixel belongs to the object.
        select_inputs: names of the selector's inputs; empty without a selector, and then the
            first candidate is the selected one.
        raw: the whole manifest, for provenance (`training`, `accuracy`, `export`, ...).
    """

    name: str
    kind: str
    long_side_px: int
    multiple_px: int
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    base_stride: int
    channels: int
    levels: int
    maps: tuple[ImageMap, ...]
    image_term: bool
    guidance: Guidance
    candidates: int
    threshold: float
    select_inputs: tuple[str, ...]
    graphs: Mapping[str, Mapping[str, str]]
    raw: Mapping[str, Any] = field(repr=False)


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
            return self._files[self.manifest.graphs[role][precision]]
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

    Args:
        name_or_path: a name from `names()`, a bundle directory, or a bundle zip file.

    Raises:
        BundleError: missing, incomplete, altered (a hash differs), of another format version, or
            with parameters whose shapes do not fit the manifest.
    """
    path = find(name_or_path)
    raw = _parse_manifest(path, _load_files(path, (MANIFEST,)).get(MANIFEST))
    hashes = _expect(path, raw, "files", dict)
    listed = _load_files(path, hashes)
    files = {}
    for filename, expected in hashes.items():
        if filename not in listed:
            raise BundleError(f"{path}: {filename} is listed in the manifest but missing")
        actual = hashlib.sha256(listed[filename]).hexdigest()
        if actual != expected:
            raise BundleError(f"{path}: {filename} was altered (SHA-256 {actual[:12]}... differs)")
        files[filename] = listed[filename]
    manifest = _check_manifest(path, raw, files)
    parameters = _read_parameters(path, raw, files, manifest)
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
        overwrite: replace what is at `path`.

    Returns:
        The path written.

    Raises:
        FileExistsError: something is at `path` and `overwrite` is False.
        BundleError: the manifest and the files do not make a valid bundle; nothing is written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path}: exists already")
    for filename in files:
        if Path(filename).name != filename or filename in (MANIFEST, "", ".", ".."):
            raise BundleError(f"{path}: {filename!r} is not a plain file name")
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    raw = {**manifest, "format": FORMAT, "files": hashes}
    _read_parameters(path, raw, files, _check_manifest(path, raw, files))
    text = json.dumps(raw, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    contents = {MANIFEST: text, **files}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        if path.suffix == ".trtseg":
            _write_zip(temporary / "bundle", contents)
            (temporary / "bundle").replace(path)
        else:
            _write_directory(temporary / "bundle", contents)
            _swap_directory(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _write_zip(target: Path, contents: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for filename, data in contents.items():
            # A fixed date makes equal bundles equal files.
            archive.writestr(zipfile.ZipInfo(filename, (1980, 1, 1, 0, 0, 0)), data)


def _write_directory(target: Path, contents: Mapping[str, bytes]) -> None:
    target.mkdir()
    target.chmod(0o755)
    for filename, data in contents.items():
        (target / filename).write_bytes(data)


def _swap_directory(temporary: Path, path: Path) -> None:
    """Move `temporary/bundle` to `path`; what was there is put back if that fails."""
    old = temporary / "old"
    if path.exists():
        path.replace(old)
    try:
        (temporary / "bundle").replace(path)
    except OSError:
        if old.exists():
            old.replace(path)
        raise


def _load_files(path: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Those of the files that are there; whatever else lies beside them is left alone."""
    try:
        if path.is_dir():
            there = {p.name: p for p in path.iterdir() if p.is_file()}
            return {name: there[name].read_bytes() for name in names if name in there}
        with zipfile.ZipFile(path) as archive:
            inside = {info.filename for info in archive.infolist() if not info.is_dir()}
            return {name: archive.read(name) for name in names if name in inside}
    except _UNREADABLE as error:
        raise BundleError(f"{path}: cannot be read as a bundle: {error}") from error


def _parse_manifest(path: Path, text: bytes | None) -> dict[str, Any]:
    if text is None:
        raise BundleError(f"{path}: no {MANIFEST} in it")
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: {MANIFEST} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise BundleError(f"{path}: {MANIFEST}: expected an object")
    if raw.get("format") != FORMAT:
        raise BundleError(f"{path}: format: expected {FORMAT}, got {raw.get('format')!r}")
    return raw


def _expect(path: Path, raw: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    """The entry at a dotted `key`, checked for its type."""
    value: Any = raw
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise BundleError(f"{path}: {MANIFEST}: {key} is missing")
        value = value[part]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kind) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(k.__name__ for k in kinds)
        raise BundleError(f"{path}: {MANIFEST}: {key}: expected {names}, got {value!r}")
    return value


def _number(
    path: Path,
    raw: Mapping[str, Any],
    key: str,
    low: float,
    high: float = math.inf,
    kind: type = int,
) -> Any:
    value = _expect(path, raw, key, int if kind is int else (int, float))
    if not low <= value <= min(high, LARGEST):  # also false for NaN
        raise BundleError(f"{path}: {MANIFEST}: {key}: expected {low} to {high}, got {value}")
    return kind(value)


def _triple(path: Path, raw: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = _expect(path, raw, key, list)
    numbers = [v for v in values if isinstance(v, (int, float)) and abs(v) <= LARGEST]
    if len(values) != 3 or len(numbers) != 3:
        raise BundleError(f"{path}: {MANIFEST}: {key}: expected 3 numbers, got {values!r}")
    return tuple(float(v) for v in values)


def _check_manifest(path: Path, raw: Mapping[str, Any], files: Mapping[str, bytes]) -> Manifest:
    candidates = _number(path, raw, "candidates", 1)
    stride = _number(path, raw, "base.stride", 1)
    multiple = _number(path, raw, "working_size.multiple_px", 1)
    long_side = _number(path, raw, "working_size.long_side_px", 1)
    for key, value, divisor in (
        ("working_size.multiple_px", multiple, stride),
        ("working_size.long_side_px", long_side, multiple),
    ):
        if value % divisor:
            raise BundleError(f"{path}: {MANIFEST}: {key}: {value} is no multiple of {divisor}")
    click_map = _expect(path, raw, "guidance.click_map", str)
    if click_map not in ("point", "gaussian", "none"):
        raise BundleError(f"{path}: {MANIFEST}: guidance.click_map: unknown kind {click_map!r}")
    sigma = _number(path, raw, "guidance.sigma_grid_px", 1e-3, kind=float) if (
        click_map == "gaussian"
    ) else 0.0
    previous_mask = _expect(path, raw, "guidance.previous_mask", bool)
    # bundles from before there were regions do not name them
    region = "region" in raw["guidance"] and _expect(path, raw, "guidance.region", bool)
    guidance = Guidance(
        channels=_number(path, raw, "guidance.channels", 4, 6),
        click_map=click_map,
        sigma_grid_px=sigma,
        distance_limit_px=_number(path, raw, "guidance.distance_limit_px", 1e-3, kind=float),
        previous_mask=previous_mask,
        region=region,
    )
    if guidance.channels != 4 + previous_mask + region:
        raise BundleError(
            f"{path}: {MANIFEST}: guidance.previous_mask and region do not fit "
            f"{guidance.channels} channels"
        )
    graphs = _expect(path, raw, "graphs", dict)
    levels = _number(path, raw, "base.levels", 0)
    for role in ("encoder", "segment") if levels else ("segment",):
        _expect(path, raw, f"graphs.{role}", dict)
    maps = _image_maps(path, raw, stride, multiple)
    select_inputs = tuple(_expect(path, raw, "select_inputs", list)) if "select" in graphs else ()
    unknown = [name for name in select_inputs if name not in SELECT_INPUTS]
    if unknown or ("select" in graphs and not select_inputs):
        raise BundleError(
            f"{path}: {MANIFEST}: select_inputs: expected some of {', '.join(SELECT_INPUTS)}, "
            f"got {list(select_inputs)}"
        )
    for role in graphs:
        _expect(path, raw, f"graphs.{role}.fp32", str)
        for precision, filename in _expect(path, raw, f"graphs.{role}", dict).items():
            if not isinstance(filename, str) or filename not in files:
                raise BundleError(
                    f"{path}: {MANIFEST}: graphs.{role}.{precision}: {filename!r} is not in files"
                )
    return Manifest(
        name=_expect(path, raw, "name", str),
        kind=_expect(path, raw, "kind", str),
        long_side_px=long_side,
        multiple_px=multiple,
        mean=_triple(path, raw, "image.mean"),
        scale=_triple(path, raw, "image.scale"),
        base_stride=stride,
        channels=_number(path, raw, "base.channels", 1),
        levels=levels,
        maps=maps,
        image_term=_expect(path, raw, "base.image_term", bool),
        guidance=guidance,
        candidates=candidates,
        threshold=_number(path, raw, "threshold", 0.0, 1.0, kind=float),
        select_inputs=select_inputs,
        graphs=graphs,
        raw=raw,
    )


def _image_maps(
    path: Path, raw: Mapping[str, Any], stride: int, multiple: int
) -> tuple[ImageMap, ...]:
    if "maps" not in raw:  # of models that have none
        return ()
    count = len(_expect(path, raw, "maps", list))
    if count > MOST_MAPS:
        raise BundleError(f"{path}: {MANIFEST}: maps: expected at most {MOST_MAPS}, got {count}")
    named = {"maps": {str(index): entry for index, entry in enumerate(raw["maps"])}}
    found = []
    for index in range(count):
        key = f"maps.{index}"
        one = ImageMap(
            _number(path, named, f"{key}.channels", 1), _number(path, named, f"{key}.stride", 1)
        )
        if one.stride % stride or multiple % one.stride:
            raise BundleError(
                f"{path}: {MANIFEST}: {key}.stride: expected a multiple of {stride} that divides "
                f"{multiple}, got {one.stride}"
            )
        found.append(one)
    return tuple(found)


def _read_parameters(
    path: Path, raw: Mapping[str, Any], files: Mapping[str, bytes], manifest: Manifest
) -> dict[str, np.ndarray]:
    filename = _expect(path, raw, "parameters", str)
    if filename not in files:
        raise BundleError(f"{path}: {MANIFEST}: parameters: {filename!r} is not in files")
    channels = manifest.channels
    shapes = {"guidance_weight": (channels, manifest.guidance.channels), "bias": (channels,)}
    if manifest.image_term:
        shapes["image_weight"] = (channels, 3)
    parameters = {}
    try:
        with np.load(io.BytesIO(files[filename]), allow_pickle=False) as archive:
            for name, shape in shapes.items():
                if name not in archive:
                    raise BundleError(f"{path}: {filename}: no array {name!r}")
                array = archive[name]
                if array.dtype != np.float32 or array.shape != shape:
                    raise BundleError(
                        f"{path}: {filename}: {name}: expected float32 {list(shape)}, "
                        f"got {array.dtype} {list(array.shape)}"
                    )
                array.flags.writeable = False
                parameters[name] = array
    except BundleError:
        raise
    except (*_UNREADABLE, ValueError, KeyError, MemoryError) as error:
        raise BundleError(f"{path}: {filename} cannot be read: {error}") from error
    return parameters


def _fingerprint(raw: Mapping[str, Any]) -> str:
    """Over what decides the masks: provenance such as `accuracy` may be edited freely."""
    decisive = (
        "format", "kind", "working_size", "image", "base", "maps", "guidance", "candidates",
        "threshold", "select_inputs", "graphs", "parameters", "files",
    )  # fmt: skip
    text = json.dumps({key: raw[key] for key in decisive if key in raw}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
