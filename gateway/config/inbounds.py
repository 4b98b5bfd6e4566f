"""Checks an inbound: its dialect, who may call, and what the callers share.

A part of `gateway.config.loading`. It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.config.checking import Check
from gateway.config.config import Inbound
from gateway.config.file import File, InboundFile
from gateway.config.following import Directory
from gateway.config.secrets import ANONYMOUS, Keyring
from gateway.config.settings import fields_of, settings_of
from gateway.dialect import Dialect
from gateway.network.listening import host_names


def inbound_of(check: Check, name: str, table: Any, file: File) -> Inbound | None:
    """The inbound of a table; None where it is none, or its dialect is unknown."""
    path = f"inbound.{name}"
    dialect = check.dialect(name, path)
    if not dialect or not isinstance(table, dict):
        return None
    own = dialect.inbound_settings
    given = check.struct(InboundFile, table, path, fields_of(own))
    if table.get("keys") == {}:
        check.say(f"{path}.keys", "lists no caller: write one, or leave `keys` out if callers need none")
    keyring, callers = _keyring(check, given.keys, f"{path}.keys")
    for caller in keyring.shared() if check.resolve else ():
        check.say(f"{path}.keys.{caller}", "is also the credential of another caller, so it identifies neither")
    if name in check.described:
        _check_described(check, dialect, given, table, path)
    for caller in callers:
        if caller == ANONYMOUS or "/" in caller or not caller:
            check.say(f"{path}.keys.{caller}", "cannot be a caller's name")
    return Inbound(
        dialect=dialect,
        keyring=keyring,
        callers=frozenset(callers),
        anonymous=given.anonymous,
        scope=given.scope,
        reply=given.reply or file.reply or dialect.reply,
        hosts=host_names(check, given.host, f"{path}.host"),
        settings=settings_of(check, own, table, path) if own else None,
    )


def _check_described(check: Check, dialect: Dialect, given: InboundFile, table: Mapping[str, Any], path: str) -> None:
    """Checks what an inbound has to say of its callers where the file describes the dialect itself."""
    description = dialect.description or {}
    auth = description.get("auth")
    if given.keys and auth in ("none", "path"):
        check.say(
            f"{path}.keys", f'callers send none, as dialects.{dialect.name} has auth = "{auth}"; write anonymous = true'
        )
    if description.get("signature") and not table.get("hmac"):
        check.say(
            f"{path}.hmac", f"is required, as dialects.{dialect.name} has `signature`: the secret that signs requests"
        )


def _keyring(check: Check, given: Mapping[str, str | list[str]] | str, path: str) -> tuple[Keyring, list[str]]:
    """The keyring, from credentials that are listed or that are the files of a followed directory; and the names of
    the callers."""
    if isinstance(given, str):
        if not given.startswith("dir:"):
            check.say(path, 'must be { CALLER = "env:NAME" }, or "dir:PATH" with one file per caller')
            return Keyring({}), []
        at = given.removeprefix("dir:")
        directory = check.parsed(lambda text: Directory(text, resolve=check.resolve), at, path, None)
        for name, fault in directory.faults() if directory else ():
            check.say(f"{path}.{name}", f"the file {fault}")
        return Keyring({}, directory), sorted(directory.secrets()) if directory else []
    listed = {caller: [texts] if isinstance(texts, str) else texts for caller, texts in given.items()}
    for caller in (
        caller for caller, texts in listed.items() if not texts
    ):  # if it were the only caller, anybody could call
        check.say(f"{path}.{caller}", "lists no secret: write one, or leave the caller out")
    keys = {caller: [check.secret(text, f"{path}.{caller}") for text in texts] for caller, texts in listed.items()}
    return Keyring(keys), list(keys)


def check_scopes(check: Check, inbounds: Mapping[str, Inbound]) -> None:
    """Refuses a scope that has the name of a caller's own default scope: that caller would share its alerts without
    having been configured to."""
    for name, inbound in inbounds.items():
        dialect, slash, caller = (inbound.scope or "").partition("/")
        if slash and dialect in inbounds and inbounds[dialect].scope is None:
            check.say(
                f"inbound.{name}.scope",
                f"{inbound.scope!r} is the default scope of {dialect}'s caller {caller!r}; to share its alerts, "
                f"set a scope for inbound.{dialect} too",
            )
