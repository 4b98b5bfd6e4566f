"""The curl commands of the vendors' own pages, run with curl against the gateway.

They stand in `documents/` as on the pages, each file naming its page. Only the host, the credential and the
placeholders are filled in. Where a page shows no credential though its service requires one, the header is added.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.callers import called
from tests.harness import KEY, UPSTREAM_KEY, House, house, upstream_table

CURL = shutil.which("curl")
pytestmark = pytest.mark.skipif(CURL is None, reason="the curl binary is not installed")
DOCUMENTS = Path(__file__).parent / "documents"
BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
GUID = "9d1b3b0e-6f0f-4c5a-8a57-0d5e1c2b3a4f"


def _blocks(name: str, title: str = "") -> list[str]:
    """The code blocks of a document, or of one section of it."""
    text = (DOCUMENTS / f"{name}.txt").read_text()
    if title:
        text = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return BLOCK.findall(text)


@dataclass(frozen=True)
class Told:
    """What curl received: the status, the body, and the headers by lower-case name."""

    status: int
    body: Any
    headers: dict[str, list[str]]


def _run(command: str, directory: Path, *more: str) -> Told:
    """Splits a page's command as a shell would and runs it without a shell."""
    words = shlex.split(command.replace("\\\n", " "))
    assert words[0] == "curl"
    quietly = ["--silent", "--show-error", "--noproxy", "*", "--max-time", "20"]
    noting = ["--write-out", "\n%{http_code}\n%{header_json}"]
    assert CURL
    done = subprocess.run(
        [CURL, "--disable", *words[1:], *quietly, *noting, *more],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"(.*)\n(\d{3})\n(\{.*\})\s*", done.stdout, re.DOTALL)
    assert found, done.stdout
    return Told(int(found[2]), json.loads(found[1]) if found[1] else None, json.loads(found[3]))


