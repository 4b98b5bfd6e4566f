"""Mistakes in a described dialect are reported with their path, and no faulty description is accepted."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import mappings.cloudevents
from gateway.canonical import Operation
from gateway.config.loading import parse
from gateway.config.tables import Tables
from gateway.errors import ConfigurationError
from gateway.own import dialects_in
from gateway.registry import dialects
from gateway.rehearsal import command_in
from tests.conformance.strategies import every_mutation
from tests.engine.descriptions import DEEP, INCIDENTS, SIGNED, SOURCE, TITLES, WRAPPED, described

FIELDS = '[dialects.acme.fields]\nsummary = "title"\n'
SHARED = FIELDS + "dedup_key = 'id'\nseverity = { at = 's', words = { bad = 1 } }\n"


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("[dialects.acme]\ntitel = 'x'\n" + FIELDS, "dialects.acme.titel", "did you mean 'title'?"),
        ("[dialects.acme]\n", "dialects.acme.fields", "is required"),
        ("[dialects.acme.fields]\nsumary = 'x'\n", "dialects.acme.fields.sumary", "did you mean 'summary'?"),
        (FIELDS + "condition.treshold = 'x'\n", "dialects.acme.fields.condition.treshold", "'condition.threshold'"),
        (FIELDS + "kind = 'x'\n", "dialects.acme.fields.kind", "cannot be read from a body"),
        (FIELDS + "details = 7\n", "dialects.acme.fields.details", "must be a place"),
        (FIELDS + "details = 'title'\n", "dialects.acme.fields.details", "'title' is used twice"),
        (FIELDS + "details = 'title.long'\n", "dialects.acme.fields.details", "overlaps 'title'"),
        (FIELDS + "details = 'a..b'\n", "dialects.acme.fields.details", "is not a place"),
        (FIELDS + "details = 'list.0.x'\n", "dialects.acme.fields.details", "name a list as a whole"),
        (FIELDS + "details = 'list[0].x'\n", "dialects.acme.fields.details", "name a list as a whole"),
        (FIELDS + "details = { att = 'x' }\n", "dialects.acme.fields.details.att", "did you mean 'at'?"),
        (FIELDS + "details = { at = [] }\n", "dialects.acme.fields.details.at", "must name a place"),
        (FIELDS + "labels = { at = ['a', 'b'] }\n", "dialects.acme.fields.labels.at", "must be one place"),
        (FIELDS + "details = { at = 'x', unit = 's' }\n", "dialects.acme.fields.details.unit", "durations and times"),
        (FIELDS + "details = { at = 'x', limit = 0 }\n", "dialects.acme.fields.details.limit", "at least 1"),
        (FIELDS + "details = { at = 'x', out = ['a'] }\n", "dialects.acme.fields.details.out", "only to severity"),
        (
            FIELDS + "details = { at = 'x', resolve = 'a' }\n",
            "dialects.acme.fields.details.resolve",
            "applies to status only",
        ),
        (FIELDS + "labels = { at = 'x', form = 'address' }\n", "dialects.acme.fields.labels.form", "does not apply to"),
        (FIELDS + "severity = { at = 'x', otherwise = 3 }\n", "dialects.acme.fields.severity.words", "are required"),
        (FIELDS + "severity = { at = 'x', words = { a = 9 } }\n", "dialects.acme.fields.severity.words.a", "at most 7"),
        (
            FIELDS + "severity = { at = 'x', words = { a = 1, A = 2 } }\n",
            "dialects.acme.fields.severity.words.a",
            "twice",
        ),
        (
            FIELDS + "severity = { at = 'x', words = { a = 1, b = 5 }, out = ['b','a','a','a','a','a','b','b'] }\n",
            "dialects.acme.fields.severity.out",
            "is read as",
        ),
        (
            FIELDS + "urgency = { at = 'x', words = { a = 'hi' } }\n",
            "dialects.acme.fields.urgency.words.a",
            '"high" or "low"',
        ),
        (FIELDS + "source = { at = 'x', default = 7 }\n", "dialects.acme.fields.source.default", "must be a text"),
        (FIELDS + "status = 'state'\n", "dialects.acme.fields.status", "needs words"),
        (
            FIELDS + "status = { at = 's', resolve = 'ok', words = { a = 1 } }\n",
            "dialects.acme.fields.status.words",
            "does not apply",
        ),
        (FIELDS + "status = { at = 's', resolve = {} }\n", "dialects.acme.fields.status.resolve", "a list of words"),
        (
            FIELDS + "status = { at = 's', firing = 'OK', resolve = 'ok' }\n",
            "dialects.acme.fields.status",
            "two things",
        ),
        (FIELDS + "status = { at = 's', resolve = 'ok' }\n", "dialects.acme.fields", "dedup_key is needed"),
        (FIELDS + "severity = 's'\nstatus = { at = 's', resolve = 'ok' }\n", "dialects.acme.fields.status", "`words`"),
        (SHARED + "status = { at = 's', resolve = 'BAD' }\n", "dialects.acme.fields.status", "'bad' cannot mean two"),
        (
            SHARED + "status = { at = 's', firing = 'on', resolve = 'ok' }\n",
            "dialects.acme.fields.status.firing",
            "every word",
        ),
        ("[dialects.acme]\nauth = 'berer'\n" + FIELDS, "dialects.acme.auth", "did you mean 'bearer'?"),
        ("[dialects.acme]\nauth = { header = 'a', query = 'b' }\n" + FIELDS, "dialects.acme.auth", "exactly one of"),
        ("[dialects.acme]\nauth = { header = 'a b' }\n" + FIELDS, "dialects.acme.auth.header", "not a header name"),
        ("[dialects.acme]\nauth = { field = 'title.x' }\n" + FIELDS, "dialects.acme.fields.summary", "overlaps"),
        ("[dialects.acme]\nconstants = { title = 'x' }\n" + FIELDS, "dialects.acme.constants.title", "written already"),
        ("[dialects.acme]\ncontainer = 'title'\n" + FIELDS, "dialects.acme.container", "overlaps the field"),
        ("[dialects.acme]\npath = 'v1'\n" + FIELDS, "dialects.acme.path", "is not a path"),
        ("[dialects.acme]\nsend = { method = 'GET' }\n" + FIELDS, "dialects.acme.send.method", "POST, PUT, PATCH"),
        (
            "[dialects.acme]\nsend = { path = '/{id}' }\n" + FIELDS,
            "dialects.acme.send.path",
            "only {key}; {id} needs",
        ),
        ("[dialects.acme]\nsignature = {}\n" + FIELDS, "dialects.acme.signature.header", "is required"),
        (
            "[dialects.acme]\nsignature = { header = 'a b' }\n" + FIELDS,
            "dialects.acme.signature.header",
            "not a header name",
        ),
        (
            "[dialects.acme]\nsignature = { header = 'a' }\n" + FIELDS + "[inbound.acme]\nanonymous = true\n",
            "inbound.acme.hmac",
            "is required",
        ),
        ("[dialects.acme]\njson = 'a..b'\n" + FIELDS, "dialects.acme.json", "is not a place"),
        ("[dialects.acme]\njson = 'title'\n" + FIELDS, "dialects.acme.json", "such as title.title"),
        ("[dialects.acme]\neach = 'a[0]'\n" + FIELDS, "dialects.acme.each", "is not a place"),
        ("[dialects.acme]\nconfirm = 'a[0]'\n" + FIELDS, "dialects.acme.confirm", "is not a place"),
        ("[dialects.acme]\nconfirm = 'title'\n" + FIELDS, "dialects.acme.confirm", "no alert may have this place"),
        (
            "[dialects.acme]\nenvelope = 'cloudevents'\neach = 'a'\n" + FIELDS,
            "dialects.acme.each",
            "an envelope",
        ),
        ("[dialects.acme]\nsend.id = 'a'\n" + FIELDS, "dialects.acme.send.id", "is not used"),
        (
            "[dialects.acme]\nsend = { id = 'a..b', paths = { resolve = '/x' } }\n" + FIELDS,
            "dialects.acme.send.paths.resolve",
            "needs {id}",
        ),
        ("[dialects.acme]\nsend = { id = 'a..b' }\n" + FIELDS, "dialects.acme.send.id", "is not a place"),
        (
            "[dialects.acme]\nsend = { id = 'a', path = '/{id}' }\n" + FIELDS,
            "dialects.acme.send.path",
            "only from the answer",
        ),
        (
            "[dialects.acme]\nsend = { id = 'a', path = '/{key}' }\n" + FIELDS,
            "dialects.acme.send.path",
            "only {id} (because of send.id)",
        ),
        (
            "[dialects.acme]\nsend.methods = { resolv = 'PUT' }\n" + FIELDS,
            "dialects.acme.send.methods.resolv",
            "'resolve'",
        ),
        (
            "[dialects.acme]\nsend.methods = { create = 'DELETE' }\n" + FIELDS,
            "dialects.acme.send.methods.create",
            "POST, PUT, PATCH",
        ),
        (
            "[dialects.acme]\nsend = { paths = { resolv = '/x' } }\n" + FIELDS,
            "dialects.acme.send.paths.resolv",
            "'resolve'",
        ),
        (
            FIELDS + "links = { at = 'x', items = { herf = 'u' } }\n",
            "dialects.acme.fields.links.items.herf",
            "did you mean 'href'?",
        ),
        (
            FIELDS + "links = { at = 'x', items = { href = '' } }\n",
            "dialects.acme.fields.links.items.href",
            "must name a place",
        ),
        (
            FIELDS + "links = { at = 'x', items = { href = 'text' } }\n",
            "dialects.acme.fields.links.items",
            "'text' cannot be two fields",
        ),
        (
            "[dialects.acme]\nsend.headers = { 'X Y' = 'z' }\n" + FIELDS,
            "dialects.acme.send.headers",
            "not a header name",
        ),
        ("[dialects.acme]\nsend.headers = { X = 'env:Y' }\n" + FIELDS, "dialects.acme.send.headers.X", "hold secrets"),
        ('[dialects.acme]\nsend.headers = { X = "a\\nb" }\n' + FIELDS, "dialects.acme.send.headers.X", "no header can"),
        ("[dialects.acme]\nauth = 'path'\n" + FIELDS, "dialects.acme.send.path", "/services/{credential}"),
        ("[dialects.acme]\nsend.path = '/{credential}'\n" + FIELDS, "dialects.acme.send.path", 'auth = "path"'),
        (
            "[dialects.acme]\nauth = 'none'\n" + FIELDS + "[upstreams.x]\ndialect = 'acme'\nurl = 'env:HOOK'\n",
            "upstreams.x.url",
            "that part as `key`",
        ),
        (
            "[dialects.acme]\nsend.success = { 'a..b' = 1 }\n" + FIELDS,
            "dialects.acme.send.success.a..b",
            "is not a place",
        ),
        ("[dialects.acme]\nsend.success = { ok = {} }\n" + FIELDS, "dialects.acme.send.success.ok", "list of words"),
        ("[dialects.acme]\nsend.again = { ok = {} }\n" + FIELDS, "dialects.acme.send.again.ok", "list of words"),
        ("[dialects.acme]\nsend.redirects = [200]\n" + FIELDS, "dialects.acme.send.redirects", "not between 300"),
        (
            "[dialects.acme]\nsend.redirects = [302]\nsend.id = 'id'\n" + FIELDS,
            "dialects.acme.send.redirects",
            "cannot be combined with send.id",
        ),
        (
            "[dialects.acme]\nsend.success = { ok = 'yes' }\nsend.again = { ok = ['Yes', 'no'] }\n" + FIELDS,
            "dialects.acme.send.again.ok",
            "'Yes' is also in send.success",
        ),
        (FIELDS + "[dialects.acme.send.body]\na = '{title} {b}'\n", "dialects.acme.send.body", "{b} is not a place of"),
        (FIELDS + "[dialects.acme.send.body]\na = '{summary}'\n", "dialects.acme.send.body", "is at 'title'"),
        (FIELDS + "[dialects.acme.send.body]\na = ['{titel}']\n", "dialects.acme.send.body", "did you mean 'title'"),
        (FIELDS + "[dialects.acme.send.body]\na = 'x'\n", "dialects.acme.send.body", "lacks 'title'"),
        (
            "[dialects.acme]\nenvelope = 'cloudevents'\n" + FIELDS + "[dialects.acme.send.body]\na = '{title}'\n",
            "dialects.acme.send.body",
            "an envelope",
        ),
        ("[dialects.acme]\nreply = { status = 404 }\n" + FIELDS, "dialects.acme.reply.status", "between 200 and 299"),
        (
            "[dialects.acme]\nreply = { body = { is = ['{title}'] } }\n" + FIELDS,
            "dialects.acme.reply.body",
            "{title} is unknown when callers are answered; known: {id} and {key}",
        ),
        (
            "[dialects.acme]\nenvelope = 'cloudevent'\n" + FIELDS,
            "dialects.acme.envelope",
            "did you mean 'cloudevents'?",
        ),
        ("[dialects.acme]\nmode = 'binary'\n" + FIELDS, "dialects.acme.mode", "there is no envelope"),
        ("[dialects.acme]\nkind = 'page'\n" + FIELDS, "dialects.acme.kind", 'must be "rule" or "occurrence"'),
        ('[dialects.ilert.fields]\nsummary = "x"\n', "dialects.ilert", "is a built-in dialect"),
        ('[dialects.Acme.fields]\nsummary = "x"\n', "dialects.Acme", "lower-case letters"),
        ("dialects = { acme = 7 }\n", "dialects.acme", "a table"),
        (FIELDS + "[inbound.acmee]\n", "inbound.acmee", "did you mean 'acme'?"),
    ],
)
def test_a_mistake_is_told_with_its_path(text: str, path: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse(text)
    problems = [one for one in raised.value.problems if one.startswith(f"{path}: ")]
    assert any(says in one for one in problems), raised.value.problems


SHIPPED = (Path(str(mappings.cloudevents.__file__)).parent / "dialect.toml").read_text("utf8")


AROUND = [f"[dialects.{one}" for one in WRAPPED.split("[dialects.")[1:]]
TOPIC, MANY = "".join(AROUND[:2]), "".join(AROUND[2:])
SIGNS = SIGNED.partition("[inbound")[0].replace("FORM", "hex")
MINE = SHIPPED.replace("dialects.cloudevents", "dialects.mine")


@pytest.mark.parametrize("text", [TITLES, SOURCE, DEEP, MINE, INCIDENTS, TOPIC, MANY, SIGNS])
def test_whatever_stands_in_a_description_it_is_used_or_its_faults_are_said(text: str) -> None:
    """Each element of a description is removed, or replaced by each odd value in turn."""
    [(name, table)] = tomllib.loads(text)["dialects"].items()
    used = 0
    for changed in every_mutation(table):
        check = Tables()
        found = dialects_in(check, {name: changed}, dialects()) if isinstance(changed, dict) else {}
        assert bool(found) is (isinstance(changed, dict) and not check.problems), changed
        assert all(problem.startswith(f"dialects.{name}") for problem in check.problems)
        for dialect in found.values():
            for body in dialect.samples:
                used += 1
                assert command_in(dialect, Operation.CREATE, body).operation is Operation.CREATE
    assert used


def test_what_is_wrong_with_a_description_is_said_once() -> None:
    """A mistake is not reported again for each use of the dialect, whose addresses may have a query."""
    there = '[inbound.acme]\n[upstreams.own]\ndialect = "acme"\nurl = "https://x/in?room=7"\nkey = "k"\n'
    with pytest.raises(ConfigurationError) as raised:
        parse('[dialects.acme.fields]\nsumary = "x"\n' + there)
    assert [one.partition(":")[0] for one in raised.value.problems] == ["dialects.acme.fields.sumary"]


def test_two_that_are_served_at_one_path_cannot_both_be() -> None:
    twin = SOURCE.replace("dialects.source", "dialects.twin")
    with pytest.raises(ConfigurationError, match=r"is also a route of"):
        described(TITLES + SOURCE + DEEP + twin, '[inbound.twin]\nkeys = { ci = "x" }\n')
