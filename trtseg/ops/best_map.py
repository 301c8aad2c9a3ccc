"""The map that a selector prefers."""

from __future__ import annotations

from typing import Any

from trtseg.ops.backend import check_rank, native, run


def best_map(maps: Any, scores: Any, out: Any, *, stream: int = 0) -> Any:
    """Copy the map with the largest score, chosen where the scores are.

    Args:
        maps: float32 or float16 [M, h, w], rows may lie apart; M at least 1.
        scores: float32 or float16 [M]; the first of equal scores wins.
        out: [h, w] of the maps' dtype.
        stream: CUDA stream handle; 0 for the default one (torch's current one for its tensors);
            ignored on the CPU.

    Returns:
        `out`.

    Raises:
        TypeError: array library or dtype not supported.
        ValueError: shape or memory layout wrong, or `out` shares memory with an input.
        BackendUnavailable: an array in CUDA memory, but no `_cuda` or no usable device.
    """
    check_rank(maps, "M, h, w", "maps")
    run(native(maps, "maps").best_map, maps, scores, out, stream=stream)
    return out
