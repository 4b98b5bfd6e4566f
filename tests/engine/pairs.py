"""Shared by the tests of all pairs: a gateway in front of each vendor, and the requests that arrive there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from gateway.cli.sandbox import Arrived
from gateway.registry import dialects
from tests.clients.callers import called
from tests.harness import House

DIALECTS = sorted(dialects())
CONSOLE = "x-console"  # marks requests that do not come from the gateway
HAS_TEXT = {
    "cloudevents": "summary",
    "alertmanager": "summary",
    "ibm_monitoring": "name",
    "ilert": "summary",
    "jsm_ops": "message",
    "livesession": "name",
    "opsgenie": "message",
    "pagerduty": "summary",
    "splunk_oncall": "entity_display_name",
    "grafana": "summary",
    "alertmanager_webhook": "summary",
    "uptinio": "message",
}
COMPANIONS = {"jsm_ops": ("/description", "/extra-properties"), "opsgenie": ("/description", "/details")}
"""Where each field has a request of its own: the paths of the requests that accompany a changed summary, for the page's
text and for what is carried."""


def _is_companion(one: Arrived) -> bool:
    """Whether a request only accompanies another one: as in `COMPANIONS`, or at Alertmanager the silence of an
    acknowledged alert, which is prolonged with each update and removed when the alert is over."""
    if one.dialect in COMPANIONS:
        return one.path.endswith(COMPANIONS[one.dialect])
    is_held = isinstance(one.body, dict) and "id" in one.body
    return one.dialect == "alertmanager" and (one.path.startswith("/api/v2/silence/") or is_held)


Houses = Callable[..., House]
"""Returns the gateway whose one upstream, `there`, speaks a dialect; `more` is further configuration."""


@contextmanager
def standing_houses(tmp_path_factory: pytest.TempPathFactory, top: str = "") -> Iterator[Houses]:
    """Gateways that are started once and kept; `top` is the head of their configuration."""
    standing: dict[tuple[str, str], House] = {}
    with ExitStack() as stack:

        def get(dialect: str, more: str = "") -> House:
            if (dialect, more) not in standing:
                there = called(tmp_path_factory.mktemp(dialect), {"there": dialect}, more=more, top=top)
                standing[dialect, more] = stack.enter_context(there)
            return standing[dialect, more]

        yield get


def target_of(h: House) -> str:
    """The dialect of the gateway's upstream."""
    return h.gateway.config.upstreams["there"].dialect.name


def fields_of(one: Arrived) -> dict[str, Any]:
    """The fields of the alert in a request, wherever the vendor places them."""
    if isinstance(one.body, list):
        return dict(one.body[0].get("annotations", {}))
    body: dict[str, Any] = one.body if isinstance(one.body, dict) else {}
    if "alerts" in body:  # a webhook: the fields of its one alert, and whether it is over
        return {**body["alerts"][0]["annotations"], "status": body["alerts"][0]["status"]}
    found: dict[str, Any] = body.get("alert", body.get("payload", body.get("data", body)))
    return found


class Watch:
    """The requests that arrive from the gateway in the target's dialect from now on, in order of arrival."""

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
        """Waits for `count` writing requests and returns them; fails if there are more."""
        self.h.wait_for(lambda: len(self._all()) >= self.mark + count)
        found = self._all()[self.mark :]
        assert len(found) == count, [(one.method, one.path, one.body) for one in found]
        return found

    def gets(self) -> list[str]:
        """The paths of the reads so far."""
        return [one.path for one in self._all("GET")[self.reads :]]
