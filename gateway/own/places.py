"""Places in a body, and the structs of bodies that are made of such places.

A place is a path of names, joined by dots. It knows nothing of alerts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

DEEPEST = 32
"""The most names in a place."""
Leaf = tuple[Any, bool]
"""The type of the value at a place, and whether a body must have it."""


def place(text: str) -> str:
    """Returns a place as written; raises `ValueError` if it is none."""
    if "[" in text or '"' in text:
        raise ValueError(f"{text!r} is not a place: name a list as a whole, not an item of it")
    names = text.split(".")
    if any(name.isdecimal() for name in names[1:]):
        raise ValueError(f"{text[:64]!r} is not a place: name a list as a whole, not an item of it")
    if not all(name.strip() == name != "" and name.isprintable() and "\\" not in name for name in names):
        raise ValueError(
            f"{text[:64]!r} is not a place: write the names of nested fields with dots, such as payload.summary"
        )
    if len(names) > DEEPEST:
        raise ValueError(f"{text[:64]!r} is nested deeper than {DEEPEST} levels")
    return text


def is_within(place: str, other: str) -> bool:
    """Whether a place is `other`, or inside it."""
    return place == other or place.startswith(f"{other}.")


def in_the_way(place: str, others: Iterable[str]) -> str | None:
    """Returns the first of `others` that cannot exist beside this place: the same, one inside it or one around it."""
    return next((other for other in others if is_within(place, other) or is_within(other, place)), None)


def struct_of(name: str, leaves: Mapping[str, Leaf]) -> type[Struct]:
    """Returns the struct of a body with these leaves, by place; all but the required leaves at the top may be
    absent."""
    return _Making(re.sub(r"\W+", "", name.title())).struct(leaves)


class _Making:
    """Makes the structs of one body, each under a name of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0

    def struct(self, leaves: Mapping[str, Leaf]) -> type[Struct]:
        """Returns the struct of these leaves, with those nested in it."""
        title = f"{self._name}Part{self._count}" if self._count else f"{self._name}Alert"
        self._count += 1
        inner: dict[str, dict[str, Leaf]] = {}
        for path, leaf in leaves.items():
            first, dot, rest = path.partition(".")
            inner.setdefault(first, {})[rest if dot else ""] = leaf
        fields, rename = [], {}
        for number, (wire, within) in enumerate(inner.items()):
            field = f"field{number}"
            rename[field] = wire
            kind, is_required = within.get("", (None, False))
            kind = kind if kind is not None else self.struct(within)
            fields.append((field, kind) if is_required else (field, kind | UnsetType | None, UNSET))
        made: type[Struct] = msgspec.defstruct(title, fields, rename=rename, kw_only=True)
        return made
