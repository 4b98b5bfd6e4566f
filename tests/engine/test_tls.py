"""TLS in both directions, with real certificates and real sockets: certificates shown and required on the way in, shown
and trusted on the way out, and reloaded when their files change (interface.md, *Configuration*)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import certifi
import httpx
import pytest
import trustme
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from structlog.testing import CapturingLogger

from gateway.cli.checking import warnings
from gateway.config.loading import parse
from gateway.errors import ConfigurationError
from gateway.inbound import handshakes
from gateway.inbound.files import Room
from gateway.inbound.handshakes import Door
from gateway.inbound.protocol import EdgeProtocol
from gateway.metrics import Metrics
from gateway.network import reaching
from gateway.network.certificates import Following, Pair, not_after, not_valid, show, usual
from gateway.network.listening import Tls
from gateway.process.server import bind
from gateway.process.server import serving as served_by
from tests.chaos.processes import free_port
from tests.chaos_upstream import chaos, say
from tests.clients.callers import ilert_event
from tests.engine.certificates import vouched, write
from tests.engine.test_workers import serving
from tests.engine.vendors import outbox
from tests.harness import KEY, house

OK = say(202, {})
BASE = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n[upstreams.oncall]\ndialect = "ilert"\nkey = "there-0123456789"\n'
BASE += 'retry = { first = "20ms", most = "100ms" }\n'


def soon(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Waits until the condition holds; returns its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.03)
    raise AssertionError(f"did not come to be within {seconds} s")


def mounted(directory: Path, authority: trustme.CA, version: str) -> Path:
    """A secret as Kubernetes mounts one: `..data` is a link to a directory of this version, the files are links into
    `..data`, and a new version comes by one rename."""
    write(directory / f"..{version}", authority, "localhost")
    fresh = directory / "..fresh"
    fresh.symlink_to(f"..{version}")
    os.replace(fresh, directory / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    return directory


@contextmanager
def gateway(directory: Path, tls: str, more: str = "") -> Iterator[int]:
    """A gateway's process that serves TLS; yields its port."""
    port = free_port()
    config = directory / "gateway.toml"
    config.write_text(
        f'listen = "127.0.0.1:{port}"\nstore = "sqlite://{directory}/gateway.db"\ntls = {tls}\n{more}\n'
        + BASE
        + 'url = "http://127.0.0.1:9"\n'
    )
    with serving(config):
        soon(lambda: _listens(port))
        yield port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def believing(*authorities: trustme.CA) -> ssl.SSLContext:
    """A client context that trusts only these authorities."""
    context = ssl.create_default_context(cadata="".join(one.cert_pem.bytes().decode() for one in authorities))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def get(port: int, context: ssl.SSLContext, path: str = "/-/healthy") -> httpx.Response | None:
    """The answer, or None where the handshake fails."""
    try:
        with httpx.Client(verify=context, trust_env=False, timeout=10) as client:
            return client.get(f"https://localhost:{port}{path}")
    except httpx.TransportError:
        return None


def logged(directory: Path, event: str) -> list[dict[str, Any]]:
    """The log's lines with this event."""
    lines = (directory / "log").read_text().splitlines()
    return [json.loads(line) for line in lines if f'"event": "{event}"' in line]


