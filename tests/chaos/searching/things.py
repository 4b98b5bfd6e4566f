"""What any vendor of a play has: things that it was told of, a log of what it was asked, and bad days.

Every alert of a play has a mark in its text, such as `A3x573`, by which it is known wherever it arrives. What a fault
says is decided by the play; whether a vendor does what it is asked before it fails is the fault's name.
"""

from __future__ import annotations

import itertools
import random
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote

from tests.chaos.searching.passing import Passing
from tests.chaos_upstream import CLOSE, HANG, Behaviour, Got, say
from tests.engine.vendors import slow

MARK = re.compile(r"\bA\d+x\d+\b")
Said = tuple[int, Any]

BEFORE: dict[str, Behaviour] = {
    "closed": CLOSE,
    "503": say(503, {"message": "not now"}),
    "429": say(429, {"message": "too many"}, {"retry-after": "0"}),
    "400": say(400, {"message": "refused"}),
    "401": say(401, {"message": "who are you"}),
}
"""Faults of a vendor that does not do what it is asked."""
AFTER: dict[str, Behaviour] = {"lost": CLOSE, "lost 503": say(503, {"message": "too late"}), "lost, hangs": HANG}
"""Faults of one that does, and whose answer nobody gets."""
SLOW = "slow"
UNHEARD = 1.0
"""Seconds for which a gateway that is killed may not have written down an answer: it may be slow, and so may a disk."""
VERDICTS = ("400", "401")
"""What is no fault of a moment, and never said to a question."""


@dataclass
class Asked:
    """What a vendor is asked; `parts` is the path behind the collection's, taken apart."""

    method: str
    path: str
    query: dict[str, str]
    body: Any

    def parts(self, collection: str) -> list[str]:
        """What follows a collection's path."""
        assert self.path.startswith(collection), self.path
        return [unquote(part) for part in self.path.removeprefix(collection).split("/")[1:]]


@dataclass
class Thing:
    """An alert or a rule at a vendor. `pages`: why somebody was told, each time; `told_at`: when the first answer that
    it is there left, of those that the gateway can remember."""

    id: str
    key: str = ""
    is_open: bool = True
    is_acknowledged: bool = False
    is_deleted: bool = False
    texts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    body: dict[str, Any] = field(default_factory=dict)
    made_at: float = 0.0
    told_at: float | None = None
    count: int = 1
    ends: float = 0.0

    @property
    def text(self) -> str:
        """What it says."""
        return self.texts[-1] if self.texts else ""

    @property
    def marks(self) -> set[str]:
        """The alerts that it ever was."""
        return {found[0] for text in self.texts if (found := MARK.search(text))}

    def __str__(self) -> str:
        state = "deleted" if self.is_deleted else "open" if self.is_open else "over"
        state += ", acknowledged" if self.is_acknowledged else ""
        return f"{self.id} ({state}) {self.texts} {len(self.pages)} pages, notes {self.notes}"


class Vendor:
    """A vendor: `handle` does what it is asked. `rate` and `kinds` are how often, and how, it fails; `planned` are
    faults of the next requests that change something; `lost` counts answers to such that nobody got,
    and `failed_at` is when anything failed."""

    dialect: ClassVar[str]
    can_acknowledge: ClassVar[bool] = False
    takes_back: ClassVar[bool] = False
    has_notes: ClassVar[bool] = False
    gives_ids: ClassVar[bool] = False
    """Whether a create that is sent twice is there twice, unless it is looked for."""
    confirms_later: ClassVar[bool] = False
    """Whether its answer is a receipt, and not yet its word."""
    is_one_alert: ClassVar[bool] = True
    """Whether one thing is one alert for as long as there is it."""

    def __init__(self, name: str, passing: Passing, chance: random.Random) -> None:
        self.name, self.passing, self.chance = name, passing, chance
        self.things: list[Thing] = []
        self.log: list[str] = []
        self.broken: list[str] = []
        self.rate = 0.0
        self.kinds: tuple[str, ...] = ()
        self.planned: deque[str] = deque()
        self.lost = 0
        self.failed_at: list[float] = []
        self.numbers = itertools.count(1)
        self._touched: list[Thing] = []

    def handle(self, asked: Asked) -> Said:
        """Does what is asked."""
        raise NotImplementedError

    def __call__(self, got: Got) -> Behaviour:
        """What becomes of a request."""
        path, _, query = got.path.partition("?")
        asked = Asked(got.method, path, dict(parse_qsl(query)), got.body)
        fault = self._fault(got.method)
        if fault:
            self.failed_at.append(self.passing.now())
        if fault in BEFORE:
            self._note(asked, fault)
            return BEFORE[fault]
        self._touched = []
        try:
            status, said = self.handle(asked)
        except (AssertionError, LookupError, TypeError, ValueError) as error:
            self.broken.append(f"{self.name} does not understand {asked}: {error!r}")
            return say(501)
        self._note(asked, f"{status} {fault}", said)
        if fault in AFTER:
            self.lost += asked.method != "GET"
            return AFTER[fault]
        for thing in self._touched:
            thing.told_at = thing.told_at or self.passing.now()
        answer = say(status, said)
        return slow(self.chance.random() * 0.08, answer) if fault == SLOW else answer

    def unheard(self) -> None:
        """The gateway is killed: what left a moment ago it has not written down, and has to hear once more."""
        since = self.passing.now() - UNHEARD
        for thing in self.things:
            thing.told_at = None if thing.told_at and thing.told_at >= since else thing.told_at

    def _fault(self, method: str) -> str:
        if self.planned and method != "GET":
            return self.planned.popleft()
        if not self.rate or self.chance.random() >= self.rate:
            return ""
        fault = self.chance.choice(self.kinds)
        return "" if fault in VERDICTS and method == "GET" else fault

    def _note(self, asked: Asked, how: str, said: Any = None) -> None:
        self.log.append(f"{self.passing.text()} {asked.method} {asked.path} {asked.query} {asked.body} → {how} {said}")

    # --- what vendors do with their things -------------------------------------------------------------------

    def make(self, thing: Thing, text: str, why: str = "made") -> Thing:
        """A thing is there, and somebody is told."""
        thing.made_at = self.passing.now()
        thing.texts.append(text)
        self.things.append(thing)
        if why:
            self.page(thing, why)
        return self.touch(thing)

    def touch(self, thing: Thing) -> Thing:
        """Something is done to a thing."""
        self._touched.append(thing)
        return thing

    def page(self, thing: Thing, why: str) -> None:
        """Somebody is told."""
        thing.pages.append(f"{self.passing.text()} {why}")

    def there(self) -> list[Thing]:
        """What was not deleted."""
        return [thing for thing in self.things if not thing.is_deleted]

    def by_id(self, name: str) -> Thing | None:
        """What has this id, and was not deleted."""
        return next((thing for thing in self.there() if thing.id == name), None)

    def forget(self) -> Thing | None:
        """Somebody at the vendor deletes something, of which the gateway is not told."""
        if not self.gives_ids or not self.there():
            return None
        thing = self.chance.choice(self.there())
        thing.is_deleted, thing.is_open = True, False
        return thing

    # --- what is looked at in the end ------------------------------------------------------------------------

    def open(self, mark: str) -> list[Thing]:
        """What is open of an alert."""
        return [thing for thing in self.known(mark) if thing.is_open and not thing.is_deleted]

    def known(self, mark: str) -> list[Thing]:
        """What there ever was of an alert."""
        return [thing for thing in self.things if mark in thing.marks]


Make = Callable[[str, Passing, random.Random], Vendor]
