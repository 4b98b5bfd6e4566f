"""The declaration of an envelope: attributes that one dialect can put around the alerts of described dialects, beside
the alert or in headers, and the modes in which both travel. The dialect that has it declares it; nothing here knows
one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from gateway.asked import Incoming
from gateway.dialect import Route
from gateway.mapping.rows import Dropped
from gateway.outcome import Json, Request, Sending

Seal = Callable[[Request, dict[str, Json], Sending, str], Request]
"""Puts an event into a request that has its method, path and headers, in one of the envelope's modes."""


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """An envelope, as data and pure functions.

    `opened` returns the event of a request, its attributes with the data among them, as one object, and raises
    `Problem`. `parted` returns the requests that a batch of events stands for, None where there is one event. `sealed`
    is the inverse of `opened`. `attributes` are the types of the known attributes, `required` the attributes that every
    event has, `dropped` those that concern no alert, `fields` the canonical fields of others, unless a description says
    otherwise. `settings` has a field `mode`: None or one of `modes`, the first of which is the default. `admits`
    refuses by the headers alone, `credentials` finds what callers offer, `routes` are further routes at the path of the
    events. `sample` are the attributes of an example.
    """

    modes: tuple[str, ...]
    attributes: Mapping[str, Any]
    required: tuple[str, ...]
    dropped: tuple[Dropped, ...]
    fields: Mapping[str, str]
    opened: Callable[[Incoming], dict[str, Json]]
    parted: Callable[[Incoming], tuple[Incoming, ...] | None]
    sealed: Seal
    admits: Callable[[Incoming], None]
    credentials: Callable[[Incoming], tuple[str, ...]]
    settings: type[Struct]
    routes: Callable[[str, bool], tuple[Route, ...]] = lambda path, at_root: ()
    sample: Mapping[str, Json] = field(default_factory=dict)
