"""Replaces a vendor's words for severities by those that an upstream's configuration gives.

It must not know any vendor: the severity's row itself knows how it is made with another scale.
"""

from __future__ import annotations

from collections.abc import Mapping as Map
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gateway.canonical import Flat
from gateway.mapping.rows import Fallback, Row, Writing, row
from gateway.mapping.table import Mapping
from gateway.mapping.values import Scale


def with_scale(mapping: Mapping, out: Sequence[Any] | None, read: Map[str, int]) -> Mapping:
    """The same rows with another severity scale: `out` has the words for the eight codes, `read` the codes of words.

    Raises `ValueError` where the vendor has no severity, or the words do not keep their order.
    """
    scaled = [entry for entry in mapping.rows if entry.scale and "severity" in entry.paths]
    if not scaled:
        raise ValueError(f"{mapping.dialect} has no severity of its own")
    old = min(scaled, key=lambda entry: entry.derived)
    assert old.scale
    words = tuple(out) if out is not None else old.scale.out
    if len(words) != 8:
        raise ValueError("`out` must have a word for each of the eight codes, the worst first")
    if bad := [word for word, code in read.items() if not 0 <= code <= 7]:
        raise ValueError(f"`in` must give codes from 0 to 7, not {read[bad[0]]} for {bad[0]!r}")
    codes = {word: words.index(word) for word in words}
    codes = {**codes, **{word: code for word, code in old.scale.codes.items() if words[code] == word}, **read}
    new = _rescaled(old, Scale(words, codes), words)
    return mapping.with_rows([new if entry is old else entry for entry in mapping.rows])


def _rescaled(old: Row, scale: Scale, words: tuple[Any, ...]) -> Row:
    """The row of the severity with another scale."""
    if old.rescale:
        return old.rescale(scale)
    scaled = row(old.wires[0], old.paths[0], scale, side=old.side, derived=old.derived)
    fallback = _in_words(old, words) if old.fallback else None
    return replace(scaled, required=old.required, fallback=fallback, why=old.why)


def _in_words(old: Row, words: tuple[Any, ...]) -> Fallback:
    """The documented fallback of the severity, in the words that replace the vendor's own."""

    def supply(flat: Flat, writing: Writing) -> Sequence[Any] | None:
        found = old.fallback(flat, writing) if old.fallback else None
        return found and [words[old.scale.codes[word]] if old.scale else word for word in found]

    return supply
