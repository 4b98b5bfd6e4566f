"""Another configuration without a restart: `Gateway.reload`, SIGHUP to a real process, and reloads under load in short.
guarantees.md 17; the long form is `python -m tests.chaos.reload`."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import CapturingLogger

from gateway.config.config import Config
from gateway.config.loading import parse
from gateway.delivery import held, lanes
from gateway.errors import ConfigurationError
from gateway.network.certificates import Following
from gateway.process import serving as process
from gateway.process.serving import _Reloading
from tests.chaos import reload
from tests.chaos_upstream import CLOSE, HANG, Chaos, chaos, say
from tests.clients.callers import ilert_event
from tests.engine.certificates import certificate
from tests.engine.vendors import OK, Uptinio, gated, outbox, page, settled, table
from tests.harness import KEY, House, house
from tests.processes import HERE, Running, serving
from tests.raw import wire

DEEP = "a = " + "[" * 100_000
INBOUND = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'


def text(directory: Path, *tables: str, to: str = '["one"]', top: str = "") -> str:
    """A configuration whose alerts go to `to`."""
    return "\n".join([f'store = "sqlite://{directory}/gateway.db"', top, INBOUND, *tables, f"[[routes]]\nto = {to}\n"])


def again(h: House, config: Config) -> None:
    """Reloads, in the loop that serves."""
    assert h.gateway.dispatcher is not None
    loop = h.gateway.dispatcher._tasks["one"].get_loop()
    asyncio.run_coroutine_threadsafe(h.gateway.reload(config), loop).result(15)


def test_what_is_changed_and_added_is_used_from_here_on(tmp_path: Path) -> None:
    with chaos(OK) as one, chaos(OK) as other:
        first, then = table("one", one.url, "ilert"), table("one", one.url + "/moved", "ilert").replace("upstream-", "")
        with house(tmp_path, config=lambda _: text(tmp_path, first).partition("\n")[2]) as h:
            page(h, "a")
            settled(h)
            new = table("two", other.url, "ilert")
            again(h, parse(text(tmp_path, then, new, to='["one", "two"]')))
            page(h, "b")
            settled(h, count=3)
            assert [(got.path, got.body["apiKey"]) for got in one.got] == [
                ("/api/events", "upstream-key"),
                ("/moved/api/events", "key"),
            ]
            assert [got.body["alertKey"] for got in other.got] == ["b"]


@pytest.mark.parametrize("is_under_way", [False, True], ids=["refused before", "refused after"])
@pytest.mark.parametrize("keys", ['"file:{dir}/ci"', '{{ by = "caller", dir = "{dir}" }}'], ids=["one", "by caller"])
def test_what_was_refused_at_a_wrong_address_does_not_wait_at_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: str, is_under_way: bool
) -> None:
    """A held key is tried at once, and an answer that comes from the old address later holds nothing."""
    monkeypatch.setattr(lanes, "LOOK", 0.1)
    monkeypatch.setattr(held, "LOOK", 0.1)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "ci").write_text("key-of-ci")
    key, gate = keys.format(dir=tmp_path / "keys"), threading.Event()

    def there(url: str) -> str:
        return text(tmp_path, f'[upstreams.one]\ndialect = "ilert"\nurl = "{url}"\nkey = {key}\n')

    with (
        chaos(gated(gate, say(401))) as wrong,
        chaos(OK) as right,
        house(tmp_path, config=lambda _: there(wrong.url).partition("\n")[2]) as h,
    ):
        page(h)
        h.wait_for(lambda: wrong.got)
        if not is_under_way:
            gate.set()
            h.wait_for(lambda: outbox(h)[0].reason.startswith("held"))
        again(h, parse(there(right.url)))
        gate.set()
        settled(h, seconds=5.0)


def test_reloads_leave_no_certificates_behind(tmp_path: Path) -> None:
    """Each reload frees the previous TLS contexts, a MiB each, without waiting for the cyclic garbage collector."""
    context, ca = certificate(tmp_path, "127.0.0.1")
    with chaos(OK, context=context) as one:

        def config(number: int) -> str:
            more = table("one", one.url, "ilert", f'ca = "{ca}"').replace("upstream-key", f"upstream-key-{number}")
            return text(tmp_path, more)

        def contexts() -> int:
            return sum(isinstance(found, Following) for found in gc.get_objects())

        gc.collect()
        before = contexts()
        gc.disable()  # it would run far more often than in a gateway that serves
        try:
            with house(tmp_path, config=lambda _: config(0).partition("\n")[2]) as h:
                for number in range(1, 12):
                    page(h, str(number))
                    settled(h, count=number)
                    again(h, parse(config(number)))
                assert contexts() - before <= 3
        finally:
            gc.enable()


def test_what_waits_for_a_rate_waits_no_more_once_it_is_taken_out(tmp_path: Path) -> None:
    """At one a minute the second delivery waits two minutes, but no longer once a reload removes the rate."""
    with chaos(OK) as one:
        rated, free = table("one", one.url, "ilert", "rate = 1"), table("one", one.url, "ilert")
        with house(tmp_path, config=lambda _: text(tmp_path, rated).partition("\n")[2]) as h:
            page(h, "a")
            settled(h)
            page(h, "b")
            time.sleep(0.5)
            assert [row.key for row in outbox(h, "waiting")] == ["b"]
            again(h, parse(text(tmp_path, free)))
            settled(h, count=2, seconds=5)


def test_what_waits_for_a_dismissed_upstream_is_delivered_when_it_comes_back(tmp_path: Path) -> None:
    with chaos(CLOSE) as one, chaos(OK) as other:
        there, new = table("one", one.url, "ilert"), table("two", other.url, "ilert")
        with house(tmp_path, config=lambda _: text(tmp_path, there).partition("\n")[2]) as h:
            page(h, "a")
            h.wait_for(lambda: one.got)
            assert h.gateway.dispatcher is not None
            loop = h.gateway.dispatcher._tasks["one"].get_loop()

            def to(config: str) -> None:
                asyncio.run_coroutine_threadsafe(h.gateway.reload(parse(config)), loop).result(15)

            to(text(tmp_path, new, to='["two"]'))
            h.wait_for(lambda: not h.gateway.dispatcher or "one" not in h.gateway.dispatcher.breakers())
            metrics = h.client.get(h.url + "/metrics").text
            assert 'alert_gateway_waiting_deliveries{upstream="one"} 1.0' in metrics
            assert 'alert_gateway_upstream_open{upstream="one"} 0.0' in metrics
            page(h, "b")
            settled(h)
            one.always(OK)
            before = len(one.got)
            assert [row.key for row in outbox(h, "waiting")] == ["a"] and len(one.got) == before
            to(text(tmp_path, there, new, to='["two"]'))
            settled(h, count=2)
            assert one.got[-1].body["alertKey"] == "a"


def test_an_upstream_that_comes_back_goes_on_with_what_is_under_way_there(tmp_path: Path) -> None:
    """The reload that brings the upstream back does not wait for the answer, which may take minutes."""
    gate = threading.Event()
    with chaos(lambda got: gated(gate, OK) if got.body["alertKey"] == "a" else OK) as one, chaos(OK) as other:
        there, new = table("one", one.url, "ilert", timeout="20s"), table("two", other.url, "ilert")
        with house(tmp_path, config=lambda _: text(tmp_path, there).partition("\n")[2]) as h:
            page(h, "a")
            h.wait_for(lambda: one.got)
            assert h.gateway.dispatcher is not None
            loop = h.gateway.dispatcher._tasks["one"].get_loop()
            for config in (text(tmp_path, new, to='["two"]'), text(tmp_path, there)):
                asyncio.run_coroutine_threadsafe(h.gateway.reload(parse(config)), loop).result(15)
            [under_way] = h.gateway.dispatcher._lanes["one"].claims
            assert under_way.key == "a"
            page(h, "b")
            h.wait_for(lambda: [row for row in outbox(h, "delivered") if row.key == "b"])
            gate.set()
            settled(h, count=2)
            assert [got.body["alertKey"] for got in one.got] == ["a", "b"]


def test_what_is_under_way_to_a_dismissed_upstream_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with chaos(HANG) as one, chaos(OK) as other:
        there, new = table("one", one.url, "ilert", timeout="60s"), table("two", other.url, "ilert")
        with house(tmp_path, config=lambda _: text(tmp_path, there).partition("\n")[2]) as h:
            page(h, "a")
            h.wait_for(lambda: one.got)
            assert h.gateway.dispatcher is not None
            again(h, parse(text(tmp_path, new, to='["two"]')))
            loop = h.gateway.dispatcher._tasks["two"].get_loop()
            asyncio.run_coroutine_threadsafe(h.gateway.dispatcher.stop(0.1), loop).result(5)


def test_what_a_dismissed_upstream_took_while_the_store_failed_is_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came of it was not written down any more, as nothing goes there: it was told again, once it was back."""
    gate = threading.Event()
    monkeypatch.setattr(lanes, "log", said := CapturingLogger())
    with chaos(gated(gate, OK)) as one, chaos(OK) as other:
        there, new = table("one", one.url, "ilert", timeout="20s"), table("two", other.url, "ilert")
        with house(tmp_path, config=lambda _: text(tmp_path, there).partition("\n")[2]) as h:
            page(h, "a")
            h.wait_for(lambda: one.got)
            assert h.gateway.dispatcher is not None
            loop = h.gateway.dispatcher._tasks["one"].get_loop()
            asyncio.run_coroutine_threadsafe(h.gateway.reload(parse(text(tmp_path, new, to='["two"]'))), loop).result(
                15
            )
            leaving = h.gateway.dispatcher._leaving["one"].lanes
            store: Any = h.gateway.store
            store._writer.pragma("query_only", 1)
            gate.set()
            h.wait_for(lambda: [call for call in said.calls if call.args == ("delivery.unrecorded",)])
            store._writer.pragma("query_only", 0)
            h.wait_for(lambda: not leaving.claims)
            asyncio.run_coroutine_threadsafe(h.gateway.reload(parse(text(tmp_path, there))), loop).result(15)
            page(h, "b")
            settled(h, count=2)
            assert [got.body["alertKey"] for got in one.got] == ["a", "b"]


