"""Reads, inflates and decodes a request's body within limits of size, depth and time. It must not know any vendor."""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from itertools import accumulate
from typing import Any

import msgspec
from msgspec import UNSET
from starlette.types import Message, Receive

from gateway.errors import Problem, ProblemKind, invalid
from gateway.outcome import CHARSET

DEPTH = 64
"""How deep a body may be nested."""
BODY_SECONDS = 30.0
"""Seconds from the headers to the end of the body."""
WHOLE = "alert_gateway.whole"
"""The extension in the ASGI scope of a request that has arrived completely."""
DROPPED = 8 * 1024 * 1024
"""Bytes of the rest of a request answered early that are read and dropped, so that the caller sees the answer."""

_STRING = re.compile(rb'"(?:[^"\\]|\\.?)*+(?:"|\Z)', re.DOTALL)
"""A JSON string, or the rest of one that never ends: every quote begins a match, so that nothing is read twice."""

_BRACKETS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NEITHER = bytes(set(range(256)) - set(b'[]{}"'))
_ALL_DIGITS, _LONG_NUMBER = bytes.maketrans(b"123456789", b"000000000"), b"0" * 19
"""Finds 19 digits in a row in a twentieth of the time that a regular expression takes, with all digits made alike."""
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
"""An escaped UTF-16 surrogate, whose other half may be missing."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


async def read_body(receive: Receive, limit: int, *, is_here: bool = False) -> bytes:
    """Returns the whole body; raises `Problem` if it is too large or too slow, `ConnectionError` if the caller left.
    One that `is_here` already needs no timeout."""
    if is_here:
        return await _read(receive, limit)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read(receive, limit)
    except TimeoutError:
        raise Problem(ProblemKind.TIMEOUT, f"the body did not arrive within {BODY_SECONDS:g} s") from None


async def _read(receive: Receive, limit: int) -> bytes:
    message = await _more(receive)
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        chunks = bytearray(body)
        while message.get("more_body") and len(chunks) <= limit:
            message = await _more(receive)
            chunks += message.get("body", b"")
        body = bytes(chunks)
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> Problem:
    return Problem(ProblemKind.TOO_LARGE, f"the body is larger than {limit} bytes (setting `max_body`)")


async def _more(receive: Receive) -> Message:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ConnectionError("the caller went away")
    return message


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Returns the body without its Content-Encoding; raises `Problem` if that is unknown, or the body broken or too
    large."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ("gzip", "x-gzip", "deflate"):
        raise invalid("Content-Encoding", f"{name[:64]!r} is neither gzip, deflate nor identity")
    inflater = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise Problem(ProblemKind.MALFORMED, f"the body is not {name}, as Content-Encoding says") from None
    if len(plain) > limit:
        raise _too_large(limit)
    if not inflater.eof or inflater.unused_data:
        raise Problem(ProblemKind.MALFORMED, f"the body is not one complete {name} stream")
    return plain


def decode(body: bytes, content_type: str = "") -> Any:
    """Returns the body decoded as JSON, `UNSET` if it is empty; raises a `Problem` that says what is wrong with it."""
    try:
        return _decode(body)
    except Problem:
        if (readable := _readable(body, content_type)) is None:
            raise
        return _decode(readable)


def _readable(body: bytes, content_type: str) -> bytes | None:
    """Returns JSON that is not valid UTF-8 as UTF-8, so that no page is lost for an umlaut; `None` if that fails. It is
    read in the charset that its type names, or in ISO 8859-1 if none is named, as PowerShell and shells send it. Lone
    surrogates are replaced: JavaScript leaves them where it cuts an emoji, and Python in place of bytes that it could
    not read."""
    named = CHARSET.search(content_type)
    charset = named[1] if named else "iso-8859-1"
    try:
        text = body.decode("utf-8-sig")
        if _HALF.search(body) is None:
            if named is None:
                return None
            text = body.decode(charset, "replace")  # UTF-16 of ASCII alone is valid UTF-8 too, but no JSON
    except UnicodeDecodeError:
        text = body.decode(charset, "replace").removeprefix("\ufeff")
    try:
        whole = json.dumps(json.loads(text), ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _decode(body: bytes) -> Any:
    body = body.removeprefix(_BYTE_ORDER_MARK)
    if not body or body.isspace():
        return UNSET
    if deeper_than(body, DEPTH):
        raise Problem(ProblemKind.MALFORMED, f"the body is nested deeper than {DEPTH} levels")
    try:
        value = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise Problem(ProblemKind.MALFORMED, f"the body is not JSON: {error}") from None
    if _LONG_NUMBER in body.translate(_ALL_DIGITS) and not _within_64_bits(value):
        raise Problem(ProblemKind.MALFORMED, "the body has a number that is too large")
    return value


def _within_64_bits(value: Any) -> bool:
    """Whether every integer fits into 64 bits: one that no vendor's client could decode is refused here."""
    if isinstance(value, dict):
        return all(_within_64_bits(inner) for inner in value.values())
    if isinstance(value, list):
        return all(_within_64_bits(inner) for inner in value)
    return not isinstance(value, int) or -(1 << 63) <= value < 1 << 64


def deeper_than(body: bytes, depth: int) -> bool:
    """Whether brackets outside strings are nested deeper than `depth`."""
    if body.count(b"[") + body.count(b"{") <= depth:
        return False
    if b"\\" not in body:  # then every quote begins or ends a string: all but quotes and brackets can go
        body = body.translate(None, _NEITHER)
    brackets = _STRING.sub(b"", body).translate(None, _NOT_BRACKETS)
    steps = memoryview(brackets.translate(_BRACKETS)).cast("b")
    return max(accumulate(steps), default=0) > depth
