"""The API described in OpenAPI's terms."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from trtseg import __version__
from trtseg.serve import prompts

_PREVIEW = """\
Beside these operations, `ws://HOST/api/photos/{photo}/objects/{object}/preview?token=...` is a
WebSocket. Send `{"id": 7, "x": 210, "y": 160, "positive": true}`; what a click there would give
comes back as `{"id": 7, "rle": {...}, "total_ms": 12.5}`. Only the newest message is answered: one
that waits is replaced by the next."""
_ERRORS = {
    "400": "something in the request is wrong", "401": "the token is missing or wrong",
    "404": "no such photo or object", "413": "more than the server takes",
    "503": "the server is busy", "507": "the disk refused; nothing was changed",
}  # fmt: skip
_SCALARS = {int: "integer", float: "number", str: "string", bool: "boolean"}


@dataclass(frozen=True)
class Operation:
    """One operation of the API.

    Attributes:
        method, path: of HTTP.
        endpoint: what answers.
        summary: one line for a person.
        body: the JSON schema of the request's body; None without one, "binary" for a file.
        query: names of its parameters, with what each is.
        gives: the answer's media type.
    """

    method: str
    path: str
    endpoint: Callable[[Request], Awaitable[Response]]
    summary: str
    body: dict[str, Any] | str | None = None
    query: dict[str, str] = field(default_factory=dict)
    gives: str = "application/json"


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI document of these operations."""
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    kinds = {name: _schema(kind, name) for name, kind in prompts.KINDS.items()}
    union = {
        "oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in kinds],
        "discriminator": {"propertyName": "type"},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "trtseg", "version": __version__, "description": _PREVIEW},
        "security": [{"bearer": []}, {"query": []}],
        "paths": paths,
        "components": {
            "schemas": {"Prompt": union, **kinds},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
    }


def _operation(one: Operation) -> dict[str, Any]:
    good = {"POST": "201" if one.path.endswith(("photos", "objects")) else "200", "DELETE": "204"}
    content: dict[str, Any] = {} if one.method == "DELETE" else {"content": {one.gives: {}}}
    responses: dict[str, Any] = {good.get(one.method, "200"): {"description": "done", **content}}
    responses |= {status: {"description": words} for status, words in _ERRORS.items()}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", one.path)
    ] + [
        {"name": name, "in": "query", "description": words, "schema": {"type": "string"}}
        for name, words in one.query.items()
    ]
    found: dict[str, Any] = {
        "operationId": one.endpoint.__name__,
        "summary": one.summary,
        "parameters": parameters,
        "responses": responses,
    }
    if one.body == "binary":
        found["requestBody"] = {"content": {"application/octet-stream": {}}, "required": True}
    elif one.body is not None:
        found["requestBody"] = {"content": {"application/json": {"schema": one.body}}}
    return found


def _schema(kind: type, name: str) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    properties: dict[str, Any] = {"type": {"const": name}}
    for one in fields:
        properties[one.name] = _type(hints[one.name])
        if one.default is not dataclasses.MISSING:
            properties[one.name]["default"] = one.default
    required = [one.name for one in fields if one.default is dataclasses.MISSING]
    return {
        "type": "object",
        "description": (inspect.getdoc(kind) or "").partition("\n\n")[0],
        "properties": properties,
        "required": ["type", *required],
        "additionalProperties": False,
    }


def _type(hint: Any) -> dict[str, Any]:
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    items = [one for one in typing.get_args(hint) if one is not Ellipsis]
    if typing.get_origin(hint) is not tuple or isinstance(hint, types.UnionType):
        raise TypeError(f"hint: expected a type of a prompt's field, got {hint!r}")
    if Ellipsis in typing.get_args(hint):
        return {"type": "array", "items": _type(items[0])}
    return {"type": "array", "prefixItems": [_type(one) for one in items], "items": False}
