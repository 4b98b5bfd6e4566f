"""Promise 21: no secret in any output, whatever goes wrong.

Every secret of a gateway is a canary: callers' keys (a literal, in the environment, in a file), an upstream's key and
an extra header, an identity service's key and its token, and the key of a collector of traces. Then everything is done
to make them leak: upstreams that echo whole requests in every kind of refusal, wrong keys, requests in pieces, keys in
paths and queries, a full disk, kill -9, a bad configuration, the operator's commands. All replies, metrics, logs (at
`debug`), spans, and files of the store are searched for each canary, in plain, percent-encoded, base64 and hexadecimal.
The negative control puts another caller's credential into the summary, where no gateway can know it.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import resource
import secrets
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from tests.chaos.processes import Process, free_port
from tests.chaos.sink import ROOT, Sink, sink
from tests.chaos.verdicts import Verdict, command, parser
from tests.collector import collecting

STATUSES = (400, 401, 403, 404, 409, 413, 422, 429, 500, 503)


def forms(canary: str) -> list[bytes]:
    """Returns the encodings of a secret to search for; base64 is that of the canary at each of three offsets."""
    plain = canary.encode()
    shifted = [base64.b64encode(b"\0" * pad + plain)[4 if pad else 0 : -4] for pad in range(3)]
    return [plain, quote(canary, safe="").encode(), plain.hex().encode(), *shifted]


@dataclass
class Searched:
    """All outputs, by where they came out; `hits` tells which secret was found in which."""

    canaries: dict[str, str]
    outputs: dict[str, bytes] = field(default_factory=dict)

    def add(self, where: str, text: bytes) -> None:
        """Adds an output."""
        self.outputs[where] = self.outputs.get(where, b"") + text + b"\n"

    def hits(self) -> list[str]:
        """Returns each secret that is in an output."""
        return [
            f"{name} in {where}"
            for name, canary in self.canaries.items()
            for where, text in self.outputs.items()
            if any(form in text for form in forms(canary))
        ]


def _canaries() -> dict[str, str]:
    names = ("literal", "variable", "file", "old", "upstream", "header", "exchanged", "token", "second", "collector")
    return {name: f"canary-{name}-{secrets.token_hex(12)}" for name in names}


def _configuration(directory: Path, upstream: str, found: dict[str, str]) -> Path:
    (directory / "caller.key").write_text(found["file"])
    (directory / "upstream.key").write_text(found["upstream"])
    path = directory / "gateway.toml"
    path.write_text(
        f'store = "sqlite://{directory}/store/gateway.db"\nreply_timeout = "1s"\n'
        f'[inbound.ilert]\nkeys = {{ one = "{found["literal"]}", two = "env:CHAOS_CANARY", '
        f'three = ["file:{directory}/caller.key", "{found["old"]}"] }}\n'
        f'[inbound.uptinio]\nkeys = {{ one = "{found["second"]}" }}\n'
        f'[upstreams.oncall]\ndialect = "ilert"\nurl = "{upstream}"\nkey = "file:{directory}/upstream.key"\n'
        f'retry = {{ first = "20ms", most = "100ms" }}\nheaders = {{ X-Extra = "{found["header"]}" }}\n'
        f'[upstreams.metrics]\ndialect = "ibm_monitoring"\nurl = "{upstream}"\niam_key = "{found["exchanged"]}"\n'
        f'iam_url = "{upstream}"\n'
        'headers = { IBMInstanceID = "instance" }\nretry = { first = "20ms", most = "100ms" }\n'
        'defaults = { "condition.expression" = "avg(timeAvg(uptime)) <= 0" }\n'
        '[[routes]]\nto = ["oncall", "metrics"]\n'
    )
    return path


@dataclass
class _Run:
    directory: Path
    upstream: Sink
    found: Searched
    config: Path
    requests: int = 0

    async def say(self, client: httpx.AsyncClient, method: str, path: str, **more: Any) -> None:
        """Calls the gateway and keeps everything it answers."""
        self.requests += 1
        with contextlib.suppress(httpx.HTTPError):
            answer = await client.request(method, path, **more)
            heads = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
            self.found.add("replies", heads.encode() + answer.content)

    async def provoke(self, client: httpx.AsyncClient) -> None:
        """Calls the gateway rightly and wrongly, with every credential in every place."""
        keys = [self.found.canaries[name] for name in ("literal", "variable", "file", "old", "second", "upstream")]
        for number, key in enumerate(keys):
            event = {"apiKey": key, "eventType": "ALERT", "summary": "s", "alertKey": f"a{number}"}
            bearer = {"authorization": f"Bearer {key}"}
            await self.say(client, "POST", "/ilert/api/events", json=event)
            await self.say(client, "POST", "/ilert/api/events", json={**event, "severity": "nine"})
            await self.say(client, "POST", "/ilert/api/events", json={**event, "integrationKey": key + "x"})
            again = {"summary": f"my key is {key}", "token": key, "customDetails": {key: f"https://x/?key={key}"}}
            await self.say(client, "POST", "/ilert/api/events", json={**event, **again})
            await self.say(client, "POST", "/ilert/api/events", content=json.dumps(event).encode()[:-9])
            await self.say(client, "POST", "/ilert/api/events", json={**event, "eventType": "RESOLVE"})
            await self.say(client, "GET", "/ilert/api/alerts", headers=bearer)
            await self.say(client, "GET", "/ilert/api/alerts/77", headers=bearer)
            await self.say(client, "POST", "/uptinio/alerts", headers=bearer, json={"monitor_id": "m", "type": "down"})
            await self.say(client, "POST", "/uptinio/alerts", headers=bearer, json={"monitor_id": 7})
            await self.say(client, "GET", "/uptinio/alerts", headers={"authorization": key})
            await self.say(client, "PATCH", "/nowhere", headers={"x-api-key": key, **bearer})
        for path in ("/metrics", "/-/ready", "/-/healthy", "/-/openapi.json"):
            await self.say(client, "GET", path)

    def operate(self, environ: dict[str, str]) -> None:
        """Runs the operator's commands, also with a configuration that is wrong beside every secret."""
        bad = self.directory / "bad.toml"
        bad.write_text(self.config.read_text().replace("dialect =", "dialekt =").replace("[[routes]]", "[[ruotes]]"))
        given = ["--config", str(self.config)]
        commands = (["check", *given], ["deliveries", *given, "--json"], ["retry", *given, "--dead"])
        for arguments in (*commands, ["check", "--config", str(bad)], ["serve", "--config", str(bad)]):
            whole = [sys.executable, "-m", "gateway.cli", *arguments]
            done = subprocess.run(
                whole, cwd=ROOT, env={**os.environ, **environ}, capture_output=True, timeout=60, check=False
            )
            self.found.add("the command line", done.stdout + done.stderr)

    def search_files(self) -> None:
        """Adds the log, and every file that the store made."""
        for path in (self.directory / "gateway.log", *sorted((self.directory / "store").iterdir())):
            self.found.add(path.name, path.read_bytes())


