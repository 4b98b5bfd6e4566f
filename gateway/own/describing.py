"""Checks the table that describes a dialect: every problem is reported with its path and, where there is one, what was
probably meant.

It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from gateway.canonical import SERVER_OWNED, checked, is_path, type_of
from gateway.config.file import AnswerFile, AuthFile, DialectFile, FieldFile, SendFile, SignatureFile
from gateway.config.problems import in_words, near
from gateway.config.values import is_header
from gateway.dialect import Envelope
from gateway.mapping.rows import Dropped, Extension, Row
from gateway.own.checks import Checking, Checks
from gateway.own.credentials import BASIC, BEARER, NONE, PATH, Credentials, in_body, in_header, in_query
from gateway.own.meanings import FIELDS, GOES_WITH, NEVER, ONLY_FOR, PARTS, Meaning, meaning, sort_of
from gateway.own.opening import Opening
from gateway.own.places import Leaf, in_the_way, is_within, place
from gateway.own.reading import Answers
from gateway.own.rows import row_of
from gateway.own.send_checks import SendChecks
from gateway.own.shaping import slots
from gateway.own.signing import Signature
from gateway.own.words import Standing, Word, spelled

GROUPS = ("condition", "renotify")
IN_SEVERAL = tuple(
    path for path in FIELDS if sort_of(path) in ("text", "key") and path not in (*SERVER_OWNED, "category")
)
"""Fields that can have several places: texts that are taken as they are."""
ANSWERED = ("id", "key")
"""The placeholders that an answer's body can have."""
UNSAID = 3
"""The severity of an alert without one, where the word for the severity is also what says that the alert is firing."""


@dataclass(frozen=True, kw_only=True)
class Described:
    """A checked description: the rows and the leaves of the body, and what else a dialect is made of."""

    name: str
    file: DialectFile
    leaves: Mapping[str, Leaf]
    rows: tuple[Row | Extension | Dropped, ...]
    key: Row | None
    standing: Standing | None
    demanded: tuple[tuple[str, ...], ...]
    container: str | None
    credentials: Credentials
    send: SendFile
    answers: Answers
    envelope: Envelope | None
    mode: str
    opening: Opening
    signature: Signature | None


