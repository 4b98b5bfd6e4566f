"""What a dialect puts around the alerts of any other that is described in words: attributes beside the alert, or in
headers, and the forms in which both travel. It is declared by the dialect that has it; nothing here knows one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from gateway.asked import Incoming
from gateway.dialect import Route
from gateway.outcome import Json, Request, Sending
from gateway.rows import Dropped

Seal = Callable[[Request, dict[str, Json], Sending, str], Request]
"""Puts an event into a request that has method, path and headers, in one of the envelope's modes."""


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """An envelope, as data and pure functions.

    `opened` finds the event in a request: the attributes and what is among them, as one object; it raises `Problem`.
    `parted` are the requests that a batch of events stands for, None where there is one event.
    `sealed` is the way back. `attributes` are the types of those that are known, `required` those that every event has,
    `dropped` says which concern no alert, `fields` which canonical fields the others are, unless a description says
    otherwise. `settings` has a field `mode`, None or one of `modes`, the first of which is usual. `admits` refuses by
    the headers alone, `credentials` finds what callers offer, `routes` are further ones beside that of the events, at
    its path. `sample` are the attributes of an example.
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
