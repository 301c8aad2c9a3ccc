"""`manifest.json`: what a bundle says about its model, and what it may say."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trtseg.errors import BundleError
from trtseg.parse import quoted, short

FORMAT = 1
MANIFEST = "manifest.json"
ROLES = ("encoder", "segment", "select")
SELECT_INPUTS = ("guidance", "masks", "image", "features")
LARGEST = 1e9  # of all numbers in a manifest
# Far beyond any network, and so little that what is allocated by them cannot exhaust a machine.
LARGEST_SIDE_PX = 8192
LARGEST_LEVELS = 8  # as the operation that joins them has it
LARGEST_CANDIDATES = 256
LARGEST_CHANNELS = 8192
MOST_MAPS = 8
LARGEST_BASE = 2**28  # values of a base, or of all candidates, at the working size
_DIGEST = re.compile("[0-9a-f]{64}")


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


def parse_manifest(place: Any, text: bytes) -> dict[str, Any]:
    """The JSON object of a manifest of our format, unchecked but for that.

    Raises:
        BundleError: it is none; the message begins with `place`.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{place}: {MANIFEST} is not JSON: {short(error)}") from error
    if not isinstance(raw, dict):
        raise BundleError(f"{place}: {MANIFEST}: expected an object")
    if raw.get("format") != FORMAT:
        got = quoted(raw.get("format"))
        raise BundleError(f"{place}: format: expected {FORMAT}, got {got}")
    return raw


