"""How the store's rows map to SQL tables: one column per field, structured fields as JSON.

Shared by the drivers. It must not know connections or transactions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, TypeVar, get_type_hints

import msgspec
from msgspec import Struct
from msgspec.structs import astuple

from gateway.store import AlertRow, AttemptRow, CallsRow, CommandRow, DeliveryRow, TargetRow

Row = TypeVar("Row", bound=Struct)
_encoder = msgspec.json.Encoder()


class Table(Generic[Row]):
    """A struct and its table: the statements over its columns, and the conversions both ways. `fixed` columns stay as
    inserted: `update` leaves them out, so that an index of such columns alone is not touched by an update."""

    def __init__(
        self,
        name: str,
        row: type[Row],
        *,
        key: Sequence[str],
        json: Sequence[str] = (),
        fixed: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.row = row
        self.fields = row.__struct_fields__
        hints = get_type_hints(row)
        decoders = {field: msgspec.json.Decoder(hints[field]) for field in json}
        flags = [field for field in self.fields if hints[field] is bool]
        self.decode: Callable[[Sequence[Any]], Row] = _decoding(row, decoders, flags)
        self.columns = ", ".join(self.fields)
        marks = ", ".join("?" for _ in self.fields)
        self.select = f"SELECT {self.columns} FROM {name}"
        self.insert = f"INSERT INTO {name} ({self.columns}) VALUES ({marks})"
        rest = [field for field in self.fields if field not in key]
        excluded = ", ".join(f"{field} = excluded.{field}" for field in rest)
        self.replace = f"{self.insert} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {excluded}"
        mutable = [field for field in rest if field not in fixed]
        self.values: Callable[[Row], tuple[Any, ...]] = _encoding(row, self.fields, json, flags)
        """Makes the row's columns, for `insert` and `replace`."""
        self.update_values: Callable[[Row], tuple[Any, ...]] = _encoding(row, (*mutable, *key), json, flags)
        """Makes the row's columns that `update` takes, in its order."""
        setters = ", ".join(f"{field} = ?" for field in mutable)
        self.update = f"UPDATE {name} SET {setters} WHERE " + " AND ".join(f"{field} = ?" for field in key)


def _decoding(
    row: type[Row], decoders: Mapping[str, msgspec.json.Decoder[Any]], flags: Collection[str]
) -> Callable[[Sequence[Any]], Row]:
    """Returns a function that makes a row from its columns: one constructor call, as its source is compiled from the
    names of the fields. A delivery reads nine rows on its way; decoding them field by field takes twice as long."""
    known: dict[str, Any] = {"row": row} | {f"read_{field}": decoder.decode for field, decoder in decoders.items()}
    given = {field: field for field in row.__struct_fields__}
    given |= {field: f"None if {field} is None else read_{field}({field})" for field in decoders}
    given |= {field: f"bool({field})" for field in flags}
    source = f"""def decode(columns):
    {", ".join(given)}, = columns
    return row({", ".join(f"{field}={value}" for field, value in given.items())})"""
    exec(source, known)  # noqa: S102 - made of field names alone
    decode: Callable[[Sequence[Any]], Row] = known["decode"]
    return decode


def _encoding(
    row: type[Row], columns: Sequence[str], json: Collection[str], flags: Collection[str]
) -> Callable[[Row], tuple[Any, ...]]:
    """Returns a function that makes these columns from a row, compiled likewise."""
    known: dict[str, Any] = {"astuple": astuple, "encode": _encoder.encode}
    told = {field: field for field in columns}
    told |= {field: f"None if {field} is None else encode({field})" for field in columns if field in json}
    told |= {field: f"int({field})" for field in columns if field in flags}
    source = f"""def encoded(row):
    {", ".join(row.__struct_fields__)}, = astuple(row)
    return ({", ".join(told.values())},)"""
    exec(source, known)  # noqa: S102 - made of field names alone
    encoded: Callable[[Row], tuple[Any, ...]] = known["encoded"]
    return encoded


ALERTS = Table(
    "alerts",
    AlertRow,
    key=["id"],
    json=["body", "verbatim"],
    fixed=["scope", "dialect", "caller", "key", "created_at"],
)
TARGETS = Table("targets", TargetRow, key=["alert", "upstream"], json=["ids", "seen", "replaced"])
COMMANDS = Table("commands", CommandRow, key=["id"], json=["body"])
DELIVERIES = Table(
    "deliveries",
    DeliveryRow,
    key=["id"],
    json=["report", "merges", "seen"],
    fixed=["command", "alert", "upstream", "lane", "key", "operation", "size"],
)
ATTEMPTS = Table("attempts", AttemptRow, key=["delivery", "number"])
CALLS = Table("calls", CallsRow, key=["dialect", "caller", "outcome", "method", "path", "agent"])

ACKNOWLEDGES = (
    "{0}.operation = 'acknowledge' AND EXISTS "
    "(SELECT 1 FROM alerts a WHERE a.id = {0}.alert AND a.status = 'acknowledged')"
)
"""The SQL condition that an alert may still be acknowledged because of command `{0}`. Such a command is kept however
old it is: who acknowledged, or which silence did, decides what is told of the alert."""
OVER = (
    "d.finished_at < ? AND NOT EXISTS (SELECT 1 FROM deliveries o WHERE o.command = d.command AND "
    "(o.id < d.id OR o.finished_at IS NULL OR o.finished_at >= ? OR (o.state = 'merged' AND EXISTS "
    "(SELECT 1 FROM deliveries w WHERE w.upstream = o.upstream AND w.lane = o.lane AND w.state = 'waiting'))){0}) "
    f"AND NOT EXISTS (SELECT 1 FROM commands k WHERE k.id = d.command AND {ACKNOWLEDGES.format('k')}{{0}})"
)
"""The SQL condition that delivery `d` is the first of a command to be purged: all its deliveries ended before a time
(bound twice), none of them is merged into one that may still be waiting, and no alert is acknowledged by the command. A
command is purged as a whole, or the ledger would not add up. `{0}` is what an engine needs in each subquery."""
