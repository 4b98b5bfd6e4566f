"""The rows of a described dialect: makes each entry of `fields` a row of the kind that built-in dialects are made of.

What the canonical field cannot hold is kept as an extension under the dialect's name, so that nothing of a body is
lost. It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from msgspec import UNSET

from gateway.canonical import QUIET_CATEGORY, SERVER_OWNED, Flat
from gateway.config.file import FieldFile
from gateway.mapping.fallbacks import headline
from gateway.mapping.rows import Fallback, Row, Writing, row
from gateway.mapping.values import Codec, cut_key
from gateway.own.meanings import Meaning, tags_in, tags_of

MARK = 32
"""Characters of the digest that ends a key which was too long for a vendor."""


def row_of(dialect: str, path: str, places: tuple[str, ...], given: FieldFile, meant: Meaning, default: Any) -> Row:
    """Returns the row of a field. `default` is the canonical value that is written where the alert has none."""
    supplied = default is not None
    made = row(
        places[0],
        path,
        meant.codec,
        required=given.required or supplied,
        fallback=_supplying(path, meant.codec, default),
        limit=given.limit,
        why=_why(path, given, _said(meant.codec, default)),
    )
    if path == "dedup_key" and given.limit is not None:
        made = replace(made, fit=fitted_key(given.limit))
    if len(places) > 1:
        return _spoken_twice(made, dialect, places)
    if path in SERVER_OWNED:
        return _written_only(made, dialect)
    if path == "category" and not given.words:
        return _never_good_news(made, dialect)
    if path == "labels" and given.form is not None:
        return _with_repeats(made, dialect, is_text=given.form == "text")
    return made


def fitted_key(limit: int) -> Callable[[Any], Any]:
    """Returns a function that fits keys into `limit` characters: a longer key ends in a digest of the whole, so that
    two keys never become one."""

    def fit(key: Any) -> Any:
        if not isinstance(key, str) or len(key) <= limit:
            return key
        return cut_key(key, limit, MARK)

    return fit


INSTEAD = {
    "summary": "taken from details, category or key",
    "source": "the resource or the caller's name",
}
"""What is written for a required field that is absent, as vendors usually document it."""


def _why(path: str, given: FieldFile, usual: str) -> str:
    """The explanation of a row: its limit, and what is written where the alert has no value."""
    parts = [f"at most {given.limit:,} characters"] if given.limit is not None else []
    instead = usual or (INSTEAD.get(path) if given.required else None)
    return "; ".join([*parts, *([f"where absent, {instead}"] if instead else [])])


def _said(codec: Codec, default: Any) -> str:
    """Returns a default as the vendor is sent it, in few words; empty if there is none."""
    if default is None:
        return ""
    word = codec.write(default) if isinstance(default, str | int | float) else UNSET
    if word in (UNSET, ""):
        return "the description's default"
    return word if isinstance(word, str) else str(word).lower()


def _supplying(path: str, codec: Codec, default: Any) -> Fallback | None:
    """The fallback of a row whose alert has no value: the default, or what vendors usually document."""
    if default is not None:
        return lambda flat, writing: (codec.write(default),)
    if path == "summary":
        return headline
    return _whereabouts if path == "source" else None


def _whereabouts(flat: Flat, writing: Writing) -> tuple[Any]:
    return (str(flat.get("resource") or writing.caller or writing.origin),)


# --- what one field cannot hold --------------------------------------------------------------------------------


def _own(dialect: str, place: str) -> str:
    return f"extensions.{dialect}.{place}"


def _spoken_twice(made: Row, dialect: str, places: tuple[str, ...]) -> Row:
    """Makes the row of a field with several places: the first one that has a value is read, and what another one says
    differently is kept as it is."""

    def read(*values: Any) -> tuple[Any, ...]:
        spoken = [value for value in values if value is not UNSET]
        readings = (made.read(value)[0] for value in spoken)
        meant = next((value for value in readings if value not in (UNSET, None)), None if None in spoken else UNSET)
        others = [UNSET if value in (UNSET, "") or made.read(value) == (meant,) else value for value in values[1:]]
        return (meant, *others)

    def write(writing: Writing, value: Any, *others: Any) -> tuple[Any, ...]:
        said = made.write(writing, value)[0] if value is not UNSET else UNSET
        return (said, *(said if other in (UNSET, None) else other for other in others))

    fallback = made.fallback

    def supply(flat: Flat, writing: Writing) -> tuple[Any, ...] | None:
        found = fallback(flat, writing) if fallback else None
        return None if found is None else tuple(found) * len(places)

    paths = (made.paths[0], *(_own(dialect, place) for place in places[1:]))
    return replace(made, wires=places, paths=paths, read=read, write=write, fallback=supply)


def _written_only(made: Row, dialect: str) -> Row:
    """Makes the row of a field that the gateway itself keeps: it is written for callers of other dialects; what a
    caller of this one says there is kept as its own words."""

    def read(value: Any) -> tuple[Any, Any]:
        return UNSET, value

    def write(writing: Writing, value: Any, own: Any) -> tuple[Any]:
        return (own,) if own is not UNSET or writing.origin == dialect else made.write(writing, value)

    return replace(made, paths=(made.paths[0], _own(dialect, made.wires[0])), read=read, write=write)


def _never_good_news(made: Row, dialect: str) -> Row:
    """Makes the row of a category that is never read as the word for good news: here that is a name like any other, and
    read as good news it would silence a page. A vendor that means it says so in `words`."""

    def read(value: Any) -> tuple[Any, Any]:
        return (UNSET, value) if value == QUIET_CATEGORY else (made.read(value)[0], UNSET)

    def write(writing: Writing, value: Any, own: Any) -> tuple[Any]:
        if value in (UNSET, None, QUIET_CATEGORY):
            return (own if own is not None else UNSET,)
        return made.write(writing, value)

    return replace(made, paths=(made.paths[0], _own(dialect, made.wires[0])), read=read, write=write)


def _with_repeats(made: Row, dialect: str, *, is_text: bool) -> Row:
    """Makes the row of labels that are written as `name:value`, where a name can occur more than once. The last value
    is the label; the others are kept as they are."""

    def written(tags: list[str]) -> Any:
        return ",".join(tags) if is_text else tags

    def read(value: Any) -> tuple[Any, Any]:
        [labels] = made.read(value)
        last = set(tags_of(labels or {}))
        others = [tag for tag in tags_in(value) if tag not in last and tag.removesuffix(":") not in last]
        return labels, written(others) if others else UNSET

    def write(writing: Writing, labels: Any, own: Any) -> tuple[Any]:
        if own in (UNSET, None):
            return made.write(writing, labels) if labels is not UNSET else (UNSET,)
        return (written([*tags_in(own), *tags_of(labels or {})]),)

    return replace(made, paths=(made.paths[0], _own(dialect, made.wires[0])), read=read, write=write)
