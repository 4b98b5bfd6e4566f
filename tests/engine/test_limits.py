"""Limits of a body: the depth check against a naive one, decoding, numbers, and inflating."""

from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from starlette.types import Message

from gateway.errors import Problem, ProblemKind
from gateway.inbound.limits import DEPTH, decode, deeper_than, inflate, read_body

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=30,
)


def naive_depth(body: bytes) -> int:
    """The depth of brackets outside strings, byte by byte."""
    depth = deepest = at = 0
    in_string = False
    while at < len(body):
        byte = body[at : at + 1]
        if in_string:
            at += byte == b"\\"
            in_string = byte != b'"'
        elif byte == b'"':
            in_string = True
        elif byte in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif byte in (b"]", b"}"):
            depth -= 1
        at += 1
    return deepest


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"\\", b"\n", b"a", b'[{"', b'"}]', b"\xff"]), max_size=60)
)
def test_the_depth_of_any_bytes_is_that_of_reading_them_one_by_one(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    for most in (0, 1, 2, 3, 5, 8):
        assert deeper_than(body, most) is (naive_depth(body) > most)


@settings(deadline=None)
@given(VALUES)
def test_the_depth_of_json_is_that_of_reading_it_one_by_one(value: Any) -> None:
    body = msgspec.json.encode(value)
    deepest = naive_depth(body)
    assert not deeper_than(body, deepest)
    assert deepest == 0 or deeper_than(body, deepest - 1)


@settings(deadline=None)
@given(VALUES)
def test_what_is_shallow_decodes_to_itself(value: Any) -> None:
    assert decode(msgspec.json.encode({"value": value})) == {"value": value}


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b"[]" * 500_000,
        (b"[" * 60 + b"]" * 60) * 8000,
        b"[" * 70 + b'"' + b'\\"' * 500_000,
        b"[" * 70 + b'\\"' * 500_000,
        b'"[' * 500_000,
        b'"\\',
    ],
    ids=["arrays", "objects", "pairs", "hills", "escaped quotes", "quotes", "strings", "cut escape"],
)
def test_no_body_of_a_mebibyte_takes_long_to_refuse(body: bytes) -> None:
    began = time.perf_counter()
    with pytest.raises(Problem) as refused:
        decode(body)
    assert refused.value.kind is ProblemKind.MALFORMED
    assert time.perf_counter() - began < 3


def test_sixty_four_levels_are_taken_and_one_more_is_not() -> None:
    assert decode(b"[" * DEPTH + b"]" * DEPTH) == decode(b" " + b"[" * DEPTH + b"]" * DEPTH)
    with pytest.raises(Problem, match="nested deeper than 64"):
        decode(b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1))


def test_a_long_body_that_is_cut_is_not_called_deep() -> None:
    whole = msgspec.json.encode({"events": [{"kind": number} for number in range(200)]})
    with pytest.raises(Problem, match="not JSON"):
        decode(whole[:-5])


@pytest.mark.parametrize("body", [b"", b" \r\n\t", b"\xef\xbb\xbf"])
def test_nothing_is_unset_and_no_null(body: bytes) -> None:
    assert decode(body) is UNSET
    assert decode(b"null") is None


def test_a_byte_order_mark_is_passed_over() -> None:
    assert decode(b'\xef\xbb\xbf{"a":1}') == {"a": 1}


@pytest.mark.parametrize(
    "body",
    [
        b"{", b'{"a":1', b'{"a" 1}', b"{'a':1}", b'"\xff', b'"\\ud800', b'["\xff", NaN]', b"NaN", b"1e999",
        b"9" * 5000, b"{} {}",
        b'{"a":18446744073709551616}', b"[[-9223372036854775809]]", b"\x1f\x8b\x08\x00",
    ],
)  # fmt: skip
def test_what_is_no_json_or_no_number_of_64_bits_is_malformed(body: bytes) -> None:
    with pytest.raises(Problem) as refused:
        decode(body)
    assert refused.value.kind is ProblemKind.MALFORMED


def test_a_deep_body_that_is_no_utf_8_either_is_malformed() -> None:
    """Reading it in another charset does not go as deep as it is."""
    with pytest.raises(Problem, match="nested deeper than 64"):
        decode(b"[" * 100_000 + b'"\xe9"')


