"""Imports what serving needs without what it brings along for terminals: a gateway has nobody to show colours to, and
every MiB that it does not take is room for its backlog. It must not know what the libraries are for."""

from __future__ import annotations

import importlib
import sys

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
