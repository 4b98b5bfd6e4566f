"""Generates documents: `mappings/README.md` and the README's table of dialects from the dialects' declarations, and
the configuration's reference and JSON Schema in `deploy` from the structs of the configuration.

`python -m gateway.documents` writes them; a test fails when they are stale. It must not know any vendor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import json

from gateway.canonical import SERVER_OWNED, Flat, Operation
from gateway.config.schema import reference, schema
from gateway.config.values import flat_of
from gateway.dialect import Dialect
from gateway.errors import Problem
from gateway.examples import openings
from gateway.mapping.report import Fate
from gateway.mapping.rows import Row, Unmet
from gateway.mapping.saying import Destination, Saying
from gateway.mapping.table import Mapping as Rows
from gateway.mapping.translation import translate
from gateway.registry import dialects
from gateway.rehearsal import command_in

BEGIN, END = "<!-- generated: dialects -->", "<!-- /generated -->"


def dialect_rows(found: Iterable[Dialect]) -> list[dict[str, Any]]:
    """Each dialect: the operations that it accepts from callers and sends to upstreams, and its paths."""
    return [
        {
            "dialect": dialect.name,
            "title": dialect.title,
            "accepts": _in_order(operation for route in dialect.routes for operation in route.operations),
            "sends": _in_order([*dialect.outbound.calls, *_reads(dialect)]),
            "paths": [f"{route.method} {route.path}" for route in dialect.routes],
        }
        for dialect in found
    ]


def _reads(dialect: Dialect) -> list[Operation]:
    offered = {Operation.READ: dialect.outbound.read, Operation.LIST: dialect.outbound.list}
    return [operation for operation, call in offered.items() if call]


def _in_order(operations: Iterable[Operation]) -> list[str]:
    found = set(operations)
    return [str(operation) for operation in Operation if operation in found]


def _markdown(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(columns)
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def dialect_table(found: Mapping[str, Dialect]) -> str:
    """The README's table of dialects and operations."""
    rows = [
        [
            f"[{dialect.title}]({dialect.source})",
            f"`{row['dialect']}`",
            ", ".join(row["accepts"]),
            ", ".join(row["sends"]),
            dialect.reply,
            dialect.client_setting,
        ]
        for dialect, row in zip(found.values(), dialect_rows(found.values()), strict=True)
    ]
    return _markdown(["vendor", "dialect", "accepts", "sends", "`reply`", "what a client changes"], rows)


def mappings_page(found: Mapping[str, Dialect]) -> str:
    """`mappings/README.md`: every dialect's rows, and what becomes of its fields at every other."""
    parts = [
        "# What each vendor's words become",
        "Generated from the dialects' own rows by `python -m gateway.documents`; not to be edited by hand.",
        "`mapped`: the target has a field for it. `carried`: kept in the target's free-form field and restorable. "
        "`approximated`: narrowed, rounded, cut, or filled from a default. `kept`: only the gateway's record holds it. "
        "`dropped`: does not concern an alert.",
    ]
    for dialect in found.values():
        parts += [f"## {dialect.title} (`{dialect.name}`)", f"Source: {dialect.source}"]
        parts += [" ".join(filter(None, (_address(dialect), dialect.remark)))]
        parts += [_markdown(["wire field", "canonical field", "direction", "note"], _row_cells(dialect.mapping))]
        parts += [f"### From {dialect.title} to every vendor", _fates_table(dialect, found)]
    return "\n\n".join(parts) + "\n"


def _address(dialect: Dialect) -> str:
    """What an upstream's `url` is; the remarks on webhooks say it themselves, which have no usual one."""
    return "" if dialect.outbound.whole_url else f"An upstream's usual `url` is `{dialect.url}`."


def _row_cells(mapping: Rows) -> list[list[str]]:
    cells = [[_code(entry.wires), _code(entry.paths), _direction(entry), _note(entry)] for entry in mapping.rows]
    return cells + [[f"`{drop.wire}`", "-", "in", f"dropped: {drop.why}"] for drop in mapping.dropped]


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _direction(entry: Row) -> str:
    return {"both": "both", "request": "in requests, not in replies", "reply": "set by the server"}[entry.side]


def _note(entry: Row) -> str:
    notes = ["secondary value"] if entry.derived else []
    notes += ["required"] if entry.required else []
    return "; ".join([*notes, *([entry.why] if entry.why else [])])


def _fates_table(dialect: Dialect, found: Mapping[str, Dialect]) -> str:
    flat = _everything_said(dialect)
    fates = {target.name: _fates(dialect, target, flat) for target in found.values()}
    rows = [
        [f"`{path}`", *(fates[name].get(path, "-") for name in found)]
        for path in flat
        if path not in SERVER_OWNED and path != "kind"
    ]
    return _markdown(["canonical field", *(target.title for target in found.values())], rows)


def _everything_said(dialect: Dialect) -> Flat:
    """One alert with every field that the documented examples of a dialect have."""
    flat: Flat = {"kind": dialect.kind}
    for body in openings(dialect):
        try:
            asked = command_in(dialect, Operation.CREATE, body)
        except Problem:
            continue
        said = {**{hint.path: hint.value for hint in asked.hints}, **asked.patch}
        flat.update((path, value) for path, value in said.items() if value is not None)
    return flat


def _fates(origin: Dialect, target: Dialect, flat: Flat) -> dict[str, str]:
    defaults = flat_of(target.usual_defaults, target.name)
    destination = Destination(name=target.name, dialect=target, mapping=target.mapping, defaults=defaults)
    key = "key" if target.outbound.addressed_by == "key" else None
    key = flat.get("dedup_key", key) if key else None
    try:
        said = translate(Saying(flat=flat, origin=origin.name, caller="caller", key=key), destination)
    except Unmet as unmet:
        return {unmet.path: "required"}
    return {fate.field: _cell(fate) for fate in said.report}


def _cell(fate: Fate) -> str:
    return fate.fate + (f" → `{fate.to}`" if fate.to and fate.fate in ("mapped", "approximated") else "")


def readme_with(text: str, table: str) -> str:
    """The README's text with its generated table replaced."""
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", f"{BEGIN}\n{table}\n{END}", text, flags=re.DOTALL)


def schema_file(found: Mapping[str, Dialect]) -> str:
    """The configuration's JSON Schema as a file."""
    return json.format(json.encode(schema(found)), indent=2).decode() + "\n"


def main(root: Path = Path()) -> None:
    """Writes all generated documents below `root`."""
    found = dialects()
    (root / "deploy").mkdir(exist_ok=True)
    (root / "deploy" / "configuration.md").write_text(reference(found), "utf8")
    (root / "deploy" / "gateway.schema.json").write_text(schema_file(found), "utf8")
    (root / "mappings" / "README.md").write_text(mappings_page(found), "utf8")
    readme = root / "README.md"
    readme.write_text(readme_with(readme.read_text("utf8"), dialect_table(found)), "utf8")


if __name__ == "__main__":
    main()
