"""What the HTTP client reports of an upstream that cannot be reached: whether it may have received the request."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.delivery.names import OwnResolver
from gateway.delivery.transport import Transport, Unreachable
from gateway.outcome import Request
from tests.chaos_upstream import CLOSE, HANG, RESET_AFTER, Behaviour, chaos, say


async def _refusal(url: str) -> Unreachable:
    transport = Transport(url, timeout=3, concurrency=1)
    try:
        with pytest.raises(Unreachable) as raised:
            await transport.send(Request(method="POST", path="/alerts", body={}, creates=True), {})
        return raised.value
    finally:
        await transport.aclose()


def test_a_refused_connection_took_nothing() -> None:
    """Only a request that may have been sent is looked for before it is sent again."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    error = asyncio.run(_refusal(f"http://127.0.0.1:{port}"))
    assert not error.sent
    assert not error.is_certificate
    assert error.reason == f"cannot connect to 127.0.0.1:{port}: Connection refused"
    assert error.why == "Connection refused"


def test_a_name_that_does_not_exist_took_nothing() -> None:
    error = asyncio.run(_refusal("http://nowhere.invalid"))
    assert not error.sent
    assert error.reason.startswith("cannot connect to nowhere.invalid:80: ") and "nowhere" not in error.why


async def _refusal_of(said: bytes, scheme: str) -> Unreachable:
    """What comes of a server that says this to everybody."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        writer.write(said)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        return await _refusal(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}")


def test_an_answer_that_is_not_http_is_told_without_the_address() -> None:
    """A key may stand in it, and not as it was configured."""
    error = asyncio.run(_refusal_of(b"HTTP/1.1 2x0 OK\r\n\r\n", "http"))
    assert error.sent and error.reason.startswith("the answer is not HTTP: ") and "2x0" in error.reason
    assert "/alerts" not in error.reason and "\n" not in error.reason


def test_a_port_without_tls_is_told_in_words() -> None:
    error = asyncio.run(_refusal_of(b"HTTP/1.1 400 Bad Request\r\n\r\n", "https"))
    assert not error.sent and not error.is_certificate
    assert error.reason.startswith("cannot connect to 127.0.0.1:") and error.why.startswith("TLS: ")
    assert "_" not in error.why


def test_a_connection_that_is_never_accepted_took_nothing() -> None:
    """A black hole: nothing was sent, so nothing can have been created there."""
    with socket.socket() as listener, contextlib.ExitStack() as others:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # connections beyond the queue are dropped silently
            other = others.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(listener.getsockname())
        began = time.monotonic()
        error = asyncio.run(_refusal(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        assert not error.sent
        assert time.monotonic() - began < 3.5


def test_what_was_sent_and_never_answered_may_have_been_taken() -> None:
    with chaos(HANG) as upstream:
        assert asyncio.run(_refusal(upstream.url)).sent


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (RESET_AFTER, "the connection broke: Connection reset by peer"),
        (CLOSE, "the connection was closed without an answer"),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_what_was_cut_off_may_have_been_taken(end: Behaviour, reason: str) -> None:
    with chaos(end) as upstream:
        error = asyncio.run(_refusal(upstream.url))
    assert error.sent and error.reason == reason


def test_a_name_service_that_hangs_keeps_nobody_else_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """guarantees.md 8: lookups for one upstream never delay another's, however many of them hang."""
    real, over = socket.getaddrinfo, threading.Event()

    def slow(host: Any, *more: Any, **named: Any) -> Any:
        if str(host).startswith("hangs"):
            over.wait(20)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return real("127.0.0.1" if host == "answers.test" else host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    async def main(port: int) -> None:
        stuck = [Transport(f"http://hangs{n}.test", timeout=2, concurrency=8) for n in range(20)]
        sound = Transport(f"http://answers.test:{port}", timeout=2, concurrency=1)
        asked = [asyncio.create_task(one.send(Request(method="GET", path="/"), {})) for one in stuck for _ in range(3)]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        assert (await sound.send(Request(method="GET", path="/"), {})).status == 200
        assert time.monotonic() - began < 1
        errors = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(error, Unreachable) and not error.sent for error in errors)
        for transport in (*stuck, sound):
            await transport.aclose()

    with chaos(say(200, {})) as upstream:
        try:
            asyncio.run(main(int(upstream.url.rsplit(":", 1)[1])))
        finally:
            over.set()