@pytest.mark.parametrize("change", ["listen", "store"])
def test_what_takes_a_restart_says_so_and_changes_nothing(change: str, tmp_path: Path) -> None:
    with chaos(OK) as one, chaos(OK) as other:
        there = table("one", one.url, "ilert")
        with house(tmp_path, config=lambda _: text(tmp_path, there).partition("\n")[2]) as h:
            elsewhere = table("one", other.url, "ilert")
            top = 'listen = "127.0.0.1:1"' if change == "listen" else ""
            moved = text(tmp_path / "moved" if change == "store" else tmp_path, elsewhere, top=top)
            with pytest.raises(ConfigurationError, match=f"{change}: takes a restart"):
                again(h, parse(moved))
            page(h, "a")
            settled(h)
            assert len(one.got) == 1 and not other.got


def test_an_unchanged_upstream_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    """Its lanes, connections and breaker are kept: a reload is no reason to try one that is down."""
    with chaos(CLOSE) as one:
        there = table("one", one.url, "ilert")
        with house(tmp_path, config=lambda _: text(tmp_path, there).partition("\n")[2]) as h:
            page(h, "a")
            assert h.gateway.dispatcher is not None
            h.wait_for(lambda: h.gateway.dispatcher and h.gateway.dispatcher.is_open("one"))
            was = h.gateway.dispatcher.client("one")
            again(h, parse(text(tmp_path, there)))
            assert h.gateway.dispatcher.client("one") is was and h.gateway.dispatcher.is_open("one")


