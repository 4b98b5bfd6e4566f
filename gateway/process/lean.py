"""Saves memory and time in a serving process: imports libraries without their optional support for terminals, as a
gateway shows no colours and each MiB saved is room for its backlog; and keeps the garbage collector from scanning where
there is no garbage. It must not know what the libraries are for."""

from __future__ import annotations

import gc
import importlib
import sys

GARBAGE = 10_000
"""Threshold of the collector's first generation: net new objects before it looks for cycles. Looking after each 700
took a tenth of the work of a request, and found none."""
UNNEEDED = ("pygments", "rich")
"""Optional dependencies of `BRINGING`, which is made to do without them."""
BRINGING = ("structlog",)


def spare() -> None:
    """Imports `BRINGING` while `UNNEEDED` cannot be imported; later imports of these work as usual."""
    hidden = [name for name in UNNEEDED if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # makes Python raise ImportError for the module
    try:
        for name in BRINGING:
            importlib.import_module(name)
    finally:
        for name in hidden:
            del sys.modules[name]


def settled() -> None:
    """Exempts all present objects from garbage collection: they stay, and need not be scanned again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE, 10, 10)


def swept() -> None:
    """Collects what a replaced configuration leaves behind: it is in cycles, with TLS contexts that hold a MiB of
    authorities each, which the collector does not count. Left to its threshold, a hundred reloads held fifty MiB."""
    gc.collect()
