"""Canonical fields on a described vendor's wire: the type at a field's place, and the conversion both ways.

A description says which words, units and forms the vendor has; a setting that does not go with a field is reported with
what it is for. It must not know any vendor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.canonical import PATHS, SERVER_OWNED, Channel, Image, Link, Part, Trigger
from gateway.config.file import FieldFile
from gateway.mapping.values import SAME, Codec, Pair, Scale, Unit, each, iso, millis
from gateway.own.words import Severities, Vocabulary, Word

PARTS: Mapping[str, type[Part]] = {
    "links": Link,
    "images": Image,
    "channels": Channel,
    "condition.triggers": Trigger,
}
CLOSED = ("urgency", "condition.quantifier")
TRUTHS = ("enabled", "renotify.enabled")
DURATIONS = ("condition.window", "renotify.interval")
NOT_A_TIME = ("status", "notifications", "occurrences", "assignee")
NEVER = ("kind", "notifications")
"""Fields that no body has: the kind of a vendor's alerts is `kind` of its dialect."""
NUMBER = r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?"
"""A number written as a text."""
PER_SECOND: Mapping[str, float] = {"us": 1_000_000, "ms": 1000, "s": 1, "m": 1 / 60, "h": 1 / 3600}
ONLY_FOR: Mapping[str, str] = {
    "words": "texts, severity, urgency and booleans",
    "out": "severity",
    "otherwise": "fields that have `words`",
    "limit": "texts and dedup_key",
    "unit": "durations and times",
    "form": "labels and links",
    "items": "links, images, channels and condition.triggers",
}
GOES_WITH: Mapping[str, tuple[str, ...]] = {
    "text": ("words", "otherwise", "limit"),
    "key": ("limit",),
    "severity": ("words", "out", "otherwise"),
    "closed": ("words", "otherwise"),
    "truth": ("words", "otherwise"),
    "duration": ("unit",),
    "time": ("unit",),
    "labels": ("form",),
    "links": ("form", "items"),
    "objects": ("items",),
}
"""The settings that each sort of field can have beside those of all fields."""


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """The type at a field's place, and its conversion."""

    type: Any
    codec: Codec


def sort_of(path: str) -> str:
    """Returns the sort of a canonical field, a key of `_MAKING`."""
    if path in PARTS:
        return "links" if path == "links" else "objects"
    named = {"severity": "severity", "dedup_key": "key", "labels": "labels", "custom": "custom"}
    named |= {"condition.group_by": "texts", "condition.threshold": "number", "occurrences": "number"}
    named |= dict.fromkeys(CLOSED, "closed") | dict.fromkeys(TRUTHS, "truth") | dict.fromkeys(DURATIONS, "duration")
    named |= dict.fromkeys(SERVER_OWNED.difference(NOT_A_TIME), "time")
    return named.get(path, "text")


FIELDS = tuple(path for path in PATHS if path not in NEVER)
"""The canonical fields that a description can place."""


def meaning(path: str, given: FieldFile) -> Meaning:
    """Returns the type and conversion of a field; raises `ValueError` if its words make no sense. Which settings it may
    have was checked before."""
    return _MAKING[sort_of(path)](path, given)


# --- each sort -----------------------------------------------------------------------------------------------


def _unless_blank(value: Any) -> Any:
    return value if value != "" else UNSET


def _same(value: Any) -> Any:
    return value


def _text(path: str, given: FieldFile) -> Meaning:
    """A text. Senders whose template has nothing to say leave it blank, which counts as absent."""
    if given.words:
        return Meaning(type=Word, codec=Vocabulary(given.words, given.otherwise, is_open=True))
    return Meaning(type=str, codec=Pair(_unless_blank, _same))


def _key(path: str, given: FieldFile) -> Meaning:
    return Meaning(type=str | int, codec=Pair(lambda value: _unless_blank(str(value)), _same))


def _severity(path: str, given: FieldFile) -> Meaning:
    if given.words:
        return Meaning(type=Word, codec=Severities(given.words, given.out, given.otherwise))
    code = Annotated[int, Meta(ge=0, le=7)]
    return Meaning(type=code, codec=Scale(range(8), {number: number for number in range(8)}))


def _closed(path: str, given: FieldFile) -> Meaning:
    usual = {"urgency": ("high", "low"), "condition.quantifier": ("any", "all")}[path]
    return Meaning(type=Word, codec=Vocabulary(given.words or {word: word for word in usual}, given.otherwise))


