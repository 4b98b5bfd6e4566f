"""Opsgenie's search queries, as its callers write them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gateway.errors import Problem
from mappings.opsgenie.query import DEEPEST, LONGEST, parse, sort_key

ALERT = {
    "id": "70413a06",
    "tinyId": "1791",
    "alias": "event_573",
    "message": "Our servers are in danger",
    "status": "open",
    "acknowledged": False,
    "tags": ["Critical", "env:prod"],
    "count": 79,
    "createdAt": "2017-03-21T20:32:52.353Z",
    "priority": "P4",
    "owner": "",
    "responders": [{"id": "4513", "type": "team", "name": "NOC"}],
    "integration": {"name": "Nebuchadnezzar"},
    "details": {"region": "Oregon"},
    "entity": "EC2",
}


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("", True),
        ("status:open", True),
        ("status = OPEN", True),
        ("status!=open", False),
        ("status: closed OR priority: P4", True),
        ("status: open AND NOT acknowledged: false", False),
        ("status: open acknowledged: true", False),
        ("NOT (status: closed OR acknowledged: true)", True),
        ("tag: (Critical OR Minor)", True),
        ("tag: env:prod", True),
        ('tag: "env:prod"', True),
        ("tag: (Critical AND Minor)", False),
        ("danger", True),
        ('message: "in danger" servers', True),
        ("message = danger", False),
        ("message: (cpu OR danger)", True),
        ("alias: event_*", True),
        ("alias: EV*5*3", True),
        ("alias: ev*3*5", False),
        ("alias: *", True),
        ("alias: event_573*3", False),
        ("tinyId: 1791 AND count > 78", True),
        ("count >= 80", False),
        ("createdAt > 2017-01-01T00:00:00Z createdAt < 1500000000000", True),
        ("owner: null", True),
        ("entity: null", False),
        ("teams: NOC", True),
        ("integration.name: neb*", True),
        ("details.key: region AND details.value: oregon", True),
        ("details.region: Oregon", True),
        ("oracle", False),
        ("  ", True),
        ("null", False),
        ("danger ORacle", False),
        ("status: closed or priority: P4", True),
        ("status: open and not acknowledged: false", False),
        ("source: none", False),
        ("owner: *", False),
        ("count <= 80", True),
        ("count >= 78", True),
        ("none", False),
        ("status: open ", True),
        ('"in danger"', True),
        ('"in  danger"', False),
        ("42", False),
        ("-danger", False),
        ("priority: P", False),
        ("tag: Crit", False),
        ("acknowledged: FALSE", True),
        ("owner: NULL", True),
        ('owner: ""', True),
        ('entity: ""', False),
        ("owner: jane", False),
        ("owner != jane", True),
        ("source: null", True),
        ("description: null", True),
        ("actions: null", True),
        ("actions: restart", False),
        ("report.closedBy: jane", False),
        ("report.closedBy: null", True),
        ("report.ackTime > 0", False),
        ("details.other: null", True),
        ("details.value: null", False),
        ("count: 79", True),
        ("count = 78", False),
        ("count != 79", False),
        ("count != 78", True),
        ("count < 79", False),
        ("count < 80", True),
        ("count <= 79", True),
        ("count <= 78", False),
        ("count > 79", False),
        ("count >= 79", True),
        ("count > 78.5", True),
        ("createdAt > -1", True),
        ("createdAt: 2017-03-21T20:32:52.353Z", True),
        ("createdAt != 2017-03-21T20:32:52.353Z", False),
        ("snoozedUntil > 0", False),
        ("snoozedUntil < 1500000000000", False),
        ("snoozedUntil: 0", False),
        ("snoozedUntil != 0", True),
    ],
)
def test_queries(query: str, holds: bool) -> None:
    assert parse(query).test(dict(ALERT)) is holds


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("message: null", False),
        ("message: NULL", False),
        ("null pointer", True),
        ("exception", False),
        ("tag: null", True),
        ("tag: db", False),
        ("tag != db", True),
        ("responders: null", True),
        ("responders: NOC", False),
        ("details.key: region", False),
        ("details.region: null", True),
        ("actions: restart", True),
        ("actions: ping", True),
        ("tag: restart", False),
        ("report.ackTime > 2", True),
        ("report.ackTime > 3", False),
        ("updatedAt > 0", False),
        ("lastOccurredAt != 0", True),
    ],
)
def test_queries_about_what_is_empty_or_odd(query: str, holds: bool) -> None:
    """An alert may be shown without a field, or with something in it that is no time."""
    odd: dict[str, Any] = {
        "message": "null pointer",
        "actions": ["restart", "ping"],
        "report": {"ackTime": 2.5},
        "updatedAt": "soon",
        "lastOccurredAt": "",
    }
    assert parse(query).test(dict(odd)) is holds


@pytest.mark.parametrize(
    ("query", "is_open", "since", "before"),
    [
        ("", False, None, None),
        ("status: open", True, None, None),
        ("status=OPEN AND priority: P1", True, None, None),
        ("db status: open", True, None, None),
        ("status: open OR priority: P1", False, None, None),
        ("priority: P1 OR createdAt > 1000 status: open", False, None, None),
        ("NOT status: open", False, None, None),
        ("(status: open OR tag: x) createdAt >= 1000", False, 1000, None),
        ("status != open", False, None, None),
        ("status: closed", False, None, None),
        ("status: op*", False, None, None),
        ("createdAt > 1000 AND createdAt < 5000 createdAt > 2000", False, 2000, 6001),
        ("createdAt = 1000", False, 1000, 2001),
        ("createdAt != 1000", False, None, None),
        ("createdAt < 99999999999999999", False, None, None),
        ("updatedAt > 1000", False, None, None),
        ("message: open", False, None, None),
        ("status: open OR (tag: a OR tag: b)", False, None, None),
        ("createdAt >= 0", False, 0, None),
        ("createdAt: 1000", False, 1000, 2001),
        ("createdAt <= 1000", False, None, 2001),
        ("createdAt > 2000 createdAt > 1000", False, 2000, None),
        ("createdAt < 1000 createdAt < 5000", False, None, 2001),
        ("createdAt > -5", False, None, None),
    ],
)
def test_what_a_query_says_of_all_that_pass_it(
    query: str, is_open: bool, since: int | None, before: int | None
) -> None:
    """The store's filter is derived from a query only where it holds for every match."""
    said = parse(query)
    assert said[1:4] == (is_open, since, before)
    assert said.is_all is (query in ("", "status: open"))


