"""Opsgenie's search queries: `status: open AND (priority: P1 OR tag: "db") NOT acknowledged: true`.

Source: https://support.atlassian.com/opsgenie/docs/search-queries-for-alerts/. Fields, `:` `=` `!=` `<` `>` `<=` `>=`,
quotes, parentheses, AND, OR, NOT and `*` as a wildcard; words without a field are looked for in message and
description. A query is tested against an alert as the vendor shows it. It must not know where alerts come from.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

from gateway.errors import Problem, invalid
from gateway.mapping.values import is_made_of, millis, read_time
from gateway.outcome import Json

Test = Callable[[dict[str, Json]], bool]
LONGEST, DEEPEST = 2_000, 32
LATEST, SHOWN = 1 << 42, 1001
"""In milliseconds: a time since 1970 that no alert reaches; and more than an alert may have been created later than
it is shown to have been."""
TIMES = ("createdAt", "updatedAt", "lastOccurredAt", "snoozedUntil")
TEXTS = ("message", "description")
"""Fields that match if they contain the value."""
PLAIN = (
    *("status", "alias", "source", "entity", "priority", "owner", "tinyId", "id", "acknowledged", "isSeen", "snoozed"),
    *("integration.id", "integration.name", "integration.type", "report.acknowledgedBy", "report.closedBy"),
)
NUMBERS = ("count", "report.ackTime", "report.closeTime")
ALSO = {
    "alertId": "id",
    "seen": "isSeen",
    "tags": "tag",
    "teams": "responders",
    "team": "responders",
    "recipients": "responders",
    "acknowledgedBy": "report.acknowledgedBy",
    "closedBy": "report.closedBy",
}
_BLANK = re.compile(r"\s*")
_NAME = re.compile(r"[A-Za-z][A-Za-z.]*")
_OPERATOR = re.compile(r"\s*(<=|>=|!=|:|=|<|>)")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ALL_OPEN = re.compile(r'\s*status\s*[:=]\s*(open|"open")\s*', re.IGNORECASE)
_BARE = re.compile(r'[^\s()"]+')


class Query(NamedTuple):
    """A query's test, and what is known of every alert that passes it: that it is open (`is_open`), and that it was
    created at or after `since` and earlier than `before`, in milliseconds since 1970. `is_all` if the query is empty or
    asks for no more than open alerts."""

    test: Test
    is_open: bool = False
    since: int | None = None
    before: int | None = None
    is_all: bool = False


def parse(text: str) -> Query:
    """Parses a query; raises `Problem` for one that makes no sense."""
    if len(text) > LONGEST:
        raise invalid("query", f"is longer than {LONGEST} characters")
    parser = _Parser(text)
    test = parser.whole()
    if parser.is_either:
        return Query(test)
    is_all = not text.strip() or _ALL_OPEN.fullmatch(text) is not None
    return Query(test, parser.is_open, parser.since, parser.before, is_all)


class _Parser:
    """Parses a query from left to right: OR binds loosest, then AND, written or implied, then NOT."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self.is_either = self.is_open = False
        self.since: int | None = None
        self.before: int | None = None

    def whole(self) -> Test:
        if not self._text.strip():
            return lambda alert: True
        test = self._either(self._term)
        if self._at < len(self._text):
            raise self._fault("has unbalanced parentheses")
        return test

    def _skip(self) -> None:
        found = _BLANK.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _takes(self, word: str) -> bool:
        self._skip()
        end = self._at + len(word)
        if self._text[self._at : end].upper() != word or (word.isalpha() and self._text[end : end + 1].isalnum()):
            return False
        self._at = end
        return True

    def _is_over(self) -> bool:
        self._skip()
        return self._at >= len(self._text) or self._text[self._at] == ")"

    def _fault(self, why: str) -> Problem:
        return invalid("query", f"{self._text[:200]!r} {why}")

    def _either(self, one: Callable[[], Test]) -> Test:
        tests = [self._all(one)]
        while self._takes("OR"):
            self.is_either = self.is_either or not self._depth
            tests.append(self._all(one))
        return tests[0] if len(tests) == 1 else lambda alert: any(test(alert) for test in tests)

    def _all(self, one: Callable[[], Test]) -> Test:
        tests = [self._not(one)]
        while self._takes("AND") or not (self._is_over() or self._sees_or()):
            tests.append(self._not(one))
        return tests[0] if len(tests) == 1 else lambda alert: all(test(alert) for test in tests)

    def _sees_or(self) -> bool:
        at = self._at
        found = self._takes("OR")
        self._at = at
        return found

    def _not(self, one: Callable[[], Test]) -> Test:
        if self._takes("NOT"):
            test = self._deeper(lambda: self._not(one))
            return lambda alert: not test(alert)
        if self._takes("("):
            test = self._deeper(lambda: self._either(one))
            if not self._takes(")"):
                raise self._fault("lacks a closing parenthesis")
            return test
        return one()

    def _deeper(self, inner: Callable[[], Test]) -> Test:
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._fault("is nested too deeply")
        test = inner()
        self._depth -= 1
        return test

    def _term(self) -> Test:
        self._skip()
        name = _NAME.match(self._text, self._at)
        operator = _OPERATOR.match(self._text, name.end()) if name else None
        if not name or not operator:
            word = self._value()
            return lambda alert: any(_says(alert.get(field), word, loosely=True) for field in TEXTS)
        self._at = operator.end()
        field, sign = ALSO.get(name[0], name[0]), operator[1]
        self._skip()
        if self._text[self._at : self._at + 1] == "(":
            return self._not(lambda: _comparison(field, sign, self._value()))
        value = self._value()
        test = _comparison(field, sign, value)
        if not self._depth:  # outside parentheses and NOT a term holds of all that pass, unless there is an OR
            self._note(field, sign, value)
        return test

    def _note(self, field: str, sign: str, value: str) -> None:
        self.is_open |= field == "status" and sign in (":", "=") and value.lower() == "open"
        if field != "createdAt" or not 0 <= (bound := _number(field, value)) < LATEST:
            return
        if sign in (">", ">=", ":", "="):
            self.since = max(self.since or 0, int(bound))
        if sign in ("<", "<=", ":", "="):
            self.before = min(self.before or LATEST, int(bound) + SHOWN)

    def _value(self) -> str:
        self._skip()
        quoted = _QUOTED.match(self._text, self._at)
        bare = None if quoted else _BARE.match(self._text, self._at)
        if quoted:
            self._at = quoted.end()
            return re.sub(r"\\(.)", r"\1", quoted[1])
        if not bare:
            raise self._fault("lacks a value")
        self._at = bare.end()
        return bare[0]


