"""A dialect's own settings in the table of an upstream or an inbound: read as the dialect declares them.

A part of `gateway.config.loading`. It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_type_hints

import msgspec
from msgspec import Struct
from msgspec.structs import fields as struct_fields

from gateway.config.routes import Checking
from gateway.config.secrets import Secret, stand_in
from gateway.config.values import is_address, without_secrets


def settings_of(check: Checking, kind: type[Struct], table: Mapping[str, Any], path: str) -> Any:
    """Reads a dialect's own settings; a field typed as a `Secret`, or several, is resolved like every other secret. If
    the struct raises `ValueError` for the settings as a whole, that is recorded for the table, and the defaults are
    returned."""
    hints = get_type_hints(kind)
    given: dict[str, Any] = {}
    for item in struct_fields(kind):
        if item.encode_name not in table:
            continue
        value, where = table[item.encode_name], f"{path}.{item.encode_name}"
        if hints[item.name] == tuple[Secret, ...]:
            listed = value if isinstance(value, list) else [value]
            if not listed:
                check.say(where, "lists no secret: write one, or leave it out")
            given[item.name] = tuple(_secret(check, one, where) for one in listed)
        elif Secret in getattr(hints[item.name], "__args__", (hints[item.name],)):
            given[item.name] = _secret(check, value, where)
        else:
            given[item.name] = check.parsed(_converting(hints[item.name]), value, where, value)
            if item.encode_name.endswith("_url") and isinstance(value, str) and not is_address(value):
                check.say(where, f"{without_secrets(value)!r} is not an address such as {item.default or 'https://…'}")
    try:
        return kind(**given)
    except ValueError as error:
        check.say(path, str(error))
        return kind()


def _secret(check: Checking, value: Any, where: str) -> Secret:
    """A secret from a text; a value of any other type is a problem, not converted."""
    if isinstance(value, str):
        return check.secret(value, where)
    check.say(where, 'must be a text: "env:NAME", "file:PATH" or the secret itself')
    return stand_in()


def _converting(wanted: Any) -> Any:
    return lambda value: msgspec.convert(value, wanted)


def fields_of(kind: type[Struct] | None) -> tuple[str, ...]:
    """The names of a dialect's own settings."""
    return tuple(item.encode_name for item in struct_fields(kind)) if kind else ()


def secrets_in(settings: Any) -> tuple[Secret, ...]:
    """Every secret in a dialect's own settings, in their order."""
    values = [getattr(settings, name) for name in settings.__struct_fields__] if settings is not None else []
    return tuple(one for value in values for one in (value if isinstance(value, tuple) else (value,)) if _is(one))


def _is(value: Any) -> bool:
    return isinstance(value, Secret)


def secret_in(settings: Any) -> Secret | None:
    """The first secret in a dialect's own settings: the credential that is exchanged for tokens."""
    names = settings.__struct_fields__ if settings is not None else ()
    return next((value for name in names if isinstance(value := getattr(settings, name), Secret)), None)
