"""What is around the alerts in a described vendor's body: texts that are JSON themselves, and a list of several alerts.

It must not know any vendor.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from msgspec import UNSET

from gateway.asked import Incoming
from gateway.asking import body_object, can_be_repeated
from gateway.errors import Problem, ProblemKind, invalid
from gateway.inbound.limits import decode
from gateway.mapping.wire import Wire, copied, get, put, without

LONGEST_SHOWN = 200
"""The most characters shown of a text that is not JSON."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """`texts` are the places of texts that are JSON objects themselves, `each` is the place of a list of alerts; what
    stands beside the list applies to each of them."""

    texts: tuple[str, ...] = ()
    each: str = ""

    def opened(self, incoming: Incoming) -> Wire:
        """Returns the body with those texts decoded to objects."""
        body: Wire = body_object(incoming)
        if not any(isinstance(get(body, place), str) for place in self.texts):
            return body
        opened: Wire = copied(body)
        for place in self.texts:
            said = get(opened, place)
            if isinstance(said, str):
                put(opened, place, _object(place, said))
        return opened

    def parted(self, incoming: Incoming) -> tuple[Incoming, ...] | None:
        """Returns one request for each alert of a list; None where a body is one alert."""
        if not self.each:
            return None
        body = self.opened(incoming)
        listed = get(body, self.each)
        if not isinstance(listed, list):
            raise invalid(self.each, "must be a list of alerts")
        beside = without(body, self.each)
        if not can_be_repeated(beside, len(listed)):
            text = f"too much stands beside {self.each} for {len(listed):,} alerts; send fewer at a time"
            raise Problem(ProblemKind.TOO_LARGE, text, field=self.each)
        bodies = [{**beside, **one} if isinstance(one, dict) else one for one in listed]
        return tuple(msgspec.structs.replace(incoming, body=one) for one in bodies)

    def listed(self, body: Wire) -> Wire:
        """The inverse of `parted` for one alert: puts it alone into such a list."""
        if not self.each:
            return body
        whole: Wire = {}
        put(whole, self.each, [body])
        return whole

    def packed(self, body: Wire) -> Wire:
        """The inverse of `opened`: encodes the objects as texts again."""
        for place in self.texts:
            found = get(body, place)
            if found is not UNSET and not isinstance(found, str):
                put(body, place, msgspec.json.encode(found).decode())
        return body


def _object(place: str, text: str) -> Wire:
    shown = f"{text[:LONGEST_SHOWN]}…" if len(text) > LONGEST_SHOWN else text
    try:
        found = decode(text.encode("utf8", "surrogatepass"))
    except Problem:
        found = None
    if not isinstance(found, dict):
        raise invalid(place, f"is not a text with a JSON object: {shown}")
    return found