def test_a_certificate_is_followed_and_a_bad_pair_keeps_the_old_one(tmp_path: Path) -> None:
    first, second, third = trustme.CA(), trustme.CA(), trustme.CA()
    secret = mounted(tmp_path / "secret", first, "1")
    with gateway(tmp_path, f'{{ cert = "{secret}/tls.crt", key = "{secret}/tls.key" }}') as port:
        assert get(port, believing(first))
        assert get(port, believing(second)) is None
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://localhost:{port}/-/healthy", timeout=5, trust_env=False)

        standing = httpx.Client(verify=believing(first), trust_env=False)
        assert standing.get(f"https://localhost:{port}/-/healthy").status_code == 200
        mounted(secret, second, "2")
        soon(lambda: get(port, believing(second)))
        assert get(port, believing(first)) is None
        assert standing.get(f"https://localhost:{port}/-/healthy").status_code == 200, "what stands goes on"
        standing.close()

        _, foreign = write(tmp_path / "foreign", third, "localhost")
        cert = (secret / "..2" / "tls.crt").read_bytes()
        (secret / "..bad").mkdir()
        (secret / "..bad" / "tls.crt").write_bytes(cert)
        (secret / "..bad" / "tls.key").write_bytes(foreign.read_bytes())
        (secret / "..fresh").symlink_to("..bad")
        os.replace(secret / "..fresh", secret / "..data")
        [said] = soon(lambda: logged(tmp_path, "certificate.refused"))
        assert "does not belong to the certificate" in said["reason"]
        answer = get(port, believing(second), "/metrics")
        assert answer is not None, "the old pair is still shown"
        assert "alert_gateway_tls_last_reload_successful 0.0" in answer.text
        assert 'alert_gateway_tls_reloads_total{outcome="bad"} 1.0' in answer.text

        mounted(secret, third, "3")
        answer = soon(lambda: get(port, believing(third), "/metrics"))
        assert "alert_gateway_tls_last_reload_successful 1.0" in answer.text
        assert len(logged(tmp_path, "certificate.refused")) == 1, "said once"


def test_a_file_that_goes_while_it_is_looked_at_is_looked_at_again(tmp_path: Path) -> None:
    """The watch over the files goes on, and takes up the next certificate, even one that is equal to the last one
    seen."""
    cert, key = write(tmp_path, trustme.CA(), "localhost")
    pair, gone = Pair(str(cert), str(key)), [False]

    def make() -> ssl.SSLContext:
        context = Tls(pair)._made(asks=False)
        if gone[0]:  # between the comparison of the content and OpenSSL's own read
            context.load_cert_chain(tmp_path / "gone")
        return context

    context = Following(ssl.PROTOCOL_TLS_SERVER, (str(cert), str(key)), make)
    write(tmp_path, trustme.CA(), "localhost")
    gone[0] = True
    assert (context.look(), context.look()) == ("bad", "same")
    assert context.fault == "a certificate file cannot be read: No such file or directory"
    gone[0] = False
    assert (context.look(), context.look(), context.fault) == ("new", "same", "")


def test_when_the_certificate_ends_is_in_the_metrics(tmp_path: Path) -> None:
    """The expiry of the certificate in use: a renewed one counts once it is loaded. Without `tls` there is no
    sample."""
    name, ours = "alert_gateway_tls_not_after_timestamp_seconds{", trustme.CA()
    first, second = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2051, 2, 3, 4, 5, 6, tzinfo=UTC)
    cert, key = write(tmp_path / "secret", ours, "localhost", ends=first)

    def ends() -> list[float]:
        answer = get(port, believing(ours), "/metrics")
        assert answer is not None
        return [float(line.split()[1]) for line in answer.text.splitlines() if line.startswith(name)]

    with gateway(tmp_path, f'{{ cert = "{cert}", key = "{key}" }}') as port:
        assert ends() == [first.timestamp()]
        cert.write_text("none")
        soon(lambda: logged(tmp_path, "certificate.refused"))
        assert ends() == [first.timestamp()]
        write(tmp_path / "secret", ours, "localhost", ends=second)
        soon(lambda: ends() == [second.timestamp()])
    chain = tmp_path / "chain.pem"
    soonest = write(tmp_path / "other", ours, "localhost", ends=first)[0].read_text()
    chain.write_text(cert.read_text() + soonest)
    assert not_after(str(chain)) == first.timestamp()
    chain.write_text(soonest.replace("MII", "AAA"))
    assert not_after(str(chain)) is None and not_after(str(tmp_path / "nothing")) is None
    assert name.encode() not in Metrics().text(None, 0, is_strained=False, is_away=True)


