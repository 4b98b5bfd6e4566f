"""Hostile HTTP over raw sockets: ambiguous, oversized, slow or truncated requests are refused and the connection
closed, nothing of them is stored, and the gateway serves on in the same memory."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.inbound import limits
from gateway.inbound.protocol import EdgeProtocol
from tests.harness import KEY, House, house
from tests.raw import Heard, Wire, request, wire

MEBIBYTE = 1 << 20
FEW = 8 * MEBIBYTE
"""The growth in memory that is allowed beside hostile input: the allocator keeps what it had once."""
ALERT = b'{"monitor_id": "m", "type": "down", "message": "it is down"}'
AUTH = f"Authorization: Bearer {KEY}"
POST = request("POST", "/uptinio/alerts", ALERT, AUTH)
HEAD = f"POST /uptinio/alerts HTTP/1.1\r\nHost: x\r\n{AUTH}\r\n".encode()


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One gateway for all of these tests, which must still serve at the end; it accepts bodies up to 64 KiB."""
    with house(tmp_path_factory.mktemp("store"), {"oncall": "ilert"}, top='max_body = "64KiB"') as h:
        yield h


@pytest.fixture
def h(standing: House) -> Iterator[House]:
    """The gateway; after each test it must still serve."""
    yield standing
    assert standing.call("GET", "/uptinio/alerts").status == 200


def alerts(h: House) -> int:
    """How many alerts the caller has."""
    return int(h.call("GET", "/uptinio/alerts").body["meta"]["total"])


@contextlib.contextmanager
def nothing_taken_in(h: House) -> Iterator[Wire]:
    """A connection; the number of alerts must be the same afterwards."""
    before = alerts(h)
    with wire(h.url) as connection:
        yield connection
    assert alerts(h) == before


def refused(answer: Heard | None, status: int, message: str = "") -> None:
    """Asserts that an answer has this status and message, is JSON, and announces that the connection is closed."""
    assert answer is not None, "closed without an answer"
    assert answer.status == status
    assert isinstance(answer.body, dict) and message in str(answer.body)
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"


def memory() -> int:
    """The resident bytes of this process, gateway and test alike; 0 where the system does not tell."""
    if not Path("/proc/self/statm").exists():
        return 0
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- requests that could be read in two ways -------------------------------------------------------------------

CHUNKED = b"3c\r\n" + ALERT + b"\r\n0\r\n\r\n"
AMBIGUOUS = {
    "length and chunked": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "chunked and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + CHUNKED,
    "lengths that differ": HEAD + b"Content-Length: 60\r\nContent-Length: 6\r\n\r\n" + ALERT,
    "lengths that agree": HEAD + b"Content-Length: 60\r\nContent-Length: 60\r\n\r\n" + ALERT,
    "a list of lengths": HEAD + b"Content-Length: 60, 60\r\n\r\n" + ALERT,
    "a negative length": HEAD + b"Content-Length: -60\r\n\r\n" + ALERT,
    "a signed length": HEAD + b"Content-Length: +60\r\n\r\n" + ALERT,
    "a length beyond 64 bits": HEAD + b"Content-Length: 99999999999999999999\r\n\r\n" + ALERT,
    "a folded header": HEAD + b"X: a\r\n b\r\nContent-Length: 60\r\n\r\n" + ALERT,
    "a folded coding": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKED,
    "another coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKED,
    "a misspelt coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKED,
    "no coding": HEAD + b"Transfer-Encoding: identity\r\n\r\n",
    "two codings": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + CHUNKED,
    "chunked in 1.0": HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "a blank before the colon": HEAD + b"Content-Length : 60\r\n\r\n" + ALERT,
    "bare line feeds": POST.replace(b"\r\n", b"\n"),
    "a bare carriage return": HEAD + b"X: a\rContent-Length: 60\r\n\r\n" + ALERT,
    "a zero byte": HEAD + b"X: a\0b\r\nContent-Length: 60\r\n\r\n" + ALERT,
    "a chunk without a size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk beyond 64 bits": HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "a chunk longer than said": HEAD + b"Transfer-Encoding: chunked\r\n\r\n3b\r\n" + ALERT + b"\r\n0\r\n\r\n",
    "two hosts": HEAD + b"Host: y\r\nContent-Length: 60\r\n\r\n" + ALERT,
    "two credentials": HEAD + b"Authorization: Bearer other\r\nContent-Length: 60\r\n\r\n" + ALERT,
    "two encodings": HEAD
    + b"Content-Encoding: gzip\r\nContent-Encoding: identity\r\nContent-Length: 60\r\n\r\n"
    + ALERT,
    "HTTP/0.9": b"GET /uptinio/alerts\r\n\r\n",
    "HTTP/3.7": POST.replace(b"HTTP/1.1", b"HTTP/3.7"),
    "no such method": POST.replace(b"POST", b"FETCH"),
    "a target with a blank": POST.replace(b"/alerts", b"/al erts"),
    "an address and no path": POST.replace(b"/uptinio/alerts", b"http://gateway"),
}


