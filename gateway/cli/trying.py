"""Runs the tests in a configuration: each sends a sample through it, without a network, and compares what comes out
with what is expected. It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import UNSET, json

from gateway.cli.explaining import Explained, Reached, explain, usual_caller
from gateway.config.config import Config
from gateway.config.file import TestFile
from gateway.config.routes import upstream_in
from gateway.config.secrets import unread
from gateway.errors import Problem
from gateway.inbound.limits import decode
from gateway.mapping.wire import get


def failures(config: Config) -> Iterator[str]:
    """Runs all tests; yields a text for each expectation that is not met, with what came instead."""
    for number, test in enumerate(config.tests, 1):
        name = f"tests[{number}]" + (f" ({test.send})" if isinstance(test.send, str) else "")
        for problem in _failures(config, test):
            yield f"{name}: {problem}"


def _failures(config: Config, test: TestFile) -> Iterator[str]:
    inbound = config.inbounds[test.from_.partition("/")[0]]
    caller = test.caller or test.from_.partition("/")[2] or usual_caller(inbound)
    if caller is None:
        yield "caller: is required, as there are several"
        return
    try:
        body = decode((config.base / test.send).read_bytes()) if isinstance(test.send, str) else test.send
    except (OSError, ValueError) as error:  # a path with a null character is no path
        yield f"send: {test.send} cannot be read: {unread(error)}"
        return
    except Problem as problem:
        yield f"send: {problem.message}"
        return
    came = explain(config, inbound, caller, body)
    refused = came.refused or next((one.refused for one in came.reached[:1]), "")  # the caller is told by its primary
    if refused and "refused" not in test.expect:
        yield f"was refused: {refused}"
        return
    for key, wanted in test.expect.items():
        yield from _compared(config, came, key, wanted)


def _compared(config: Config, came: Explained, key: str, wanted: Any) -> Iterator[str]:
    reached = {one.choice.upstream: one for one in came.reached if one.choice.after is None}
    if key == "to":
        told = [name for name, one in reached.items() if not one.refused]
        if told != wanted:
            why = "; ".join(f"{name}: {one.refused}" for name, one in reached.items() if one.refused)
            yield f"to: expected {_shown(wanted)}, got {_shown(told)}" + (f" ({why})" if why else "")
    elif key == "route":
        if came.route != wanted:
            yield f"route: expected {_shown(wanted)}, got {_shown(came.route)}"
    elif key == "wakes":
        found = any(one.wakes for one in reached.values())
        if found is not wanted:
            says = "; ".join(f"{one.choice.upstream}: {one.says}" for one in reached.values())
            yield f"wakes: expected {_shown(wanted)}, got {_shown(found)} ({says})"
    elif key == "refused":
        text = came.refused or "; ".join(one.refused for one in reached.values() if one.refused)
        if (wanted is True and not text) or (isinstance(wanted, str) and wanted not in text):
            yield f"refused: expected {_shown(wanted)}, got {_shown(text)}"
    elif parted := upstream_in(key, config.upstreams):
        yield from _field(reached.get(parted[0]), parted[0], parted[1], wanted)


def _field(reached: Reached | None, upstream: str, field: str, wanted: Any) -> Iterator[str]:
    path = f"{upstream}.{field}" if field else upstream
    if reached is None:
        yield f"{path}: expected {_shown(wanted)}, but it does not go to {upstream}"
    elif reached.refused:
        yield f"{path}: expected {_shown(wanted)}, got a refusal: {reached.refused}"
    elif isinstance(wanted, Mapping) and (not field or not isinstance(_at(reached, field), Mapping)):
        for name, inner in wanted.items():
            yield from _field(reached, upstream, f"{field}.{name}" if field else name, inner)
    elif isinstance(wanted, Mapping):
        found = _at(reached, field)
        for name, inner in wanted.items():
            if found.get(name, UNSET) != inner:
                yield f"{path}.{name}: expected {_shown(inner)}, got {_shown(found.get(name, UNSET))}"
    elif (found := _at(reached, field)) != wanted:
        yield f"{path}: expected {_shown(wanted)}, got {_shown(found)}"


def _at(reached: Reached, field: str) -> Any:
    body = dict(reached.body())
    return body[field] if field in body else get(body, field)


def _shown(value: Any) -> str:
    return "nothing" if value in (UNSET, "") else json.encode(value).decode()
