"""Regular expressions of operators and callers, matched by RE2.

Python's own engine backtracks and holds the interpreter meanwhile: a caller's pattern, or a caller's long text against
an operator's pattern, could block the gateway for hours. RE2 takes time linear in the text, and is what Prometheus and
its relatives use. It must not know what is matched.

Syntax: https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

import functools
from collections.abc import Callable

MOST_MEMORY = 1 << 18
"""Bytes that a pattern and its matching state may take: up to a thousand patterns are kept."""


@functools.lru_cache(maxsize=1000)
def whole(pattern: str) -> Callable[[str], bool]:
    """A function that tests whether a whole text matches the pattern, where `.` matches line ends too; raises
    `ValueError`, with the reason, if the pattern is not valid."""
    import re2  # takes time and memory, and most configurations have no pattern

    options = re2.Options()
    options.dot_nl, options.log_errors, options.max_mem = True, False, MOST_MEMORY
    try:
        found = re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError) as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {_in_words(error)}") from None
    return lambda text: found.fullmatch(text) is not None


def _in_words(error: Exception) -> str:
    said = error.args[0]
    return said.decode("utf8", "replace") if isinstance(said, bytes) else "it is not valid Unicode"