def test_links_to_further_pages_lead_back_over_tls(tmp_path: Path) -> None:
    """A client that follows them stays on HTTPS."""
    ours = trustme.CA()
    cert, key = write(tmp_path / "secret", ours, "localhost")
    with gateway(tmp_path, f'{{ cert = "{cert}", key = "{key}" }}', "[inbound.opsgenie]\nanonymous = true") as port:
        listed = get(port, believing(ours), "/opsgenie/v2/alerts")
        assert listed is not None
        assert listed.json()["paging"]["first"].startswith(f"https://localhost:{port}/opsgenie/v2/alerts?")


def test_callers_have_to_show_a_certificate(tmp_path: Path) -> None:
    ours, theirs, strangers = trustme.CA(), trustme.CA(), trustme.CA()
    cert, key = write(tmp_path / "secret", ours, "localhost")
    ca = vouched(tmp_path, theirs)
    with gateway(tmp_path, f'{{ cert = "{cert}", key = "{key}", client_ca = "{ca}" }}') as port:
        assert get(port, believing(ours)) is None
        known, stranger = believing(ours), believing(ours)
        theirs.issue_cert("client").configure_cert(known)
        strangers.issue_cert("client").configure_cert(stranger)
        assert get(port, stranger) is None
        assert get(port, known)
        with httpx.Client(verify=known, trust_env=False) as client:
            body = {"apiKey": KEY, **ilert_event("ALERT", "k", summary="s")}
            assert client.post(f"https://localhost:{port}/ilert/api/events", json=body).status_code == 202
            body["apiKey"] = "somebody else's"
            assert client.post(f"https://localhost:{port}/ilert/api/events", json=body).status_code == 401
        vouched(tmp_path, strangers)
        soon(lambda: get(port, stranger))
        assert get(port, known) is None, "who vouches is followed too"


def test_a_handshake_that_does_not_come_ends_with_the_deadline_for_headers(tmp_path: Path) -> None:
    """guarantees.md 18: 10 s for headers; a connection whose handshake stalls is closed as early."""
    cert, key = write(tmp_path, trustme.CA(), "localhost")

    class Hasty(EdgeProtocol):
        header_seconds = 0.3

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nobody asks for anything")

    async def main() -> float:
        tls = Tls(Pair(str(cert), str(key))).context()
        async with served_by(_alive(nothing), http=Hasty, tls=tls) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            began = time.monotonic()
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
            return time.monotonic() - began

    assert 0.2 < asyncio.run(main()) < 3


def test_a_handshake_that_fails_is_said_with_who_and_why(tmp_path: Path) -> None:
    """There was no line of it: nobody here saw a client that was given another authority. Once for each reason, and
    not of who only looks whether somebody listens."""
    ours, strangers = trustme.CA(), trustme.CA()
    cert, key = write(tmp_path / "secret", ours, "localhost")
    ca = vouched(tmp_path, ours)
    with gateway(tmp_path, f'{{ cert = "{cert}", key = "{key}", client_ca = "{ca}" }}') as port:
        stranger = believing(ours)
        strangers.issue_cert("client").configure_cert(stranger)
        assert _listens(port)
        for _ in range(2):
            assert get(port, believing(strangers)) is None
        assert get(port, believing(ours)) is None and get(port, stranger) is None
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
        said = soon(lambda: len(found := logged(tmp_path, "tls.failed")) == 4 and found)
    assert {one["peer"] for one in said} == {"127.0.0.1"}
    assert [one["reason"] for one in said] == [
        "the client does not accept the certificate in tls.cert: tlsv1 alert unknown ca",
        "the client sent no certificate, which tls.client_ca requires",
        "the client's certificate is not accepted: unable to get local issuer certificate",
        "the client speaks HTTP without TLS; its URL must begin with https://",
    ]


