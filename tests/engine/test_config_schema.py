"""The configuration's reference and its JSON schema for editors: up to date, complete, and valid for real files."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from msgspec import Struct
from msgspec.structs import fields

from gateway.config import file
from gateway.config.loading import parse
from gateway.config.schema import INNER, reference, schema, texts
from gateway.documents import schema_file
from gateway.errors import ConfigurationError
from gateway.registry import dialects

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf8")
CONFIGURATIONS = re.findall(r"^```toml\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
FULL = """
listen = "127.0.0.1:8080"
admin = "127.0.0.1:9092"
admin_token = "a-token-of-some-length"
tls = { cert = "tls.pem", key = "tls.key", client_ca = "callers.pem" }
store = "sqlite:///var/lib/alert-gateway/gateway.db"
retention = "30d"
max_body = "1MiB"
max_waiting = { deliveries = 1000, bytes = "2GiB" }
[inbound.ilert]
keys = { ci = "caller-key" }
host = ["alerts.example.com"]
[inbound.ibm_monitoring]
keys = { terraform = ["new", "old"] }
scope = "x"
[upstreams.oncall]
dialect = "ilert"
url = "https://api.ilert.com"
key = "upstream-key"
retry = { first = "1s", most = "60s", max_age = "24h" }
rate = 60
[upstreams.metrics]
dialect = "ibm_monitoring"
url = "https://eu-de.monitoring.cloud.ibm.com"
iam_key = "an-api-key"
headers = { IBMInstanceID = "i", SysdigTeamID = "42" }
defaults = { "condition.expression" = "avg(timeAvg(uptime)) <= 0" }
[upstreams.sms]
dialect = "ilert"
url = "https://sms.example.com"
key = "sms-key"
proxy = "http://proxy.example.com:3128"
ca = "ca.pem"
client_cert = { cert = "own.pem", key = "own.key" }
[[routes]]
name = "db"
from = ["ibm_monitoring", "ilert/ci"]
when = ["severity <= 3", 'labels.team =~ "db|infra"', "caller = ci"]
to = ["oncall", { upstream = "metrics", set = { team = "42" } }]
set = { routing_key = "r" }
fallback = { to = ["sms"], after = "2m" }
[[routes]]
to = ["oncall"]
[[tests]]
from = "ilert"
caller = "ci"
send = { eventType = "ALERT", summary = "s" }
expect = { to = ["oncall"], "oncall.priority" = "HIGH" }
[heartbeat]
url = "https://hc.example.com/ping"
proxy = "off"
[alarms]
to = ["oncall"]
"""


def complaints(text: str) -> list[str]:
    """The errors that an editor would underline."""
    validator = jsonschema.Draft202012Validator(schema(dialects()))
    return [error.message for error in validator.iter_errors(tomllib.loads(text))]


def test_the_reference_and_the_schema_are_not_stale() -> None:
    for name, text in (
        ("configuration.md", reference(dialects())),
        ("gateway.schema.json", schema_file(dialects())),
    ):
        assert (ROOT / "deploy" / name).read_text("utf8") == text, "run: python -m gateway.documents"


def test_every_field_is_described() -> None:
    kinds: set[type[Struct]] = {file.File, file.SetFile, *(inner.of for inner in INNER.values())}
    undescribed = [(kind.__name__, one.name) for kind in kinds for one in fields(kind) if not texts(kind).get(one.name)]
    assert undescribed == [], "say below the field what it is for"


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_file(dialects())))


@pytest.mark.parametrize("text", [*CONFIGURATIONS, FULL])
def test_good_files_please_the_schema(text: str) -> None:
    assert parse(text, secrets=False)
    assert complaints(text) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("listen =", "listn ="),
        ('retention = "30d"', 'retention = "soon"'),
        ('retention = "30d"', "retention = 30"),
        ("[inbound.ilert]", "[inbound.ilret]"),
        ('dialect = "ilert"', 'dialect = "ilret"'),
        ('key = "upstream-key"', 'key = { by = "caller" }'),
        ('key = "upstream-key"', 'key = { by = "caller", dir = "/", esle = "x" }'),
        ('retry = { first = "1s"', 'retry = { frist = "1s"'),
        ('name = "db"', 'nmae = "db"'),
        ('to = ["oncall"]\n[[tests]]', "[[tests]]"),
        ('after = "2m"', 'after = "later"'),
        ('send = { eventType = "ALERT", summary = "s" }', ""),
        ("rate = 60", 'rules = "loud"'),
        ('client_ca = "callers.pem"', 'ca = "callers.pem"'),
        (', key = "own.key" }', " }"),
        ('host = ["alerts.example.com"]', "host = 7"),
    ],
)
def test_what_the_schema_complains_of_is_an_error_of_the_file_too(old: str, new: str) -> None:
    assert old in FULL
    text = FULL.replace(old, new, 1)
    assert complaints(text)
    with pytest.raises(ConfigurationError):
        parse(text, secrets=False)


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ('inbound = { ilert = "yes" }', "inbound.ilert", "a table"),
        ("upstreams = []", "upstreams", "a table, not a list"),
        ('routes = ["oncall"]', "routes[1]", "a table, not a text"),
        ("[inbound.ilert]\nkeys = { ci = 5 }", "inbound.ilert.keys.ci", "a text or a list"),
        ('[upstreams.a]\ndialect = "ilert"\nheaders = { X = 5 }', "upstreams.a.headers.X", "a text"),
        ('[upstreams.a]\ndialect = "ilert"\nconcurrency = "many"', "upstreams.a.concurrency", "a whole number"),
        ("[[routes]]\nto = [7]", "routes[1].to[1]", "a text or a table"),
        ('[[routes]]\nto = "a"', "routes[1].to", "a list, not a text"),
    ],
)
def test_a_wrong_type_names_its_table(text: str, path: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    problems: list[Any] = caught.value.problems
    assert any(one.startswith(f"{path}: ") and says in one for one in problems), problems


def test_two_routes_of_one_name_are_an_error() -> None:
    text = FULL.replace('[[routes]]\nto = ["oncall"]', '[[routes]]\nname = "db"\nto = ["oncall"]')
    with pytest.raises(ConfigurationError, match=r"routes\[2\]\.name: 'db' is already the name of routes\[1\]"):
        parse(text)
    with pytest.raises(ConfigurationError, match=r"routes\[2\]\.name"):
        parse(FULL.replace('name = "db"', 'name = "2"'))