def test_of_several_addresses_another_one_is_tried_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that accepts connections and never answers causes no fallback to the next one, so each lookup starts
    with another."""
    real = socket.getaddrinfo

    def several(host: Any, *more: Any, **named: Any) -> Any:
        return [info for address in ("127.0.0.1", "127.0.0.2", "127.0.0.3") for info in real(address, *more, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", several)

    async def main() -> list[str]:
        names = OwnResolver()
        return [(await names.resolve("several.test", 443))[0]["host"] for _ in range(4)]

    assert asyncio.run(main()) == ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.1"]


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make a certificate with")
def test_a_certificate_that_nobody_vouches_for_is_told_apart(tmp_path: Path) -> None:
    """canonical.md, Verdicts: a bad certificate holds the upstream, it is never a verdict on an alert."""
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout key.pem -out cert.pem"
    subprocess.run(made.split(), cwd=tmp_path, check=True, capture_output=True)

    async def main() -> Unreachable:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
        async with server:
            return await _refusal(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")

    error = asyncio.run(main())
    assert error.is_certificate
    assert not error.sent
    assert " has no acceptable certificate: " in error.reason and error.why == "no acceptable certificate"


def test_requests_are_as_they_were_asked_for_and_nothing_goes_from_one_to_the_next() -> None:
    async def main(url: str) -> None:
        transport = Transport(f"{url}/hook?token=a", timeout=3, concurrency=1)
        await transport.send(Request(method="POST", path="", form={"a b": "c+d"}, headers={"X-Own": "1"}), {})
        await transport.send(Request(method="GET", path="", query={"q": "a b&c"}), {"x-own": "2"})
        await transport.aclose()

    with chaos(say(200, {}, {"set-cookie": "session=of-one-alert"})) as upstream:
        asyncio.run(main(upstream.url))
        posted, looked = upstream.got
    assert (posted.path, posted.content) == ("/hook?token=a", b"a+b=c%2Bd")
    assert posted.headers["content-type"] == "application/x-www-form-urlencoded"
    assert (posted.headers["x-own"], looked.headers["x-own"]) == ("1", "2")
    assert looked.path == "/hook?token=a&q=a+b%26c"
    assert "cookie" not in looked.headers
    assert posted.headers["accept-encoding"] == "identity"


def test_who_fails_is_not_asked_for_ever() -> None:
    """Of several servers behind one address or name, a kept connection would lead to the same failing one for ever."""
    connections: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        status = "200 OK" if len(connections) == 2 else "503 Service Unavailable"
        with contextlib.suppress(asyncio.IncompleteReadError):
            is_last = False
            while not is_last:
                is_last = b"Connection: close" in await reader.readuntil(b"\r\n\r\n")
                writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode())
        writer.close()

    async def main() -> list[int]:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        transport = Transport(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=3, concurrency=1)
        async with server:
            asked = [await transport.send(Request(method="GET", path="/"), {}) for _ in range(5)]
            await transport.aclose()
        return [one.status for one in asked]

    assert asyncio.run(main())[2:] == [200, 503, 503]
    assert len(connections) == 3


def test_first_requests_go_in_the_order_in_which_they_were_sent() -> None:
    """Also where the HTTP client is still being imported, which deliveries under way do not wait for."""

    async def main(url: str) -> None:
        transport = Transport(url, timeout=5, concurrency=1)
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(transport.send(Request(method="GET", path=f"/{number}"), {}))
        await transport.aclose()

    with chaos(say(200, {})) as upstream:
        asyncio.run(main(upstream.url))
        assert [got.path for got in upstream.got] == ["/0", "/1", "/2", "/3"]
