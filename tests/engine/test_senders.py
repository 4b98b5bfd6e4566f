"""Habits of real senders: Java's offer of HTTP/2, `Expect`, chunks, gzip, HTTP/1.0, JSON as text, pipelined requests,
and paths with a slash too many. Each is served like a plain request."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.harness import KEY, House, house
from tests.raw import Heard, request, wire

ALERT = b'{"monitor_id": "mon_1", "type": "down", "message": "caf\xc3\xa9 is down"}'
MESSAGE = "café is down"
AUTH = f"Authorization: Bearer {KEY}"
H2C = (
    "Connection: Upgrade, HTTP2-Settings",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    "Upgrade: h2c",
)
"""The headers that every HttpClient of Java 11 and later sends by default."""


@pytest.fixture(scope="module")
def h(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One gateway for all tests of this file."""
    with house(tmp_path_factory.mktemp("store"), {"oncall": "ilert"}) as standing:
        yield standing


def made(answer: Heard | None) -> str:
    """The id of the alert made from `ALERT`; requires a 201."""
    assert answer is not None and answer.status == 201, answer
    assert answer.body["data"]["message"] == MESSAGE
    return str(answer.body["data"]["id"])


def chunked(body: bytes, *headers: str) -> bytes:
    """A creating request in three chunks."""
    pieces = (body[:1], body[1:20], body[20:])
    packed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    coding = "Transfer-Encoding: chunked"
    return request("POST", "/uptinio/alerts", packed, AUTH, coding, *headers, length=False)


# --- ways to send a body ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        request("POST", "/uptinio/alerts", ALERT, AUTH),
        request("POST", "/uptinio/alerts", ALERT, AUTH, "Content-Type: text/plain; charset=UTF-8"),
        request("POST", "/uptinio/alerts", ALERT, AUTH, "Content-Type: application/x-www-form-urlencoded"),
        request("POST", "/uptinio/alerts", b"\xef\xbb\xbf" + ALERT, AUTH, "Content-Type: application/json"),
        request("POST", "/uptinio/alerts", ALERT, AUTH, *H2C),
        request("POST", "/uptinio/alerts", ALERT, AUTH, "Connection: Upgrade", "Upgrade: websocket"),
        request("POST", "http://gateway/uptinio/alerts", ALERT, AUTH),
        chunked(ALERT),
        chunked(ALERT, *H2C),
    ],
    ids=["plain", "text", "form", "byte order mark", "h2c", "websocket", "absolute", "chunked", "chunked h2c"],
)
def test_an_alert_is_made_however_its_body_is_sent_and_the_connection_goes_on(h: House, said: bytes) -> None:
    with wire(h.url) as connection:
        connection.say(said)
        first = made(connection.hear())
        connection.say(said)
        assert made(connection.hear()) != first


@pytest.mark.parametrize(
    ("body", "form", "message"),
    [
        (ALERT.decode().encode("latin-1"), "application/json", MESSAGE),
        (ALERT.decode().encode("latin-1"), "application/json; charset=utf-8", MESSAGE),
        (ALERT.replace(b"is down", "5 €".encode()).decode().encode("cp1252"), "text/json;charset=Windows-1252", "5 €"),
        (
            ALERT.replace(b"is down", "ソ".encode()).replace(b"caf\xc3\xa9", b"").decode().encode("shift_jis"),
            "application/json; charset=Shift_JIS",
            "ソ",
        ),
        (ALERT.decode().encode("utf-16"), 'application/json; charset="utf-16"', MESSAGE),
        (ALERT.replace(b"caf\xc3\xa9", b"").decode().encode("utf-16le"), "text/json;charset=UTF-16LE", "is down"),
        (ALERT.replace(b"is down", rb"\ud83d\ude00 \ud83d"), "application/json", "café 😀 �"),
        (ALERT.replace(b"is down", rb"\udce9 C:\\ud83d"), "application/json", r"café � C:\ud83d"),
    ],
    ids=[
        "PowerShell",
        "not as it says",
        "as it says",
        "ends in a backslash",
        "UTF-16",
        "UTF-16 of ASCII",
        "JavaScript",
        "Python",
    ],
)
def test_an_alert_is_made_whatever_its_characters_are_written_in(
    h: House, body: bytes, form: str, message: str
) -> None:
    """PowerShell 5 and shells send ISO 8859-1 undeclared, older Java clients declare it; JavaScript that cuts an emoji
    sends half a surrogate pair, Python a lone surrogate for each byte of its environment that is not UTF-8, as in the
    output of a plugin that checks a Windows machine. No page is lost for any of these."""
    about = {"authorization": f"Bearer {KEY}", "content-type": form}
    sent = h.client.post(f"{h.url}/uptinio/alerts", content=body, headers=about)
    assert sent.status_code == 201, sent.text
    assert message in sent.json()["data"]["message"]


