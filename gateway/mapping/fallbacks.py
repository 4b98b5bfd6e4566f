"""Fallback values that several vendors document alike: what to write in a required field that has no value.

They invent nothing that has a meaning. They must not know any vendor.
"""

from __future__ import annotations

from typing import Any

from gateway.canonical import Flat
from gateway.mapping.rows import Writing


def headline(flat: Flat, writing: Writing) -> tuple[Any, ...]:
    """A one-line summary: the first line of the details, else category and resource, else dialect and key."""
    details = (flat.get("details") or "").strip()
    if details:
        return (details.splitlines()[0].strip(),)
    named = [str(flat[path]).strip() for path in ("category", "resource") if flat.get(path)]
    if any(named):
        return (" ".join(filter(None, named)),)
    return (" ".join(part for part in (writing.origin, (flat.get("dedup_key") or "").strip()) if part) or "alert",)
