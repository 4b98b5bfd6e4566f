"""Two-way conversions of single values between a vendor's wire and the canonical alert.

A codec reads a wire value into a canonical one and writes it back; it raises `ValueError` for a value that is not one
of the vendor's. Reports compare a value with what is read back after writing it. It must not know any vendor: the
tables themselves are in the vendors' modules.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import msgspec
from msgspec import Struct


class Codec(Protocol):
    """A conversion of one value, both ways."""

    def read(self, value: Any, /) -> Any:
        """From the wire to the canonical alert."""

    def write(self, value: Any, /) -> Any:
        """From the canonical alert to the wire."""


@dataclass(frozen=True)
class Pair:
    """A codec made of two plain functions."""

    read: Callable[[Any], Any]
    write: Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


SAME = Pair(_same, _same)


class Words:
    """A closed list of the vendor's words and their canonical values, one to one; `fold` ignores case."""

    def __init__(self, words: Mapping[str, Any], *, fold: bool = False) -> None:
        self.words = dict(words)
        self.fold = fold
        self.read_table = {self._form(word): value for word, value in words.items()}
        self.write_table = {value: word for word, value in words.items()}
        if len(self.write_table) != len(self.words):
            raise ValueError(f"two words for one canonical value: {self.words}")

    def _form(self, word: str) -> str:
        return word.upper() if self.fold else word

    def read(self, value: Any) -> Any:
        """The canonical value of a word; `ValueError` for a word the vendor does not have."""
        try:
            return self.read_table[self._form(value)]
        except (KeyError, AttributeError):
            raise ValueError(f"{value!r} is none of {', '.join(self.words)}") from None

    def write(self, value: Any) -> str:
        """The vendor's word for a canonical value."""
        try:
            return self.write_table[value]
        except KeyError:
            raise ValueError(f"{value!r} has no word among {', '.join(self.words)}") from None


class Scale:
    """A vendor's severity scale: eight words for the codes 0 to 7, and the code that each word is read as.

    Every word must be read as a code that is written as the same word, and the words must keep the order of severities:
    both are checked when it is made.
    """

    def __init__(self, out: Sequence[Any], read: Mapping[Any, int], *, fold: bool = False) -> None:
        if len(out) != 8:
            raise ValueError("a severity scale names a word for each of the eight codes")
        self.out = tuple(out)
        self.codes: dict[Any, int] = dict(read)
        self.fold = fold
        for word, code in self.codes.items():
            if word in self.out and self.out[code] != word:
                raise ValueError(f"{word!r} is read as {code}, which is written as {self.out[code]!r}")
        if unread := [word for word in self.out if word not in self.codes]:
            raise ValueError(f"written but not understood: {unread}")
        self._alike = tuple(
            tuple(other for other in range(8) if self.out[other] == self.out[code]) for code in range(8)
        )
        codes = [self.codes[word] for word in self.out]
        if codes != sorted(codes):
            raise ValueError("the scale does not keep the order of severities")

    def read(self, value: Any) -> int:
        """The severity code of a word."""
        word = value.upper() if self.fold and isinstance(value, str) else value
        try:
            return self.codes[word]
        except (KeyError, TypeError):
            raise ValueError(f"{value!r} is none of {', '.join(map(str, self.codes))}") from None

    def write(self, value: int) -> Any:
        """The word for a severity code."""
        return self.out[value]

    def same_as(self, code: int) -> tuple[int, ...]:
        """Every code that is written as the same word as this one."""
        return self._alike[code]


EXACT = 2**53
"""Up to here a float that is whole is written as a whole number: of a larger one as such, many parsers refuse the body.
"""


class Unit:
    """A number in the vendor's unit: `per_second` of it make one second."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second

    def read(self, value: float) -> float:
        """The value in seconds; whole seconds stay whole. `ValueError` for more seconds than a number can hold."""
        seconds = value / self.per_second
        if math.isinf(seconds):
            raise ValueError(f"{value} is too long a time")
        return _whole(seconds)

    def write(self, value: float) -> float:
        """Seconds in the vendor's unit."""
        return _whole(value * self.per_second)


