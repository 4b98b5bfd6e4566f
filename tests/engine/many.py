"""Shared by the tests of many callers: three hundred callers' files, and a sandbox that takes any key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gateway.cli.sandbox import Sandbox
from gateway.config.loading import parse
from gateway.process.service import Gateway
from gateway.registry import dialects
from tests.harness import House, served

MANY = 300


NAMES = [f"svc-{number:03}" for number in range(MANY)]


def files(directory: Path, content: dict[str, str]) -> Path:
    """A directory with these files."""
    directory.mkdir()
    for name, text in content.items():
        (directory / name).write_text(text + "\n")
    return directory


@contextmanager
def open_house(directory: Path, config: Callable[[str], str]) -> Iterator[House]:
    """A gateway in front of a sandbox that takes any key, as if three hundred services of one vendor stood there."""
    sandbox = Sandbox(dialects(), "unused")
    let_in = {name: replace(inbound, anonymous=True) for name, inbound in sandbox.gateway.config.inbounds.items()}
    sandbox.gateway.config = replace(sandbox.gateway.config, inbounds=let_in)
    with served(sandbox) as sandbox_url:
        text = f'store = "sqlite://{directory}/gateway.db"\n' + config(sandbox_url)
        (directory / "gateway.toml").write_text(text)
        gateway = Gateway(parse(text, base=directory))
        with served(gateway.app) as url:
            standing = House(url, sandbox_url, gateway, sandbox)
            with standing.client:
                yield standing


def many(directory: Path) -> Callable[[str], str]:
    """ilert and PagerDuty callers; one ilert upstream with a policy per caller, one PagerDuty upstream with a service
    per caller."""
    files(directory / "callers", {name: f"credential-of-{name}" for name in NAMES})
    files(directory / "events", {name: f"{number:032x}" for number, name in enumerate(NAMES)})
    files(directory / "services", {name: f"secret-service-{name}" for name in NAMES})
    (directory / "teams.toml").write_text("".join(f'{name} = "policy-{name}"\n' for name in NAMES))
    (directory / "owners.toml").write_text("".join(f'{name} = "team-{name}"\n' for name in NAMES))
    return lambda url: (
        f"""
        [inbound.ilert]
        keys = "dir:{directory}/callers"
        [inbound.pagerduty]
        keys = "dir:{directory}/events"
        [upstreams.oncall]
        dialect = "ilert"
        url = "{url}/ilert"
        key = "one-key-for-all"
        [upstreams.services]
        dialect = "pagerduty"
        url = "{url}/pagerduty"
        key = {{ by = "caller", dir = "{directory}/services" }}
        [[routes]]
        name = "fan"
        to = [
            {{ upstream = "oncall", set = {{ routing_key = {{ by = "caller", table = "teams.toml" }} }} }},
            "services",
        ]
        set = {{ team = {{ by = "caller", table = "owners.toml", else = "nobody" }} }}
        """
    )


TWO = """
[inbound.ilert]
keys = { ci = "caller-key", cd = "other-key" }
[upstreams.oncall]
dialect = "ilert"
url = "https://api.ilert.com"
key = "upstream-key"
[upstreams.second]
dialect = "ilert"
url = "https://api.ilert.com"
key = "upstream-key"
"""
