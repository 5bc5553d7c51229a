"""JSON documents as frozen dataclasses: read by a schema, and written as they were read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from forecast.errors import DataError

T = TypeVar("T")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def from_plain(kind: type[T], document: Any, *, name: str) -> T:
    """Build a dataclass from the plain values of a JSON document.

    Args:
        kind: the dataclass; fields without a default must be there.
        document: what the document holds.
        name: what messages call it.

    Raises:
        DataError: a field is missing, or a value has the wrong type.
    """
    try:
        # As JSON, in which lists stand for tuples and nothing else is converted.
        return _adapter(kind).validate_json(json.dumps(document), strict=True)
    except (ValidationError, TypeError, ValueError) as error:
        raise DataError(
            f"{name} cannot be read: {_problem(error)}.",
            hint="Fetch or copy the artefact again, or train again.",
        ) from error


def to_plain(value: Any) -> Any:
    """Lay a dataclass out as JSON holds it: objects, lists, texts, numbers."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(one) for key, one in cast(Mapping[str, Any], value).items()}
    if isinstance(value, tuple | list):
        return [to_plain(one) for one in cast(tuple[Any, ...], value)]
    return value


def _problem(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    said = "is missing" if first["type"] == "missing" else first["msg"]
    return f"{place}: {said[0].lower()}{said[1:]}" if place else said
