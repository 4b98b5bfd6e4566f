"""Promise 10: poison goes to the dead letters with its reason, and replay keeps order. Among ordinary pages are some
that the upstream cannot decode, finds too large or refuses, and some whose command in the store cannot be read; the
rest is delivered. Accepted is always delivered + dead + waiting + merged + void.

    python -m tests.chaos.poison --alerts 500
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import apsw

from gateway.admin.operating import chosen
from gateway.logs import configure
from gateway.road.requeue import send_again
from gateway.store.sqlite import SqliteTx
from tests.chaos.result import Result, numbers
from tests.chaos_upstream import Behaviour, Got, chaos, say
from tests.engine.vendors import before, count, page, rows, table
from tests.harness import House

WORDS = ("ALERT", "ACCEPT", "COMMENT", "RESOLVE")
STATES = ("delivered", "dead", "waiting", "merged", "void")
POISON = {
    400: ("undecodable", {"status": 400, "message": "Unexpected character", "code": "MALFORMED"}),
    413: ("too large", {"status": 413, "message": "Payload too large", "code": "TOO_LARGE"}),
    422: ("refused", {"status": 422, "message": "summary is too rude", "code": "REFUSED"}),
}


class Fussy:
    """An upstream that refuses what the key of an event tells it to refuse, until it is cured."""

    def __init__(self) -> None:
        self.is_cured = False
        self.taken: defaultdict[str, list[str]] = defaultdict(list)

    def __call__(self, got: Got) -> Behaviour:
        """Accepts an event, or refuses it."""
        key, word = got.body["alertKey"], got.body["eventType"]
        status, only = int(key.split("-")[1]), key.split("-")[2]
        is_refused = only in ("all", word) or (only == "later" and word != WORDS[0])
        if not self.is_cured and status in POISON and is_refused:
            return say(status, POISON[status][1])
        self.taken[key].append(word)
        return say(202, {})


def replay(h: House) -> tuple[int, list[str]]:
    """Sends every dead letter again, as an operator does; returns how many, and which were refused."""
    with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection:
        connection.set_busy_timeout(5000)
        tx = SqliteTx(connection)
        connection.execute("BEGIN IMMEDIATE")  # as the command does: the gateway writes meanwhile
        again, refused = send_again(tx, chosen(tx, (), dead=True, upstream=None), time.time_ns() // 10**6, force=False)
        connection.execute("COMMIT")
    return len(again), refused


def spoil(h: House, command: int) -> None:
    """Makes a command in the store unreadable."""
    with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection:
        connection.set_busy_timeout(5000)
        connection.execute("UPDATE commands SET body = ? WHERE id = ?", (b'{"after": [', command))


def states(h: House) -> Counter[str]:
    """Returns how many deliveries are in each state."""
    return Counter(str(state) for state in rows(h, "state", "deliveries"))


def _send(h: House, alerts: int, chance: random.Random) -> int:
    """Sends alerts with four events each, some of them poison; returns how many events."""
    sent = 0
    for number in range(alerts):
        status = (*POISON, 0, 0, 0)[number % 6]
        # Later events of an alert that never got there are void: of an alert that is all poison only the first dies.
        only = "all" if number < 6 else chance.choice(("all", "later", *WORDS[1:]))
        key = f"key-{status}-{only}-{number}"
        for word in WORDS:
            assert page(h, key, eventType=word, comments=[{"creator": "c", "content": "c"}]).status == 202
            sent += 1
    return sent


def _backward(taken: dict[str, list[str]]) -> int:
    """Returns how many keys' events arrived in another order than they were sent."""
    return sum(
        [WORDS.index(word) for word in words] != sorted(WORDS.index(word) for word in words) for words in taken.values()
    )


def measure(alerts: int, seed: int) -> Result:
    """Sends the poison and replays it; checks the ledger."""
    fussy, broken = Fussy(), []
    with (
        tempfile.TemporaryDirectory() as directory,
        chaos(fussy) as upstream,
        before(Path(directory), table("oncall", upstream.url, "ilert")) as h,
    ):
        sent = _send(h, alerts, random.Random(seed))
        unreadable = _unreadable(h, upstream, min(20, alerts))
        sent += unreadable
        h.wait_for(lambda: not states(h)["waiting"], 60)
        first, accepted = states(h), count(h, "deliveries")
        reasons = Counter(rows(h, "reason", "deliveries WHERE state = 'dead'"))
        unexplained = reasons[""]
        again, refused = replay(h)
        fussy.is_cured = True
        h.wait_for(lambda: not states(h)["waiting"], 60)
        last = states(h)
    if not accepted == sent == sum(first[state] for state in STATES) == sum(last[state] for state in STATES):
        broken.append(f"{sent} were sent, {accepted} accepted, {dict(first)} found, {dict(last)} at the end")
    for _, words in POISON.values():
        if not any(words["message"] in reason for reason in reasons):
            broken.append(f"no dead letter has the reason {words['message']!r}")
    if unexplained or not any("cannot be prepared" in reason for reason in reasons):
        broken.append(f"{unexplained} dead letters without a reason; {len(reasons)} reasons")
    if backward := _backward(fussy.taken):
        broken.append(f"{backward} keys out of order")
    figures: dict[str, Any] = {
        "accepted": accepted,
        **{state: first[state] for state in STATES},
        "reasons": len(reasons),
        "replayed": again,
        "refused to replay": len(refused),
        "keys out of order": backward,
    }
    return Result("10", figures, broken)


def _unreadable(h: House, upstream: Any, many: int) -> int:
    """Spoils commands while they wait behind others of their lane; returns how many events that took."""
    h.wait_for(lambda: not states(h)["waiting"], 60)
    answer = upstream.answer
    upstream.always(say(503))
    for number in range(many):
        page(h, f"key-0-spoilt-{number}")
        page(h, f"key-0-spoilt-{number}", eventType="RESOLVE")
    for command in rows(h, "command", "deliveries WHERE state = 'waiting' AND operation = 'resolve'"):
        spoil(h, command)
    upstream.answer = answer
    return 2 * many


def main() -> int:
    """The command."""
    configure("critical")
    asked = numbers(__doc__ or "", alerts=500, seed=1)
    return measure(asked.alerts, asked.seed).tell()


if __name__ == "__main__":
    sys.exit(main())
