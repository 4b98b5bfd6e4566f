"""Routes and their conditions: first match wins unless `continue`, anchored patterns, absent text and numbers."""

from __future__ import annotations

import re
import time
from itertools import product
from pathlib import Path

import pytest

from gateway.canonical import Channel
from gateway.config.choosing import Lookup
from gateway.config.following import Table
from gateway.config.routing import Choice, Hop, Route, always, choose, parse_matcher
from gateway.mapping.values import is_made_of


def route(name: str, *to: str, when: tuple[str, ...] = (), from_: tuple[str, ...] = (), goes_on: bool = False) -> Route:
    """A route, abbreviated."""
    return Route(
        name=name,
        from_=from_,
        when=tuple(parse_matcher(text) for text in when),
        to=tuple(Hop(one) for one in to),
        goes_on=goes_on,
    )


FACTS = {
    "severity": 3,
    "summary": "Disk full on db-1",
    "labels": {"team": "db", "a.b": "dotted", "unit": "7"},
    "custom": {"host": {"name": "db-1"}, "load": 0.5},
    "enabled": True,
    "caller": "ci",
    "dialect": "ilert",
    "condition.window": 60,
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("severity <= 3", True),
        ("severity < 3", False),
        ("severity >= 3", True),
        ("severity > 2.5", True),
        ("severity = 3", True),
        ("severity != 3", False),
        ('labels.team =~ "db|infra"', True),
        ("labels.team = db", True),
        ("labels.team = 'db'", True),
        ("labels.a.b = dotted", True),
        ("labels.unit > 6", True),
        ("custom.host.name = db-1", True),
        ("custom.load < 1", True),
        ("caller = ci", True),
        ("caller != ci", False),
        ("dialect = ilert", True),
        ("enabled = true", True),
        ("condition.window >= 60", True),
        ("  caller  =  ci  ", True),
    ],
)
def test_a_condition(text: str, holds: bool) -> None:
    assert parse_matcher(text).holds(FACTS) is holds


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("summary =~ Disk", False),
        ("summary =~ Disk.*", True),
        ("summary =~ .*full", False),
        ("summary !~ Disk", True),
        ('labels.team =~ "d|x"', False),
        ('labels.team =~ "x|db"', True),
    ],
)
def test_patterns_are_anchored(text: str, holds: bool) -> None:
    """interface.md: Alertmanager's operators = != =~ !~, with anchored patterns."""
    assert parse_matcher(text).holds(FACTS) is holds


def test_a_text_is_made_of_parts_as_a_regular_expression_would_find() -> None:
    """All short texts against all short patterns of the same letters and wildcards."""
    texts = ["".join(one) for size in range(6) for one in product("ab.", repeat=size)]
    patterns = ["".join(one) for size in range(5) for one in product("ab.*", repeat=size)]
    for pattern in patterns:
        parts = re.split(r"\*+", pattern)
        meant = re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
        for text in texts:
            assert is_made_of(text, parts) is bool(meant.fullmatch(text)), (pattern, text)


def test_a_callers_long_text_does_not_keep_a_route_busy() -> None:
    facts = {**FACTS, "summary": "diskfull" * 900}
    began = time.perf_counter()
    assert not parse_matcher("summary =~ .*disk.*full.*now.*").holds(facts)
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ('team = ""', True),
        ("team != x", True),
        ("team =~ .*", True),
        ("team =~ .+", False),
        ("labels.absent = ''", True),
        ("labels.absent !~ x", True),
        ("custom.host.absent = ''", True),
        ("condition.threshold < 5", False),
        ("condition.threshold >= 0", False),
        ("labels.team > 1", False),
    ],
)
def test_absent_text_is_empty_and_an_absent_number_matches_no_comparison(text: str, holds: bool) -> None:
    """canonical.md, *The road of a command*: conditions on fields that an alert lacks."""
    assert parse_matcher(text).holds(FACTS) is holds


