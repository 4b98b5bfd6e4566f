"""The configuration's JSON Schema for editors, and its reference page: both generated from the structs of
`gateway.config.file`, their types, defaults and the docstrings below their fields.

It must not know any vendor: what a dialect adds to the table of an upstream or an inbound comes from its declaration.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo
from msgspec.structs import fields as struct_fields

from gateway.canonical import PATHS, SERVER_OWNED, Alert, holder_of, type_of
from gateway.config import file as files
from gateway.config.secrets import Secret
from gateway.dialect import Dialect

SCHEMA = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class Inner:
    """The content of a field that the structs declare as a plain dict or list: a table of struct `of`, tables by name,
    or a list of tables; `also` are JSON types that are allowed instead."""

    of: type[Struct]
    form: Literal["one", "named", "list"] = "one"
    also: tuple[str, ...] = ()


INNER: Mapping[tuple[type[Struct], str], Inner] = {
    (files.File, "inbound"): Inner(files.InboundFile, "named"),
    (files.File, "upstreams"): Inner(files.UpstreamFile, "named"),
    (files.File, "routes"): Inner(files.RouteFile, "list"),
    (files.File, "tests"): Inner(files.TestFile, "list"),
    (files.File, "tls"): Inner(files.TlsFile),
    (files.File, "heartbeat"): Inner(files.HeartbeatFile),
    (files.File, "alarms"): Inner(files.AlarmsFile),
    (files.File, "max_waiting"): Inner(files.WaitingFile, also=("integer",)),
    (files.UpstreamFile, "retry"): Inner(files.RetryFile),
    (files.UpstreamFile, "severity"): Inner(files.SeverityFile),
    (files.UpstreamFile, "key"): Inner(files.KeyFile, also=("string",)),
    (files.UpstreamFile, "client_cert"): Inner(files.PairFile),
    (files.HeartbeatFile, "client_cert"): Inner(files.PairFile),
    (files.RouteFile, "fallback"): Inner(files.FallbackFile),
    (files.File, "dialects"): Inner(files.DialectFile, "named"),
    (files.DialectFile, "fields"): Inner(files.FieldFile, "named", also=("string",)),
    (files.DialectFile, "auth"): Inner(files.AuthFile, also=("string",)),
    (files.DialectFile, "signature"): Inner(files.SignatureFile),
    (files.DialectFile, "send"): Inner(files.SendFile),
    (files.DialectFile, "reply"): Inner(files.AnswerFile),
}
"""The struct and form of each field that contains tables."""


WITHIN = {
    files.UpstreamFile: " of an upstream",
    files.RouteFile: " of a route",
    files.DialectFile: " of a dialect",
}
"""What follows an inner table's name in its heading, by the struct that contains it."""


@functools.cache
def texts(kind: type[Struct]) -> Mapping[str, str]:
    """The docstring below each field of a struct, from its source."""
    [body] = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            found[field.target.id] = " ".join(str(below.value.value).split())  # type: ignore[attr-defined]
    return found


@dataclass(frozen=True)
class Own:
    """A field that a dialect adds to a table: the field, its type, its docstring, and the dialect's name."""

    item: FieldInfo
    hint: Any
    text: str
    dialect: str


def own_fields(found: Mapping[str, Dialect], kind: type[Struct]) -> Iterator[Own]:
    """The fields that dialects add to the table of an upstream or an inbound."""
    for name, dialect in found.items():
        own = {files.UpstreamFile: dialect.settings, files.InboundFile: dialect.inbound_settings}.get(kind)
        if own:
            hints = get_type_hints(own)
            for item in struct_fields(own):
                yield Own(item, hints[item.name], texts(own).get(item.name, ""), name)


# --- the schema ------------------------------------------------------------------------------------------------


def schema(found: Mapping[str, Dialect]) -> dict[str, Any]:
    """The JSON Schema of a configuration with these dialects built in."""
    top = _table(files.File, found)
    return {"$schema": SCHEMA, "title": "alert-gateway", **top, "if": _DESCRIBES, "else": _only(list(found))}


