"""Reloads under load: `python -m tests.chaos.reload --reloads 100`. guarantees.md 17.

Callers send without a pause while the configuration is replaced again and again, every second time by a bad file.
Each good version is named in what it sends and where it sends it, so that an alert that saw two versions is detected.
Prints one line of figures; exits 1 if one is not as promised. It must not know what the gateway is made of.
"""

from __future__ import annotations

import argparse
import datetime
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.chaos_upstream import Chaos, chaos, say
from tests.clients.callers import ilert_event
from tests.harness import KEY
from tests.processes import Running, serving, wait_for

CALLERS = 4
BAD = ("listen = ", '[inbound.nobody]\nkeys = { ci = "k" }\n', 'listen = "127.0.0.1:1"\n[inbound.ilert]\n', "")


@dataclass
class Figures:
    """The results of a run."""

    reloads: int = 0
    refused: int = 0
    requests: int = 0
    failed: int = 0
    lost: int = 0
    mixed: int = 0
    versions: int = 0

    @property
    def is_good(self) -> bool:
        """Whether the promise held, and there was something that could have broken it."""
        return not (self.failed or self.lost or self.mixed) and self.versions > 1 and self.refused > 0


@dataclass
class Load:
    """Callers that send one event after another, and what they were told."""

    url: str
    stop: threading.Event = field(default_factory=threading.Event)
    acknowledged: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def send(self, caller: int) -> None:
        """Runs one caller until it is stopped."""
        with httpx.Client(timeout=10) as client:
            number = 0
            while not self.stop.is_set():
                number += 1
                key = f"{caller}-{number}"
                try:
                    event = ilert_event("ALERT", key, summary=key)
                    status = client.post(self.url + "/api/events", json=event).status_code
                except httpx.HTTPError as error:
                    status = 0
                    self.failed.append(f"{key}: {error!r}")
                (self.acknowledged if status == 202 else self.failed).append(key)
                time.sleep(0.002)


def written(directory: Path, url: str, version: int) -> str:
    """Returns a configuration with its version in the path and key of both upstreams and in what the route sets."""
    tables = "".join(
        f'[upstreams.{name}]\ndialect = "ilert"\nurl = "{url}/{name}/v{version}"\nkey = "k{version}"\n'
        for name in ("one", "two")
    )
    route = f'[[routes]]\nto = ["one", "two"]\nset = {{ summary = "v{version}" }}\n'
    inbound = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'
    return f'store = "sqlite://{directory}/gateway.db"\n{inbound}{tables}{route}'


def reload(running: Running, config: Path, text: str, *, is_good: bool, count: int) -> None:
    """Replaces the file atomically, sends SIGHUP, and waits until it was accepted or refused."""
    fresh = config.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(config)
    running.signal(signal.SIGHUP)
    outcome = "good" if is_good else "bad"
    sample = f'alert_gateway_config_reloads_total{{outcome="{outcome}"}}'
    wait_for(lambda: running.metric(sample) >= count, 20, lambda: running.log[-2000:])


def run(directory: Path, reloads: int) -> Figures:
    """Reloads `reloads` times under load, and counts."""
    config, figures = directory / "gateway.toml", Figures(reloads=reloads)
    with chaos(say(202, {})) as upstream:
        config.write_text(written(directory, upstream.url, 0))
        with serving(config, level="info") as running:
            load = Load(running.url)
            callers = [threading.Thread(target=load.send, args=(number,)) for number in range(CALLERS)]
            for caller in callers:
                caller.start()
            good = 0
            for number in range(reloads):
                if number % 2:
                    figures.refused += 1
                    bad = BAD[figures.refused % len(BAD)]
                    reload(running, config, bad, is_good=False, count=figures.refused)
                else:
                    good += 1
                    text = written(directory, upstream.url, good)
                    reload(running, config, text, is_good=True, count=good)
            load.stop.set()
            for caller in callers:
                caller.join(15)
            _arrive(upstream, load)
    figures.requests = len(load.acknowledged) + len(load.failed)
    figures.failed = len(load.failed)
    _count(upstream, load, figures)
    return figures


def _arrive(upstream: Chaos, load: Load) -> None:
    """Waits for what was acknowledged, but not forever: what does not come is counted as lost."""
    end = time.monotonic() + 30
    while len(list(upstream.got)) < 2 * len(load.acknowledged) and time.monotonic() < end:
        time.sleep(0.05)


def _count(upstream: Chaos, load: Load, figures: Figures) -> None:
    """Counts alerts that were set in by two versions, requests whose address and key are of two, and what was lost."""
    said: dict[str, set[str]] = {}
    arrived: dict[str, set[str]] = {}
    seen: set[str] = set()
    for got in list(upstream.got):
        _, name, version, *_ = got.path.split("/")
        seen.add(version)
        key = got.body["alertKey"]
        said.setdefault(key, set()).add(got.body["summary"])
        arrived.setdefault(key, set()).add(name)
        figures.mixed += got.body["apiKey"] != version.replace("v", "k")
    figures.mixed += sum(len(versions) > 1 for versions in said.values())
    figures.lost = sum(arrived.get(key) != {"one", "two"} for key in load.acknowledged)
    figures.versions = len(seen)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--reloads", type=int, default=100)
    reloads = parser.parse_args().reloads
    with tempfile.TemporaryDirectory() as directory:
        found = run(Path(directory), reloads)
    today = datetime.datetime.now(datetime.UTC).date()
    print(
        f"{today} reload: {found.reloads} reloads ({found.refused} bad), {found.requests} requests, {found.failed} "
        f"failed, {found.lost} lost, {found.mixed} saw two versions, {found.versions} versions seen upstream: "
        f"{'good' if found.is_good else 'BROKEN'}"
    )
    return 0 if found.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