async def canaries(directory: Path, statuses: Iterable[int] = STATUSES, *, tells: bool = False) -> Verdict:
    """Provokes the gateway under each answer of its upstreams, and searches everything that came out."""
    secret = _canaries()
    with sink(directory) as upstream, collecting() as collector:
        key = {"OTEL_EXPORTER_OTLP_HEADERS": f"x-key={secret['collector']}"}
        environ = {"CHAOS_CANARY": secret["variable"], **collector.environ, **key}
        run = _Run(directory, upstream, Searched(secret), _configuration(directory, upstream.url, secret))
        port = free_port()
        for number, status in enumerate((*statuses, 202)):
            upstream.mood(status=status, echoes=status != 202, token=secret["token"] if number % 2 else "")
            process = Process(run.config, port, log_level="debug", environ=environ)
            try:
                await process.ready()
                async with httpx.AsyncClient(base_url=process.url, timeout=10) as client:
                    await run.provoke(client)
                    if tells:
                        said = f"a key is {secret['second']}"
                        event = {"apiKey": secret["old"], "eventType": "ALERT", "summary": said}
                        await run.say(client, "POST", "/ilert/api/events", json=event)
                    if number == 0:
                        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
                        await run.provoke(client)
                run.search_files()
            finally:
                process.kill()
        run.operate(environ)
        run.search_files()
        run.found.add("spans", collector.raw)
    hits = run.found.hits()
    size = sum(map(len, run.found.outputs.values())) / 1024
    verdict = Verdict({"requests": run.requests, "secrets": len(secret), "KiB searched": size, "hits": len(hits)})
    verdict.hold(not hits, "; ".join(hits[:6]))
    places = {"replies", "the command line", "gateway.log", "gateway.db", "gateway.db-wal"} - set(run.found.outputs)
    places |= set() if collector.spans() else {"spans"}
    verdict.hold(not places, f"not searched: {', '.join(places)}")
    return verdict


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    return await canaries(directory, tells=given.control)


def main() -> int:
    """The command."""
    return command("canary secrets", _run, parser(__doc__).parse_args())


if __name__ == "__main__":
    sys.exit(main())