def _whole(value: float) -> float:
    if not abs(value) <= EXACT:
        return value
    rounded = round(value)
    return rounded if abs(value - rounded) < 1e-9 else value


MICROSECONDS = Unit(1_000_000)
MINUTES = Unit(1 / 60)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_millis(value: int) -> datetime:
    """Milliseconds since 1970 as a time; `ValueError` where there is no such time."""
    try:
        return _EPOCH + timedelta(milliseconds=value)
    except OverflowError:
        raise ValueError(f"{value} is not a time in milliseconds") from None


def millis(value: datetime) -> int:
    """A time as milliseconds since 1970."""
    return (value - _EPOCH) // timedelta(milliseconds=1)


MILLIS = Pair(from_millis, millis)


def read_time(value: str) -> datetime:
    """Parses an ISO 8601 time, as UTC if it has no zone, to the millisecond; `ValueError` for anything else."""
    try:
        time = datetime.fromisoformat(value.strip())
    except (ValueError, AttributeError):
        raise ValueError(f"{value!r} is not an ISO 8601 time") from None
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else in_utc(time)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def in_utc(value: datetime) -> datetime:
    """A time with a zone as UTC; `ValueError` where that would be outside the years 1 to 9999."""
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{value.isoformat()} is not a time in UTC: years are 1 to 9999") from None


def iso(value: datetime) -> str:
    """A time as ISO 8601 in UTC, with milliseconds."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_seconds(value: datetime) -> str:
    """A time as ISO 8601 in UTC, to the second."""
    return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


TIME = Pair(read_time, iso)


def each(part: type[Struct], *, read: Mapping[str, str] | None = None) -> Pair:
    """A list of objects as a tuple of canonical parts; `read` renames the vendor's fields to the part's. A null in an
    object is read as absent: other vendors have no null there."""
    names = dict(read) if read else {name: name for name in part.__struct_fields__}
    is_spelled_alike = all(name == canonical for name, canonical in names.items())
    several = tuple[part, ...]  # type: ignore[valid-type]
    # msgspec analyses the types of a struct once, those of a tuple at each conversion.
    holder = msgspec.defstruct(f"Several{part.__name__}", [("all", several)], array_like=True)
    back = {canonical: wire for wire, canonical in names.items()}

    def read_list(items: Any) -> Any:
        items = [{name: value for name, value in item.items() if value is not None} for item in items]
        if is_spelled_alike:
            try:
                return msgspec.convert([items], holder).all  # type: ignore[attr-defined]
            except msgspec.ValidationError:
                return msgspec.convert(items, several)  # says where in the list
        chosen = [{names[key]: value for key, value in item.items() if key in names} for item in items]
        return tuple(msgspec.convert(item, part) for item in chosen)

    def write_list(items: Any) -> Any:
        plain = msgspec.to_builtins(items)
        return [{back[key]: value for key, value in item.items() if key in back} for item in plain]

    return Pair(read_list, write_list)


# --- keys ------------------------------------------------------------------------------------------------------


def cut_key(key: str, most: int, mark: int = 64) -> str:
    """A key cut to `most` characters, which ends in `mark` characters of a hash of the whole, so that two keys never
    become one."""
    digest = hashlib.sha256(key.encode("utf8", "surrogatepass")).hexdigest()[:mark]
    return f"{key[: max(0, most - mark - 1)]}-{digest}"[-most:]


# --- wildcards -------------------------------------------------------------------------------------------------


def is_made_of(text: str, parts: Sequence[str]) -> bool:
    """Whether a text is made of these parts in this order, with anything between them. A regular expression for that
    would backtrack, and a few wildcards on a long text would block the gateway for hours."""
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return text == first
    end = len(text) - len(last)
    if end < len(first) or not (text.startswith(first) and text.endswith(last)):
        return False
    at = len(first)
    for part in parts[1:-1]:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
