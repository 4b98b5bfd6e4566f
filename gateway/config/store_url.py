"""The URL of a store, as configured: its scheme, the part that identifies the store, whether its password is encoded.

It must not know how a store is opened.
"""

from __future__ import annotations

import re

SQLITE = "sqlite://"
POSTGRES = ("postgresql://", "postgres://")


def without_credential(url: str) -> str:
    """A store's URL without user and password: what identifies the store."""
    if not url.startswith(POSTGRES):
        return url
    hosts, slash, rest = url.partition("://")[2].partition("/")
    return hosts.rpartition("@")[2] + slash + re.sub(r"(?<=[?&])(user|password)=[^&]*", "", rest)


def is_torn(url: str) -> bool:
    """Whether an unencoded `/` or `@` in the password ends it too early for libpq, which would show the rest as
    host."""
    authority, _, path = url.partition("://")[2].partition("?")[0].partition("/")
    return authority.count("@") > 1 or "@" in path