LISTS = {
    "extensions.opsgenie.tags": ["prod", "team:db"],
    "extensions.opsgenie.responders": [{"name": "db", "type": "team"}, {"username": "ann@example.com", "type": "user"}],
    "custom": {"hosts": [{"name": "db-1", "disks": [91, 12]}, {"name": "db-2"}, "db-3"], "none": [], "on": {"a": 1}},
    "channels": (Channel(kind="slack", id="C1"), Channel(kind="webhook")),
    "condition.group_by": ("host", "zone"),
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("extensions.opsgenie.tags = prod", True),
        ("extensions.opsgenie.tags = 'team:db'", True),
        ("extensions.opsgenie.tags = test", False),
        ("extensions.opsgenie.tags =~ 'team:(db|web)'", True),
        ("extensions.opsgenie.tags =~ team", False),
        ("extensions.opsgenie.tags != prod", False),
        ("extensions.opsgenie.tags != test", True),
        ("extensions.opsgenie.tags !~ 'team:.*'", False),
        ("extensions.opsgenie.tags !~ 'host:.*'", True),
        ("extensions.opsgenie.tags = ''", False),
        ("extensions.opsgenie.responders.name = db", True),
        ("extensions.opsgenie.responders.username =~ '.*@example.com'", True),
        ("extensions.opsgenie.responders.type != user", False),
        ("extensions.opsgenie.responders.id = ''", True),
        ("custom.hosts.name = db-2", True),
        ("custom.hosts = db-3", True),
        ("custom.hosts.disks > 90", True),
        ("custom.hosts.disks > 91", False),
        ("custom.none = ''", True),
        ("custom.none != x", True),
        ("""custom.on = '{"a":1}'""", True),
        ("channels.id = C1", True),
        ("channels.kind = webhook", True),
        ("channels.kind != slack", False),
        ("channels.dialect = ''", True),
        ("condition.group_by = zone", True),
        ("condition.group_by != zone", False),
    ],
)
def test_a_list_meets_a_condition_if_an_item_does(text: str, holds: bool) -> None:
    """Opsgenie's tags and responders decide who is meant, and so do the channels of rules."""
    assert parse_matcher(text).holds(LISTS) is holds


def test_names_with_dots_are_read_in_every_way() -> None:
    facts = {"custom": {"a.b": {"x": 1}, "a": {"b": {"c": "found"}}}}
    assert parse_matcher("custom.a.b.c = found").holds(facts)
    assert parse_matcher("custom.a.b.x = 1").holds(facts)


def test_a_callers_long_list_is_looked_at_as_far_as_a_thousand_items() -> None:
    """A body has room for a hundred thousand, and each condition would stop everybody else for a tenth of a second."""
    tags = [f"t{number}" for number in range(100_000)]
    facts = {"extensions.opsgenie.tags": tags, "custom": {"nested": [tags[:1_000], tags[1_000:]]}}
    assert parse_matcher("extensions.opsgenie.tags = t999").holds(facts)
    assert not parse_matcher("extensions.opsgenie.tags = t1000").holds(facts)
    assert parse_matcher("custom.nested =~ t999").holds(facts)
    assert not parse_matcher("custom.nested =~ t1000").holds(facts)


def test_cleared_is_as_absent() -> None:
    facts = {"team": None, "severity": None}
    assert parse_matcher('team = ""').holds(facts)
    assert not parse_matcher("severity <= 7").holds(facts)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("severity", "field, one of"),
        ("severty <= 3", "'severity'"),
        ("severity <= high", "numbers"),
        ('summary =~ "("', "regular expression"),
        ('summary =~ "(?=x)y"', "regular expression"),
        ("", "field, one of"),
        ("severity = HIGH", "never 'HIGH'; 0 is the worst"),
        ("severity != 8", "never '8'"),
        ("enabled = maybe", "never 'maybe'"),
        ("status = resolvd", "never 'resolvd'"),
        ("channels.ids = C1", "did you mean 'channels.id'"),
        ("labels.team == db", "== is no operator"),
        ("labels.team !== db", "!== is no operator"),
        ("labels.load => 3", "=> is no operator"),
        ("labels.team =! db", "=! is no operator"),
        ('labels.team = "db', "quote"),
        ('labels.team = "db" and caller = ci', "quote"),
    ],
)
def test_a_faulty_condition_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_matcher(text)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("severity = 3", {"severity": 3}),
        ('severity = ""', {}),
        ("condition.threshold = 0.5", {"condition.threshold": 0.5}),
        ("enabled = true", {"enabled": True}),
        ("summary = 3", {"summary": "3"}),
        ("labels.size = big", {"labels": {"size": "big"}}),
        ('labels.size = "=big"', {"labels": {"size": "=big"}}),
        ('labels.size = "\'"', {"labels": {"size": "'"}}),
        ("labels.size =~ <.*>", {"labels": {"size": "<5>"}}),
    ],
)
def test_what_a_field_can_be_may_be_asked_for(text: str, facts: dict[str, object]) -> None:
    assert parse_matcher(text).holds(facts)


def names(chosen: tuple[Choice, ...] | None) -> list[str] | None:
    """The names of the chosen upstreams, in order."""
    return None if chosen is None else [choice.upstream for choice in chosen]


def test_the_first_match_wins() -> None:
    routes = [route("1", "a", when=("severity <= 3",)), route("2", "b")]
    assert names(choose(routes, "ilert", "ci", {"severity": 2})) == ["a"]
    assert names(choose(routes, "ilert", "ci", {"severity": 5})) == ["b"]


def test_continue_goes_on_to_the_next_match_and_no_further() -> None:
    routes = [route("1", "a", goes_on=True), route("2", "a", "b"), route("3", "c")]
    chosen = choose(routes, "ilert", "ci", {})
    assert names(chosen) == ["a", "b"]
    assert chosen and [one.route for one in chosen] == ["1", "2"]