@pytest.mark.parametrize("said", [request("POST", "/uptinio/alerts", ALERT, AUTH, *H2C), chunked(ALERT, *H2C)])
@pytest.mark.parametrize("size", [1, 50, 333])
def test_an_offer_of_http_2_is_passed_over_wherever_the_packets_end(h: House, said: bytes, size: int) -> None:
    both = said + said
    with wire(h.url) as connection:
        connection.say(*[both[at : at + size] for at in range(0, len(both), size)])
        assert made(connection.hear()) != made(connection.hear())


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
def test_a_packed_body_is_unpacked(h: House, encoding: str) -> None:
    with wire(h.url) as connection:
        connection.say(request("POST", "/uptinio/alerts", gzip.compress(ALERT), AUTH, f"Content-Encoding: {encoding}"))
        made(connection.hear())
        connection.say(chunked(gzip.compress(ALERT), f"Content-Encoding: {encoding}"))
        made(connection.hear())


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [(gzip.compress(bytes(9_000_000)), "gzip", 413), (ALERT, "gzip", 400), (ALERT, "br", 400)],
    ids=["bomb", "not packed", "unknown"],
)
def test_what_cannot_be_unpacked_is_refused_in_the_vendors_words(
    h: House, body: bytes, encoding: str, status: int
) -> None:
    with wire(h.url) as connection:
        connection.say(request("POST", "/uptinio/alerts", body, AUTH, f"Content-Encoding: {encoding}"))
        answer = connection.hear()
    assert answer is not None and answer.status == status
    assert answer.body["error"]["message"]


# --- Expect ----------------------------------------------------------------------------------------------------


def test_who_expects_100_continue_is_told_to_go_on(h: House) -> None:
    with wire(h.url) as connection:
        head, _, body = request("POST", "/uptinio/alerts", ALERT, AUTH, "Expect: 100-continue").partition(b"\r\n\r\n")
        connection.say(head, b"\r\n\r\n")
        go_on = connection.hear()
        assert go_on is not None and go_on.status == 100
        connection.say(body)
        made(connection.hear())


def test_who_expects_100_continue_with_a_wrong_key_is_refused_before_the_body(h: House) -> None:
    with wire(h.url) as connection:
        said = request("POST", "/uptinio/alerts", ALERT, "Authorization: Bearer wrong", "Expect: 100-continue")
        connection.say(said.partition(b"\r\n\r\n")[0], b"\r\n\r\n")
        answer = connection.hear()
        assert answer is not None and answer.status == 401
        assert connection.is_closed(), "what follows could be the body or another request"


# --- connections -----------------------------------------------------------------------------------------------


def test_http_1_0_is_answered_with_a_length_and_closed(h: House) -> None:
    with wire(h.url) as connection:
        connection.say(request("POST", "/uptinio/alerts", ALERT, AUTH, version="1.0"))
        answer = connection.hear()
        made(answer)
        assert answer is not None and "transfer-encoding" not in answer.headers
        assert connection.is_closed()


def test_a_connection_is_closed_where_its_sender_asks_for_it(h: House) -> None:
    for offer in ((), ("Connection: Upgrade, close", "Upgrade: h2c")):
        with wire(h.url) as connection:
            connection.say(request("POST", "/uptinio/alerts", ALERT, AUTH, *(offer or ("Connection: close",))))
            made(connection.hear())
            assert connection.is_closed()


