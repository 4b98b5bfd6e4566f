"""Problem codes: one table, one heading in the runbook for each, and the same word wherever a code is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.codes import MEANINGS, Code
from gateway.errors import ProblemKind
from gateway.outcome import Again, Changed, Delivered, Found, Held, Missing, Outcome, Pending, Rejected, code_of
from gateway.watch import trouble
from tests.chaos_upstream import CLOSE, CUT, HANG, RESET_AFTER, Behaviour, chaos, say
from tests.engine.test_delivery import TIMEOUT, attempts, before, deliveries, ended, page, table
from tests.engine.test_rules import ROOT, rules
from tests.harness import KEY

PAGE = say(200, b"<html>sign in", {"content-type": "text/html"})


def runbook() -> dict[str, str]:
    """The README's runbook: each heading in code letters, with the text below it."""
    text = (ROOT / "README.md").read_text("utf8").partition("\n## Runbook\n")[2].partition("\n## ")[0]
    parts = re.split(r"^#{3,4} (.+)$", text, flags=re.MULTILINE)[1:]
    return {
        name: body.strip()
        for heading, body in zip(parts[::2], parts[1::2], strict=True)
        for name in re.findall(r"`([^`]+)`", heading)
    }


def test_every_code_has_a_meaning_and_nothing_else_has() -> None:
    assert set(MEANINGS) == {*Code, *ProblemKind}
    assert len(set(MEANINGS.values())) == len(MEANINGS), "two codes that mean the same are one"
    assert all(re.fullmatch(r"[a-z]+([-_][a-z]+)*", code) for code in MEANINGS)


def test_every_code_is_a_heading_of_the_runbook_and_every_heading_is_one() -> None:
    alarms = {rule["annotations"]["runbook"].removeprefix("README: ") for rule in rules()} | set(trouble.CODES)
    assert set(runbook()) - alarms == {str(code) for code in MEANINGS} - alarms
    assert alarms <= set(runbook())


def test_every_heading_says_what_to_do() -> None:
    for code, text in runbook().items():
        assert 1 <= len(re.findall(r"[.!](?=\s|$)", text)) <= 6, f"{code}: {text}"


def test_a_code_is_written_down_nowhere_but_in_the_table() -> None:
    """A code that is spelled out in two places could be changed in one only."""
    words = {code for code in Code if "-" in code} | {"rules_refused"}
    spelled = [
        (path.name, word)
        for path in (ROOT / "gateway").rglob("*.py")
        for word in words
        if path.name != "codes.py" and f'"{word}"' in path.read_text("utf8")
    ]
    assert spelled == []


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Delivered(), ""),
        (Found(()), ""),
        (Missing(), "gone-there"),
        (Changed(reason="r", found={}), "conflict"),
        (Again(reason="r"), "unavailable"),
        (Pending(after=1.0), "unconfirmed"),
        (Rejected(reason="r"), "refused"),
        (Rejected(reason="r", kind=ProblemKind.NAME_TAKEN), "name_taken"),
        (Held("r"), "key-refused"),
    ],
)
def test_what_a_call_comes_to_has_a_code(outcome: Outcome, code: str) -> None:
    assert code_of(outcome) == code


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (say(503), "unavailable"),
        (say(408), "unavailable"),
        (say(429), "throttled"),
        (HANG, "no-answer"),
        (CLOSE, "no-answer"),
        (RESET_AFTER, "no-answer"),
        (CUT, "no-answer"),
        (PAGE, "web-page"),
    ],
    ids=lambda value: value.name if isinstance(value, Behaviour) else value,
)
def test_why_an_attempt_failed(tmp_path: Path, behaviour: Behaviour, code: str) -> None:
    patient = 'timeout = "2s"'  # or a busy machine is not even connected in time
    with (
        chaos(say(202, {})) as upstream,
        before(tmp_path, table("oncall", upstream.url).replace(f'timeout = "{TIMEOUT}s"', patient)) as h,
    ):
        upstream.plan(behaviour)
        page(h)
        [delivered] = ended(h, "delivered")
        assert [one.code for one in attempts(h, delivered)] == [code, ""]
        assert delivered.code == ""
        text = h.client.get(h.url + "/metrics").text
        counted = f'alert_gateway_deliveries_total{{outcome="again",reason="{code}",upstream="oncall"}} 1.0'
        assert counted in text


def test_where_nobody_is_nothing_was_sent(tmp_path: Path) -> None:
    with before(tmp_path, table("oncall", "http://127.0.0.1:9")) as h:
        page(h)
        [waiting] = h.wait_for(lambda: (found := deliveries(h)) and found[0].attempts and found)
        assert (waiting.state, waiting.code) == ("waiting", "unreachable")


def test_what_a_delivery_died_of(tmp_path: Path) -> None:
    with chaos(say(400, {"message": "no"})) as upstream, before(tmp_path, table("oncall", upstream.url)) as h:
        page(h)
        [dead] = ended(h, "dead")
        assert (dead.code, [one.code for one in attempts(h, dead)]) == ("refused", ["refused"])


def test_what_was_given_up_says_so_and_its_attempts_say_why(tmp_path: Path) -> None:
    retry = 'retry = { first = "100ms", most = "100ms", max_age = "100ms" }'
    with chaos(say(503)) as upstream, before(tmp_path, table("oncall", upstream.url, retry=retry)) as h:
        page(h)
        [dead] = ended(h, "dead")
        assert dead.code == "given-up"
        assert {one.code for one in attempts(h, dead)} == {"unavailable"}


@pytest.mark.parametrize("status", [401, 402, 403])
def test_what_an_upstream_is_held_for(tmp_path: Path, status: int) -> None:
    with chaos(say(status)) as upstream, before(tmp_path, table("oncall", upstream.url)) as h:
        page(h)
        [held] = h.wait_for(lambda: (found := deliveries(h)) and found[0].attempts and found)
        assert (held.state, held.code) == ("waiting", "key-refused")


def test_a_caller_is_told_by_the_same_word(tmp_path: Path) -> None:
    """interface.md, *HTTP*: `dead=<problem code>` in the report header."""
    route = '[[routes]]\nto = ["oncall", "status"]\n'
    status = table("status", "http://127.0.0.1:9", dialect="uptinio")
    with chaos(say(202, {})) as upstream, before(tmp_path, table("oncall", upstream.url), status, routes=route) as h:
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "s", "alertKey": "k"}
        [line] = h.call("POST", "/api/events", event, key=None).report
        assert line == "status; dead=unmet"
        [dead] = ended(h, "dead")
        assert dead.code == "unmet"