@pytest.mark.parametrize("said", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_what_could_be_read_in_two_ways_is_refused_and_closed(h: House, said: bytes) -> None:
    with nothing_taken_in(h) as connection:
        connection.say(said, POST)
        refused(connection.hear(), 400)
        assert connection.is_closed()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 64),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("the PROXY protocol", b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n"),
        ("the PROXY protocol", b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12)),
    ],
)
def test_a_balancer_that_speaks_something_else_is_told_so(h: House, what: str, said: bytes) -> None:
    with nothing_taken_in(h) as connection:
        connection.say(said + POST)
        refused(connection.hear(), 400, f"this is {what}, which is not supported")
        assert connection.is_closed()


def test_the_request_before_an_ambiguous_one_is_answered_first(h: House) -> None:
    before = alerts(h)
    with wire(h.url) as connection:
        connection.say(POST + AMBIGUOUS["lengths that differ"] + POST)
        first = connection.hear()
        assert first is not None and first.status == 201
        assert connection.is_closed()
    assert alerts(h) == before + 1


def test_a_body_that_turns_out_broken_is_not_answered_in_place_of_the_request_before(h: House) -> None:
    with nothing_taken_in(h) as connection:
        connection.say(request("GET", "/uptinio/alerts", None, AUTH) + AMBIGUOUS["a chunk without a size"])
        answer = connection.hear()
        assert answer is None or answer.status == 200


def test_what_was_answered_already_is_not_answered_again(h: House) -> None:
    with nothing_taken_in(h) as connection:
        connection.say(request("POST", "/uptinio/alerts", b"", "Transfer-Encoding: chunked", length=False))
        answer = connection.hear()
        assert answer is not None and answer.status == 401
        connection.say(b"zz\r\n")
        assert connection.is_closed()


def test_trailers_are_no_headers(h: House) -> None:
    """A proxy in front may have checked the headers, and only these."""
    head = HEAD.replace(AUTH.encode() + b"\r\n", b"") + b"Transfer-Encoding: chunked\r\n\r\n"
    with nothing_taken_in(h) as connection:
        connection.say(head + chunks(ALERT, 60)[:-2] + AUTH.encode() + b"\r\n\r\n")
        answer = connection.hear()
        assert answer is not None and answer.status == 401


def test_what_follows_the_last_request_of_a_connection_is_not_carried_out(h: House) -> None:
    """Nobody would hear its answer."""
    with nothing_taken_in(h) as connection:
        connection.say(
            request("POST", "/uptinio/alerts", b"", "Connection: close", "Content-Length: 100", length=False)
        )
        refused(connection.hear(), 401)
        connection.say(b" " * 100 + POST)
        assert connection.is_closed()


def test_an_answer_in_place_of_100_continue_is_the_last_one(h: House) -> None:
    """Whether what comes then is the body or another request, nobody can tell."""
    with nothing_taken_in(h) as connection:
        head = request("POST", "/uptinio/alerts", b"", "Expect: 100-continue", "Content-Length: 60", length=False)
        connection.say(head)
        refused(connection.hear(), 401)
        connection.say(POST)
        assert connection.is_closed()