@pytest.fixture(scope="module", params=["ibm_monitoring", "ilert"])
def h(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with a vendor of rules as upstream, then with one of occurrences."""
    with called(tmp_path_factory.mktemp("curl"), {request.param: request.param}) as standing:
        yield standing


def _arrives(h: House, count: int) -> Any:
    name = next(iter(h.gateway.config.upstreams))
    return h.arrives(name, count)[count - 1]


def _mark(h: House) -> int:
    return len(h.arrived(next(iter(h.gateway.config.upstreams))))


def _quiet_mark(h: House) -> int:
    """`_mark`, once no delivery waits: where a name is taken the rule is sent a second time."""
    idle = f'alert_gateway_waiting_deliveries{{upstream="{next(iter(h.gateway.config.upstreams))}"}} 0.0'
    h.wait_for(lambda: idle in h.client.get(h.url + "/metrics").text)
    return _mark(h)


# --- LiveSession ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "/livesession"])
@pytest.mark.parametrize("credential", [f"Bearer {KEY}", f"bearer {KEY}", KEY])
def test_livesession_create(h: House, tmp_path: Path, prefix: str, credential: str) -> None:
    """The sample names both targets with provider slack, and kind 0: it is accepted and answered with 201."""
    [command] = _blocks("livesession")
    mark = _mark(h)
    command = command.replace("https://api.livesession.io", h.url + prefix)
    told = _run(command, tmp_path, "--header", f"authorization: {credential}")
    assert told.status == 201
    assert told.headers["content-type"] == ["application/json"]
    alert_id, created = told.body.pop("alert_id"), told.body.pop("creation_date")
    assert isinstance(alert_id, str)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", created)
    assert told.body == {
        "name": "string",
        "events": [{"kind": 0, "value": "string"}],
        "provider": "slack",
        "slack_channel_id": "string",
        "webhook_id": "string",
        "enabled": True,
    }
    assert "string" in json.dumps(_arrives(h, mark + 1).body)


def test_livesession_without_a_credential(h: House, tmp_path: Path) -> None:
    """The page's command unchanged has no credential: 401 in the page's envelope."""
    [command] = _blocks("livesession")
    told = _run(command.replace("https://api.livesession.io", h.url), tmp_path)
    assert told.status == 401
    assert told.body["error"]["http_status_code"] == 401
    assert set(told.body["error"]) == {"type", "code", "param", "message", "http_status_code", "request_id"}


def test_livesession_as_it_stands_where_callers_are_anonymous(tmp_path: Path) -> None:
    """On loopback an inbound may have no keys; the page's command then needs only another host."""

    def keyless(sandbox_url: str) -> str:
        return "[inbound.livesession]\n" + upstream_table("there", "livesession", sandbox_url)

    [command] = _blocks("livesession")
    with house(tmp_path, config=keyless) as h:
        told = _run(command.replace("https://api.livesession.io", h.url), tmp_path)
        assert told.status == 201
        [made] = h.arrives("livesession", 1)
        sample = json.loads(shlex.split(command.replace("\\\n", " "))[-1])
        assert made.body == sample, "same dialect: what the caller sent, and nothing else"
        assert made.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"


# --- IBM Cloud Monitoring ------------------------------------------------------------------------------------

TITLES = {
    "get": "Get details about a user alert",
    "create": "Create an alert",
    "update": "Update an alert",
    "delete": "Delete an alert",
    "list": "Get all user alerts",
}


@dataclass
class Ibm:
    """A user who follows IBM's page: `endpoint` is its REST_API_ENDPOINT, `token` its AUTH_TOKEN.

    The page has the word Bearer in one command of five, and other pages of the vendor have it in the token: here it is
    sent once, or not at all where `is_bare`.
    """

    h: House
    directory: Path
    endpoint: str
    token: str
    is_bare: bool = False

    def run(self, what: str, alert_id: Any = "", body: Any = None, times: tuple[int, int] = (0, 0)) -> Told:
        """Runs the page's command for an operation; `body` is the content of alert.json."""
        command = _blocks("ibm_monitoring", TITLES[what])[0]
        if self.token.startswith("Bearer ") or self.is_bare:
            command = command.replace("Bearer $AUTH_TOKEN", "$AUTH_TOKEN")
        filled = {
            "<REST_API_ENDPOINT>": self.h.url + self.endpoint,
            "<ALERT_ID>": str(alert_id),
            "<START_TIMESTAMP>": str(times[0]),
            "<END_TIMESTAMP>": str(times[1]),
            "$AUTH_TOKEN": self.token,
            "$GUID": GUID,
            "$TEAM_ID": "493",
        }
        for placeholder, value in filled.items():
            command = command.replace(placeholder, value)
        (self.directory / "alert.json").write_text(json.dumps(body))
        return _run(command, self.directory)

    def sample(self, what: str, **fields: Any) -> Any:
        """The body that the page shows for an operation, with some fields filled in."""
        sample = json.loads(_blocks("ibm_monitoring", TITLES[what])[1])
        sample["alert"].update(fields)
        return sample


@pytest.fixture(params=["", "/api", "/ibm_monitoring", "/ibm_monitoring/api"])
def endpoint(request: pytest.FixtureRequest) -> str:
    """The page's REST_API_ENDPOINT ends in /api, so that its commands come out as /api/api/alerts."""
    return str(request.param)


def test_ibm_through_its_life(h: House, tmp_path: Path, endpoint: str) -> None:
    """Create, get, list, update and delete, each with the page's own command and body."""
    ibm = Ibm(h, tmp_path, endpoint, KEY if endpoint.endswith("/api") else f"Bearer {KEY}")
    mark = _mark(h)
    made = ibm.run("create", body=ibm.sample("create", name=f"My Alert! {endpoint}"))
    assert made.status == 200, made.body
    alert = made.body["alert"]
    assert isinstance(alert["id"], int)
    wanted = {"severityLabel": "LOW", "timespan": 600_000_000, "enabled": False, "reNotifyMinutes": 30, "filter": None}
    assert {key: alert.get(key, "absent") for key in wanted} == wanted
    got = ibm.run("get", alert["id"])
    assert (got.status, got.body) == (200, made.body)
    created = alert["createdOn"] * 1000
    times = (created - 60_000_000, created + 3_600_000_000)
    assert alert["id"] in [one["id"] for one in ibm.run("list", times=times).body["alerts"]]
    bare = Ibm(h, tmp_path, endpoint, KEY, is_bare=True)
    assert alert["id"] in [one["id"] for one in bare.run("list", times=times).body["alerts"]]
    too_early = (created - 7_200_000_000, created - 3_600_000_000)
    assert alert["id"] not in [one["id"] for one in ibm.run("list", times=too_early).body["alerts"]]
    change = ibm.sample("update", id=alert["id"], version=alert["version"], name=f"CheckNginx {endpoint}")
    changed = ibm.run("update", alert["id"], change)
    assert changed.status == 200, changed.body
    after = changed.body["alert"]
    wanted = {
        "name": f"CheckNginx {endpoint}",
        "severity": 2,
        "severityLabel": "MEDIUM",
        "timespan": 60_000_000,
        "notificationChannelIds": [2],
        "reNotifyMinutes": 30,
        "version": alert["version"] + 1,
    }
    assert {key: after.get(key) for key in wanted} == wanted
    stale = ibm.run("update", alert["id"], change)
    assert stale.status == 409
    gone = ibm.run("delete", alert["id"])
    assert (gone.status, gone.body) == (204, None)
    assert "content-length" not in gone.headers or gone.headers["content-length"] == ["0"]
    assert ibm.run("get", alert["id"]).status == 404
    assert _arrives(h, mark + 1), "the vendor behind heard of it"


def test_ibm_rounding_is_reported(h: House, tmp_path: Path) -> None:
    """The page's update sample has a timespan of one second, against its own minimum: it is rounded up and reported."""
    ibm = Ibm(h, tmp_path, "/api", KEY)
    alert = ibm.run("create", body=ibm.sample("create", name="rounded")).body["alert"]
    change = ibm.sample("update", id=alert["id"], version=alert["version"], name="rounded up", enabled=True)
    told = ibm.run("update", alert["id"], change)
    assert told.status == 200
    [line] = told.headers["alert-gateway-report"]
    if "ibm_monitoring" in h.gateway.config.upstreams:
        approximated = re.search(r"approximated=([^;]*)", line)
        assert approximated, line
        assert "condition.window" in approximated[1].split(",")


def test_ibm_refusals(h: House, tmp_path: Path) -> None:
    """The page's table of errors, through its own commands."""
    ibm = Ibm(h, tmp_path, "", f"Bearer {KEY}")
    name = "refused in turn"
    assert ibm.run("create", body=ibm.sample("create", name=name)).status == 200
    for told, status in [
        (ibm.run("create", body=ibm.sample("create", name=name)), 422),
        (ibm.run("create", body=ibm.sample("create", id=7, name="with an id")), 400),
        (ibm.run("create", body=ibm.sample("create", condition=None, name="without a condition")), 400),
        (ibm.run("get", 23211), 404),
        (ibm.run("delete", 23211), 404),
        (ibm.run("update", 23212, ibm.sample("update")), 404),
        (Ibm(h, tmp_path, "", "wrong").run("get", 23211), 401),
    ]:
        assert told.status == status, told.body
        [error] = told.body["errors"]
        assert set(error) == {"reason", "message"}


# --- ilert ---------------------------------------------------------------------------------------------------


def _shell_sample(h: House, path: str) -> str:
    command = _blocks("ilert")[0].replace("YOUR-ALERT-SOURCE-API-KEY", KEY)
    return command.replace("https://api.ilert.com/api/events", h.url + path)


EVENTS = ["/api/events", "/api/v1/events", "/api/v1/events%20", "/ilert/api/events", "/ilert/api/v1/events%20"]


@pytest.mark.parametrize("path", EVENTS)
def test_ilert_events(h: House, tmp_path: Path, path: str) -> None:
    """202 with an empty object: ilert's Go client cannot read an empty body."""
    mark = _mark(h)
    told = _run(_shell_sample(h, path), tmp_path)
    assert (told.status, told.body) == (202, {})
    assert "Hey, this is a test alert from the shell!" in json.dumps(_arrives(h, mark + 1).body)


def test_ilert_with_the_placeholder_left_in(h: House, tmp_path: Path) -> None:
    """An unknown key: 401, and the status in the body equals the answer's."""
    command = _shell_sample(h, "/api/events").replace(KEY, "YOUR-ALERT-SOURCE-API-KEY")
    told = _run(command, tmp_path)
    assert told.status == 401
    assert told.body["status"] == 401
    assert {"status", "message", "code"} <= set(told.body)


def test_ilert_legacy_sample(h: House, tmp_path: Path) -> None:
    """The page's second PowerShell sample: the legacy path with a trailing blank, and `incidentKey`."""
    sample = _blocks("ilert")[1]
    found = re.search(r'\$body = "(.*)"\n', sample)
    address = re.search(r"Invoke-RestMethod '([^']*)'", sample)
    assert found
    assert address
    body = found[1].replace("`n", "\n").replace('`"', '"').replace(".....YOUR SOURCE API KEY....", KEY)
    url = address[1].replace("https://api.ilert.com", h.url).replace(" ", "%20")
    assert url.endswith("/api/v1/events%20")
    (tmp_path / "event.json").write_text(body)
    mark = _mark(h)
    told = _run(f"curl -X POST {url} -H 'content-type: application/json' -d @event.json", tmp_path)
    assert (told.status, told.body) == (202, {})
    made = _arrives(h, mark + 1)
    if made.dialect == "ilert":
        assert made.body["alertKey"] == "string", "the legacy incidentKey is the alertKey"
        assert made.body["images"] == [{"src": "string", "href": "string", "alt": "string"}]
    resolve = body.replace('"ALERT"', '"RESOLVE"').replace('"incidentKey"', '"alertKey"')
    (tmp_path / "event.json").write_text(resolve)
    told = _run(f"curl -X POST {h.url}/api/events -d @event.json", tmp_path)
    assert told.status == 202


# --- PagerDuty -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["ibm_monitoring", "ilert"])
def quiet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway of its own for tests that count requests, so that no deliveries of other tests interfere."""
    with called(tmp_path_factory.mktemp("quiet"), {request.param: request.param}) as standing:
        yield standing


@pytest.mark.parametrize("prefix", ["", "/pagerduty"])
def test_pagerduty_through_its_life(quiet: House, tmp_path: Path, prefix: str) -> None:
    """The support page's command, then the API page's bodies for the other actions and for a change event."""
    h = quiet
    command, acknowledge, resolve, change = _blocks("pagerduty")
    key, host, mark = f"uniquededupkey{prefix}", f"host200{len(prefix)}.example.com", _quiet_mark(h)
    command = command.replace("https://events.pagerduty.com", h.url + prefix).replace("uniquededupkey", key)
    command = command.replace("host2000.example.com", host)  # a rule's name may be used once
    processed = {"status": "success", "message": "Event processed", "dedup_key": key}
    told = _run(command.replace("R015DM1NF3UYE4NSWN8WBF6FS062ZZZZ", KEY), tmp_path)
    assert (told.status, told.body) == (202, processed)
    assert f"Example alert on {host}" in json.dumps(_arrives(h, mark + 1).body)
    for body in (acknowledge, resolve):
        (tmp_path / "event.json").write_text(body.replace("routingkeyhere", KEY).replace("dedupkeyhere", key))
        told = _run(f"curl --data @event.json {h.url}{prefix}/v2/enqueue", tmp_path)
        assert (told.status, told.body) == (202, processed)
    by_key = "ilert" in h.gateway.config.upstreams
    last = _arrives(h, mark + (3 if by_key else 2)).body
    if by_key:
        assert (last["eventType"], last["alertKey"]) == ("RESOLVE", key)
    else:
        assert last["alert"]["enabled"] is False, "where nobody can acknowledge, two requests arrive"
    (tmp_path / "event.json").write_text(change.replace("samplekeyhere", KEY))
    told = _run(f"curl --data @event.json {h.url}{prefix}/v2/change/enqueue", tmp_path)
    assert (told.status, told.body) == (202, {"status": "success", "message": "Change event processed"})
    made = _arrives(h, mark + (4 if by_key else 3)).body
    assert made["priority"] == "LOW" if by_key else made["alert"]["severityLabel"] == "INFO"


def test_pagerduty_with_the_key_of_the_page(h: House, tmp_path: Path) -> None:
    """The command unchanged: its routing key is well formed and unknown."""
    [command] = _blocks("pagerduty")[:1]
    told = _run(command.replace("https://events.pagerduty.com", h.url), tmp_path)
    assert told.status == 400
    assert told.body == {
        "status": "invalid event",
        "message": "Event object is invalid",
        "errors": ["Invalid routing key"],
    }


# --- Opsgenie ------------------------------------------------------------------------------------------------

GENIE_KEY = "eb243592-faa2-4ba2-a551q-1afdf565c889"
PAGES_ALERT = "70413a06-38d6-4c85-92b8-5ebc900d42e2"


def _joined(command: str) -> str:
    """The page breaks a command over lines without backslashes; returns it joined."""
    return command.replace("\n    -H", " -H").replace("\n    -d\n", " -d ")


@pytest.mark.parametrize("prefix", ["", "/opsgenie"])
def test_opsgenie_through_its_life(quiet: House, tmp_path: Path, prefix: str) -> None:
    """Create, request status, read and close, as on the page."""
    h, mark = quiet, _quiet_mark(quiet)
    host, alias = h.url + prefix, f"Life is too short for no alias{prefix}"
    blocks = [_joined(block).replace("https://api.opsgenie.com", host) for block in _blocks("opsgenie")]
    create, status, get, close = (block.replace(GENIE_KEY, KEY) for block in blocks)
    message = f"An example alert message{prefix}"  # a rule's name may be used once
    create = create.replace("Life is too short for no alias", alias).replace("An example alert message", message)
    told = _run(create, tmp_path)
    assert (told.status, told.body["result"]) == (202, "Request will be processed")
    done = _run(status.replace("513085b8-caf3-4f91-aa23-be5fdefc3570", told.body["requestId"]), tmp_path)
    assert (done.status, done.body["data"]["isSuccess"], done.body["data"]["alias"]) == (200, True, alias)
    alert = done.body["data"]["alertId"]
    shown = _run(get.replace(PAGES_ALERT, alert), tmp_path)
    assert (shown.status, shown.body["data"]["message"], shown.body["data"]["priority"]) == (200, message, "P1")
    assert message in json.dumps(_arrives(h, mark + 1).body)
    assert _run(close.replace(PAGES_ALERT, alert), tmp_path).status == 202
    assert _run(get.replace(PAGES_ALERT, alert), tmp_path).body["data"]["status"] == "closed"
    last = _arrives(h, mark + 2).body
    assert last["eventType"] == "RESOLVE" if "eventType" in last else last["alert"]["enabled"] is False


def test_opsgenie_with_the_key_of_the_page(h: House, tmp_path: Path) -> None:
    """The command unchanged: its key is unknown."""
    told = _run(_joined(_blocks("opsgenie")[0]).replace("https://api.opsgenie.com", h.url), tmp_path)
    assert (told.status, told.body["message"]) == (401, "Could not authenticate")
