"""The promises about bad upstreams and hostile callers, each in a short form of its command; the full figures are the
commands' own. What a command cannot find broken proves nothing, so some are made to fail here."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import openapi
from gateway.config.config import Inbound
from gateway.config.secrets import Keyring
from gateway.delivery import attempt, judging
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.looking import Looked
from gateway.delivery.transport import Transport
from gateway.outcome import Response
from gateway.road.requeue import send_again
from gateway.store import DeliveryRow, Tx
from gateway.store.sqlite import SqliteTx
from tests.chaos import bounded, credentials, described, elsewhere, hostile, isolation, lanes, liveness, poison, repeats
from tests.chaos import retries as matrix
from tests.chaos.result import Result

# Upstreams that hang and half close leave connections to the collector; theirs are not the gateway's.
# Gateways in this process draw random pauses while hypothesis makes up requests; neither depends on the other.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Do not use the `random` module"),
]


@pytest.fixture(autouse=True)
def _swept() -> Iterator[None]:
    """What a test leaves to the collector is collected before the next."""
    yield
    gc.collect()


def kept(result: Result) -> None:
    """The promise was kept."""
    assert not result.broken, result.line()


def test_promise_4_at_least_once_with_the_same_key() -> None:
    kept(repeats.measure(pages=16, crashes=1, seed=1))


def test_promise_4_a_gateway_that_does_not_look_first_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def blind(*given: object) -> Looked:
        return Looked()

    monkeypatch.setattr("gateway.delivery.lanes.look", blind)
    broken = repeats.measure(pages=16, crashes=0, seed=1).broken
    assert any("16 pages became" in text for text in broken), broken


@pytest.fixture(scope="module")
def simulated() -> lanes.Simulation:
    """A short simulation, from its beginning to its end."""
    return lanes.simulate(2000, seed=7)


def test_promises_5_and_26_order_per_lane(simulated: lanes.Simulation) -> None:
    """No inversion, no late resolve, nothing blocked, and a ledger that adds up."""
    wrong = {what: count for what, count in simulated.wrong.items() if count and "woken" not in what}
    assert not wrong
    assert simulated.done["restarts"] and simulated.accepted > 500


def test_promise_26_nobody_is_woken_for_what_is_over(simulated: lanes.Simulation) -> None:
    """canonical.md: with `fold`, a trigger older than ten minutes whose resolve also waits is not sent."""
    assert not simulated.wrong["woken for what is over"]


@pytest.mark.parametrize(
    ("kind", "what"),
    [(lanes.LanesIgnored, "inversions"), (lanes.LanesOfAlerts, "a late resolve closed another alert")],
)
def test_promise_5_a_broken_store_is_found_out(kind: type[SqliteTx], what: str) -> None:
    assert lanes.simulate(1200, seed=7, kind=kind, keys=15).wrong[what]


def test_promise_6_retries_by_the_vendors_rules() -> None:
    kept(matrix.measure(every=13))


def test_promise_6_an_earlier_retry_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One second too early is too early."""
    real = judging.retry_after

    def hasty(response: Response, now: object) -> float | None:
        found = real(response, now)  # type: ignore[arg-type]
        return max(0.0, found - 3) if found else found

    monkeypatch.setattr(attempt, "retry_after", hasty)
    assert matrix.measure(every=97).broken


def test_promise_7_every_attempt_is_bounded() -> None:
    """With seconds to spare for a machine that is busy with other tests; the half second is the command's."""
    kept(bounded.measure(pages=8, seconds=2, slack=2.5))


def test_promise_7_an_attempt_that_outlasts_its_deadline_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Transport.__init__

    def patient(self: Transport, url: str, timeout: float, *more: Any) -> None:
        real(self, url, timeout + 1.2, *more)

    monkeypatch.setattr(Transport, "__init__", patient)
    assert any("took longer" in text for text in bounded.measure(pages=2, seconds=2, slack=0.8).broken)


def test_promise_8_an_upstream_that_hangs_slows_no_other(tmp_path: Path) -> None:
    """In so short a run only what is gross is told from noise; the ratio is the command's."""
    usual, faulty = isolation.compare(tmp_path, 50, "hang", turns=1)
    assert faulty < usual * isolation.MOST + 0.25


def test_promise_8_a_name_that_cannot_be_looked_up_slows_no_other(tmp_path: Path) -> None:
    usual, faulty = isolation.compare(tmp_path, 50, "lookup", turns=1)
    assert faulty < usual * isolation.MOST + 0.25


def test_promise_10_poison_goes_to_the_dead_letters() -> None:
    kept(poison.measure(alerts=30, seed=1))


def test_promise_10_a_replay_that_minds_no_order_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def backward(tx: Tx, rows: list[DeliveryRow], now: int, *, force: bool) -> tuple[list[int], list[str]]:
        done, refused = send_again(tx, rows, now, force=force)
        for number, row in enumerate(sorted(tx.held(done), key=lambda row: row.id)):
            row.due = now - number
            tx.update_delivery(row)
        return done, refused

    monkeypatch.setattr(poison, "send_again", backward)
    monkeypatch.setattr(SqliteTx, "claim", lanes.LanesIgnored.claim)
    broken = poison.measure(alerts=30, seed=1).broken
    assert any("out of order" in text for text in broken), broken


def test_promise_18_hostile_http() -> None:
    kept(hostile.measure(connections=40, seed=1, is_slow=False))


def test_promise_18_a_limit_that_is_not_where_it_is_said_to_be_is_found_out() -> None:
    broken = hostile.measure(connections=10, seed=1, is_slow=False, usual=("-m", "tests.chaos.generous")).broken
    assert any("the limit of headers" in text for text in broken), broken


def test_promise_19_credentials() -> None:
    kept(credentials.measure(attempts=150, seed=1))


def test_promise_19_a_stranger_who_is_let_in_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Keyring, "caller", lambda keyring, credential: "ci")
    broken = credentials.measure(attempts=40, seed=1).broken
    assert any("answered 200, or in other words" in text for text in broken), broken


def test_promise_20_no_connection_elsewhere() -> None:
    kept(elsewhere.measure(pages=12))


def test_promise_22_the_description_is_true() -> None:
    kept(described.measure(cases=40, most=4))


def test_promise_22_a_description_that_leaves_refusals_out_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = openapi.describe

    def rosy(inbounds: list[Inbound]) -> dict[str, Any]:
        described = real(inbounds)
        for operation in (one for path in described["paths"].values() for one in path.values()):
            operation["responses"] = {status: it for status, it in operation["responses"].items() if status < "3"}
        return described

    monkeypatch.setattr(openapi, "describe", rosy)
    assert described.measure(cases=80, most=4).broken


def test_promise_24_liveness_ignores_upstreams() -> None:
    """Every fault for a moment; the full store is the command's."""
    kept(liveness.measure(seconds=0.05, is_filled=False))


def test_promise_24_a_gateway_that_is_not_ready_for_an_upstream_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def turns(self: Dispatcher) -> bool:
        return all(one.state == "closed" for one in self.breakers().values())

    monkeypatch.setattr(Dispatcher, "turns", turns)
    broken = liveness.measure(seconds=0.3, is_filled=False).broken
    assert any("not ready because of an upstream" in text for text in broken), broken