def test_the_name_of_a_coding_is_read_in_any_case(h: House) -> None:
    with wire(h.url) as connection:
        connection.say(HEAD + b"Transfer-Encoding: Chunked\r\n\r\n" + CHUNKED)
        answer = connection.hear()
        assert answer is not None and answer.status == 201


def test_it_is_no_forward_proxy(h: House) -> None:
    with wire(h.url) as connection:
        connection.say(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
        refused(connection.hear(), 405, "proxy")
        assert connection.is_closed()


# --- headers ---------------------------------------------------------------------------------------------------

ENDLESS = {
    "one header": (HEAD + b"X: ", b"a" * 65536),
    "many headers": (HEAD, b"X-Header: value\r\n" * 4096),
    "a name": (HEAD, b"a" * 65536),
    "a target": (b"GET /", b"a" * 65536),
    "trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n", b"X-Header: value\r\n" * 4096),
    "a trailer": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX: ", b"a" * 65536),
    "a chunk's extension": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;x=", b"a" * 65536),
}


@pytest.mark.parametrize(("begin", "more"), ENDLESS.values(), ids=ENDLESS.keys())
def test_twenty_megabytes_of_headers_are_not_kept(h: House, begin: bytes, more: bytes) -> None:
    held = memory()
    with nothing_taken_in(h) as connection:
        assert not connection.say(begin, *[more] * (20 * MEBIBYTE // len(more))), "all of it was read"
        refused(connection.hear(), 431, "larger than 32768 bytes")
        assert connection.is_closed()
    assert memory() - held < FEW


def test_headers_just_within_the_limit_are_taken_and_one_byte_more_is_not(h: House) -> None:
    target = "/uptinio/alerts"
    counted = len(target) + sum(len(header) + 2 for header in ("Host: gateway", AUTH, "X: "))
    fits = EdgeProtocol.headers_most - counted
    with wire(h.url) as connection:
        connection.say(request("GET", target, None, AUTH, "X: " + "a" * fits))
        answer = connection.hear()
        assert answer is not None and answer.status == 200
        connection.say(request("GET", target, None, AUTH, "X: " + "a" * (fits + 1)))
        refused(connection.hear(), 431)
        assert connection.is_closed()


def test_a_refusal_at_the_edge_is_in_the_vendors_words(h: House) -> None:
    with wire(h.url) as connection:
        connection.say(request("GET", "/livesession/v1/alerts", None, "X: " + "a" * 33_000))
        answer = connection.hear()
    refused(answer, 431)
    assert answer is not None and answer.body["error"]["http_status_code"] == 431


# --- slowness --------------------------------------------------------------------------------------------------


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every deadline is a third of a second."""
    monkeypatch.setattr(EdgeProtocol, "header_seconds", 0.3)
    monkeypatch.setattr(EdgeProtocol, "linger_seconds", 0.3)
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.3)


def drip(connection: Wire, data: bytes) -> float:
    """Sends a byte every 20 ms until the connection is closed; returns the seconds it took."""
    began = time.monotonic()
    while connection.say(data) and time.monotonic() - began < 4:
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.mark.parametrize("begun", [b"PO", b"GET /upti", b"GET / HTTP/1.1\r\n", HEAD, HEAD + b"X: y"])
@pytest.mark.usefixtures("_impatient")
def test_headers_that_do_not_arrive_in_time_are_408(h: House, begun: bytes) -> None:
    with wire(h.url) as connection:
        connection.say(begun)
        refused(connection.hear(), 408, "0.3 s")
        assert connection.is_closed()


@pytest.mark.usefixtures("_impatient")
def test_dripping_headers_gain_no_time(h: House) -> None:
    with wire(h.url) as connection:
        connection.say(HEAD + b"X: ")
        assert drip(connection, b"a") < 2
        refused(connection.hear(), 408)


@pytest.mark.usefixtures("_impatient")
def test_a_connection_that_says_nothing_is_closed_without_a_word(h: House) -> None:
    with wire(h.url) as silent, wire(h.url) as blank:
        assert silent.is_closed()
        assert drip(blank, b"\r\n") < 2
        assert blank.is_closed()


@pytest.mark.usefixtures("_impatient")
def test_empty_lines_after_an_answer_do_not_keep_a_connection(h: House) -> None:
    with wire(h.url) as connection:
        connection.say(request("GET", "/uptinio/alerts", None, AUTH))
        assert connection.hear()
        assert drip(connection, b"\r\n") < 2
        assert connection.is_closed()


@pytest.mark.parametrize(
    "begun", [HEAD + b"Content-Length: 60\r\n\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\n3c\r\n"]
)
@pytest.mark.usefixtures("_impatient")
def test_a_slow_body_is_408_in_the_vendors_words(h: House, begun: bytes) -> None:
    with nothing_taken_in(h) as connection:
        connection.say(begun)
        assert drip(connection, b" ") < 3
        answer = connection.hear()
    assert answer is not None and answer.status == 408
    assert "did not arrive within 0.3 s" in answer.body["error"]["message"]


@pytest.mark.usefixtures("_impatient")
def test_the_rest_of_a_request_that_was_answered_may_not_drip_for_ever(h: House) -> None:
    with wire(h.url) as connection:
        connection.say(request("POST", "/uptinio/alerts", b"", "Content-Length: 1000", length=False))
        answer = connection.hear()
        assert answer is not None and answer.status == 401
        assert drip(connection, b" ") < 2


def test_a_connection_that_was_to_close_does_so_once_the_rest_has_arrived(h: House) -> None:
    with wire(h.url) as connection:
        head = request("POST", "/uptinio/alerts", b"", "Connection: close", "Content-Length: 100", length=False)
        connection.say(head)
        refused(connection.hear(), 401)
        connection.say(b" " * 100)
        assert drip(connection, b"\r\n") < 2


@pytest.mark.usefixtures("_impatient")
def test_once_the_rest_has_arrived_the_connection_may_be_idle_again(h: House) -> None:
    with wire(h.url) as connection:
        connection.say(request("POST", "/uptinio/alerts", b"", "Content-Length: 100", length=False))
        answer = connection.hear()
        assert answer is not None and answer.status == 401
        connection.say(b" " * 100)
        time.sleep(2 * EdgeProtocol.linger_seconds)
        connection.say(request("GET", "/uptinio/alerts", None, AUTH))
        again = connection.hear()
        assert again is not None and again.status == 200


# --- bodies ----------------------------------------------------------------------------------------------------


def chunks(body: bytes, size: int) -> bytes:
    """A body in chunks of that size."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("close", ["Connection: close", "Connection: keep-alive"])
@pytest.mark.parametrize("megabytes", [1, 7])
def test_a_body_over_the_limit_is_413_and_the_caller_can_send_it_to_its_end(
    h: House, megabytes: int, close: str
) -> None:
    held = memory()
    with nothing_taken_in(h) as connection:
        head = request(
            "POST", "/uptinio/alerts", b"", AUTH, close, f"Content-Length: {megabytes * MEBIBYTE}", length=False
        )
        assert connection.say(head, *[b" " * MEBIBYTE] * megabytes)
        answer = connection.hear()
        assert answer is not None and answer.status == 413
        assert "max_body" in answer.body["error"]["message"]
        if close == "Connection: close":
            assert connection.is_closed()
        else:
            connection.say(head, *[b" " * MEBIBYTE] * megabytes)
            again = connection.hear()
            assert again is not None and again.status == 413
            connection.say(request("GET", "/uptinio/alerts", None, AUTH))
            after = connection.hear()
            assert after is not None and after.status == 200
    assert memory() - held < FEW


@pytest.mark.parametrize("head", [f"{AUTH}\r\nContent-Length: 99999999", "Content-Length: 99999999"])
def test_of_an_endless_body_eight_mebibytes_are_read(h: House, head: str) -> None:
    with nothing_taken_in(h) as connection:
        connection.say(request("POST", "/uptinio/alerts", b"", head, length=False))
        assert connection.say(*[b" " * MEBIBYTE] * 8)
        assert not connection.say(*[b" " * MEBIBYTE] * 12)
        answer = connection.hear()
        assert answer is not None and answer.status in (401, 413)


@pytest.mark.parametrize("size", [1, 7, 65536])
def test_a_chunked_bomb_is_413(h: House, size: int) -> None:
    with nothing_taken_in(h) as connection:
        connection.say(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks(b"[" * 200_000, size))
        answer = connection.hear()
        assert answer is not None and answer.status == 413


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60_000,
        b'{"a":' * 12_000,
        b'{"message":' + b"[" * 64 + b"]" * 64 + b"}",
        b"[" * 70 + b'"' + b'\\"' * 30_000,
    ],
    ids=["arrays", "objects", "just too deep", "escaped quotes"],
)
def test_a_depth_bomb_is_400_at_once(h: House, body: bytes) -> None:
    began = time.monotonic()
    with nothing_taken_in(h) as connection:
        connection.say(request("POST", "/uptinio/alerts", body, AUTH))
        answer = connection.hear()
        assert answer is not None and answer.status == 400
        assert "nested deeper than 64" in answer.body["error"]["message"]
    assert time.monotonic() - began < 5