# --- a process -------------------------------------------------------------------------------------------------


def send(running: Running, key: str, kind: str = "ALERT") -> int:
    """Sends an event; returns the status of the answer."""
    event = ilert_event(kind, key, summary=key)
    return httpx.post(running.url + "/api/events", json=event, timeout=10).status_code


def keys(upstream: Chaos) -> list[str]:
    """The keys that arrived."""
    return [got.body["alertKey"] for got in list(upstream.got)]


def test_sighup_takes_a_good_file_and_refuses_a_bad_one(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    successful = "alert_gateway_config_last_reload_successful"
    with chaos(OK) as one, chaos(OK) as two:
        config.write_text(text(tmp_path, table("one", one.url, "ilert")))
        with serving(config) as running:
            assert send(running, "a") == 202 and running.metric(successful) == 1
            for number, bad in enumerate(("nonsense =", text(tmp_path, to='["nobody"]'), INBOUND, DEEP), 1):
                config.write_text(bad)
                running.signal(signal.SIGHUP)
                running.waits_for("config.refused", number)
                assert running.metric(successful) == 0
                assert send(running, f"bad {number}") == 202, "the one before stays"
            running.waits_for("delivery.delivered", 5)
            config.unlink()
            running.signal(signal.SIGHUP)
            running.waits_for("config.refused", 5)
            config.write_text(text(tmp_path, table("one", two.url, "ilert")))
            running.signal(signal.SIGHUP)
            running.waits_for("config.reloaded")
            [said] = running.waits_for("operator.reload")
            assert (said["who"], said["origin"]) == ("SIGHUP", "a signal")
            [kept] = httpx.get(running.url + "/-/operations").json()["operations"]
            assert (kept["what"], kept["who"]) == ("reload", "SIGHUP"), "those that were refused changed nothing"
            assert running.metric(successful) == 1
            assert send(running, "z") == 202
            running.waits_for("delivery.delivered", 6)
            assert keys(one) == ["a", "bad 1", "bad 2", "bad 3", "bad 4"] and keys(two) == ["z"]


def test_a_configuration_that_cannot_be_loaded_is_never_said_to_be(tmp_path: Path) -> None:
    """A reload that fails is reported as failed whatever the fault, a bug of the gateway included."""

    def load() -> Config:
        raise RuntimeError("a fault of ours")

    with house(tmp_path, config=lambda _: f"{INBOUND}{table('one', 'http://127.0.0.1:9', 'ilert')}") as h:
        h.gateway.reload_from_file = _Reloading(h.gateway, load, is_one_of_many=False).for_all
        answer = h.client.post(h.url + "/-/reload")
        assert answer.status_code == 422 and "RuntimeError" in answer.json()["problems"][0]
        assert "alert_gateway_config_last_reload_successful 0.0" in h.client.get(h.url + "/metrics").text
        assert h.client.get(h.url + "/-/operations").json() == {"operations": []}


def test_a_file_that_never_answers_holds_up_neither_callers_nor_the_end(tmp_path: Path) -> None:
    """As a file on a share may: here a pipe into which nobody writes."""
    config = tmp_path / "gateway.toml"
    with chaos(OK) as one:
        config.write_text(text(tmp_path, table("one", one.url, "ilert")))
        with serving(config) as running:
            config.unlink()
            os.mkfifo(config)
            running.signal(signal.SIGHUP)
            assert send(running, "a") == 202
            running.waits_for("delivery.delivered")
            running.signal(signal.SIGTERM)
            assert running.process.wait(20) == 0


def test_a_reload_that_takes_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LOADING", 0.05)
    answers = threading.Event()

    def load() -> Config:
        answers.wait(30)
        raise AssertionError("nobody waits for it any more")

    with house(tmp_path, config=lambda _: f"{INBOUND}{table('one', 'http://127.0.0.1:9', 'ilert')}") as h:
        h.gateway.reload_from_file = _Reloading(h.gateway, load, is_one_of_many=False).for_all
        answer = h.client.post(h.url + "/-/reload")
        assert answer.status_code == 422 and "could not be read within" in answer.json()["problems"][0]
        answers.set()


def test_a_configuration_that_can_be_read_but_once_is_good_for_a_start(tmp_path: Path) -> None:
    """As `--config <(sops -d gateway.toml)` gives one."""
    out, into = os.pipe()
    os.write(into, text(tmp_path, table("one", "http://127.0.0.1:9", "ilert")).encode())
    os.close(into)
    line = [sys.executable, "-m", "gateway.cli", "serve", "--config", f"/dev/fd/{out}", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(line, cwd=HERE, stderr=subprocess.PIPE, pass_fds=[out]) as started:
        os.close(out)
        assert started.stderr
        assert b'"event": "serving"' in started.stderr.readline()
        started.kill()


def test_a_dismissed_upstream_with_something_waiting_is_warned_of(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    with chaos(CLOSE) as one, chaos(OK) as two:
        config.write_text(text(tmp_path, table("one", one.url, "ilert")))
        with serving(config) as running:
            assert send(running, "a") == 202
            config.write_text(text(tmp_path, table("two", two.url, "ilert"), to='["two"]'))
            running.signal(signal.SIGHUP)
            [warned] = running.waits_for("upstream.unknown")
            assert (warned["level"], warned["upstream"], warned["waiting"]) == ("warning", "one", 1)


@pytest.mark.parametrize("then", [INBOUND.replace("ci =", "shop ="), f'{INBOUND}scope = "all"\n'])
def test_a_caller_who_leaves_its_open_alerts_behind_is_warned_of(then: str, tmp_path: Path) -> None:
    """Nobody can resolve those alerts any more, and requests with their keys are answered with success all the same."""
    config = tmp_path / "gateway.toml"
    with chaos(OK) as one:
        before = text(tmp_path, table("one", one.url, "ilert"))
        config.write_text(before)
        with serving(config) as running:
            assert [send(running, key) for key in "ab"] == [202, 202]
            for number, now in enumerate((before, before.replace(INBOUND, then)), 1):
                config.write_text(now)
                running.signal(signal.SIGHUP)
                running.waits_for("config.reloaded", number)
            [warned] = running.waits_for("scope.left")
            assert (warned["level"], warned["scope"], warned["open"]) == ("warning", "ilert/ci", 2)


def test_who_changes_the_file_and_starts_anew_is_warned_too_until_they_are_over(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    with chaos(OK) as one:
        before = text(tmp_path, table("one", one.url, "ilert"))
        config.write_text(before)
        with serving(config) as running:
            assert [send(running, key) for key in "ab"] == [202, 202]
        for _ in range(2):
            config.write_text(before.replace(INBOUND, INBOUND.replace("ci =", "shop =")))
            with serving(config) as running:
                [warned] = running.waits_for("scope.left")
                assert (warned["scope"], warned["open"]) == ("ilert/ci", 2)
        config.write_text(before)
        with serving(config) as running:
            assert not running.events("scope.left")


def test_what_never_becomes_a_request_is_refused_in_the_words_of_now(tmp_path: Path) -> None:
    with chaos(OK) as one:
        there = table("one", one.url, "ilert")
        with house(tmp_path, config=lambda _: text(tmp_path, there).partition("\n")[2]) as h:
            again(h, parse(text(tmp_path, there).replace("inbound.ilert", "inbound.uptinio")))
            with wire(h.url) as connection:
                connection.say(f"GET /alerts HTTP/1.1\r\nHost: a\r\nX: {'a' * 33_000}\r\n\r\n".encode())
                answer = connection.hear()
            assert answer is not None and (answer.status, list(answer.body)) == (431, ["error"]), "Uptinio's words"


def test_an_upstream_that_gives_ids_is_said_to_be_at_another_address(tmp_path: Path) -> None:
    """If that is another account, ids from the old one name other alerts there: a stranger's rule might be switched
    off."""
    config = tmp_path / "gateway.toml"
    with chaos(Uptinio()) as one, chaos(Uptinio()) as other:
        before = text(tmp_path, table("one", one.url, "uptinio"))
        config.write_text(before)
        with serving(config) as running:
            assert send(running, "a") == 202
            config.write_text(before.replace(one.url, other.url))
            running.signal(signal.SIGHUP)
            [warned] = running.waits_for("upstream.moved")
            assert (warned["level"], warned["upstream"], warned["url"]) == ("warning", "one", other.url)
            assert "give the new address another name, and restore the old one" in warned["reason"]
        with serving(config) as running:
            assert not running.events("upstream.moved")
        config.write_text(before)
        with serving(config) as running:
            running.waits_for("upstream.moved")


def test_another_vendor_under_the_same_name_leaves_open_alerts_behind_and_that_is_said(tmp_path: Path) -> None:
    """Whoever moves to another vendor may just change the upstream. The former vendor then pages on for what is open
    there, and is told of no end; that ids are used at another address is not what is wrong."""
    config = tmp_path / "gateway.toml"
    with chaos(OK) as one, chaos(Uptinio()) as other:
        before = text(tmp_path, table("one", one.url, "pagerduty"), table("two", one.url, "ilert"))
        config.write_text(before)
        with serving(config) as running:
            assert [send(running, key) for key in "ab"] == [202, 202]
            running.waits_for("delivery.delivered", 2)
            config.write_text(text(tmp_path, table("one", other.url, "uptinio"), table("two", one.url, "pagerduty")))
            running.signal(signal.SIGHUP)
            [warned] = running.waits_for("upstream.replaced")
            assert (warned["level"], warned["upstream"], warned["open"]) == ("warning", "one", 2)
            assert (warned["was"], warned["now"]) == ("pagerduty", "uptinio")
            assert "restore the former under this name" in warned["reason"]
            assert send(running, "a", "RESOLVE") == 202
        with serving(config) as running:
            assert not running.events("upstream.replaced") and not running.events("upstream.moved")
        config.write_text(before)
        with serving(config) as running:
            running.waits_for("upstream.replaced")


def test_an_upstream_that_is_renamed_leaves_its_open_alerts_behind_and_that_is_said(tmp_path: Path) -> None:
    """Their ends were dead letters, and nobody heard of it. Under its old name it is told them at last."""
    config = tmp_path / "gateway.toml"
    with chaos(OK) as one:
        there = table("one", one.url, "ilert")
        renamed = table("other", one.url, "ilert")
        config.write_text(text(tmp_path, there))
        with serving(config) as running:
            assert [send(running, key) for key in "ab"] == [202, 202]
            running.waits_for("delivery.delivered", 2)
            config.write_text(text(tmp_path, renamed, to='["other"]'))
            running.signal(signal.SIGHUP)
            [warned] = running.waits_for("upstream.left")
            assert (warned["level"], warned["upstream"], warned["open"]) == ("warning", "one", 2)
            assert warned["now"] == ["other"] and "restore the upstream under this name" in warned["reason"]
            assert send(running, "a", "RESOLVE") == 202
            config.write_text(text(tmp_path, there, renamed, to='["other"]'))
            running.signal(signal.SIGHUP)
            running.waits_for("delivery.delivered", 3)
            assert one.got[-1].body["eventType"] == "RESOLVE"
        config.write_text(text(tmp_path, renamed, to='["other"]'))
        for _ in range(2):
            with serving(config) as running:
                [warned] = running.waits_for("upstream.left")
                assert (warned["upstream"], warned["open"], warned["now"]) == ("one", 1, ["other"])


def test_reloads_under_load_fail_nobody(tmp_path: Path) -> None:
    figures = reload.run(tmp_path, 12)
    assert figures.is_good, figures
    assert figures.requests > 20 and figures.refused == 6


def test_who_asks_a_primary_that_is_taken_away_meanwhile_hears_that_it_does_not_answer(tmp_path: Path) -> None:
    """A request ends under the configuration it began under, and its body may take half a minute to come."""
    inbound = f'store = "sqlite://{tmp_path}/gateway.db"\n[inbound.opsgenie]\nkeys = {{ ci = "{KEY}" }}\n'
    with chaos(OK) as upstream:
        one, two = (inbound + table(name, upstream.url, "opsgenie") for name in ("one", "two"))
        with house(tmp_path, config=lambda _: one.partition("\n")[2]) as h, wire(h.url) as connection:
            ping = f"POST /v2/heartbeats/nightly/ping HTTP/1.1\r\nHost: a\r\nAuthorization: GenieKey {KEY}\r\n"
            connection.say(f"{ping}Content-Length: 2\r\nExpect: 100-continue\r\n\r\n".encode())
            began = connection.hear()
            assert began is not None and began.status == 100
            again(h, parse(two))
            connection.say(b"{}")
            answer = connection.hear()
        assert answer is not None and answer.status == 503 and "message" in answer.body
        assert upstream.got == []
