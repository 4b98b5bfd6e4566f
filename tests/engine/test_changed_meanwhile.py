"""A configuration that is changed while alerts wait or are open: what each upstream is told then, in whose words, and
that the end of an alert is told wherever the alert was."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from gateway.config import parse
from tests.chaos_upstream import chaos
from tests.engine.vendors import OK, outbox, page, settled, table
from tests.harness import KEY, House, Sent, house

INBOUND = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n[inbound.uptinio]\nkeys = {{ ci = "{KEY}" }}\n'
NOWHERE = "http://127.0.0.1:9"


def text(*tables: str, to: str = '["one"]', top: str = "") -> str:
    """A configuration, but for its store."""
    return "\n".join([top, INBOUND, *tables, f"[[routes]]\nto = {to}\n"])


def again(h: House, config: str) -> None:
    """Reloads, in the loop that serves."""
    assert h.gateway.dispatcher is not None
    loop = next(iter(h.gateway.dispatcher._tasks.values())).get_loop()
    read = parse(f'store = "sqlite://{h.gateway.config.store}"\n{config}')
    asyncio.run_coroutine_threadsafe(h.gateway.reload(read), loop).result(15)


def end(h: House, key: str = "disk") -> Sent:
    """The end of an ilert alert."""
    event = {"apiKey": KEY, "eventType": "RESOLVE", "alertKey": key}
    return h.call("POST", "/ilert/api/events", event, key=None)


def test_what_is_taken_out_of_the_outbox_is_told_in_the_words_of_where_it_goes(tmp_path: Path) -> None:
    """A reload may come between: it went out to the new vendor in the words of the old one."""
    with chaos(OK) as ilert, chaos(OK) as pagerduty:
        either = [table("one", ilert.url, "ilert"), table("one", pagerduty.url, "pagerduty")]
        with house(tmp_path, config=lambda _: text(table("one", NOWHERE, "ilert"))) as h:
            for number in range(300):
                assert page(h, f"disk {number}").status == 202
            reloads = 0
            while outbox(h, "waiting"):
                again(h, text(either[reloads % 2]))
                reloads += 1
                time.sleep(0.02)
            assert reloads > 5, "all of it went out at once"
            told = [*ilert.got, *pagerduty.got]
            assert len(told) == len(settled(h, count=300)) == 300 and ilert.got and pagerduty.got
            assert {"eventType" in got.body and "payload" not in got.body for got in ilert.got} == {True}
            assert {"payload" in got.body and "summary" not in got.body for got in pagerduty.got} == {True}