def test_half_a_pair_of_surrogates_behind_a_byte_order_mark_is_replaced() -> None:
    assert decode(b'\xef\xbb\xbf["\\ud83d", "\xc3\xa9"]') == ["\ufffd", "é"]


def test_a_body_that_is_no_utf_8_is_held_to_the_same_limits() -> None:
    assert decode(b'[["\xe9\\ud83d"]]') == [["é�"]]
    assert decode('\ufeff{"é": 1}'.encode("utf-16-le"), "application/json; charset=UTF-16LE") == {"é": 1}
    with pytest.raises(Problem, match="nested deeper than 64"):
        decode(b"[" * DEPTH + b'["\xe9"]' + b"]" * DEPTH)
    with pytest.raises(Problem, match="too large"):
        decode(b'["\xe9", 18446744073709551616]')


@settings(deadline=None)
@given(st.integers(-(2**70), 2**70))
def test_whole_numbers_are_taken_up_to_64_bits(number: int) -> None:
    body = msgspec.json.encode({"a": [number]})
    if -(2**63) <= number < 2**64:
        assert decode(body) == {"a": [number]}
    else:
        with pytest.raises(Problem, match="too large"):
            decode(body)


def test_long_digits_in_a_string_or_a_fraction_are_no_large_number() -> None:
    assert decode(b'["99999999999999999999999", 0.12345678901234567890123]') == ["9" * 23, 0.12345678901234568]


# --- inflating -----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.binary(max_size=2000))
def test_what_was_packed_comes_back(body: bytes) -> None:
    assert inflate(gzip.compress(body), "gzip", 2000) == body
    assert inflate(gzip.compress(body), " X-GZIP ", 2000) == body
    assert inflate(zlib.compress(body), "deflate", 2000) == body
    assert inflate(body, "identity", 2000) == inflate(body, "", 2000) == body


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_packed_stream_are_malformed(body: bytes) -> None:
    with pytest.raises(Problem) as refused:
        inflate(body, "gzip", 1 << 20)
    assert refused.value.kind is ProblemKind.MALFORMED


def test_a_bomb_is_not_inflated_beyond_the_limit() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    with pytest.raises(Problem) as refused:
        inflate(bomb, "gzip", 1 << 20)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.value.kind is ProblemKind.TOO_LARGE
    assert most < 4 << 20
    assert inflate(gzip.compress(bytes(1 << 20)), "gzip", 1 << 20) == bytes(1 << 20)


def test_a_cut_stream_or_one_with_something_behind_it_is_malformed() -> None:
    packed = gzip.compress(b'{"a":1}')
    for broken in (packed[:-1], packed[:12], packed + b"x", packed + packed):
        with pytest.raises(Problem, match="not one complete gzip stream"):
            inflate(broken, "gzip", 100)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "utf-8"])
def test_an_unknown_encoding_is_named(encoding: str) -> None:
    with pytest.raises(Problem, match=encoding) as refused:
        inflate(b"", encoding, 10)
    assert (refused.value.kind, refused.value.field) == (ProblemKind.INVALID, "Content-Encoding")


# --- reading -------------------------------------------------------------------------------------------------


def read(pieces: list[bytes], limit: int) -> tuple[bytes, int]:
    """Reads a body from pieces; returns it, and how many pieces were requested."""
    asked = 0

    async def messages() -> AsyncIterator[Message]:
        nonlocal asked
        for number, piece in enumerate(pieces, 1):
            asked = number
            yield {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
        yield {"type": "http.disconnect"}

    async def main() -> bytes:
        return await read_body(aiter(messages()).__anext__, limit)

    return anyio.run(main), asked


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20), min_size=1, max_size=10))
def test_a_body_is_all_of_its_pieces(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert read(pieces, len(whole)) == (whole, len(pieces))
    if whole:
        with pytest.raises(Problem) as refused:
            read(pieces, len(whole) - 1)
        assert refused.value.kind is ProblemKind.TOO_LARGE


def test_who_leaves_in_the_middle_of_a_body_has_not_sent_it() -> None:
    """What has arrived may be JSON by itself, and must not be taken for all that was to come."""
    left: Iterator[Message] = iter(
        [{"type": "http.request", "body": b"[1]", "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> Message:
        return next(left)

    with pytest.raises(ConnectionError):
        anyio.run(read_body, receive, 100)
