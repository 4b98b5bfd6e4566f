"""Runs a gateway whose every credential is a canary, and calls all its routes; its answers go to standard output, its
log to standard error. `test_secrets` runs this as a process of its own and looks for canaries in both.

Its upstreams are sandboxes, and others that echo everything they receive, credentials included.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import httpx
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.canonical import Operation
from gateway.examples import Example, examples, with_credential
from gateway.logs import configure
from gateway.registry import dialects
from tests.harness import KEY, UPSTREAM_KEY, House, house, inbound_tables, served, upstream_table

ECHOED = "canary-of-an-upstream-that-echoes-4711"
ECHO_CALLER = "canary-of-a-caller-who-is-echoed-4711"
REFUSED_CALLER = "canary-of-a-caller-whom-all-refuse-4711"
HEADER = "canary-of-a-configured-header-4711"
UNKNOWN = "canary-nobody-knows-4711"
CANARIES = (KEY, UPSTREAM_KEY, ECHOED, ECHO_CALLER, REFUSED_CALLER, HEADER, UNKNOWN)
STATUSES = (401, 400, 503)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the status that the path begins with, and echoes everything in the places for error texts."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    request = Request(scope, receive)
    said = f"ECHO {dict(request.headers)} {(await request.body()).decode(errors='replace')}"
    error = {"code": "ECHO", "message": said, "param": said}
    body = {"error": error, "errors": [{"reason": "ECHO", "message": said}], "message": said, "code": "ECHO"}
    status = int(request.url.path.split("/")[1])
    response: Response = JSONResponse(body, status, {"x-echo": said[:200].replace("\n", " ")})
    await response(scope, receive, send)


def configuration(sandbox_url: str, echo_url: str) -> str:
    """Returns a configuration with three callers of every dialect: one is routed to the sandboxes, one to all upstreams
    that echo, one to those of them that refuse for good."""
    callers = f'ci = "{KEY}", echoed = "{ECHO_CALLER}", refused = "{REFUSED_CALLER}"'
    parts = [inbound_tables().replace(f'ci = "{KEY}"', callers)]
    header = f'headers = {{ X-Instance = "{HEADER}" }}\n'
    for name in dialects():
        parts.append(upstream_table(f"good_{name}", name, sandbox_url, more=header))
        for status in STATUSES:
            table = upstream_table(f"echo{status}_{name}", name, sandbox_url, more=header)
            address = f'url = "{echo_url}/{status}"'
            parts.append(table.replace(f'url = "{sandbox_url}/{name}"', address).replace(UPSTREAM_KEY, ECHOED))
    echoes = [f"echo{status}_{name}" for status in STATUSES for name in dialects()]
    parts += [f'[[routes]]\nwhen = ["caller = echoed"]\nto = {json.dumps(echoes)}']
    parts += [f'[[routes]]\nwhen = ["caller = refused"]\nto = {json.dumps([e for e in echoes if "400" in e])}']
    parts += [f"[[routes]]\nto = {json.dumps([f'good_{name}' for name in dialects()])}"]
    return "\n".join(parts)


def main(directory: Path) -> None:
    """Calls every route with good, unknown, absent and contradictory credentials."""
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    configure("debug")
    for client in ("httpx", "httpcore"):  # the callers' own logs name the addresses that they call
        logging.getLogger(client).setLevel(logging.WARNING)
    with served(echo) as echo_url, house(directory, config=lambda url: configuration(url, echo_url), top=TOP) as h:
        for name in dialects():
            for key in (KEY, ECHO_CALLER, REFUSED_CALLER, UNKNOWN, ""):
                shown = None
                for example in sorted(examples(name), key=lambda each: each.operation is not Operation.CREATE):
                    answer = call(h, name, example, shown, key)
                    show(answer)
                    if example.operation is Operation.CREATE and answer.is_success:
                        shown = dialects()[name].shown_id(int(answer.headers["alert-gateway-id"]))
        for key in (KEY, ECHO_CALLER, REFUSED_CALLER):
            for path in ("ilert/api/v1/events/push", "ilert/api/heartbeats", "opsgenie/v2/alerts/x", "nothing"):
                h.client.post(f"{h.url}/{path}/{key}", json={"eventType": "ALERT", "summary": "x"})
        for path in ("/metrics", "/-/ready", "/-/healthy", "/-/openapi.json", f"/nothing/{'x' * 10}"):
            show(h.client.get(h.url + path))
        h.wait_for(lambda: h.gateway.dispatcher and h.gateway.dispatcher.is_open(f"echo401_{next(iter(dialects()))}"))
        print(repr(h.gateway.config), vars(h.gateway.config), repr(h.gateway.dispatcher))
        for upstream in h.gateway.config.upstreams.values():
            print(repr(upstream), str(upstream.key), vars(upstream) if hasattr(upstream, "__dict__") else "")


TOP = 'reply_timeout = "1s"'


def call(h: House, name: str, example: Example, shown: str | None, key: str) -> httpx.Response:
    """Sends a documented request with a credential."""
    request = example.request.about(shown, None)
    ready = with_credential(request, dialects()[name], key) if key else request
    headers = {**ready.headers, **({"Authorization": f"Bearer {key}"} if key else {})}
    body = None if ready.body is UNSET else ready.body
    return h.client.request(ready.method, f"{h.url}/{name}{ready.path}", json=body, headers=headers)


def show(answer: httpx.Response) -> None:
    """Prints everything a caller gets to see."""
    print(answer.status_code, dict(answer.headers), answer.text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
