"""The shapes of a graph's outputs from those of its inputs, without running it.

Exporters write a free side as an expression in the names of the inputs' free sides, for instance
`((h - 1)//4) + 1`.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping, Sequence

Side = int | str | None
_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


def resolve(
    inputs: Mapping[str, Sequence[Side]],
    outputs: Mapping[str, Sequence[Side]],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, tuple[int, ...]] | None:
    """Shapes of all outputs for these input shapes; None where the graph does not tell.

    Args:
        inputs, outputs: each side as the graph declares it: a number, an expression or nothing.
        shapes: of all inputs.
    """
    values: dict[str, int] = {}
    for name, declared in inputs.items():
        if len(declared) != len(shapes[name]):
            return None
        for side, length in zip(declared, shapes[name], strict=True):
            if isinstance(side, str) and values.setdefault(side, length) != length:
                return None
    found = {}
    for name, declared in outputs.items():
        sides = tuple(_evaluate(side, values) or 0 for side in declared)
        if min(sides, default=1) < 1:
            return None
        found[name] = sides
    return found


def _evaluate(side: Side, values: Mapping[str, int]) -> int | None:
    if not isinstance(side, str):
        return side
    if side in values:
        return values[side]
    try:
        return _value(ast.parse(side, mode="eval").body, values)
    except (SyntaxError, KeyError, ValueError, ZeroDivisionError, RecursionError):
        return None


def _value(node: ast.expr, values: Mapping[str, int]) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return values[node.id]
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_value(node.left, values), _value(node.right, values))
    raise ValueError(f"not an expression over sides: {ast.dump(node)}")
