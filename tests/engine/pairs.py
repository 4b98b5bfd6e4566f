"""What tests of all pairs share: a gateway before each vendor, and what arrives there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from gateway.registry import dialects
from gateway.sandbox import Arrived
from tests.clients.callers import (
    called,
)
from tests.harness import House

DIALECTS = sorted(dialects())
CONSOLE = "x-console"  # marks what does not come from the gateway
HAS_TEXT = {
    "cloudevents": "summary",
    "alertmanager": "summary",
    "ibm_monitoring": "name",
    "ilert": "summary",
    "jsm_ops": "message",
    "livesession": "name",
    "opsgenie": "message",
    "pagerduty": "summary",
    "grafana": "summary",
    "alertmanager_webhook": "summary",
    "uptinio": "message",
}
COMPANIONS = {"jsm_ops": ("/description", "/extra-properties"), "opsgenie": ("/description", "/details")}
"""What goes out beside a changed summary, where each field has a request of its own: the page's text, and what is
carried."""


def _is_companion(one: Arrived) -> bool:
    """What goes out beside another request: what `COMPANIONS` says, and at Alertmanager the silence of an acknowledged
    alert, which is prolonged with it and taken away when it is over."""
    if one.dialect in COMPANIONS:
        return one.path.endswith(COMPANIONS[one.dialect])
    is_held = isinstance(one.body, dict) and "id" in one.body
    return one.dialect == "alertmanager" and (one.path.startswith("/api/v2/silence/") or is_held)


Houses = Callable[..., House]
"""Gives the gateway with one upstream, `there`, of a dialect, and whatever else its configuration says."""


@contextmanager
def standing_houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Houses]:
    """Every caller waits for the verdict, so that what a test asked for has arrived when the next one begins."""
    standing: dict[tuple[str, str], House] = {}
    with ExitStack() as stack:

        def get(dialect: str, more: str = "") -> House:
            if (dialect, more) not in standing:
                there = called(
                    tmp_path_factory.mktemp("pairs"), {"there": dialect}, more=more, top='reply = "delivered"'
                )
                standing[dialect, more] = stack.enter_context(there)
            return standing[dialect, more]

        yield get


def target_of(h: House) -> str:
    """The dialect of the upstream."""
    return h.gateway.config.upstreams["there"].dialect.name


def fields_of(one: Arrived) -> dict[str, Any]:
    """What is said of the alert, wherever the vendor has it said."""
    if isinstance(one.body, list):
        return dict(one.body[0].get("annotations", {}))
    body: dict[str, Any] = one.body if isinstance(one.body, dict) else {}
    if "alerts" in body:  # of a webhook: what it says of its one alert, and whether that is over
        return {**body["alerts"][0]["annotations"], "status": body["alerts"][0]["status"]}
    found: dict[str, Any] = body.get("alert", body.get("payload", body.get("data", body)))
    return found


class Watch:
    """What arrives from the gateway in the target's dialect from now on, in the order of arrival."""

    def __init__(self, h: House) -> None:
        self.h = h
        self.mark = len(self._all())
        self.reads = len(self._all("GET"))

    def _all(self, method: str | None = None) -> list[Arrived]:
        return [
            one
            for one in self.h.arrived(target_of(self.h), method)
            if CONSOLE not in one.headers and not _is_companion(one)
        ]

    def sees(self, count: int) -> list[Arrived]:
        """The writing requests so far, once there are so many, and no more than that."""
        self.h.wait_for(lambda: len(self._all()) >= self.mark + count)
        found = self._all()[self.mark :]
        assert len(found) == count, [(one.method, one.path, one.body) for one in found]
        return found

    def gets(self) -> list[str]:
        """The paths that were read so far."""
        return [one.path for one in self._all("GET")[self.reads :]]
