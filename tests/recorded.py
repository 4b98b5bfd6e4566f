"""Recorded expectations: values kept in files, compared exactly, rewritten only when asked to.

A recorded file was checked by eye against the vendor's page before it was committed. A test that rewrites it fails, so
that no run passes on what it has just written itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

GOLDEN = Path(__file__).parent / "golden"


def plain(value: Any) -> Any:
    """Returns a value as it comes back from JSON."""
    return msgspec.json.decode(msgspec.json.encode(value))


def load(path: str) -> Any:
    """Loads a golden file below `tests/golden`; fails if there is none."""
    return json.loads(_text(path))


def _text(path: str) -> str:
    file = GOLDEN / path
    if not file.is_file():
        pytest.fail(f"there is no golden file {path}: write it from the vendor's page, naming its source")
    return file.read_text("utf8")


class Recorder:
    """Compares values with recorded ones; with `rewrites` it records them instead, and fails all the same."""

    def __init__(self, rewrites: bool) -> None:
        self.rewrites = rewrites

    def same(self, path: str, key: str, actual: Any, **about: str) -> None:
        """Fails unless `actual` is what the file holds under `key`; a new file begins with `about`."""
        actual = plain(actual)
        if self.rewrites:
            self._write(path, key, actual, about)
            pytest.fail(f"recorded {key} of {path}: check it against its source, then run without --record")
        held = load(path)
        assert key in held, f"{path} has no {key}"
        assert actual == held[key]

    def same_text(self, path: str, actual: str) -> None:
        """Fails unless `actual` is the whole text of a file."""
        if self.rewrites:
            file = GOLDEN / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(actual, "utf8")
            pytest.fail(f"recorded {path}: read it as whoever is woken would, then run without --record")
        assert actual == _text(path)

    def _write(self, path: str, key: str, actual: Any, about: dict[str, str]) -> None:
        file = GOLDEN / path
        held = json.loads(file.read_text("utf8")) if file.is_file() else dict(about)
        held[key] = actual
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(held, indent=2, ensure_ascii=False) + "\n", "utf8")
