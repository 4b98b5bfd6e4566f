"""An Opsgenie caller's responders and tags decide who is paged behind the gateway: routes, keys and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.engine.many import files, open_house

CREATE = "/opsgenie/v2/alerts"


def config(directory: Path, url: str) -> str:
    return f"""
    [inbound.opsgenie]
    keys = {{ shop = "k" }}
    [upstreams.services]
    dialect = "pagerduty"
    url = "{url}/pagerduty"
    key = {{ by = "extensions.opsgenie.responders.name", dir = "{directory}/services", else = "everybody-s" }}
    [upstreams.oncall]
    dialect = "ilert"
    url = "{url}/ilert"
    key = "vendors-key"
    [[routes]]
    when = ["extensions.opsgenie.tags = quiet"]
    to = []
    because = "tagged so"
    [[routes]]
    when = ["extensions.opsgenie.responders.type = escalation"]
    to = [{{ upstream = "oncall", set = {{ routing_key = {{ by = "extensions.opsgenie.tags", table = "t.toml" }} }} }}]
    [[routes]]
    to = ["services"]
    """


def test_responders_and_tags_choose_the_upstream_and_its_key(tmp_path: Path) -> None:
    files(tmp_path / "services", {"db": "service-of-db", "web": "service-of-web"})
    (tmp_path / "t.toml").write_text('site = "policy-of-site"\nshop = "policy-of-shop"\n')
    auth = {"authorization": "GenieKey k"}

    def alert(alias: str, *responders: dict[str, str], tags: tuple[str, ...] = ()) -> dict[str, Any]:
        return {"message": "m", "alias": alias, "responders": list(responders), "tags": list(tags)}

    def team(name: str) -> dict[str, str]:
        return {"type": "team", "name": name}

    with open_house(tmp_path, lambda url: config(tmp_path, url)) as h:
        for body in (
            alert("one", team("unknown"), team("web"), team("db")),
            alert("none", team("unknown")),
            alert("nobody"),
            alert("policy", {"type": "escalation", "name": "night"}, tags=("prod", "shop", "site")),
            alert("quiet", team("db"), tags=("prod", "quiet")),
        ):
            assert h.call("POST", CREATE, body, key=None, headers=auth).status == 202
        ended = h.call("POST", f"{CREATE}/one/close?identifierType=alias", {}, key=None, headers=auth)
        assert ended.status == 202
        paged = h.arrives("pagerduty", 4)
        told = h.arrives("ilert", 1)
    assert {(got.body["dedup_key"], got.body["event_action"], got.body["routing_key"]) for got in paged} == {
        ("one", "trigger", "service-of-web"),
        ("one", "resolve", "service-of-web"),
        ("none", "trigger", "everybody-s"),
        ("nobody", "trigger", "everybody-s"),
    }
    assert [(got.body["alertKey"], got.body["routingKey"]) for got in told] == [("policy", "policy-of-shop")]
