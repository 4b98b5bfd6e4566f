"""What is translated, and for which upstream: an alert as its command said it, and an upstream as far as translation
goes. It must not know any vendor, nor how and when something is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Struct

from gateway.canonical import Flat
from gateway.dialect import Dialect
from gateway.mapping.table import Mapping as Rows
from gateway.mapping.table import Reading
from gateway.mapping.wire import Wire


@dataclass(frozen=True, kw_only=True)
class Destination:
    """An upstream as far as translation goes: its dialect and rows, and the settings about content. Pages have a link
    to the alert's trace at `public_url`, if there is one."""

    name: str
    dialect: Dialect
    mapping: Rows
    defaults: Flat = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    rules: Literal["page", "quiet", "refuse"] = "page"
    carry: Literal["full", "ids", "off"] = "full"
    public_url: str = ""


class Saying(Struct, frozen=True, kw_only=True):
    """An alert to be translated for a destination.

    `flat` is the record, `id` the gateway's own id, `origin` the dialect of the caller and `caller` its name; `key` is
    the alert's key there; `replaced` what the route sets and `route` its name; `changed` the paths of an update (None:
    the whole alert is sent); `verbatim` and `said` are the caller's own words for the whole alert and for this command,
    and `reading` what the latter were read as, if still known; `at` is when the command came; `late` is a note that is
    put at the top of the details.
    """

    flat: Flat
    origin: str
    caller: str
    id: int | None = None
    key: str | None = None
    replaced: Flat = msgspec.field(default_factory=dict)
    route: str = ""
    changed: tuple[str, ...] | None = None
    verbatim: Wire | None = None
    said: Wire | None = None
    reading: Reading | None = None
    at: datetime | None = None
    late: str = ""
    dropped: tuple[tuple[str, str], ...] = ()
