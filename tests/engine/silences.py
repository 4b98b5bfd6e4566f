"""Shared by the tests of silences: silences as Alertmanager's callers post them."""

from __future__ import annotations

from typing import Any

from tests.clients.callers import fresh
from tests.engine.lasting import SILENCES, seconds
from tests.harness import KEY, House, Sent

ONE = "/alertmanager/api/v2/silence/"


def named(word: str) -> str:
    return fresh(word).replace(" ", "")


def matching(name: str, value: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "value": value, "isRegex": False, **more}


def silence(h: House, *matchers: dict[str, Any], lasts: float = 60, key: str = KEY, **more: Any) -> Sent:
    body = {"startsAt": seconds(-1), "endsAt": seconds(lasts), "createdBy": "jane", "comment": "we know"}
    return h.call("POST", SILENCES, {"matchers": list(matchers), **body, **more}, key=key)


def silenced(h: House, name: str, **more: Any) -> str:
    sent = silence(h, matching("alertname", name), **more)
    assert sent.status == 200, sent.body
    return str(sent.body["silenceID"])


def state(h: House, name: str) -> str:
    found = h.call("GET", f"/alertmanager/api/v2/alerts?filter=alertname={name}").body
    return str(found[0]["status"]["state"])


def is_over(h: House, silence: str) -> None:
    assert h.call("DELETE", ONE + silence).status == 200
