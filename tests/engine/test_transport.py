"""What the HTTP client says of an upstream that cannot be reached: whether it may have taken the request."""

import asyncio
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from gateway.delivery.transport import Transport, Unreachable
from gateway.dialect import Request


async def _refusal(url: str) -> Unreachable:
    transport = Transport(url, timeout=3, concurrency=1)
    try:
        with pytest.raises(Unreachable) as raised:
            await transport.send(Request(method="POST", path="/alerts", body={}, creates=True), {})
        return raised.value
    finally:
        await transport.aclose()


def test_a_refused_connection_took_nothing() -> None:
    """Only what may have been sent is looked for before it is sent again."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    error = asyncio.run(_refusal(f"http://127.0.0.1:{port}"))
    assert not error.sent
    assert not error.is_certificate


def test_a_name_that_does_not_exist_took_nothing() -> None:
    error = asyncio.run(_refusal("http://nowhere.invalid"))
    assert not error.sent


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