def _comparison(field: str, sign: str, value: str) -> Test:
    if field in TIMES or field in NUMBERS:
        bound = _number(field, value)
        return lambda alert: _compare(_number_in(alert, field), sign, bound)
    if sign not in (":", "=", "!="):
        raise invalid("query", f"{field} cannot be compared with {sign}")
    is_wanted = sign != "!="
    get = _getter(field)
    loosely = field in TEXTS and sign == ":"
    return lambda alert: any(_matches(value, one, loosely=loosely) for one in get(alert)) is is_wanted


def _getter(field: str) -> Callable[[dict[str, Json]], list[Json]]:
    """Returns what finds the values of a field in an alert as shown; raises `Problem` if there is no such field."""
    if field in (*PLAIN, *TEXTS):
        return lambda alert: [_inside(alert, field)]
    if field in ("tag", "actions"):
        name = "tags" if field == "tag" else field
        return lambda alert: alert.get(name) or [None]
    if field == "responders":
        return _whose
    if field in ("details.key", "details.value"):
        return lambda alert: list((alert.get("details") or {}).items() and _sides(alert, field))
    if field.startswith("details."):
        return lambda alert: [(alert.get("details") or {}).get(field.removeprefix("details."))]
    raise invalid("query", f"there is no field {field[:64]!r}")


def _whose(alert: dict[str, Json]) -> list[Json]:
    """Returns what names the responders, and the teams that older clients create with."""
    said = [listed for field in ("responders", "teams") if isinstance(listed := alert.get(field), list)]
    return [value for one in chain(*said) if isinstance(one, dict) for value in one.values()] or [None]


def _sides(alert: dict[str, Json], field: str) -> list[Json]:
    details = alert["details"]
    return list(details) if field == "details.key" else list(details.values())


def _inside(alert: dict[str, Json], field: str) -> Json:
    head, _, rest = field.partition(".")
    found = alert.get(head)
    return found.get(rest) if rest and isinstance(found, dict) else None if rest else found


def _matches(wanted: str, found: Json, *, loosely: bool) -> bool:
    if found in (None, "") or wanted.lower() == "null":
        return found in (None, "") and wanted.lower() in ("null", "")
    return _says(found, wanted, loosely=loosely)


def _says(found: Json, wanted: str, *, loosely: bool) -> bool:
    """Returns whether a field has this value, or contains it; of no value, `null` is a word like any other."""
    parts = re.split(r"\*+", wanted.lower())
    return found not in (None, "") and is_made_of(str(found).lower(), ["", *parts, ""] if loosely else parts)


def _number(field: str, value: str) -> float:
    try:
        return float(value) if field in NUMBERS or value.lstrip("-").isdigit() else millis(read_time(value))
    except (ValueError, OverflowError):
        raise invalid("query", f"{value[:64]!r} cannot be compared with {field}") from None


def _number_in(alert: dict[str, Json], field: str) -> float | None:
    found = _inside(alert, field)
    if isinstance(found, int | float):
        return float(found)
    try:
        return float(millis(read_time(found))) if isinstance(found, str) and found else None
    except (ValueError, OverflowError):
        return None


def _compare(found: float | None, sign: str, bound: float) -> bool:
    if found is None:
        return sign == "!="
    outcomes = {"<": found < bound, "<=": found <= bound, ">": found > bound, ">=": found >= bound}
    return outcomes.get(sign, (found == bound) is (sign != "!="))


# --- order -------------------------------------------------------------------------------------------------

SORTS = (
    *("createdAt", "updatedAt", "tinyId", "alias", "message", "status", "acknowledged", "isSeen", "snoozed"),
    *("snoozedUntil", "count", "lastOccurredAt", "source", "owner", "integration.name", "integration.type"),
    *("report.ackTime", "report.closeTime", "report.acknowledgedBy", "report.closedBy", "priority"),
)
"""Fields that the vendor's two APIs sort by; `priority` is Jira's only."""
ALSO_SORTED = {"lastOccuredAt": "lastOccurredAt", "insertedAt": "createdAt"}
"""Other names of sort fields: the spelling of the vendor's own Go SDK, and Jira's default."""


def sort_key(field: str) -> Callable[[dict[str, Json]], Any]:
    """Returns the function that gives an alert's sort key; alerts without the field come first."""

    def key(alert: dict[str, Json]) -> Any:
        found = _inside(alert, field)
        number = int(found) if field == "tinyId" and str(found).isdigit() else found
        if number in (None, ""):
            return (0, 0, "")
        return (1, number, "") if isinstance(number, int | float) else (2, 0, str(number).lower())

    return key
