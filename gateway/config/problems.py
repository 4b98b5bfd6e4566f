"""Type errors of the configuration in the terms of its file: which table or entry is wrong, and what is expected.

No value is ever repeated: it may be a secret. It must not know what the configuration is for.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import msgspec

WORDS = {
    "object": "a table",
    "array": "a list",
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "nothing",
}

LIKENESS = 0.5
"""The least similarity, as `difflib` computes it, for a known name to be suggested for an unknown one."""
MOST_NAMED = 5
"""The most names in one message: of callers there may be thousands."""
BOUNDS = {"<=": "at most", ">=": "at least", "<": "less than", ">": "more than"}


def near(name: str, known: Iterable[str]) -> str:
    """A suggestion of what was probably meant, to be appended to a message; empty where nothing is similar."""
    close = difflib.get_close_matches(name, list(known), 1, LIKENESS)
    return f"; did you mean {close[0]!r}?" if close else ""


def some(names: Sequence[str]) -> str:
    """The first few of these names, and how many more there are; `none` where there are none."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return (", ".join(names[:MOST_NAMED]) or "none") + more


def wrong_types(path: str, value: Any, hint: Any, error: msgspec.ValidationError) -> Iterator[tuple[str, str]]:
    """The path of each part of a value that has the wrong type, and what is wrong with it."""
    parts = list(_parts(path, value, hint))
    wrong = [(where, problem) for where, part, inner in parts for problem in _problem(part, inner)]
    yield from wrong or [(path, in_words(error, hint))]


def _parts(path: str, value: Any, hint: Any) -> Iterator[tuple[str, Any, Any]]:
    """The entries of a table or a list, each with the type that it should have."""
    for kind in (hint, *get_args(hint)):
        if get_origin(kind) is dict and isinstance(value, Mapping):
            for name, inner in value.items():
                yield f"{path}.{name}", inner, get_args(kind)[1]
            return
        if get_origin(kind) is list and isinstance(value, list):
            for number, inner in enumerate(value, 1):
                yield f"{path}[{number}]", inner, get_args(kind)[0]
            return


def _problem(value: Any, hint: Any) -> Iterator[str]:
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        yield in_words(error, hint)


def _choices(hint: Any) -> list[str]:
    """The words that a type allows, where it is an enumeration."""
    kinds = [kind for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal]
    return [f'"{word}"' for kind in kinds for word in get_args(kind)]


def in_words(error: msgspec.ValidationError, hint: Any = None) -> str:
    """A validation error in plain words; `hint`, the expected type, is needed to list the words of an enumeration."""
    if str(error).startswith("Invalid enum value") and (words := _choices(hint)):
        return f"must be {' or '.join([', '.join(words[:-1]), words[-1]] if len(words) > 1 else words)}"
    found = re.match(r"Expected `([^`]+)`, got `([^`]+)`", str(error))
    if bound := re.match(r"Expected `(?:int|float)` (<=|>=|<|>) ([\d.]+)", str(error)):
        return f"must be {BOUNDS[bound[1]]} {bound[2]}"
    if not found:
        return re.sub(r" - at `\$?([^`]*)`$", lambda at: f" (at {at[1]})" if at[1] else "", str(error))
    wanted = " or ".join(
        WORDS.get(word.strip(), word.strip()) for word in found[1].split("|") if word.strip() != "null"
    )
    return f"must be {wanted}, not {WORDS.get(found[2], found[2])}"