class Describing(Checks):
    """Checks the table of one dialect. `envelopes` are the available ones, by the dialect that declares them."""

    def __init__(self, check: Checking, name: str, path: str, envelopes: Mapping[str, Envelope]) -> None:
        super().__init__(check, path)
        self._name = name
        self._envelopes = envelopes
        self._leaves: dict[str, Leaf] = {}
        self._rows: list[Row | Extension | Dropped] = []
        self._demanded: list[tuple[str, ...]] = []
        self._standing: Standing | None = None
        self._severity: tuple[str, FieldFile, Meaning] | None = None

    def described(self, table: Mapping[str, Any]) -> Described:
        """Returns the description, which is to be used only if no problem was reported."""
        file = self._check.struct(DialectFile, table, self._path)
        envelope = self._envelope(file)
        credentials = self._credentials(file, envelope)
        if credentials.place:
            self._drop(Dropped(credentials.place, why="a credential", control=True), Any, f"{self._path}.auth.field")
        fields = self._fields(file.fields if isinstance(file.fields, dict) else {})
        for field, given in _in_one_place(fields).items():
            self._field(field, given)
        self._attributes(envelope, fields)
        container = self._container(file)
        self._constants(file)
        key = next((entry for entry in self._rows if isinstance(entry, Row) and "dedup_key" in entry.paths), None)
        ends = bool(self._standing and (self._standing.resolve or self._standing.acknowledge))
        if ends and key is None and not file.send.get("id"):
            self._say("fields", 'dedup_key is needed to tell which alert `status` ends: dedup_key = "id"')
        places = [*self._leaves, *([self._standing.at] if self._standing else [])]
        return Described(
            name=self._name,
            file=file,
            leaves=self._leaves,
            rows=tuple(self._rows),
            key=key,
            standing=self._standing,
            demanded=tuple(self._demanded),
            container=container,
            credentials=credentials,
            send=SendChecks(self._check, self._path, self._rows, places).send(file, envelope),
            answers=self._answers(file),
            envelope=envelope,
            mode=self._mode(file, envelope),
            opening=self._opening(file, envelope),
            signature=self._signature(file),
        )

    # --- fields ------------------------------------------------------------------------------------------

    def _fields(self, table: Mapping[str, Any]) -> dict[str, FieldFile]:
        """Returns the entries of `fields`, written dotted or nested."""
        if not table:
            self._say("fields", 'names no field; at least summary = "…"')
        found: dict[str, FieldFile] = {}
        flat = [(path, value) for path, value in table.items() if not (path in GROUPS and isinstance(value, dict))]
        flat += [
            (f"{group}.{leaf}", value)
            for group in GROUPS
            if isinstance(table.get(group), dict)
            for leaf, value in table[group].items()
        ]
        for path, value in flat:
            at = f"fields.{path}"
            if path in NEVER or not is_path(path) or path not in FIELDS:
                hint = near(path, FIELDS) or f"; known are {', '.join(FIELDS)}"
                self._say(
                    at, f"is not a field of an alert{hint}" if path not in NEVER else "cannot be read from a body"
                )
            elif isinstance(value, str):
                found[path] = FieldFile(at=value)
            elif isinstance(value, dict):
                found[path] = self._check.struct(FieldFile, value, f"{self._path}.{at}")
            else:
                self._say(at, 'must be a place such as "payload.summary", or a table with `at`')
        return found

    def _field(self, path: str, given: FieldFile) -> None:
        at = f"fields.{path}"
        if path == "status" and self._severity and self._severity[0] == given.at:
            self._standing = self._standing_in_words_of(self._severity[1], self._severity[2], given, at)
            return
        wires = self._places(path, given, at)
        before = len(self._check.problems)
        self._goes_together(path, given, at)
        if given.items and path in PARTS:
            self._items(PARTS[path].__struct_fields__, given.items, f"{at}.items")
        if path == "status":
            standing = self._standing_of(given, wires[0] if wires else "status", at)
            if wires:
                self._standing = standing
                why = "selects the operation; not part of the alert"
                self._drop(Dropped(wires[0], why=why), Word, f"{self._path}.{at}")
            return
        default = self._canonical(path, given.default, f"{at}.default")
        self._canonical(path, given.otherwise, f"{at}.otherwise")
        for word, value in given.words.items():
            self._canonical(path, value, f"{at}.words.{word}")
        if len(self._check.problems) > before or not wires:
            return
        meant: Meaning | None = self._check.parsed(
            lambda file: meaning(path, file), given, f"{self._path}.{at}.{'out' if given.out else 'words'}", None
        )
        if meant is None:
            return
        if path == "severity":
            self._severity = (wires[0], given, meant)
        self._rows.append(row_of(self._name, path, wires, given, meant, default))
        for wire in wires:
            self._leaves[wire] = (meant.type, False)
        if given.required:
            self._demanded.append(wires)

    def _places(self, path: str, given: FieldFile, at: str) -> tuple[str, ...]:
        """Returns the places of a field that are free; reports the others."""
        written = [given.at] if isinstance(given.at, str) else given.at
        if isinstance(given.at, list) and path not in IN_SEVERAL:
            self._say(f"{at}.at", f"must be one place; those that can have several are {', '.join(IN_SEVERAL)}")
            return ()
        if not written:
            self._say(f"{at}.at", "must name a place")
        found: list[str] = []
        for text in written:
            is_missing = text == "" and f"{self._path}.{at}.at: is required" in self._check.problems
            parsed = "" if is_missing else self._check.parsed(place, text, f"{self._path}.{at}", "")
            taken = in_the_way(parsed, [*self._leaves, *found]) if parsed else None
            if taken:
                self._say(at, f"{parsed!r} {'is used twice' if taken == parsed else f'overlaps {taken!r}'}")
            elif parsed:
                found.append(parsed)
        return tuple(found)

    def _goes_together(self, path: str, given: FieldFile, at: str) -> None:
        """Reports the settings that do not go with a field."""
        if path == "status":
            for name in ("words", "out", "otherwise", "limit", "unit", "form", "items", "default", "required"):
                if getattr(given, name) not in (None, {}, False):
                    self._say(f"{at}.{name}", "does not apply to status: its words are firing, acknowledge and resolve")
            return
        for name in ("firing", "acknowledge", "resolve"):
            if getattr(given, name) is not None:
                self._say(f"{at}.{name}", "applies to status only")
        for name, purpose in ONLY_FOR.items():
            if getattr(given, name) not in (None, {}) and name not in GOES_WITH.get(sort_of(path), ()):
                self._say(f"{at}.{name}", f"does not apply to {path}: only to {purpose}")
        if given.form and (given.form == "address") != (path == "links"):
            self._say(
                f"{at}.form", f'{given.form!r} does not apply to {path}: labels have "list" and "text", links "address"'
            )
        if (given.otherwise is not None or given.out is not None) and not given.words:
            self._say(f"{at}.words", "are required with `otherwise` or `out`")
        if given.limit is not None and given.limit < 1:
            self._say(f"{at}.limit", "must be at least 1")
        words = [spelled(word) for word in given.words]
        for word in sorted({word for word in words if words.count(word) > 1}):
            self._say(f"{at}.words.{word}", "occurs twice: words are compared without case")

    def _items(self, known: tuple[str, ...], given: Mapping[str, str], at: str) -> None:
        """Checks the names in the objects of a list: each must be known, and have one place there."""
        for name, wire in given.items():
            if name not in known:
                self._say(f"{at}.{name}", f"is none of {', '.join(known)}{near(name, known)}")
            elif not wire.strip():
                self._say(f"{at}.{name}", "must name a place")
        wires = [given.get(name, name) for name in known]
        for wire in sorted({wire for wire in wires if wires.count(wire) > 1}):
            self._say(at, f"{wire!r} cannot be two fields")

    def _canonical(self, path: str, value: Any, at: str) -> Any:
        """Returns a canonical value of the file; reports an invalid one and returns None."""
        if value is None:
            return None
        try:
            return checked({path: value})[path]
        except msgspec.ValidationError as error:
            self._say(at, in_words(error, type_of(path)))
            return None

    def _standing_of(self, given: FieldFile, at: str, path: str) -> Standing:
        words = {name: self._words(getattr(given, name), f"{path}.{name}") for name in SAID}
        spellings = [spelled(word) for name in SAID for word in words[name]]
        for word in sorted({word for word in spellings if spellings.count(word) > 1}):
            self._say(path, f"{word!r} cannot mean two things")
        if not any(words.values()):
            self._say(path, 'needs words, for example resolve = ["ok"]')
        return Standing(
            at=at,
            firing=words["firing"] or ("firing",),
            acknowledge=words["acknowledge"],
            resolve=words["resolve"],
            is_closed=given.firing is not None,
        )

    def _standing_in_words_of(self, severity: FieldFile, meant: Meaning, given: FieldFile, path: str) -> Standing:
        """How an alert's status is said where its severity's place says it too: every severity word means that it is
        firing, other words that it is acknowledged or resolved."""
        self._goes_together("status", given, path)
        if not severity.words:
            self._say(path, f"{given.at!r} is also the place of severity, which then needs `words`")
        if given.firing is not None:
            self._say(f"{path}.firing", "does not apply at the place of severity: every word of severity means firing")
        standing = self._standing_of(given, str(given.at), path)
        ending = [spelled(word) for word in (*standing.acknowledge, *standing.resolve)]
        for word in severity.words:
            if spelled(word) in ending:
                self._say(path, f"{word!r} cannot mean two things")
        return replace(standing, firing=(meant.codec.write(severity.default),), is_closed=False)

    def _drop(self, drop: Dropped, kind: Any, at: str) -> None:
        """Adds a place that concerns no alert."""
        parsed = self._check.parsed(place, drop.wire, at, "")
        if parsed and (taken := in_the_way(parsed, self._leaves)) and taken != parsed:
            self._check.say(at, f"{parsed!r} overlaps {taken!r}")
        elif parsed and parsed not in self._leaves:
            self._leaves[parsed] = (kind, False)
            self._rows.append(drop)

    # --- what is around it -----------------------------------------------------------------------------------

    def _attributes(self, envelope: Envelope | None, fields: Mapping[str, FieldFile]) -> None:
        """Adds the envelope's attributes: those that the description does not use mean what the envelope says."""
        if envelope is None:
            return
        for path, wire in envelope.fields.items():
            if path not in fields and wire not in self._leaves:
                self._field(path, FieldFile(at=wire))
        dropped = {drop.wire: drop for drop in envelope.dropped}
        for wire, kind in envelope.attributes.items():
            if wire not in self._leaves:
                self._rows.append(dropped.get(wire, Extension(wire)))
                self._leaves[wire] = (kind, False)
        for wire in envelope.required:
            self._leaves[wire] = (self._leaves[wire][0], True)

    def _envelope(self, file: DialectFile) -> Envelope | None:
        if file.envelope is None:
            return None
        if file.envelope not in self._envelopes:
            known = ", ".join(self._envelopes)
            self._say(
                "envelope",
                f"{file.envelope!r} is not an envelope{near(file.envelope, self._envelopes)}; known: {known}",
            )
        return self._envelopes.get(file.envelope)

    def _mode(self, file: DialectFile, envelope: Envelope | None) -> str:
        modes = envelope.modes if envelope else ()
        if file.mode is not None and file.mode not in modes:
            known = f"{near(file.mode, modes)}; known are {', '.join(modes)}" if modes else ": there is no envelope"
            self._say("mode", f"{file.mode!r} is not a mode{known}")
        return file.mode or (modes[0] if modes else "")

    def _opening(self, file: DialectFile, envelope: Envelope | None) -> Opening:
        """What is around the alerts, where there is no envelope."""
        texts = [file.json] if isinstance(file.json, str) else file.json
        named = {"each": file.each, "confirm": file.confirm}
        for name, places in (("json", texts), *((name, [text]) for name, text in named.items() if text is not None)):
            for text in places:
                self._check.parsed(place, text, f"{self._path}.{name}", "")
            if places and envelope:
                self._say(name, "cannot be combined with an envelope")
        for text in texts:
            if any(is_within(text, leaf) for leaf in self._leaves if not self._is_free(leaf)):
                self._say("json", f"{text!r} is itself a field; `fields` must lead into it, such as {text}.title")
        if file.confirm is not None and (taken := in_the_way(file.confirm, self._leaves)):
            self._say("confirm", f"{file.confirm!r} overlaps {taken!r}: no alert may have this place")
        return Opening(texts=tuple(texts), each=file.each or "")

    def _container(self, file: DialectFile) -> str | None:
        """The free-form object: that of `custom`, unless another is named."""
        own = next((entry for entry in self._rows if isinstance(entry, Row) and "custom" in entry.paths), None)
        if file.container is None:
            return own.wires[0] if own else None
        parsed: str = self._check.parsed(place, file.container, f"{self._path}.container", "")
        if own and own.wires[0] == parsed:
            return parsed
        if parsed and (taken := in_the_way(parsed, self._leaves)):
            self._say("container", f"{parsed!r} overlaps the field at {taken!r}; only custom can be both")
        elif parsed:
            self._leaves[parsed] = (dict[str, Any], False)
            self._rows.append(Extension(parsed))
        return parsed or None

    def _constants(self, file: DialectFile) -> None:
        found: list[str] = []
        for text, value in file.constants.items():
            at = f"{self._path}.constants.{text}"
            parsed = self._check.parsed(place, text, at, "")
            rows = [wire for wire in self._leaves if not self._is_free(wire)]
            if parsed and (taken := in_the_way(parsed, [*rows, *found])):
                self._check.say(at, f"overlaps {taken!r}, which is written already")
            elif parsed in self._leaves:
                self._attribute(value, *self._leaves[parsed], at)
            found.append(parsed)

    def _attribute(self, value: Any, kind: Any, is_required: bool, at: str) -> None:
        """Checks a constant that is an attribute of the envelope."""
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            self._check.say(at, in_words(error))
        if is_required and value == "":
            self._check.say(at, "must not be blank")

    def _is_free(self, wire: str) -> bool:
        """Whether a constant may be written at a place: an attribute that nothing else is said of."""
        return any(isinstance(entry, Extension) and entry.wire == wire for entry in self._rows)

    def _credentials(self, file: DialectFile, envelope: Envelope | None) -> Credentials:
        if file.auth == "none":
            return NONE
        if file.auth == "path":
            return PATH
        if file.auth in ("bearer", "basic"):
            usual = BASIC if file.auth == "basic" else BEARER
            is_usual = envelope is not None and file.auth == "bearer"
            return Credentials(find=envelope.credentials, put=usual.put) if is_usual and envelope else usual
        if not isinstance(file.auth, dict):
            hint = near(file.auth, ("bearer", "basic", "none", "path"))
            self._say(
                "auth", f"{file.auth!r} is not bearer, basic, path or none, nor a table such as {{ header }}{hint}"
            )
            return BEARER
        given = self._check.struct(AuthFile, file.auth, f"{self._path}.auth")
        named = [name for name in ("header", "query", "field") if getattr(given, name)]
        if len(named) != 1:
            self._say("auth", "must name exactly one of header, query and field")
        elif given.field and envelope:
            self._say("auth.field", "cannot be combined with an envelope")
        elif given.header and not is_header(given.header):
            self._say("auth.header", f"{given.header!r} is not a header name")
        elif given.header:
            return in_header(given.header, given.prefix)
        elif given.query:
            return in_query(given.query)
        elif given.field:
            return in_body(given.field)
        return BEARER

    def _signature(self, file: DialectFile) -> Signature | None:
        if file.signature is None:
            return None
        given = self._check.struct(SignatureFile, file.signature, f"{self._path}.signature")
        if given.header and not is_header(given.header):
            self._say("signature.header", f"{given.header!r} is not a header name")
        return Signature(header=given.header, prefix=given.prefix, form=given.form)

    def _answers(self, file: DialectFile) -> Answers:
        given = self._check.struct(AnswerFile, file.reply, f"{self._path}.reply")
        if not 200 <= given.status < 300:
            self._say("reply.status", f"{given.status} is not between 200 and 299")
        for slot in slots(given.body):
            if slot not in ANSWERED:
                self._say("reply.body", f"{{{slot}}} is unknown when callers are answered; known: {{id}} and {{key}}")
        return Answers(status=given.status) if given.body is None else Answers(status=given.status, body=given.body)


SAID = ("firing", "acknowledge", "resolve")


def _in_one_place(fields: Mapping[str, FieldFile]) -> Mapping[str, FieldFile]:
    """Returns the fields; where one place says severity and status, the severity comes first, and has a default, as its
    word is what says that the alert is firing."""
    severity, status = fields.get("severity"), fields.get("status")
    if severity is None or status is None or severity.at != status.at:
        return fields
    if severity.default is None:
        severity = msgspec.structs.replace(severity, default=UNSAID)
    return {
        **{path: given for path, given in fields.items() if path != "status"},
        "severity": severity,
        "status": status,
    }
