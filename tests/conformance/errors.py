"""The shapes of each vendor's documented errors, to hold our own against."""

from __future__ import annotations

from typing import Any

from tests.recorded import load


def documented(name: str) -> list[dict[str, Any]]:
    """The documented errors of a dialect."""
    found: list[dict[str, Any]] = load(f"{name}/errors.json")["errors"]
    assert found, f"{name} documents no error"
    return found


def is_error_of(name: str, body: Any) -> bool:
    """Whether a body is an error as the vendor would word it: names, nesting and kinds of values are the same."""
    return any(_shape(body) == _shape(error["body"]) for error in documented(name))


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shape(inner) for name, inner in sorted(value.items())}
    if isinstance(value, list):
        return [_shape(inner) for inner in value[:1]]
    return type(value).__name__
