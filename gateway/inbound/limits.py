"""How much of a request is taken in: bytes, depth and time. It must not know any vendor."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
from msgspec import UNSET
from starlette.types import Message, Receive

from gateway.errors import Problem, ProblemKind

DEPTH = 64
BODY_SECONDS = 30.0
DROPPED = 8 * 1024 * 1024
"""So much of a body that is too large is read and dropped, so that the caller gets to see the answer."""

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body; raises `Problem` where it is too large, too slow, or the caller went away."""
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
        while message.get("more_body"):
            message = await _more(receive)
            chunks += message.get("body", b"")
            if len(chunks) > limit + DROPPED:
                break
        body = bytes(chunks)
    if len(body) > limit:
        raise Problem(ProblemKind.TOO_LARGE, f"the body is larger than {limit} bytes (setting `max_body`)")
    return body


async def _more(receive: Receive) -> Message:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ConnectionError("the caller went away")
    return message


def decode(body: bytes) -> Any:
    """The body as JSON, `UNSET` where it is empty; raises `Problem` that says what is wrong with it."""
    if not body or body.isspace():
        return UNSET
    if deeper_than(body, DEPTH):
        raise Problem(ProblemKind.MALFORMED, f"the body is nested deeper than {DEPTH}")
    try:
        value = msgspec.json.decode(body)
        _within_64_bits(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(ProblemKind.MALFORMED, f"the body is not JSON: {error}") from None
    return value


def _within_64_bits(value: Any) -> None:
    """Numbers that no receiver could take are refused here, not when they are sent."""
    try:
        msgspec.json.encode(value)
    except (OverflowError, ValueError, msgspec.MsgspecError):
        raise Problem(ProblemKind.MALFORMED, "the body has a number that is too large") from None


def deeper_than(body: bytes, depth: int) -> bool:
    """Whether brackets outside of strings are nested deeper than that."""
    if body.count(b"[") + body.count(b"{") <= depth:
        return False
    brackets = _STRING.sub(b"", body).translate(None, _NOT_BRACKETS)
    for _ in range(depth):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if not brackets:
            return False
    return bool(brackets)