def test_a_body_that_is_cut_off_is_not_taken_in(h: House) -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED
    for whole in (POST, chunked):
        for cut in (len(whole) - 1, len(whole) - 30, whole.index(b"\r\n\r\n") + 4):
            with nothing_taken_in(h) as connection:
                connection.say(whole[:cut])
                connection.hang_up()


def test_who_closes_its_side_after_whole_requests_is_answered_all_of_them(h: House) -> None:
    """As `nc -N` does. Its alerts are taken: without an answer it would send them again."""
    before = alerts(h)
    with wire(h.url) as connection:
        connection.say(POST, POST)
        connection.say_no_more()
        answers = [connection.hear(), connection.hear()]
        assert [one and one.status for one in answers] == [201, 201]
        assert connection.is_closed()
    assert alerts(h) == before + 2


@pytest.mark.parametrize("said", [b"", HEAD, HEAD + b"Content-Length: 60\r\n\r\n" + ALERT[:-1]])
def test_who_closes_its_side_before_is_answered_nothing(h: House, said: bytes) -> None:
    with nothing_taken_in(h) as connection:
        connection.say(said)
        connection.say_no_more()
        assert connection.is_closed()


def test_every_piece_of_a_request_may_come_alone(h: House) -> None:
    before = alerts(h)
    with wire(h.url) as connection:
        for at in range(len(POST)):
            connection.say(POST[at : at + 1])
        answer = connection.hear()
        assert answer is not None and answer.status == 201
    assert alerts(h) == before + 1


def test_a_few_requests_may_wait_on_a_connection_and_thousands_may_not(h: House) -> None:
    """A connection with thousands of pipelined requests is cut off, as parsing them would make everybody else wait."""
    one = request("GET", "/uptinio/alerts", None, AUTH)
    with wire(h.url) as connection:
        connection.say(one * 20)
        assert [answer.status for _ in range(20) if (answer := connection.hear())] == [200] * 20
    heard = 0
    with wire(h.url) as connection, contextlib.suppress(OSError):
        connection.say(one * 5000)
        while connection.hear() is not None:
            heard += 1
    assert heard < 100
    assert h.call("GET", "/uptinio/alerts").status == 200


def test_half_requests_do_not_keep_the_gateway_from_stopping(tmp_path: Path) -> None:
    with contextlib.ExitStack() as connections:
        with house(tmp_path, {"oncall": "ilert"}) as h:
            for begun in (
                b"",
                b"GET",
                HEAD,
                request("POST", "/uptinio/alerts", b"", "Content-Length: 9", length=False),
            ):
                connections.enter_context(wire(h.url)).say(begun)
            assert h.call("GET", "/uptinio/alerts").status == 200
            began = time.monotonic()
        assert time.monotonic() - began < 5
