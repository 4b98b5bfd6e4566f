"""Regular expressions of operators and callers, as RE2 reads them.

Python's own tries every way there is and holds the interpreter meanwhile: a pattern of a caller, or a caller's long
text for one of an operator, could keep the gateway from all else for hours. RE2 needs a time that grows with the text
and no faster, and is what Prometheus and its relatives have. It must not know what is matched.

Syntax: https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

import functools
from collections.abc import Callable

MOST_MEMORY = 1 << 18
"""Bytes that a pattern may take, with what is remembered of matching it: as many as a thousand are kept."""


@functools.lru_cache(maxsize=1000)
def whole(pattern: str) -> Callable[[str], bool]:
    """A test whether a text as a whole is what a pattern says, line ends among what `.` means; raises `ValueError` that
    says why a pattern is none."""
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
    return said.decode("utf8", "replace") if isinstance(said, bytes) else "it is no text"
