"""Imports what serving needs without what it brings along for terminals: a gateway has nobody to show colours to, and
every MiB that it does not take is room for its backlog. Likewise it keeps the collector of garbage from looking where
there is none. It must not know what the libraries are for."""

from __future__ import annotations

import gc
import importlib
import sys

GARBAGE = 10_000
"""So many objects more than were given back are made before rings among them are looked for: a tenth of the work of a
request went into looking after each 700, and found none."""
UNNEEDED = ("pygments", "rich")
"""Imported by `BRINGING` where they are installed; both are made to do without."""
BRINGING = ("structlog",)


def spare() -> None:
    """Imports them without; whoever wants colours later can import them as usual."""
    hidden = [name for name in UNNEEDED if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # how Python is told that a module is not to be had
    try:
        for name in BRINGING:
            importlib.import_module(name)
    finally:
        for name in hidden:
            del sys.modules[name]


def settled() -> None:
    """What has been made until now stays: it is not to be looked through again and again for what could go."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE, 10, 10)


def swept() -> None:
    """What a configuration that was replaced leaves behind goes at once: it is in rings, and a TLS context in them has
    a MiB of authorities that nobody counts. Waiting for so many objects more, a hundred reloads held fifty MiB."""
    gc.collect()
