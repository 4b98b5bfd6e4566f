"""Templates for bodies of another shape, such as a chat's: any JSON, in whose texts a place in braces stands for the
value at that place in what a described vendor would be sent otherwise.

It knows nothing of alerts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from gateway.mapping.wire import Wire, get

SLOT = re.compile(r"\{([\w@$-][\w.@$ -]*)\}")
"""A place in braces, in a text. Other braces stand for themselves."""


def slots(shape: Any) -> Iterator[str]:
    """Yields the places that a shape refers to."""
    if isinstance(shape, str):
        yield from SLOT.findall(shape)
    elif isinstance(shape, dict | list):
        for inner in shape.values() if isinstance(shape, dict) else shape:
            yield from slots(inner)


def shaped(shape: Any, body: Wire) -> Any:
    """Returns a shape filled with values of a body; `UNSET` for a text that is a single place without a value."""
    if isinstance(shape, dict):
        made = {name: shaped(inner, body) for name, inner in shape.items()}
        return {name: value for name, value in made.items() if value is not UNSET}
    if isinstance(shape, list):
        return [value for inner in shape if (value := shaped(inner, body)) is not UNSET]
    if not isinstance(shape, str):
        return shape
    if whole := SLOT.fullmatch(shape):
        value = get(body, whole[1])
        return UNSET if value is None else value
    return SLOT.sub(lambda slot: _as_text(get(body, slot[1])), shape)


def _as_text(value: Any) -> str:
    if value is UNSET or value is None:
        return ""
    if isinstance(value, list) and all(isinstance(inner, str) for inner in value):
        return ", ".join(value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
