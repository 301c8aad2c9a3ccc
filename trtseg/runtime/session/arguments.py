"""What callers hand to a session, checked before anything happens."""

from __future__ import annotations

import numpy as np

from trtseg.bundle import Manifest
from trtseg.runtime.session.events import Added, MaskSet, Selected
from trtseg.types import Box, Click, Lasso, Prompt, Region, Stroke


def accepted(manifest: Manifest) -> frozenset[str]:
    """What a model can be told: some of "click", "stroke", "box", "lasso" and "mask"."""
    kinds = {"click", "stroke"}
    if manifest.guidance.region:
        kinds |= {"box", "lasso"}
    if manifest.guidance.previous_mask:
        kinds.add("mask")
    return frozenset(kinds)


def checked_prompts(
    prompts: tuple[Prompt, ...], region: Region, manifest: Manifest
) -> Added:
    """Prompts as an event.

    Args:
        prompts: what `Session.add` was given.
        region: that was encoded; every prompt must reach into it, a click must lie in it.
        manifest: of the model.

    Raises:
        TypeError: none, or one that is no prompt.
        ValueError: one lies outside, or the model takes none of its kind.
    """
    if not prompts:
        raise TypeError("prompts: expected at least one, got none")
    for prompt in prompts:
        if not isinstance(prompt, (Click, Stroke, Box, Lasso)):
            raise TypeError(f"prompts: expected Click, Stroke, Box or Lasso, got {prompt!r}")
        kind = type(prompt).__name__.lower()
        known = accepted(manifest)
        if kind not in known:
            raise ValueError(
                f"prompts: expected {', '.join(sorted(known - {'mask'}))} with this model, "
                f"got a {kind}"
            )
        if isinstance(prompt, Click):
            _check_click(prompt, region)
        elif isinstance(prompt, Stroke):
            _check_stroke(prompt, region)
        else:
            _check_outline(prompt, region)
    return Added(tuple(prompts))


def _check_click(click: Click, region: Region) -> None:
    y0, x0, y1, x1 = region
    for name, value, low, high in (("x", click.x, x0, x1), ("y", click.y, y0, y1)):
        if not low - 0.5 <= value <= high - 0.5:
            raise ValueError(
                f"{name}: expected {low} to {high - 1}, inside the image, got {value:g}"
            )


def _check_stroke(stroke: Stroke, region: Region) -> None:
    y0, x0, y1, x1 = region
    if not any(x0 - 0.5 <= x <= x1 - 0.5 and y0 - 0.5 <= y <= y1 - 0.5 for x, y in stroke.points):
        raise ValueError(f"points: expected one inside the image, {_place(region)}")


def _check_outline(prompt: Box | Lasso, region: Region) -> None:
    name = "box" if isinstance(prompt, Box) else "points"
    for axis in (0, 1):
        values = [point[axis] for point in prompt.outline]
        low, high = min(values), max(values)
        # (x, y) here, (y, x) in the region
        first, last = region[1 - axis] - 0.5, region[3 - axis] - 0.5
        if not low < high:
            raise ValueError(f"{name}: expected an area, got none")
        if not (low < last and high > first):
            raise ValueError(f"{name}: expected some of it inside the image, {_place(region)}")


def _place(region: Region) -> str:
    y0, x0, y1, x1 = region
    return f"x {x0} to {x1 - 1} and y {y0} to {y1 - 1}"


def checked_mask(mask: object, size: tuple[int, int], manifest: Manifest) -> MaskSet:
    """A mask as an event; see `Session.set_mask`.

    Raises:
        TypeError: no bool or integer array.
        ValueError: of another size, or the model takes no mask.
    """
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "bui":
        kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise TypeError(f"mask: expected a bool or integer array, got {kind}")
    if mask.shape != size:
        raise ValueError(f"mask: expected shape {list(size)}, got {list(mask.shape)}")
    if "mask" not in accepted(manifest):
        raise ValueError("mask: this model takes no previous mask")
    return MaskSet(np.packbits(mask != 0))


def checked_selection(index: object, count: int) -> Selected:
    """A choice among `count` candidates as an event.

    Raises:
        TypeError: index is no integer.
        ValueError: there is no such candidate.
    """
    if isinstance(index, bool) or not isinstance(index, (int, np.integer)):
        raise TypeError(f"index: expected an integer, got {index!r}")
    if count == 0:
        raise ValueError(f"index: expected none before the first click, got {index}")
    if not 0 <= index < count:
        raise ValueError(f"index: expected 0 to {count - 1}, got {index}")
    return Selected(int(index))


def check_out(out: object, size: tuple[int, int]) -> None:
    """Refuse what no mask can be written into; None is fine.

    Raises:
        TypeError: no writable, C-contiguous uint8 array.
        ValueError: of another size.
    """
    if out is None:
        return
    wanted = "out: expected a writable, C-contiguous uint8 NumPy array"
    if not isinstance(out, np.ndarray) or out.dtype != np.uint8:
        raise TypeError(wanted)
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise TypeError(wanted)
    if out.shape != size:
        raise ValueError(f"out: expected shape {list(size)}, got {list(out.shape)}")
