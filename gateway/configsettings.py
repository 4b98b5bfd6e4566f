"""A dialect's own settings in the table of an upstream: read as the dialect declares them.

A part of `gateway.config`. It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_type_hints

import msgspec
from msgspec import Struct
from msgspec.structs import fields as struct_fields

from gateway.configroutes import Checking
from gateway.secrets import Secret


def settings_of(check: Checking, kind: type[Struct], table: Mapping[str, Any], path: str) -> Any:
    """The dialect's own section; a field typed as a secret is resolved like every other secret."""
    hints = get_type_hints(kind)
    given: dict[str, Any] = {}
    for item in struct_fields(kind):
        if item.encode_name not in table:
            continue
        value, where = table[item.encode_name], f"{path}.{item.encode_name}"
        if Secret in getattr(hints[item.name], "__args__", (hints[item.name],)):
            given[item.name] = check.secret(str(value), where)
        else:
            given[item.name] = check.parsed(_converting(hints[item.name]), value, where, value)
    return kind(**given)


def _converting(wanted: Any) -> Any:
    return lambda value: msgspec.convert(value, wanted)


def secret_in(settings: Any) -> Secret | None:
    """The credential in a dialect's own settings, which is exchanged for tokens."""
    names = settings.__struct_fields__ if settings is not None else ()
    return next((value for name in names if isinstance(value := getattr(settings, name), Secret)), None)
