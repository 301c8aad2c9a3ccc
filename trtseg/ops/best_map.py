"""The map that a selector prefers."""

from __future__ import annotations

from typing import Any

from trtseg.ops.backend import check_rank, is_torch, native, torch_ops


def best_map(maps: Any, scores: Any, out: Any, *, stream: int = 0) -> Any:
    """Copy the map with the largest score, chosen where the scores are.

    Args:
        maps: float32 or float16 [M, h, w], rows may lie apart; M at least 1.
        scores: float32 or float16 [M]; the first of equal scores wins.
        out: [h, w] of the maps' dtype.
        stream: CUDA stream handle; ignored on the CPU.

    Returns:
        `out`.

    Raises:
        TypeError: array library or dtype not supported.
        ValueError: shape or memory layout wrong, or `out` shares memory with an input.
    """
    check_rank(maps, "M, h, w", "maps")
    if is_torch(maps):
        return torch_ops().best_map(maps, scores, out, stream=stream)
    native(maps, "maps").best_map(maps, scores, out, stream)
    return out