def test_scanners_do_not_flood_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has an address of its own, and fails as often as it likes."""
    monkeypatch.setattr(handshakes, "log", said := CapturingLogger())

    async def main() -> None:
        door = Door(bind("127.0.0.1", 0), 9, asyncio.Protocol, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), 1.0, Room())
        for number in range(2 * handshakes.SAID_MOST):
            door._say(f"192.0.2.{number}", "why")
        door.close()
        door.close()

    asyncio.run(main())
    assert len(said.calls) == handshakes.SAID_MOST


def test_a_failure_that_goes_on_is_said_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at once; but a client that still fails after a while is worth another line."""
    monkeypatch.setattr(handshakes, "log", said := CapturingLogger())

    async def main() -> None:
        door = Door(bind("127.0.0.1", 0), 9, asyncio.Protocol, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), 1.0, Room())
        for _ in range(2):
            door._said_until = time.monotonic()  # as if the time were over
            for _ in range(2):
                door._say("192.0.2.1", "why")
            assert door._said_until >= time.monotonic() + handshakes.SAID_AGAIN / 2
        door.close()

    asyncio.run(main())
    assert len(said.calls) == 2


@pytest.mark.parametrize("is_tls", [False, True])
def test_it_does_not_serve_where_another_process_began_to_listen_meanwhile(tmp_path: Path, is_tls: bool) -> None:
    """Both had bound the port, as is allowed until one listens; this one delivered, and nobody could reach it."""
    cert, key = write(tmp_path, trustme.CA(), "localhost")
    served = []

    async def main() -> None:
        tls = Tls(Pair(str(cert), str(key))).context() if is_tls else None
        with bind("127.0.0.1", 0) as ours, bind(*ours.getsockname()) as other:
            other.listen()
            with pytest.raises(OSError, match="in use"):
                async with served_by(_alive(None), listener=ours, tls=tls) as url:
                    served.append(url)

    uvloop.run(main())
    assert served == []


def test_all_connections_in_the_backlog_are_accepted_before_listening_ends() -> None:
    """Those beyond the number that is accepted at a time were reset."""

    async def main() -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        door = Door(listener := bind("127.0.0.1", 0), 999, asyncio.Protocol, tls, 1.0, Room())
        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(socket.socket()) for _ in range(2 * handshakes.AT_ONCE)]
            for one in waiting:
                one.connect(listener.getsockname())
            door.close()
            assert len(door._greeting) == len(waiting)
        await asyncio.gather(*door._greeting)

    asyncio.run(main())


