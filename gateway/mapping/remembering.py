"""What depends on the shape of an alert alone, and is worked out once for all alerts of that shape.

A shape says which fields there are and what happened to each, not what they say; an alert is mostly of the same shape
as one before it. It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from msgspec import Struct
from msgspec.structs import astuple

MOST, LONGEST = 1 << 17, 4096
"""The most characters of names in all shapes that are remembered at a time, mostly some hundreds, and in one of them:
callers choose the names of fields that no vendor documents."""

Found = TypeVar("Found")


class Remembered(dict[tuple[Any, ...], Found], Generic[Found]):
    """The results of a function of a shape, by its arguments. Looked up as a dictionary is, as that costs least."""

    def __init__(self, find: Callable[..., Found]) -> None:
        super().__init__()
        self._find = find
        self._held = 0

    def __missing__(self, shape: tuple[Any, ...]) -> Found:
        found = self._find(*shape)
        length = _length(shape)
        if length <= LONGEST:
            if self._held + length > MOST:
                self.clear()
                self._held = 0
            self._held += length
            self[shape] = found
        return found


def _length(shape: Iterable[Any]) -> int:
    """The characters of all names in a shape, with one for each other part of it."""
    return sum(map(_length_of, shape))


def _length_of(part: Any) -> int:
    if isinstance(part, str):
        return len(part)
    if isinstance(part, Struct):
        return _length(astuple(part))
    return _length(part) if isinstance(part, tuple | frozenset) else 1
