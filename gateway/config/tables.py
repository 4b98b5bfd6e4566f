"""Checks tables of a configuration and collects every problem with its path; a harmless value replaces what is wrong,
so that checking can go on. It must not know what the tables are for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, get_type_hints

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo
from msgspec.structs import fields as struct_fields

from gateway.config.problems import near, wrong_types

S = TypeVar("S", bound=Struct)


class Tables:
    """Converts tables and collects the problems instead of stopping at the first."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._replaced: set[str] = set()

    def say(self, path: str, problem: str) -> None:
        """Records a problem at this path, unless the value there is one of ours, which replaces a wrong one."""
        if path not in self._replaced:
            self.problems.append(f"{path}: {problem}" if path else problem)

    def struct(self, kind: type[S], table: Mapping[str, Any], path: str, also: tuple[str, ...] = ()) -> S:
        """Converts a table field by field; each problem is recorded, and a harmless value replaces what is wrong.
        `also` are further keys that are allowed."""
        given: dict[str, Any] = {}
        described, hints = _shape(kind)
        for key in table:
            if key not in described and key not in also:
                hint = near(key, [*described, *also]) or f"; known are {', '.join(sorted(described))}"
                self.say(_join(path, key), f"unknown key{hint}")
        for name, item in described.items():
            if name in table:
                try:
                    given[item.name] = msgspec.convert(table[name], hints[item.name])
                    self._replaced.discard(_join(path, name))  # of another table with this path, as in a list
                    continue
                except msgspec.ValidationError as error:
                    for where, problem in wrong_types(_join(path, name), table[name], hints[item.name], error):
                        is_single = where == name and problem == "must be a list, not a table"
                        self.say(where, f"{problem}: write [[{name}]]" if is_single else problem)
            elif item.default is not NODEFAULT or item.default_factory is not NODEFAULT:
                continue
            else:
                self.say(_join(path, name), "is required")
            self._replaced.add(_join(path, name))
            if item.default is NODEFAULT and item.default_factory is NODEFAULT:
                given[item.name] = [] if name == "to" else ""
        return kind(**given)

    def parsed(self, parse_value: Any, value: Any, path: str, otherwise: Any) -> Any:
        """The parsed value; a `ValueError` or `TypeError` is recorded as a problem, and `otherwise` returned."""
        try:
            return parse_value(value)
        except (ValueError, TypeError) as error:
            self.say(path, str(error))
            return otherwise


@cache
def _shape(kind: type[Struct]) -> tuple[dict[str, FieldInfo], dict[str, Any]]:
    """The fields of a struct by the names in the file, and their types. Cached, as there may be thousands of routes and
    tests, with a table each."""
    return {item.encode_name: item for item in struct_fields(kind)}, get_type_hints(kind)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
