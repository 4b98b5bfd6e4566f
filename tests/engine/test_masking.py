"""A caller's credential that it says a second time, where its vendor's API does not ask for it, goes nowhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET
from structlog.testing import CapturingLogger

from gateway.canonical import Operation
from gateway.config.secrets import MASK
from gateway.examples import examples, with_credential
from gateway.inbound import surface
from gateway.inbound.masking import masked
from gateway.registry import dialects
from tests.engine.lasting import select
from tests.harness import KEY, house

ALERTS = "/opsgenie/v2/alerts"

SLASHED = "ab/cd+ef/0123456789"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"own": SLASHED}, {"own": MASK}),
        ({"text": f"key: {SLASHED}!"}, {"text": f"key: {MASK}!"}),
        (
            {"links": [{"href": "https://x/?k=ab%2Fcd%2Bef%2F0123456789"}]},
            {"links": [{"href": f"https://x/?k={MASK}"}]},
        ),
        ({"headers": {SLASHED: 1, "n": None}}, {"headers": {MASK: 1, "n": None}}),
        ({"text": SLASHED[:-1]}, {"text": SLASHED[:-1]}),
    ],
)
def test_it_is_masked_wherever_it_stands(said: Any, kept: Any) -> None:
    plain = json.dumps(said)
    for text in (plain, plain.replace("/", r"\/")):  # as PHP writes it
        assert masked(said, SLASHED, text.encode(), told=0) == kept


def test_where_the_vendor_asks_for_it_is_no_second_time() -> None:
    said = {"apiKey": SLASHED, "summary": "Disk full"}
    assert masked(said, SLASHED, json.dumps(said).encode(), told=1) is said


def test_who_says_it_in_the_address_too_is_asking_for_the_same_alert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alias with the key in it is masked where the alert is made: its end, which has it in the path, ended nothing,
    and showed the key to the vendor and to the log."""
    monkeypatch.setattr(surface, "log", said := CapturingLogger())
    alias = f"disk-{KEY}"
    with house(tmp_path, {"there": "opsgenie"}) as h:
        assert h.call("POST", ALERTS, {"message": "Disk full", "alias": alias}).status == 202
        h.arrives("opsgenie", 1)
        assert h.call("GET", f"{ALERTS}/{alias}?identifierType=alias").status == 200
        [found] = h.call("GET", f"{ALERTS}?query=alias:{alias}").body["data"]
        assert h.call("POST", f"{ALERTS}/{alias}/close?identifierType=alias", {}).status == 202
        _, end = h.arrives("opsgenie", 2)
        assert KEY not in end.path and end.path.startswith("/v2/alerts/"), end.path
        assert h.call("GET", f"{ALERTS}/{found['id']}").body["data"]["status"] == "closed"
    assert said.calls and KEY not in str(said.calls)


def test_a_short_one_may_be_any_word() -> None:
    said = {"summary": "the database is down"}
    assert masked(said, "database", json.dumps(said).encode(), told=0) is said


@pytest.mark.parametrize("name", dialects())
def test_whoever_says_it_again_tells_no_upstream_and_no_store(name: str, tmp_path: Path) -> None:
    """Whether in a field of another name, a link, or a text that the vendor knows."""
    example = next(one for one in examples(name) if one.operation is Operation.CREATE)
    ready = with_credential(example.request.about(), dialects()[name], KEY)
    assert ready.body is not UNSET
    spare = {"ownKey": KEY, "docs": f"https://example.com/?key={KEY}"}
    body = [{**one, **spare} for one in ready.body] if isinstance(ready.body, list) else {**ready.body, **spare}
    with house(tmp_path, {"there": "opsgenie", "too": "pagerduty"}, '[[routes]]\nto = ["there", "too"]') as h:
        answer = h.client.request(ready.method, f"{h.url}/{name}{ready.path}", json=body, headers=ready.headers)
        assert answer.status_code < 300 and KEY not in answer.text, answer.text
        h.wait_for(lambda: h.arrived("opsgenie") and h.arrived("pagerduty"))
        for arrived in (*h.arrived("opsgenie"), *h.arrived("pagerduty")):
            assert KEY not in json.dumps(arrived.body) and KEY not in arrived.path
        kept = "".join(str(row) for row in select(h, "SELECT body FROM alerts"))
        assert KEY not in kept
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.glob("gateway.db*"))