_DESCRIBES = {"required": ["dialects"]}
"""Schema condition: the file describes dialects of its own, so more names than those of built-in ones are valid."""


def _only(names: list[str]) -> dict[str, Any]:
    """A schema that allows only these names of dialects."""
    dialect = {"properties": {"dialect": {"enum": names}}}
    return {
        "properties": {
            "inbound": {"propertyNames": {"enum": names}},
            "upstreams": {"additionalProperties": dialect},
        }
    }


def _table(kind: type[Struct], found: Mapping[str, Dialect]) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    properties = {
        item.encode_name: _described(kind, item, _field(kind, item, hints[item.name], found))
        for item in struct_fields(kind)
    }
    for own in own_fields(found, kind):
        said = " ".join(part for part in (f"Of the built-in dialects, only for {own.dialect}.", own.text) if part)
        properties[own.item.encode_name] = {**_plain(own.hint), "description": said}
    if kind is files.UpstreamFile:
        properties["dialect"]["examples"] = list(found)
    required = [item.encode_name for item in struct_fields(kind) if _is_required(item)]
    table = {"type": "object", "description": inspect.cleandoc(kind.__doc__ or ""), "properties": properties}
    return {**table, **({"required": required} if required else {}), "additionalProperties": False}


def _is_required(item: FieldInfo) -> bool:
    return item.default is NODEFAULT and item.default_factory is NODEFAULT


def _described(kind: type[Struct], item: FieldInfo, plain: dict[str, Any]) -> dict[str, Any]:
    default = {} if item.default in (NODEFAULT, None) or isinstance(item.default, Struct) else {"default": item.default}
    return {**plain, **default, "description": texts(kind).get(item.name, "")}


def _field(kind: type[Struct], item: FieldInfo, hint: Any, found: Mapping[str, Dialect]) -> dict[str, Any]:
    inner = INNER.get((kind, item.name))
    if inner is None:
        return _plain(hint)
    table = _table(inner.of, found)
    if inner.form == "list":
        return {"type": "array", "items": table}
    if inner.form == "named" and inner.of is files.InboundFile:
        tables = {name: _table(inner.of, {name: dialect}) for name, dialect in found.items()}
        return {"type": "object", "properties": tables, "additionalProperties": _table(inner.of, {})}
    whole = {"anyOf": [*({"type": one} for one in inner.also), table]} if inner.also else table
    if inner.of is files.FieldFile:
        return _fields(whole)
    return {"type": "object", "additionalProperties": whole} if inner.form == "named" else whole


def _fields(entry: dict[str, Any]) -> dict[str, Any]:
    """The schema of entries by canonical field, which may be written dotted or nested."""
    groups = dict.fromkeys(path.partition(".")[0] for path in PATHS if "." in path)
    return {
        "type": "object",
        "properties": {group: {"type": "object"} for group in groups},
        "propertyNames": {"enum": [*PATHS, *groups]},
        "additionalProperties": entry,
    }