def _truth(path: str, given: FieldFile) -> Meaning:
    if given.words:
        return Meaning(type=Word, codec=Vocabulary(given.words, given.otherwise))
    return Meaning(type=bool, codec=SAME)


def _number(path: str, given: FieldFile) -> Meaning:
    return Meaning(type=int | float | str, codec=_counted(SAME))


def _duration(path: str, given: FieldFile) -> Meaning:
    return Meaning(type=int | float | str, codec=_counted(Unit(PER_SECOND[given.unit or "s"])))


def _counted(codec: Codec) -> Pair:
    """A number, or one as a text: senders that fill in a template often have nothing else, and may leave it blank."""

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return codec.read(value)
        if not value.strip():
            return UNSET
        if not re.fullmatch(NUMBER, value.strip()):
            raise ValueError(f"{value[:64]!r} is not a number")
        return codec.read(msgspec.json.decode(value.strip(), type=int | float))

    return Pair(read, codec.write)


def _time(path: str, given: FieldFile) -> Meaning:
    """A time that the gateway itself keeps: it is written, but never taken over from a caller."""
    if given.unit is None:
        return Meaning(type=str | int | float, codec=Pair(_same, iso))
    per_milli = PER_SECOND[given.unit] / 1000

    def write(value: datetime) -> int:
        return round(millis(value.astimezone(UTC)) * per_milli)

    return Meaning(type=str | int | float, codec=Pair(_same, write))


def _texts(path: str, given: FieldFile) -> Meaning:
    return Meaning(type=list[str], codec=Pair(tuple, list))


def _custom(path: str, given: FieldFile) -> Meaning:
    return Meaning(type=dict[str, Any], codec=SAME)


def _objects(path: str, given: FieldFile) -> Meaning:
    """A list of objects. What is required in the canonical part, such as an address or a kind, is required here."""
    part = PARTS[path]
    names = {name: given.items.get(name, name) for name in part.__struct_fields__}
    hints = get_type_hints(part)
    required = part.__struct_fields__[: len(part.__struct_fields__) - len(part.__struct_defaults__)]
    fields = [
        (name, hints[name]) if name in required else (name, hints[name] | UnsetType | None, UNSET) for name in names
    ]
    item: type[Struct] = msgspec.defstruct(f"{part.__name__}Item", fields, rename=names, kw_only=True)
    back = {wire: name for name, wire in names.items()}
    return Meaning(type=list[item], codec=each(part, read=back))  # type: ignore[valid-type]


def _links(path: str, given: FieldFile) -> Meaning:
    if given.form != "address":
        return _objects(path, given)
    return Meaning(
        type=str,
        codec=Pair(
            lambda address: (Link(href=address),) if address else UNSET,
            lambda links: links[0].href if links else UNSET,
        ),
    )


def _labels(path: str, given: FieldFile) -> Meaning:
    if given.form == "list":
        return Meaning(type=list[str], codec=Pair(_from_tags, tags_of))
    if given.form == "text":
        return Meaning(
            type=str,
            codec=Pair(
                lambda text: _from_tags(tags_in(text)) or UNSET,
                lambda labels: ",".join(tags_of(labels)),
            ),
        )
    return Meaning(
        type=dict[str, str | int | float | bool | None],
        codec=Pair(
            lambda held: {name: _as_text(value) for name, value in held.items() if value is not None},
            _same,
        ),
    )


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def tags_in(said: Any) -> list[str]:
    """Returns labels that are written as a list, or as one text with commas, each as it is."""
    return [tag.strip() for tag in said.split(",") if tag.strip()] if isinstance(said, str) else list(said or ())


def _from_tags(tags: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (tag.partition(":") for tag in tags)}


def tags_of(labels: Mapping[str, str]) -> list[str]:
    """Returns labels as `name:value`, or as the name alone where there is no value."""
    return [f"{name}:{value}" if value else name for name, value in labels.items()]


_MAKING: Mapping[str, Callable[[str, FieldFile], Meaning]] = {
    "text": _text,
    "key": _key,
    "severity": _severity,
    "closed": _closed,
    "truth": _truth,
    "number": _number,
    "duration": _duration,
    "time": _time,
    "texts": _texts,
    "custom": _custom,
    "objects": _objects,
    "links": _links,
    "labels": _labels,
}
