"""What is around the alerts of a described vendor: texts that are JSON themselves, and a list of several alerts.

It must not know any vendor.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from msgspec import UNSET

from gateway.asked import Incoming
from gateway.asking import body_object
from gateway.errors import Problem, invalid
from gateway.inbound.limits import decode
from gateway.wire import Wire, copied, get, put, without

LONGEST_SHOWN = 200
"""Characters of a text that is told where it is no JSON."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """`texts` are the places of texts that are JSON objects themselves, `each` is that of a list of alerts: what is
    beside it is said of each of them."""

    texts: tuple[str, ...] = ()
    each: str = ""

    def opened(self, incoming: Incoming) -> Wire:
        """The body, with objects in the place of such texts."""
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
        """The requests that one of many alerts stands for; None where each is of one."""
        if not self.each:
            return None
        body = self.opened(incoming)
        listed = get(body, self.each)
        if not isinstance(listed, list):
            raise invalid(self.each, "must be a list of alerts")
        beside = without(body, self.each)
        bodies = [{**beside, **one} if isinstance(one, dict) else one for one in listed]
        return tuple(msgspec.structs.replace(incoming, body=one) for one in bodies)

    def listed(self, body: Wire) -> Wire:
        """The way back of one alert: alone in such a list."""
        if not self.each:
            return body
        whole: Wire = {}
        put(whole, self.each, [body])
        return whole

    def packed(self, body: Wire) -> Wire:
        """The way back of objects: they are texts again."""
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
        raise invalid(place, f"is no JSON object in a text: {shown}")
    return found