def listed_files(place: Any, raw: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 by file name of what belongs to a bundle.

    Raises:
        BundleError: there is no such list, or it names a place outside of the bundle.
    """
    files = expect(place, raw, "files", dict)
    for name, digest in files.items():
        check_file_name(place, name)
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise BundleError(
                f"{place}: {MANIFEST}: files: {short(name)}: expected a SHA-256, "
                f"got {quoted(digest)}"
            )
    return files


def check_file_name(place: Any, name: str) -> None:
    """Refuse what is no plain name of a file in a folder.

    Raises:
        BundleError: the name is a path, hidden, the manifest's own, or too long.
    """
    plain = not set(name) & set("/\\:\0") and not name.startswith(".") and name != MANIFEST
    if not plain or not 0 < len(name) <= 200:
        raise BundleError(f"{place}: {quoted(name)} is not a plain file name")


def expect(place: Any, raw: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    """The entry at a dotted `key`, checked for its type."""
    value: Any = raw
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise BundleError(f"{place}: {MANIFEST}: {key} is missing")
        value = value[part]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kind) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(k.__name__ for k in kinds)
        raise BundleError(f"{place}: {MANIFEST}: {key}: expected {names}, got {quoted(value)}")
    return value


def _number(
    place: Any,
    raw: Mapping[str, Any],
    key: str,
    low: float,
    high: float = math.inf,
    kind: type = int,
) -> Any:
    value = expect(place, raw, key, int if kind is int else (int, float))
    high = min(high, LARGEST)
    if not low <= value <= high:  # also false for NaN
        raise BundleError(
            f"{place}: {MANIFEST}: {key}: expected {low:g} to {high:g}, got {quoted(value)}"
        )
    return kind(value)


def _triple(place: Any, raw: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = expect(place, raw, key, list)
    numbers = [v for v in values if isinstance(v, (int, float)) and abs(v) <= LARGEST]
    if len(values) != 3 or len(numbers) != 3:
        raise BundleError(f"{place}: {MANIFEST}: {key}: expected 3 numbers, got {quoted(values)}")
    return tuple(float(v) for v in values)


def check_manifest(place: Any, raw: Mapping[str, Any], files: Mapping[str, bytes]) -> Manifest:
    candidates = _number(place, raw, "candidates", 1, LARGEST_CANDIDATES)
    stride = _number(place, raw, "base.stride", 1)
    multiple = _number(place, raw, "working_size.multiple_px", 1, LARGEST_SIDE_PX)
    long_side = _number(place, raw, "working_size.long_side_px", 1, LARGEST_SIDE_PX)
    for key, value, divisor in (
        ("working_size.multiple_px", multiple, stride),
        ("working_size.long_side_px", long_side, multiple),
    ):
        if value % divisor:
            raise BundleError(f"{place}: {MANIFEST}: {key}: {value} is no multiple of {divisor}")
    channels = _number(place, raw, "base.channels", 1, LARGEST_CHANNELS)
    _check_area(place, "base", max(channels, candidates), long_side // stride)
    click_map = expect(place, raw, "guidance.click_map", str)
    if click_map not in ("point", "gaussian", "none"):
        raise BundleError(
            f"{place}: {MANIFEST}: guidance.click_map: unknown kind {quoted(click_map)}"
        )
    sigma = _number(place, raw, "guidance.sigma_grid_px", 1e-3, kind=float) if (
        click_map == "gaussian"
    ) else 0.0
    previous_mask = expect(place, raw, "guidance.previous_mask", bool)
    # bundles from before there were regions do not name them
    region = "region" in raw["guidance"] and expect(place, raw, "guidance.region", bool)
    guidance = Guidance(
        channels=_number(place, raw, "guidance.channels", 4, 6),
        click_map=click_map,
        sigma_grid_px=sigma,
        distance_limit_px=_number(place, raw, "guidance.distance_limit_px", 1e-3, kind=float),
        previous_mask=previous_mask,
        region=region,
    )
    if guidance.channels != 4 + previous_mask + region:
        raise BundleError(
            f"{place}: {MANIFEST}: guidance.previous_mask and region do not fit "
            f"{guidance.channels} channels"
        )
    graphs = expect(place, raw, "graphs", dict)
    levels = _number(place, raw, "base.levels", 0, LARGEST_LEVELS)
    for role in ("encoder", "segment") if levels else ("segment",):
        expect(place, raw, f"graphs.{role}", dict)
    if "encoder" in graphs and not levels:
        raise BundleError(f"{place}: {MANIFEST}: base.levels: expected at least 1, got 0")
    maps = _image_maps(place, raw, stride, multiple, long_side)
    select_inputs = tuple(expect(place, raw, "select_inputs", list)) if "select" in graphs else ()
    known = all(select_inputs.count(name) == 1 and name in SELECT_INPUTS for name in select_inputs)
    if not known or ("select" in graphs and not select_inputs):
        raise BundleError(
            f"{place}: {MANIFEST}: select_inputs: expected some of {', '.join(SELECT_INPUTS)}, "
            f"got {quoted(list(select_inputs))}"
        )
    for role in graphs:
        if role not in ROLES:
            raise BundleError(
                f"{place}: {MANIFEST}: graphs: expected {', '.join(ROLES)}, got {quoted(role)}"
            )
        expect(place, raw, f"graphs.{role}.fp32", str)
        for precision, filename in graphs[role].items():
            if not isinstance(filename, str) or filename not in files:
                raise BundleError(
                    f"{place}: {MANIFEST}: graphs.{role}.{short(precision)}: {quoted(filename)} "
                    "is not in files"
                )
    return Manifest(
        name=expect(place, raw, "name", str),
        kind=expect(place, raw, "kind", str),
        long_side_px=long_side,
        multiple_px=multiple,
        mean=_triple(place, raw, "image.mean"),
        scale=_triple(place, raw, "image.scale"),
        base_stride=stride,
        channels=channels,
        levels=levels,
        maps=maps,
        image_term=expect(place, raw, "base.image_term", bool),
        guidance=guidance,
        candidates=candidates,
        threshold=_number(place, raw, "threshold", 0.0, 1.0, kind=float),
        select_inputs=select_inputs,
        graphs=graphs,
        raw=raw,
    )


def _image_maps(
    place: Any, raw: Mapping[str, Any], stride: int, multiple: int, long_side: int
) -> tuple[ImageMap, ...]:
    if "maps" not in raw:  # of models that have none
        return ()
    count = len(expect(place, raw, "maps", list))
    if count > MOST_MAPS:
        raise BundleError(f"{place}: {MANIFEST}: maps: expected at most {MOST_MAPS}, got {count}")
    named = {"maps": {str(index): entry for index, entry in enumerate(raw["maps"])}}
    found = []
    for index in range(count):
        key = f"maps.{index}"
        one = ImageMap(
            _number(place, named, f"{key}.channels", 1, LARGEST_CHANNELS),
            _number(place, named, f"{key}.stride", 1),
        )
        if one.stride % stride or multiple % one.stride:
            raise BundleError(
                f"{place}: {MANIFEST}: {key}.stride: expected a multiple of {stride} that divides "
                f"{multiple}, got {one.stride}"
            )
        _check_area(place, key, one.channels, long_side // one.stride)
        found.append(one)
    return tuple(found)


def _check_area(place: Any, key: str, channels: int, side: int) -> None:
    if channels * side**2 > LARGEST_BASE:
        raise BundleError(
            f"{place}: {MANIFEST}: {key}: {channels} channels of {side} x {side} are more than "
            f"{LARGEST_BASE:,} values"
        )
