"""Rows: each correspondence between a vendor's wire and the canonical alert, written once and used both ways.

A row says which wire leaves and which canonical paths mean the same; `gateway.mapping.table` makes tables of them. It
must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Mapping as Map
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from msgspec import Struct

from gateway.canonical import Flat
from gateway.mapping.values import SAME, Codec, Scale

Side = Literal["both", "request", "reply"]


class Unmet(Exception):
    """A target requires a value that the alert does not have. `path` is the canonical field that would satisfy it."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Hint(Struct, frozen=True):
    """A second, coarser value for a field, from a derived row: it is taken unless the record has one of `unless`.

    It counts only where the principal row of the same field has no value, or repeats what the record has.
    """

    path: str
    value: Any
    unless: tuple[Any, ...]


class Writing(Struct, frozen=True, kw_only=True):
    """What rows may know while they write an alert: the upstream's defaults and metrics, the caller and its dialect
    (`origin`). `filled` collects, by canonical path, why a value was supplied."""

    defaults: Map[str, Any] = msgspec.field(default_factory=dict)
    metrics: Map[str, str] = msgspec.field(default_factory=dict)
    origin: str = ""
    caller: str = ""
    filled: dict[str, str] = msgspec.field(default_factory=dict)


@dataclass(frozen=True)
class OneRead:
    """Reads one wire value with a codec; `None` passes through as it is."""

    codec: Codec

    def __call__(self, value: Any) -> tuple[Any]:
        return (value if value is None else self.codec.read(value),)


@dataclass(frozen=True)
class OneWrite:
    """Writes one canonical value with a codec; `None` passes through as it is."""

    codec: Codec

    def __call__(self, writing: Writing, value: Any) -> tuple[Any]:
        return (value if value is None else self.codec.write(value),)


Fallback = Callable[[Flat, Writing], Sequence[Any] | None]
"""The vendor's documented substitute where a required field has no value: the wire values of the row, or None."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Wire leaves and canonical paths that correspond; made by `row` or `joint`.

    `read` takes the values of `wires` and returns those of `paths`, `write` the other way round; `UNSET` marks what
    is absent on both sides. A `reply` row is set by the server, a `request` row never shown. A `derived` row gives a
    second value for a path that has a principal row, as a `Hint`. `fit` makes a wire value acceptable to the vendor,
    `rescale` returns the same row with another severity scale, where the row has more than a severity. `homes` names
    the leaves that may hold a path, the likeliest first, where that is not the leaf at the same position.
    """

    wires: tuple[str, ...]
    paths: tuple[str, ...]
    read: Callable[..., tuple[Any, ...]]
    write: Callable[..., tuple[Any, ...]]
    side: Side = "both"
    derived: bool = False
    required: bool = False
    fallback: Fallback | None = None
    fit: Callable[[Any], Any] | None = None
    scale: Scale | None = None
    rescale: Callable[[Scale], Row] | None = None
    homes: Map[str, tuple[str, ...]] = field(default_factory=dict)
    why: str = ""

    def fitted(self, value: Any) -> Any:
        """A wire value made to fit the vendor's limits; `None` stays `None`."""
        return value if self.fit is None or value is None else self.fit(value)

    @property
    def codec(self) -> Codec | None:
        """The codec of a row that only converts one value with it; else None."""
        if isinstance(self.read, OneRead) and isinstance(self.write, OneWrite) and self.read.codec is self.write.codec:
            return self.read.codec
        return None


@dataclass(frozen=True)
class Extension:
    """A wire field that only this vendor has, kept verbatim under its dialect's name. `side` as of a `Row`."""

    wire: str
    side: Side = "both"


@dataclass(frozen=True)
class Dropped:
    """A wire field that does not concern the alert, with the reason. A `control` field (a credential, an id, a
    version, the event's type) is also taken out of the caller's own words before these are passed on."""

    wire: str
    why: str
    control: bool = False


def row(
    wire: str,
    path: str,
    via: Codec = SAME,
    *,
    side: Side = "both",
    derived: bool = False,
    required: bool = False,
    fallback: Fallback | None = None,
    limit: int | None = None,
    fit: Callable[[Any], Any] | None = None,
    why: str = "",
) -> Row:
    """One wire leaf and one canonical path, converted by `via`; `None` passes through as it is.

    `limit` is the most characters that the vendor takes: a longer text is cut and marked.
    """

    return Row(
        wires=(wire,),
        paths=(path,),
        read=OneRead(via),
        write=OneWrite(via),
        side=side,
        derived=derived,
        required=required,
        fallback=fallback,
        fit=_cutter(limit) if limit is not None else fit,
        scale=via if isinstance(via, Scale) else None,
        why=why,
    )


def joint(
    wires: Sequence[str],
    paths: Sequence[str],
    *,
    read: Callable[..., tuple[Any, ...]],
    write: Callable[..., tuple[Any, ...]],
    side: Side = "both",
    required: bool = False,
    fallback: Fallback | None = None,
    scale: Scale | None = None,
    rescale: Callable[[Scale], Row] | None = None,
    homes: Map[str, tuple[str, ...]] | None = None,
    why: str = "",
) -> Row:
    """Several leaves that only make sense together, converted by a pair of functions.

    `read(*wire values)` returns a value for each path; `write(writing, *canonical values)` one for each leaf. A
    required row is satisfied when its first leaf has a value.
    """
    return Row(
        wires=tuple(wires),
        paths=tuple(paths),
        read=read,
        write=write,
        side=side,
        required=required,
        fallback=fallback,
        scale=scale,
        rescale=rescale,
        homes=homes or {},
        why=why,
    )


def _cutter(limit: int) -> Callable[[Any], Any]:
    def cut(value: Any) -> Any:
        return value[: limit - 1] + "…" if isinstance(value, str) and len(value) > limit else value

    return cut