def _plain(hint: Any) -> dict[str, Any]:
    """The schema of a type that contains no tables of the configuration; without null, which TOML does not have."""
    if hint == tuple[Secret, ...]:
        return {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    args = getattr(hint, "__args__", (hint,))
    if Secret in args:
        return {"type": "string"}
    made = msgspec.json.schema(hint)
    kinds = [one for one in made.get("anyOf", [made]) if one.get("type") != "null"]
    kinds = [
        {**one, "enum": [word for word in one["enum"] if word is not None]} if "enum" in one else one for one in kinds
    ]
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


# --- the reference ---------------------------------------------------------------------------------------------


def reference(found: Mapping[str, Dialect]) -> str:
    """The configuration's reference page, in Markdown."""
    parts = [
        "# The configuration",
        "Generated from `gateway/config/file.py` by `python -m gateway.documents`; not to be edited by hand. "
        "For editors there is `gateway.schema.json` beside this page: put "
        "`#:schema ./gateway.schema.json` in the first line of a file.",
        "A secret is `env:NAME`, `file:PATH` or the text itself. Durations are texts such as `10s` or `30d`, sizes are "
        "bytes or texts such as `1MiB`. Paths of tables and samples are relative to the file, those of secrets, their "
        "directories and certificates to where the command is started: better write those as absolute paths.",
        "## At the top",
        _rows(files.File),
    ]
    for title, kind in _sections():
        parts += [f"## {title}", inspect.cleandoc(kind.__doc__ or ""), _rows(kind)]
        own = list(own_fields(found, kind))
        parts += [_own(own)] if own else []
    parts += ["## The fields of an alert", _FIELDS, _fields_of_an_alert()]
    return "\n\n".join(parts) + "\n"


_FIELDS = (
    "The canonical fields, by which `fields`, `defaults`, `set`, `when` and `by` name what an alert says. No body of a "
    "dialect of your own says `kind` or `notifications`. What the gateway keeps itself (†) is written where a dialect "
    "has a place for it, and ignored when it is read."
)


def _fields_of_an_alert() -> str:
    lines = ["| field | type | |", "| --- | --- | --- |"]
    for path in PATHS:
        leaf = path.rpartition(".")[2]
        own = " †" if path in SERVER_OWNED and path != "status" else ""
        lines.append(f"| `{path}`{own} | {_sort(type_of(path))} | {texts(holder_of(path) or Alert)[leaf]} |")
    return "\n".join(lines)


def _sort(hint: Any) -> str:
    """The type of a canonical field, in the reference's terms."""
    kinds = [hint, *get_args(hint)]
    if datetime in kinds:
        return "time"
    if any(issubclass(inner, Struct) for kind in kinds for inner in get_args(kind) if isinstance(inner, type)):
        return "list of tables"
    return _named(hint)


def _sections() -> Iterator[tuple[str, type[Struct]]]:
    seen: set[type[Struct]] = set()
    for (holder, field), inner in INNER.items():
        if inner.of in seen:
            continue
        seen.add(inner.of)
        name = {"named": f"[{field}.NAME]", "list": f"[[{field}]]", "one": field}[inner.form]
        within = WITHIN.get(holder, "")
        yield f"`{name}`{within}", inner.of
    yield "a value of `set`", files.SetFile


def _rows(kind: type[Struct]) -> str:
    lines = ["| key | type | default | |", "| --- | --- | --- | --- |"]
    hints = get_type_hints(kind)
    for item in struct_fields(kind):
        inner = INNER.get((kind, item.name))
        shown = _named(hints[item.name]) if inner is None else _inner_name(inner)
        default = "required" if _is_required(item) else _default(item)
        cells = [f"`{item.encode_name}`", shown, default, texts(kind).get(item.name, "")]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _inner_name(inner: Inner) -> str:
    own = {"one": "table", "named": "tables by name", "list": "list of tables"}[inner.form]
    own = f"texts or {own}" if inner.of is files.FieldFile else own
    if inner.form == "named":
        return own
    return " or ".join([*({"string": "text", "integer": "number"}[one] for one in inner.also), own])


def _own(own: list[Own]) -> str:
    lines = ["| key of a dialect's own | dialect | default | |", "| --- | --- | --- | --- |"]
    rows = ((f"`{one.item.encode_name}`", f"`{one.dialect}`", _default(one.item), one.text) for one in own)
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)])


def _default(item: FieldInfo) -> str:
    if item.default in (NODEFAULT, None, "", ()) or isinstance(item.default, dict | list):
        return ""
    return f"`{msgspec.json.encode(item.default).decode()}`"


def _named(hint: Any) -> str:
    made = _plain(hint)
    return " or ".join(dict.fromkeys(_kind(one) for one in made.get("anyOf", [made])))


def _kind(made: Mapping[str, Any]) -> str:
    if "enum" in made:
        return ", ".join(f"`{word}`" for word in made["enum"])
    if made.get("type") == "array":
        items = made.get("items", {})
        return "list of " + " or ".join(f"{_kind(one)}s" for one in items.get("anyOf", [items]))
    plain = {"string": "text", "integer": "number", "number": "number", "boolean": "true or false", "object": "table"}
    return plain.get(str(made.get("type")), "any value")
