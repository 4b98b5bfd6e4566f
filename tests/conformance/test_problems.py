"""Every kind of problem is answered in the vendor's words and shape; every status of an upstream has a verdict."""

from __future__ import annotations

import msgspec
import pytest

from gateway.delivery.judging import judge
from gateway.errors import USUAL_STATUS, Problem, ProblemKind
from gateway.outcome import Response
from gateway.registry import dialects
from tests.conformance.errors import documented, is_error_of
from tests.conformance.samples import NAMES

FOREIGN = (b"", b"null", b"[]", b'"no"', b"<html>", b"{", b'{"error": 3}', b'{"errors": [1, null]}')
SAID = 'field: "quoted", with \u2028 odd \x07 characters and a tab\t'


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ProblemKind)
def test_every_problem_has_the_vendors_words(name: str, kind: ProblemKind) -> None:
    problem = Problem(kind, SAID, field="field")
    problem.request = "42"
    reply = dialects()[name].problem(problem)
    body = msgspec.json.decode(msgspec.json.encode(reply.body))
    assert is_error_of(name, body)
    assert reply.status // 100 == USUAL_STATUS[kind] // 100
    assert (reply.status >= 500) == (kind in (ProblemKind.INTERNAL, ProblemKind.OVERLOADED))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [ProblemKind.MALFORMED, ProblemKind.INVALID, ProblemKind.UNMET, ProblemKind.REFUSED])
def test_what_is_wrong_with_the_content_is_said(name: str, kind: ProblemKind) -> None:
    reply = dialects()[name].problem(Problem(kind, "threshold: is required", field="threshold"))
    said = msgspec.json.encode(reply.body).decode()
    assert all(word in said for word in ("threshold", "is required"))


@pytest.mark.parametrize("name", NAMES)
def test_our_own_words_are_understood_as_the_vendors(name: str) -> None:
    """With two gateways in a row, the second's `reason` understands the first's answer."""
    dialect = dialects()[name]
    for kind in ProblemKind:
        reply = dialect.problem(Problem(kind, "it went wrong"))
        assert dialect.outbound.reason(Response(reply.status, {}, msgspec.json.encode(reply.body)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", FOREIGN)
def test_an_answer_that_is_not_the_vendors_has_no_reason_but_does_no_harm(name: str, content: bytes) -> None:
    assert isinstance(dialects()[name].outbound.reason(Response(502, {}, content)), str)


@pytest.mark.parametrize("name", NAMES)
def test_every_status_has_a_verdict(name: str) -> None:
    """The verdict is that of the common rule, except where the vendor documents another."""
    dialect = dialects()[name]
    exceptions = {error["status"]: error["verdict"] for error in documented(name)}
    for status in range(100, 600):
        verdict = judge(status, dialect)
        usual = _usual(status)
        assert verdict == exceptions.get(status, usual), f"{status} is {verdict}"
        assert verdict == usual or status in dialect.outbound.verdicts


def _usual(status: int) -> str:
    if 200 <= status <= 299:
        return "ok"
    if status in (408, 425, 429) or status >= 500:
        return "retry"
    return "hold" if status in (401, 402, 403) else "dead"
