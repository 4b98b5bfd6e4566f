"""Checks the part of a description that says how alerts are sent: paths, methods, headers, the body's template, and how
answers are read.

It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.config.file import DialectFile, SendFile
from gateway.config.problems import near
from gateway.config.values import is_header
from gateway.dialect import Envelope
from gateway.mapping.rows import Dropped, Extension, Row
from gateway.own.checks import Checking, Checks
from gateway.own.credentials import IN_PATH
from gateway.own.places import in_the_way, place
from gateway.own.shaping import slots
from gateway.own.words import listed, spelled

SENT = ("create", "update", "acknowledge", "resolve", "reopen")


class SendChecks(Checks):
    """Checks `send`, given the rows of the described fields and the places that they have."""

    def __init__(
        self, check: Checking, path: str, rows: Sequence[Row | Extension | Dropped], places: Sequence[str]
    ) -> None:
        super().__init__(check, path)
        self._rows = rows
        self._places = places

    def send(self, file: DialectFile, envelope: Envelope | None) -> SendFile:
        """Returns the checked part `send`."""
        send = self._check.struct(SendFile, file.send, f"{self._path}.send")
        if send.method not in ("POST", "PUT", "PATCH"):
            self._say("send.method", f"{send.method!r} is none of POST, PUT, PATCH")
        self._paths(send, in_path=file.auth == "path")
        self._methods(send)
        self._id(send)
        for header, text in send.headers.items():
            if not is_header(header):
                self._say("send.headers", f"{header!r} is not a header name")
            elif text.startswith(("env:", "file:")):
                self._say(f"send.headers.{header}", "cannot hold secrets: write it into `headers` of the upstream")
            elif not (text.isascii() and text.isprintable()):
                self._say(f"send.headers.{header}", "has characters that no header can carry")
        self._answers(send)
        if send.body and envelope:
            self._say("send.body", "cannot be combined with an envelope")
        self._shape(send.body)
        if not (file.path.startswith("/") and "{" not in file.path and "?" not in file.path):
            self._say("path", f"{file.path!r} is not a path such as /v1/alerts")
        return send

    def _answers(self, send: SendFile) -> None:
        """Checks how answers are read: which words mean success or another try, which redirects mean success."""
        for name, answers in {"success": send.success, "again": send.again}.items():
            for text, value in answers.items():
                self._check.parsed(place, text, f"{self._path}.send.{name}.{text}", "")
                self._words(value, f"send.{name}.{text}")
        for status in send.redirects:
            if not 300 <= status < 400:
                self._say("send.redirects", f"{status} is not between 300 and 399")
        if send.redirects and send.id:
            self._say("send.redirects", "cannot be combined with send.id: a redirect has no id")
        for text in send.again.keys() & send.success.keys():
            for word in listed(send.again[text]):
                if spelled(word) in map(spelled, listed(send.success[text])):
                    self._say(f"send.again.{text}", f"{word!r} is also in send.success")

    def _paths(self, send: SendFile, *, in_path: bool) -> None:
        """Checks the paths that are posted to: either all contain the credential, or none does."""
        for operation, path in {"": send.path, **send.paths}.items():
            at = f"send.paths.{operation}" if operation else "send.path"
            if in_path and IN_PATH not in path:
                self._say(at, f'needs {IN_PATH}, because auth = "path": for example /services/{IN_PATH}')
            elif IN_PATH in path and not in_path:
                self._say(at, f'has {IN_PATH}, so auth = "path" is needed')
            if operation and operation not in SENT:
                self._say(at, f"is none of {', '.join(SENT)}{near(operation, SENT)}")
            bare = path.replace("{id}" if send.id else "{key}", "").replace(IN_PATH, "")
            if path and (not path.startswith("/") or "{" in bare):
                most = "{id} (because of send.id)" if send.id else "{key}"
                hint = "" if send.id or "{id}" not in path else "; {id} needs send.id"
                self._say(at, f"{path!r} is not a path: it must begin with a slash, and may contain only {most}{hint}")

    def _methods(self, send: SendFile) -> None:
        for operation, method in send.methods.items():
            at = f"send.methods.{operation}"
            known = ("POST", "PUT", "PATCH") if operation == "create" else ("POST", "PUT", "PATCH", "DELETE")
            if operation not in SENT:
                self._say(at, f"is none of {', '.join(SENT)}{near(operation, SENT)}")
            elif method not in known:
                self._say(at, f"{method!r} is none of {', '.join(known)}")

    def _id(self, send: SendFile) -> None:
        """Checks the id taken from an answer: every path but that of a create must contain it."""
        if send.id is None:
            return
        self._check.parsed(place, send.id, f"{self._path}.send.id", "")
        others = {operation: path for operation, path in send.paths.items() if operation != "create"}
        if not others:
            self._say("send.id", 'is not used: add for example send.paths = { resolve = "/incidents/{id}/resolve" }')
        for operation, path in others.items():
            if "{id}" not in path:
                self._say(f"send.paths.{operation}", "needs {id}, the id of the alert")
        for at, path in (("path", send.path), ("paths.create", send.paths.get("create", ""))):
            if "{id}" in path:
                self._say(f"send.{at}", "has {id}, which is known only from the answer to a new alert")

    def _shape(self, shape: Mapping[str, Any]) -> None:
        """Checks a template: it may refer only to existing places, and has to refer to every field but the key and the
        status: a field without a place in it would be lost, and reported as told."""
        used = list(dict.fromkeys(slots(shape)))
        for slot in used:
            self._slot(slot)
        for entry in self._rows if shape else ():
            wires = entry.wires if isinstance(entry, Row) else (entry.wire,)
            is_needed = not isinstance(entry, Dropped) and "dedup_key" not in getattr(entry, "paths", ())
            if is_needed and all(in_the_way(wire, used) is None for wire in wires):
                self._say("send.body", f"lacks {wires[0]!r}: add {{{wires[0]}}}, or remove it from `fields`")

    def _slot(self, slot: str) -> None:
        """Checks a place in a template: it is that of a field, or inside or around one."""
        if in_the_way(slot, self._places) is None:
            own = next((e.wires[0] for e in self._rows if isinstance(e, Row) and slot == e.paths[0]), None)
            hint = f"; {slot} is at {own!r}" if own else near(slot, self._places)
            self._say("send.body", f"{{{slot}}} is not a place of `fields`{hint}")
