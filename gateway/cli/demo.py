"""`demo`: sends every vendor's documented examples to every vendor, over real HTTP on loopback and a real store.

It starts a gateway and a sandbox upstream per dialect, sends the examples as the vendors' clients would, and shows
what arrived and what each target could not hold. It must not know any vendor.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
from msgspec import UNSET

from gateway.canonical import Operation
from gateway.cli.sandbox import Arrived, Sandbox
from gateway.config.loading import parse
from gateway.config.secrets import MASK
from gateway.dialect import Dialect
from gateway.examples import Example, examples, with_credential
from gateway.logs import configure
from gateway.process.server import serving
from gateway.process.service import Gateway
from gateway.registry import dialects
from gateway.store import DeliveryFilter

LIFE = (
    Operation.CREATE,
    Operation.UPDATE,
    Operation.ACKNOWLEDGE,
    Operation.COMMENT,
    Operation.RESOLVE,
    Operation.REOPEN,
    Operation.DELETE,
)
SHOWN = ("approximated", "carried", "kept", "dropped")


@dataclass(frozen=True)
class Passage:
    """One example sent from one vendor to another: the answer to the caller, what arrived, and the report."""

    origin: str
    target: str
    example: Example
    status: int
    answer: Any
    alert: int
    arrived: tuple[Arrived, ...]
    report: tuple[dict[str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """The passage as `--json` prints it."""
        return {
            "from": self.origin,
            "to": self.target,
            "example": self.example.title,
            "source": self.example.source,
            "status": self.status,
            "answer": self.answer,
            "arrived": [
                {"method": one.method, "path": one.path, "body": None if one.body is UNSET else one.body}
                for one in self.arrived
            ],
            "report": [fate for fate in self.report if fate["fate"] != "mapped"],
        }


def configuration(found: dict[str, Dialect], sandbox_url: str, store: Path, keys: dict[str, str], key: str) -> str:
    """A configuration in which alerts go to the upstream that has the caller's name."""
    parts = [f'store = "sqlite://{store}"']
    callers = ", ".join(f'"{name}" = "{caller_key}"' for name, caller_key in keys.items())
    parts += [f"[inbound.{name}]\nkeys = {{ {callers} }}" for name in found]
    for name, dialect in found.items():
        defaults = ", ".join(f"{json.dumps(path)} = {_toml(value)}" for path, value in dialect.usual_defaults.items())
        parts.append(
            f'[upstreams.{name}]\ndialect = "{name}"\nurl = "{sandbox_url}/{name}"\nkey = "{key}"\n'
            f"defaults = {{ {defaults} }}"
        )
        parts.append(f'[[routes]]\nname = "to-{name}"\nwhen = ["caller = {name}"]\nto = ["{name}"]')
    return "\n\n".join(parts)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    return "[" + ", ".join(map(_toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


async def run(origin: str | None, target: str | None, *, stay: bool, as_json: bool) -> int:
    """Runs the demonstration; returns the exit status, 1 where a request was refused."""
    configure("critical")
    found = dict(dialects())
    keys = {name: secrets.token_hex(16) for name in found}
    key = secrets.token_hex(16)
    sandbox = Sandbox(found, key)
    with tempfile.TemporaryDirectory(prefix="alert-gateway-demo-") as directory:
        async with serving(sandbox) as sandbox_url:
            gateway = Gateway(parse(configuration(found, sandbox_url, Path(directory) / "gateway.db", keys, key)))
            async with serving(gateway.app) as url:
                show = _Show(as_json)
                show.begin(url)
                async with httpx.AsyncClient(base_url=url, timeout=20) as client:
                    for sender in [found[origin]] if origin else found.values():
                        for receiver in [found[target]] if target else found.values():
                            tour = _Tour(client, gateway, sandbox, sender, receiver, keys[receiver.name])
                            show.pair([passage async for passage in tour.passages()])
                show.end()
                if stay:
                    show.stay(url, keys)
                    await _until_told_to_end()
    return 1 if show.failed else 0


async def _until_told_to_end() -> None:
    """Waits for SIGINT or SIGTERM; either ends the demonstration normally."""
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    await told.wait()


class _Tour:
    """The examples of one dialect, sent to one upstream."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        gateway: Gateway,
        sandbox: Sandbox,
        sender: Dialect,
        receiver: Dialect,
        key: str,
    ) -> None:
        self._client = client
        self._gateway = gateway
        self._sandbox = sandbox
        self._sender = sender
        self._receiver = receiver
        self._key = key

    async def passages(self) -> AsyncIterator[Passage]:
        """Sends the documented examples in the order of an alert's life: creates, then operations on the last alert.

        As names may be unique, the last alert is deleted before the next create, where there is an example for that.
        """
        shown = examples(self._sender.name)
        last = None
        for operation in LIFE:
            for example in (one for one in shown if one.operation is operation):
                if operation is Operation.CREATE:
                    for end in (one for one in shown if last is not None and one.operation is Operation.DELETE):
                        await self._send(end, last)
                passage = await self._send(example, last)
                last = passage.alert if operation is Operation.CREATE else last
                yield passage

    async def _send(self, example: Example, alert: int | None) -> Passage:
        before = len(self._sandbox.arrived)
        version = await self._version(alert)
        about = example.request.about(str(alert) if alert is not None else None, version)
        signed = with_credential(about, self._sender, self._key)
        answer = await self._client.request(
            signed.method,
            f"/{self._sender.name}{signed.path}",
            content=b"" if signed.body is UNSET else msgspec.json.encode(signed.body),
            headers={"content-type": "application/json", **signed.headers},
        )
        shown = int(answer.headers.get("alert-gateway-id", "0"))
        report = await self._report(shown) if answer.is_success else ()
        arrived = tuple(one for one in self._sandbox.arrived[before:] if one.method != "GET")
        report = report if arrived else _in_header(answer.headers.get_list("alert-gateway-report"))
        return Passage(
            origin=self._sender.name,
            target=self._receiver.name,
            example=example,
            status=answer.status_code,
            answer=answer.json() if answer.content else None,
            alert=shown,
            arrived=arrived,
            report=report,
        )

    async def _version(self, alert: int | None) -> int | None:
        """The alert's version, as the caller would read it."""
        if alert is None:
            return None
        row = await self._gateway.store.read(lambda tx: tx.alert(alert))
        return row.version if row else None

    async def _report(self, alert: int) -> tuple[dict[str, str], ...]:
        """The report of the alert's latest delivery, once none waits any more."""
        for _ in range(500):
            rows = await self._gateway.store.read(lambda tx: tx.deliveries(DeliveryFilter(alert=alert)))
            if all(row.state != "waiting" for row in rows):
                return tuple(rows[0].fates) if rows else ()
            await asyncio.sleep(0.01)
        return ()


def _in_header(lines: Iterable[str]) -> tuple[dict[str, str], ...]:
    """The fates in the reply's report header, for a command for which nothing was sent."""
    parts = [part.strip().partition("=") for line in lines for part in line.split(";")[1:]]
    return tuple({"field": name, "fate": fate} for fate, _, names in parts for name in names.split(","))


class _Show:
    """Prints the passages as they are made, in colour on a terminal; or all as JSON at the end."""

    def __init__(self, as_json: bool) -> None:
        from rich.console import Console

        self._as_json = as_json
        self._console = Console(highlight=False, soft_wrap=True)
        self._passages: list[Passage] = []
        self.failed = False

    def begin(self, url: str) -> None:
        """Prints the introduction."""
        if not self._as_json:
            self._console.print(
                f"A gateway on {url}, a sandbox behind it for every vendor, the vendors' own examples.\n"
            )

    def pair(self, passages: Iterable[Passage]) -> None:
        """Prints the passages of one pair."""
        for passage in passages:
            self._passages.append(passage)
            self.failed |= passage.status >= 400
            if not self._as_json:
                self._print(passage)

    def _print(self, passage: Passage) -> None:
        out = self._console.print
        colour = "green" if passage.status < 400 else "red"
        out(f"[bold]{passage.origin} → {passage.target}[/bold]  {_escape(passage.example.title)}")
        request = passage.example.request
        out(f"  caller   {request.method} {_escape(request.path)} → [{colour}]{passage.status}[/{colour}]")
        if passage.status >= 400:
            out(f"           {_escape(_brief(passage.answer))}")
        if not passage.arrived:
            out("  arrived  nothing: the gateway keeps it")
        for one in passage.arrived:
            out(f"  arrived  {one.method} {one.path} {_escape(_brief(one.body))}")
        for word in SHOWN:
            fields = [fate["field"] for fate in passage.report if fate["fate"] == word]
            if fields:
                out(f"  {word:<12} {', '.join(fields)}")
        out("")

    def end(self) -> None:
        """Prints the totals, or the JSON."""
        if self._as_json:
            json.dump([passage.as_json() for passage in self._passages], sys.stdout, indent=2)
            sys.stdout.write("\n")
            return
        pairs = {(passage.origin, passage.target) for passage in self._passages}
        got = sum(bool(passage.arrived) for passage in self._passages)
        kept = len(self._passages) - got
        many = "1 pair" if len(pairs) == 1 else f"{len(pairs)} pairs"
        self._console.print(f"{many}, {len(self._passages)} examples sent: {got} arrived, {kept} kept.")

    def stay(self, url: str, keys: dict[str, str]) -> None:
        """Prints the address and keys to try it with."""
        self._console.print(
            f"\nStill up: send a vendor's requests to {url}/<dialect> and its own paths. The key you send chooses the "
            "vendor behind:"
        )
        for name, key in keys.items():
            self._console.print(f"  {name:<{max(map(len, keys))}}  {key}")
        self._console.print("Ctrl-C ends it.")


NO_SECRETS = ("alertkey", "dedup_key", "groupkey")
"""Fields with `key` in their names that are no credentials."""


def _brief(value: Any) -> str:
    """A body on one line, credentials masked."""
    if value is UNSET:
        return ""
    shown = (
        {k: MASK if "key" in k.lower() and k.lower() not in NO_SECRETS else v for k, v in value.items()}
        if isinstance(value, dict)
        else value
    )
    return json.dumps(shown, ensure_ascii=False)


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