def test_requests_one_behind_the_other_are_answered_in_their_order(h: House) -> None:
    messages = [f"message {number}" for number in range(20)]
    bodies = [json.dumps({"monitor_id": "m", "type": "down", "message": text}).encode() for text in messages]
    ways: list[tuple[str, ...]] = [(), H2C, ("Content-Type: text/plain",)]
    with wire(h.url) as connection:
        connection.say(
            b"".join(
                request("POST", "/uptinio/alerts", body, AUTH, *ways[at % 3]) if at % 4 else chunked(body)
                for at, body in enumerate(bodies)
            )
        )
        answers = [connection.hear() for _ in messages]
    assert [answer.body["data"]["message"] for answer in answers if answer] == messages


def test_head_is_answered_without_a_body(h: House) -> None:
    with wire(h.url) as connection:
        connection.say(request("HEAD", "/uptinio/alerts", None, AUTH))
        answer = connection.hear(head=True)
        assert answer is not None and answer.status == 200 and int(answer.headers["content-length"]) > 0
        connection.say(request("GET", "/uptinio/alerts", None, AUTH))
        assert connection.hear() is not None


def test_pythons_own_client_sees_why_its_long_body_is_refused(h: House) -> None:
    """urllib asks for the connection to be closed, and reads nothing before it has sent its whole body."""
    call = urllib.request.Request(f"{h.url}/uptinio/alerts", b" " * 5_000_000, {"Authorization": f"Bearer {KEY}"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(call, timeout=10)
    with refused.value as answer:
        assert answer.code == 413
    call.remove_header("Authorization")
    with pytest.raises(urllib.error.HTTPError) as unknown:
        urllib.request.urlopen(call, timeout=10)
    with unknown.value as answer:
        assert answer.code == 401


# --- paths -----------------------------------------------------------------------------------------------------


def get(h: House, path: str) -> tuple[int, dict[str, object]]:
    """Requests a path exactly as written."""
    with contextlib.closing(http.client.HTTPConnection(h.url.removeprefix("http://"), timeout=10)) as connection:
        connection.putrequest("GET", path, skip_accept_encoding=True)
        connection.putheader("Authorization", f"Bearer {KEY}")
        connection.endheaders()
        answer = connection.getresponse()
        said = answer.read()
    assert answer.headers["content-type"] == "application/json", said
    return answer.status, json.loads(said)


@pytest.mark.parametrize(
    "path",
    [
        "/uptinio/alerts/{id}", "/uptinio/alerts/{id}/", "/uptinio//alerts///{id}", "//uptinio/alerts/{id}//",
        "/uptinio/alerts/{id}%20", "/uptinio/alerts/{percent}", "/uptinio/%61lerts/{id}", "/alerts/{id}/",
        "/uptinio/alerts/{id}?", "/uptinio/alerts/{id}?x=%zz&=&&", "/uptinio/alerts/{id}#fragment",
        "/uptinio/v1/alerts/{id}", "/v1//alerts/{id}/",
    ],
)  # fmt: skip
def test_a_path_is_understood_however_it_is_written(h: House, path: str) -> None:
    with wire(h.url) as connection:
        connection.say(request("POST", "/uptinio/alerts", ALERT, AUTH))
        name = made(connection.hear())
    percent = "".join(f"%{byte:02X}" for byte in name.encode())
    status, body = get(h, path.format(id=name, percent=percent))
    assert status == 200
    assert body["data"] == {**body["data"], "id": name}  # type: ignore[dict-item]


@pytest.mark.parametrize("inside", ["%2F", "%2f", "%0A", "%0D%0A", "%00", "%25", "%E2%82%AC", "%FF", "."])
def test_whatever_an_id_holds_the_answer_is_the_vendors(h: House, inside: str) -> None:
    status, body = get(h, f"/uptinio/alerts/a{inside}b")
    assert status == 404
    assert body["error"]["code"] == "alert_not_found"  # type: ignore[index]


def test_an_encoded_slash_separates_nothing(h: House) -> None:
    status, body = get(h, "/uptinio/alerts%2Fa")
    assert status == 404
    assert body["error"]["code"] != "alert_not_found"  # type: ignore[index]