def test_wildcards_do_not_keep_the_gateway_busy() -> None:
    """Matching is not exponential: backtracking over four wildcards on a text of the longest kind would not end."""
    began = time.perf_counter()
    assert not parse('description: "*a*a*b"').test({**ALERT, "description": "a" * 400})
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    "query",
    ["status:", "(status: open", "status: open)", "colour: red", "priority > P2", "(" * 40, "count > many", "x" * 3000],
)
def test_queries_that_make_no_sense(query: str) -> None:
    with pytest.raises(Problem, match="query"):
        parse(query)


def test_a_query_has_its_limits() -> None:
    parse("x" * LONGEST)
    with pytest.raises(Problem, match="longer than"):
        parse("x" * (LONGEST + 1))
    nested = "(" * DEEPEST + "danger" + ")" * DEEPEST
    assert parse(nested).test(dict(ALERT))
    with pytest.raises(Problem, match="too deeply"):
        parse(f"({nested})")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("tinyId", [None, "9", "10", "100", "none"]),
        ("count", [None, 2, 2.5, 10]),
        ("message", [None, "10", "9", "alpha", "Beta", "gamma"]),
        ("acknowledged", [None, False, True]),
        ("report.ackTime", [None, 5, 40]),
    ],
)
def test_alerts_are_sorted_by_a_field_numbers_as_numbers(field: str, values: list[object]) -> None:
    """Those without the field come first, and no mixture of kinds is an error."""
    head, _, rest = field.partition(".")
    alerts = [{head: {rest: value} if rest else value} for value in values]
    backwards = alerts[::-1]
    assert sorted(backwards, key=sort_key(field)) == alerts
    assert sort_key(field)({}) == sort_key(field)({head: ""}) == sort_key(field)(alerts[0])
