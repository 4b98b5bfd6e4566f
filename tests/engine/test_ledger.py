"""The ledger over a real run: everything received is accounted for, and a missing row shows. guarantees.md 30."""

from __future__ import annotations

import contextlib
from pathlib import Path

import apsw

from gateway.store import Arrivals, LedgerLine
from gateway.store.sqlite import SqliteTx
from tests.chaos_upstream import Got, chaos, say
from tests.clients.callers import OTHER
from tests.engine.vendors import NO, OK, before, down, page, settled, slow, table
from tests.harness import House


def ledger(h: House, by: str = "caller", since: int = 0) -> dict[str, LedgerLine]:
    """The ledger as it is on disk."""
    with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection:
        return {line.group: line for line in SqliteTx(connection).ledger(since, by)}  # type: ignore[arg-type]


def arrivals(h: House) -> dict[str, Arrivals]:
    """What each upstream accepted."""
    with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection:
        return {one.upstream: one for one in SqliteTx(connection).arrivals(0)}


def test_everything_that_was_received_is_somewhere(tmp_path: Path) -> None:
    """Each of delivered, dead, waiting, merged, void and refused occurs at least once."""

    def picky(got: Got) -> object:
        return NO if "rude" in got.content.decode() else OK

    with chaos(picky) as good, chaos(say(503)) as bad:  # type: ignore[arg-type]
        tables = [table("good", good.url, "ilert"), table("bad", bad.url, "ilert", first="30s")]
        routes = '[[routes]]\nfrom = ["uptinio"]\nto = ["good"]\n[[routes]]\nto = ["good", "bad"]\n'
        with before(tmp_path, *tables, routes=routes) as h:
            page(h, "one")
            page(h, "rude one", summary="rude")
            page(h, "one")  # again, within the minute: merged
            assert down(h, "rude", key=OTHER).status == 400, "every upstream refused it"
            assert down(h, "Website is down", key=OTHER).status == 201
            settled(h, "delivered", 2)
            settled(h, "dead", 1)
            settled(h, "merged", 1)
            lines = {by: ledger(h, by) for by in ("caller", "dialect", "operation")}
            for by, found in lines.items():
                assert all(line.adds_up for line in found.values()), (by, found)
                assert sum(line.received for line in found.values()) == 8
            ci, ops = lines["caller"]["ci"], lines["caller"]["ops"]
            assert (ci.received, ci.delivered, ci.dead, ci.merged, ci.refused) == (6, 1, 1, 2, 0)
            assert ci.waiting == 2
            assert (ops.received, ops.refused, ops.delivered) == (2, 1, 1)
            assert set(lines["dialect"]) == {"ilert", "uptinio"} and set(lines["operation"]) >= {"create"}
            _does_not_add_up_without_a_row(h)


def _does_not_add_up_without_a_row(h: House) -> None:
    with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection:
        connection.set_busy_timeout(5000)
        connection.execute(
            "DELETE FROM deliveries WHERE id = (SELECT max(id) FROM deliveries WHERE state = 'delivered')"
        )
    assert [name for name, line in ledger(h).items() if not line.adds_up] == ["ops"]


def test_what_came_before_is_left_out_with_its_deliveries(tmp_path: Path) -> None:
    with chaos(OK) as good, before(tmp_path, table("good", good.url, "ilert")) as h:
        page(h, "one")
        settled(h)
        assert h.gateway.desk is not None
        since = h.gateway.desk.now() + 1
        h.wait_for(lambda: h.gateway.desk and h.gateway.desk.now() > since)
        assert not ledger(h, since=since)
        page(h, "two")
        settled(h, count=2)
        line = ledger(h, since=since)["ci"]
        assert line.adds_up and (line.received, line.delivered) == (1, 1)


def test_what_was_merely_accepted_and_what_was_confirmed_are_kept_apart(tmp_path: Path) -> None:
    """202 counts as accepted, 200 and 201 as confirmed; ages are from acceptance to delivery."""
    answers = [slow(0.3, OK), OK, OK, say(200, {})]

    with chaos(lambda got: answers.pop(0)) as good, before(tmp_path, table("good", good.url, "ilert")) as h:
        for number in range(4):
            page(h, f"k{number}")
            settled(h, count=number + 1)
        found = arrivals(h)["good"]
        assert (found.accepted, found.confirmed) == (3, 1)
        assert 300 <= found.worst < 3000 and found.p50 < 300
        assert found.p99 == found.worst, "of four deliveries only the worst is not exceeded by 99 of 100"