@pytest.mark.parametrize("is_tls", [False, True])
def test_listening_ends_in_good_order_while_too_many_files_are_open(
    tmp_path: Path, is_tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The drain was left out, and a door that waited for files to be closed began to listen again afterwards."""
    cert, key = write(tmp_path, trustme.CA(), "localhost")
    most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main() -> None:
        tls = Tls(Pair(str(cert), str(key))).context() if is_tls else None
        with bind("127.0.0.1", 0) as listener, socket.socket() as waiting:
            async with served_by(_alive(None), listener=listener, tls=tls, settle=0.01, patience=1):
                address = listener.getsockname()
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
                waiting.connect(address)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert listener.fileno() < 0
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        await asyncio.sleep(2 * handshakes.PAUSE)

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(handshakes, "PAUSE", 0.1)
            uvloop.run(main())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def _alive(app: Any) -> Any:
    async def with_lifespan(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    return with_lifespan


def test_an_unusable_pair_is_said_by_check_with_its_path(tmp_path: Path) -> None:
    authority = trustme.CA()
    cert, key = write(tmp_path / "one", authority, "localhost")
    _, other = write(tmp_path / "two", authority, "localhost")
    locked = tmp_path / "locked.key"
    plain = load_pem_private_key(key.read_bytes(), None)
    locked.write_bytes(
        plain.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"hunter2"))
    )
    cases = {
        f'{{ cert = "{cert}", key = "{other}" }}': f"tls: the key in {other} does not belong to the certificate",
        f'{{ cert = "{cert}", key = "{locked}" }}': "tls: the private key is encrypted",
        f'{{ cert = "{key}", key = "{key}" }}': "are not a certificate and its key in PEM",
        f'{{ cert = "{cert}" }}': "tls.key: is required",
        f'{{ cert = "{cert}", key = "{key}", client = "x" }}': "tls.client: unknown key; did you mean 'client_ca'?",
        f'{{ cert = "{cert}", key = "{tmp_path}/nowhere" }}': f"tls: {tmp_path}/nowhere cannot be read: No such file",
        f'{{ cert = "{cert}", key = "env:KEY" }}': "tls.key: is not the path of a PEM file",
        f'{{ cert = "{cert}", key = "{key}", client_ca = "{key}" }}': f"tls.client_ca: {key} contains no PEM",
        f'"{cert}"': "tls: ",
    }
    for written, said in cases.items():
        with pytest.raises(ConfigurationError) as refused:
            parse(f"tls = {written}\n{BASE}url = 'https://example.com'\n")
        assert said in str(refused.value), written
        assert "PRIVATE" not in str(refused.value)
    good = f'tls = {{ cert = "{cert}", key = "{key}" }}\n{BASE}url = "https://example.com"\n'
    assert parse(good).tls == Tls(Pair(str(cert), str(key)))
    assert parse(good.replace(str(cert), "/nowhere.pem"), secrets=False).tls, "--no-secrets looks for no files"
    assert not [said for said in warnings(parse(good)) if "certificate" in said]
    open_admin = f'admin = "0.0.0.0:9092"\nadmin_token = "0123456789abcdef0123"\n{BASE}url = "https://example.com"\n'
    assert [said for said in warnings(parse(open_admin)) if "unencrypted" in said]


@pytest.mark.parametrize(
    ("begins", "ends", "why"), [(-9, -2, "expired on 2"), (2, 9, "is not valid before 2"), (-2, 9, "")]
)
def test_check_warns_of_certificates_of_ours_that_nobody_accepts(
    tmp_path: Path, begins: int, ends: int, why: str
) -> None:
    """Callers or the upstream would only break off the connection, without a word of the certificate."""
    now = datetime.now(UTC)
    made = trustme.CA().issue_cert(
        "localhost", not_before=now + timedelta(days=begins), not_after=now + timedelta(days=ends)
    )
    cert = tmp_path / "both.pem"
    cert.write_bytes(made.private_key_and_cert_chain_pem.bytes())
    pair = f'{{ cert = "{cert}", key = "{cert}" }}'
    text = f'tls = {pair}\n{BASE}url = "https://example.com"\nclient_cert = {pair}\n'
    text += f'[heartbeat]\nurl = "https://example.com"\nclient_cert = {pair}\n'
    said = [one for one in warnings(parse(text)) if "the certificate in" in one]
    assert [one.partition(":")[0] for one in said] == (
        ["upstreams.oncall.client_cert", "heartbeat.client_cert", "tls"] if why else []
    )
    assert all(f"{cert} {why}" in one for one in said)


def _made(path: Path, *validity: tuple[datetime, datetime], bits: int = 2048) -> Path:
    """A file with the key and a certificate of its own making for each time, first to last, as an intermediate is added
    after the certificate that it vouches for."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    content = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    for begin, end in validity:
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)
        content += builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    path.write_bytes(content)
    return path


