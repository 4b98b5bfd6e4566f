"""The shapes of each vendor's documented errors, to compare our own with."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tests.recorded import load


def documented(name: str) -> list[dict[str, Any]]:
    """Returns the documented errors of a dialect."""
    found: list[dict[str, Any]] = load(f"{name}/errors.json")["errors"]
    assert found, f"{name} documents no error"
    return found


def is_error_of(name: str, body: Any) -> bool:
    """Returns whether a body has the shape of a documented error: the same names, nesting and types of values."""
    maps = load(f"{name}/errors.json").get("maps", ())
    return any(_shape(body, maps) == _shape(error["body"], maps) for error in documented(name))


def _shape(value: Any, maps: Collection[str], at: str = "") -> Any:
    """Returns the names and types in a value. Of an object in `maps`, whose names are data, only the values count."""
    if isinstance(value, dict) and at in maps:
        return sorted({str(_shape(inner, maps)) for inner in value.values()})
    if isinstance(value, dict):
        return {name: _shape(inner, maps, name) for name, inner in sorted(value.items())}
    if isinstance(value, list):
        return [_shape(inner, maps) for inner in value[:1]]
    return type(value).__name__