def test_a_route_that_continues_and_does_not_match_chooses_nothing() -> None:
    routes = [route("1", "a", when=("severity = 0",), goes_on=True), route("2", "b")]
    assert names(choose(routes, "ilert", "ci", {"severity": 5})) == ["b"]


def test_where_the_alert_decides_nothing_its_route_is_the_same_for_all() -> None:
    routes = [
        route("1", "a", from_=("ilert/cd",), when=("severity = 0",)),
        route("2", "b", from_=("ilert",), goes_on=True),
        route("3", "c"),
    ]
    assert always(routes, "ilert", "ci") == choose(routes, "ilert", "ci", {"severity": 0})
    assert names(always(routes, "ilert", "ci")) == ["b", "c"]
    assert names(always(routes, "uptinio", "ci")) == ["c"]
    assert always(routes, "ilert", "cd") is None, "the severity decides"
    assert always(routes[:1], "uptinio", "ci") is None, "no route matches"


def test_what_a_fallback_looks_up_depends_on_the_alert_too(tmp_path: Path) -> None:
    (tmp_path / "teams.toml").write_text('db = "7"\n')
    team = Lookup("team", "labels.team", Table("teams.toml", tmp_path / "teams.toml"))
    routes = [Route(name="1", from_=(), when=(), to=(Hop("a"),), fallback=(Hop("b", lookups=(team,)),), after=1.0)]
    assert always(routes, "ilert", "ci") is None
    chosen = choose(routes, "ilert", "ci", {"labels": {"team": "db"}}) or ()
    assert [one.replaced for one in chosen] == [{}, {"team": "7"}]


@pytest.mark.parametrize("is_reversed", [False, True])
def test_an_upstream_that_is_told_at_once_is_nobodys_fallback(is_reversed: bool) -> None:
    routes = [
        Route(name="1", from_=(), when=(), to=(Hop("a", {"team": "1"}),), goes_on=True),
        Route(name="2", from_=(), when=(), to=(Hop("b"),), fallback=(Hop("a"), Hop("c")), after=60.0, goes_on=True),
    ]
    chosen = choose(routes[::-1] if is_reversed else routes, "ilert", "ci", {}) or ()
    assert {one.upstream: (one.route, one.replaced, one.after) for one in chosen} == {
        "a": ("1", {"team": "1"}, None),
        "b": ("2", {}, None),
        "c": ("2", {}, 60.0),
    }


def test_all_conditions_must_hold() -> None:
    routes = [route("1", "a", when=("severity <= 3", "caller = ci"))]
    assert names(choose(routes, "ilert", "ci", {"severity": 2})) == ["a"]
    assert choose(routes, "ilert", "cd", {"severity": 2}) is None
    assert choose(routes, "ilert", "ci", {"severity": 4}) is None


def test_from_names_a_dialect_or_a_caller_of_it() -> None:
    routes = [route("1", "a", from_=("ibm_monitoring", "ilert/ci"))]
    assert names(choose(routes, "ibm_monitoring", "anyone", {})) == ["a"]
    assert names(choose(routes, "ilert", "ci", {})) == ["a"]
    assert choose(routes, "ilert", "cd", {}) is None
    assert choose(routes, "uptinio", "ci", {}) is None


def test_without_an_alert_the_conditions_on_its_sender_decide() -> None:
    """Which upstream a list is asked of, or a resolve of an unknown key is sent to: none that is another caller's."""
    routes = [
        route("1", "a", when=("caller = ops",)),
        route("2", "b", when=("severity <= 3", "caller =~ c.")),
        route("3", "c", when=("dialect = ilert",)),
        route("4", "d"),
    ]
    assert names(choose(routes, "ilert", "ops", None)) == ["a"]
    assert names(choose(routes, "ilert", "ci", None)) == ["b", "c"]
    assert names(choose(routes, "uptinio", "ci", None)) == ["b", "d"]


def test_without_an_alert_a_route_that_continues_goes_on() -> None:
    routes = [route("1", "a", when=("caller = ci",), goes_on=True), route("2", "b"), route("3", "c")]
    assert names(choose(routes, "ilert", "ci", None)) == ["a", "b"]


def test_no_route_is_not_the_same_as_a_route_to_nowhere() -> None:
    assert choose([], "ilert", "ci", {}) is None
    assert choose([route("1")], "ilert", "ci", {}) == ()


def test_what_a_route_sets_comes_with_the_choice() -> None:
    found = Route(name="db", from_=(), when=(), to=(Hop("a", {"team": "42"}),))
    assert choose([found], "ilert", "ci", {}) == (Choice("a", "db", {"team": "42"}),)


def test_an_alert_cannot_pose_as_another_caller() -> None:
    routes = [route("1", "a", when=("caller = root",))]
    assert choose(routes, "ilert", "ci", {"caller": "root"}) is None
