"""JSON files to nested dataclasses, every value checked against its annotation."""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
import types
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

from trtseg.atomic import read_file

T = TypeVar("T")
LARGEST_BYTES = 256 * 2**20  # of a JSON file


def short(text: object, length: int = 80) -> str:
    """What messages show of a text that may have any length."""
    shown = str(text)
    return shown if len(shown) <= length else f"{shown[:length]}..."


def quoted(value: Any) -> str:
    """What messages show of a value that may have any size."""
    return short(repr(value))


def read_json(path: str | Path) -> Any:
    """The value that a JSON file holds.

    Raises:
        ValueError: not JSON; the message begins with the path.
        OSError: it cannot be read.
    """
    try:
        return json.loads(read_file(path, LARGEST_BYTES).decode())
    except (ValueError, RecursionError) as error:  # no text at all, no JSON, or nested too deeply
        raise ValueError(f"{path}: not JSON: {short(error)}") from None


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A deep copy of nested values in which dotted names have other ones; numbers index lists.

    Raises:
        ValueError: a name leads through what is neither an object nor a list that long.
    """
    copied = copy.deepcopy(values)
    for name, value in changes.items():
        *parents, last = name.split(".")
        place: Any = copied
        try:
            for parent in parents:
                listed = isinstance(place, list)
                place = place[int(parent)] if listed else place.setdefault(parent, {})
            place[int(last) if isinstance(place, list) else last] = value
        except (AttributeError, IndexError, TypeError, ValueError):
            raise ValueError(f"{name}: there is no such place to change") from None
    return copied


def read_derived(path: str | Path) -> Any:
    """`derived` of what a JSON file holds.

    Raises:
        ValueError: as `read_json` and `derived`; the message begins with a path.
        OSError: a file cannot be read.
    """
    return derived(read_json(path), Path(path))


def derived(values: Any, path: Path, above: tuple[Path, ...] = ()) -> Any:
    """An object with a "base" as the object in that file, `changed` by its other entries.

    Args:
        values: what stands in the file `path`; what has no base is returned as it is.
        path: a base lies where its name leads from there. It may have a base itself.
        above: the files that led here.

    Raises:
        ValueError: a base is not JSON or its own base, or a change has no place in it.
        OSError: a base cannot be read.
    """
    if not isinstance(values, dict) or "base" not in values:
        return values
    changes = dict(values)
    base = path.parent / str(changes.pop("base"))
    if base.resolve() in above:
        raise ValueError(f"{path}: base {base} stands upon this file itself")
    found = derived(read_json(base), base, (*above, base.resolve()))
    if not isinstance(found, dict):
        raise ValueError(f"{path}: base {base}: expected an object, got {quoted(found)}")
    try:
        return changed(found, changes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def one_of(name: str, value: str, known: Collection[str]) -> None:
    """Raise ValueError unless `known` has the value."""
    if value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")


def at_least(config: Any, least: float, *names: str) -> None:
    """Raise ValueError unless each of these attributes is None or at least so large."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")


def fractions(config: Any, *names: str) -> None:
    """Raise ValueError unless each of these attributes lies in [0, 1]."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{name}: expected in [0, 1], got {getattr(config, name)}")


def build(kind: type[T], value: Any, name: str) -> T:
    """A value of the annotated type `kind` from what `json.load` gives.

    Objects become dataclasses, lists become tuples, integers may stand for floats, and where a
    tuple of dataclasses is wanted one object may stand for itself alone.

    Args:
        kind: a dataclass, int, float, bool, str, None, a union, `dict[str, X]`, `tuple[X, ...]`,
            `tuple[X, Y]`, or Any, which is not looked at.
        value: the JSON value.
        name: its place, for messages.

    Raises:
        ValueError: a key is unknown or missing, or a value is of another type or not allowed;
            the message begins with the place.
    """
    return _build(kind, value, name)


def _build(kind: Any, value: Any, name: str) -> Any:
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, name)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        return _build(inner, value, name)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{name}: expected an object, got {quoted(value)}")
        return {key: _build(arguments[1], v, f"{name}.{key}") for key, v in value.items()}
    if origin is tuple:
        return _tuple(arguments, value, name)
    return _scalar(kind, value, name)


def _dataclass(kind: Any, value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected an object, got {quoted(value)}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise ValueError(f"{name}: unknown {short(', '.join(unknown))}; known: {', '.join(hints)}")
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if field.name not in value
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{name}: {', '.join(missing)} is missing")
    built = {key: _build(hints[key], v, f"{name}.{key}") for key, v in value.items()}
    try:
        return kind(**built)
    except ValueError as error:
        raise ValueError(f"{name}.{error}") from None


def _tuple(arguments: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    several = len(arguments) == 2 and arguments[1] is Ellipsis
    if several and isinstance(value, dict) and dataclasses.is_dataclass(arguments[0]):
        return (_build(arguments[0], value, name),)
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{name}: expected a list, got {quoted(value)}")
    if not several and len(value) != len(arguments):
        raise ValueError(f"{name}: expected {len(arguments)} values, got {len(value)}")
    kinds = [arguments[0]] * len(value) if several else arguments
    return tuple(
        _build(kind, item, f"{name}[{index}]")
        for index, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


_WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a string"}


def _scalar(kind: Any, value: Any, name: str) -> Any:
    # a bool is an int in Python, but not in a configuration
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if kind is not float and type(value) is kind:
        return value
    raise ValueError(f"{name}: expected {_WORDS[kind]}, got {quoted(value)}")