def _utc(year: int) -> datetime:
    return datetime(year, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.mark.parametrize(("begin", "end"), [(1950, 2049), (1999, 2000), (2049, 2050), (2051, 2155)])
def test_the_times_of_a_certificate_are_read_in_both_of_their_forms(tmp_path: Path, begin: int, end: int) -> None:
    """A year has two digits until 2049, four from then on."""
    path = str(_made(tmp_path / "one.pem", (_utc(begin), _utc(end))))
    assert not_after(path) == _utc(end).timestamp()
    for now, why in (
        (_utc(begin), ""),
        (_utc(end), ""),
        (_utc(begin) - timedelta(seconds=1), f"is not valid before {begin}-05-06 07:08Z"),
        (_utc(end) + timedelta(seconds=1), f"expired on {end}-05-06"),
    ):
        assert not_valid(path, now.timestamp()) == why


def test_of_several_certificates_the_one_that_ends_first_and_the_one_that_begins_last_count(tmp_path: Path) -> None:
    path = str(
        _made(tmp_path / "chain.pem", (_utc(2020), _utc(2030)), (_utc(2022), _utc(2025)), (_utc(2021), _utc(2040)))
    )
    assert not_after(path) == _utc(2025).timestamp()
    assert not_valid(path, _utc(2026).timestamp()) == "expired on 2025-05-06"
    assert not_valid(path, _utc(2021).timestamp()) == "is not valid before 2022-05-06 07:08Z"
    assert not_valid(path, _utc(2023).timestamp()) == ""


@pytest.mark.parametrize("content", ["", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", None])
def test_what_is_no_certificate_has_no_times(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "none.pem"
    if content is not None:
        path.write_text(content)
    assert not_after(str(path)) is None
    assert not_valid(str(path), 0.0) == ""


def test_a_key_that_is_too_short_is_said_to_be(tmp_path: Path) -> None:
    path = str(_made(tmp_path / "weak.pem", (_utc(2020), _utc(2040)), bits=1024))
    with pytest.raises(ValueError, match=r"weak\.pem is too weak: ee key too small"):
        show(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), Pair(path, path))


def test_the_usual_authorities_can_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for other programs: by a file, by a directory, of which the file wins, or else those that are shipped."""
    ca = vouched(tmp_path, trustme.CA())
    (tmp_path / "none").mkdir()

    def trusted(**environ: str) -> int:
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        return len(usual().get_ca_certs())

    shipped = ssl.create_default_context(cafile=certifi.where())
    assert trusted() == len(shipped.get_ca_certs()) > 1
    assert trusted(SSL_CERT_FILE="", SSL_CERT_DIR="") == trusted()
    assert trusted(SSL_CERT_FILE=str(ca)) == 1
    assert trusted(SSL_CERT_FILE=str(ca), SSL_CERT_DIR=str(tmp_path / "none")) == 1
    assert trusted(SSL_CERT_DIR=str(tmp_path / "none")) == 0


# --- on the way out ------------------------------------------------------------------------------------------


def ready(h: Any) -> Any:
    """The upstream's part of the readiness detail."""
    return h.call("GET", "/-/ready").body["upstreams"]["oncall"]


def page(h: Any, key: str) -> None:
    """Sends an alert and requires that it is accepted."""
    body = {"apiKey": KEY, **ilert_event("ALERT", key, summary="s")}
    assert h.call("POST", "/ilert/api/events", body, key=None).status == 202


def test_an_authority_beside_the_usual_ones_is_believed_and_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upstream held for its certificate resumes once the `ca` file vouches for it; a later file without certificates
    is ignored."""
    monkeypatch.setattr(reaching, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(reaching, "log", logged := CapturingLogger())
    ours, others = trustme.CA(), trustme.CA()
    ca = vouched(tmp_path, others)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.issue_cert("127.0.0.1").configure_cert(context)
    with chaos(OK, context=context) as vendor:
        text = f'{BASE}url = "{vendor.url}"\nca = "{ca}"\n'
        with house(tmp_path, config=lambda _: text) as h:
            page(h, "1")
            h.wait_for(lambda: ready(h)["state"] == "held")
            assert "certificate" in ready(h)["reason"] and not vendor.got
            vouched(tmp_path, ours)
            h.wait_for(lambda: vendor.got, 10)
            ca.write_text("no certificate at all")
            page(h, "2")
            h.wait_for(lambda: len(vendor.got) == 2)
            context_now = h.gateway.config.upstreams["oncall"].reach.context
            assert isinstance(context_now, Following) and "no PEM certificate" in context_now.fault
            said = [(*call.args, call.kwargs["upstream"]) for call in logged.calls]
            assert said == [("certificates.reloaded", "oncall"), ("certificates.refused", "oncall")]


def test_changed_files_are_looked_at_once_a_second_or_where_they_cause_an_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change is said once, with the upstream's name."""
    monkeypatch.setattr(reaching, "log", said := CapturingLogger())
    monkeypatch.setattr(reaching, "LOOK_EVERY", 600.0)
    ca = vouched(tmp_path, trustme.CA())
    there = reaching.Reach("oncall", ca=str(ca))
    before = there.fingerprint()
    assert there.fingerprint() == before
    assert len(there.context.get_ca_certs()) == 0, "what follows files holds none itself"
    there.look()
    ca.write_text("no certificate")
    there.look()
    assert not said.calls
    assert there.fingerprint() != before
    there.look()
    there.look()
    ca.write_bytes(trustme.CA().cert_pem.bytes())
    there.look()
    assert [(call.method_name, call.args) for call in said.calls] == [("error", ("certificates.refused",))]
    assert said.calls[0].kwargs == {"upstream": "oncall", "reason": f"{ca} contains no PEM certificate"}
    monkeypatch.setattr(reaching, "LOOK_EVERY", 0.0)
    there.look()
    there.look()
    [_, reloaded] = said.calls
    assert (reloaded.method_name, reloaded.args) == ("info", ("certificates.reloaded",))
    assert reloaded.kwargs == {"upstream": "oncall"}


def test_files_that_are_gone_when_something_is_first_sent_are_waited_for(tmp_path: Path) -> None:
    """Nothing was sent: the alert waits and is no ambiguous create."""
    ours = trustme.CA()
    ca = vouched(tmp_path, ours)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.issue_cert("127.0.0.1").configure_cert(context)
    with (
        chaos(OK, context=context) as vendor,
        house(tmp_path, config=lambda _: f'{BASE}url = "{vendor.url}"\nca = "{ca}"\n') as h,
    ):
        ca.unlink()
        page(h, "1")
        [waiting] = h.wait_for(lambda: [row for row in outbox(h) if row.code])
        assert (waiting.code, waiting.reason) == ("unreachable", f"{ca} cannot be read: No such file or directory")
        vouched(tmp_path, ours)
        h.wait_for(lambda: [row for row in outbox(h) if row.state == "delivered"])
        assert len(vendor.got) == 1


def test_an_upstream_that_wants_a_certificate_gets_it_and_a_new_one(tmp_path: Path) -> None:
    server, first, second = trustme.CA(), trustme.CA(), trustme.CA()
    ca = vouched(tmp_path, server)
    cert, key = write(tmp_path / "secret", second, "gateway")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.issue_cert("127.0.0.1").configure_cert(context)
    first.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with chaos(OK, context=context) as vendor:
        more = f'ca = "{ca}"\nclient_cert = {{ cert = "{cert}", key = "{key}" }}\n'
        with house(tmp_path, config=lambda _: f'{BASE}url = "{vendor.url}"\n{more}') as h:
            page(h, "1")
            h.wait_for(lambda: ready(h)["state"] != "closed")
            assert not vendor.got, "who vouches for it is not believed there"
            write(tmp_path / "secret", first, "gateway")
            h.wait_for(lambda: vendor.got, 10)


def test_without_a_certificate_of_ours_nothing_arrives(tmp_path: Path) -> None:
    """The negative control of the test before."""
    server = trustme.CA()
    ca = vouched(tmp_path, server)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.issue_cert("127.0.0.1").configure_cert(context)
    server.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with chaos(OK, context=context) as vendor:
        with house(tmp_path, config=lambda _: f'{BASE}url = "{vendor.url}"\nca = "{ca}"\n') as h:
            page(h, "1")
            h.wait_for(lambda: ready(h)["state"] != "closed")
        assert not vendor.got
