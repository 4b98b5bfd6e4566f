"""The collector of problems that every part of the configuration is checked with: what it knows of the file as a whole.

It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.config.problems import near
from gateway.config.secrets import Secret, stand_in
from gateway.config.tables import Tables
from gateway.dialect import Dialect
from gateway.registry import dialects


class Check(Tables):
    """Collects the problems of one file. `resolve` says whether its secrets are looked up, `base` is its directory,
    `known` are the dialects that it may name, and `described` those of them that it describes itself."""

    def __init__(self, resolve: bool, base: Path) -> None:
        super().__init__()
        self.resolve = resolve
        self.base = base
        self.public_url = ""
        self.known: Mapping[str, Dialect] = dialects()
        self.described: frozenset[str] = frozenset()

    def secret(self, text: str, path: str) -> Secret:
        """A credential; one that cannot be resolved is recorded as a problem."""
        try:
            return Secret(text, resolve=self.resolve)
        except ValueError as error:
            self.say(path, str(error))
            return stand_in()

    def dialect(self, name: str, path: str) -> Dialect | None:
        """The dialect of this name; an unknown one is recorded as a problem."""
        found = self.known.get(name)
        if not found and name not in self.described:  # problems of a description are reported there
            self.say(path, f"no such dialect{near(name, self.known)}; known are {', '.join(self.known)}")
        return found
