"""The calls to both of the vendor's APIs: a command is sent in steps, each confirmed before the next.

Every write is answered with a request id, which is a receipt and no verdict: the request's status is asked for until it
says that it was done, that it failed, or that it was discarded. What differs between the APIs is in `Api`.

Sources: https://docs.opsgenie.com/docs/alert-api#get-request-status; the vendor's own Go SDK relies on 404 for a
request that is not processed yet. It must not know who calls.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs

from gateway.canonical import Operation
from gateway.codes import Code
from gateway.dialect import segment
from gateway.mapping.carry import fingerprint
from gateway.outcome import (
    Again,
    Call,
    Delivered,
    Held,
    Json,
    Missing,
    Outcome,
    Pending,
    Rejected,
    Request,
    Response,
    Sending,
)
from mappings.opsgenie.alert import CUT, LONGEST_NOTE, NAME, RESPONDERS, TAGS, USUAL_PRIORITY, VISIBLE_TO, fitted_key
from mappings.opsgenie.words import reason

FIRST_LOOK, LONGEST_PAUSE = 0.25, 60.0
"""Seconds until a receipt is first asked about; each pause is twice as long as the one before, up to the longest."""
MOST_LOOKS = 12
"""How often a receipt is asked about that the vendor does not know, over five minutes. Then the request is taken for
lost there, and sent again: where it was not, the alias makes it a repeat."""
COMMON = ("user", "source", "note")
ALIKE = ("unacknowledge", "snooze")
"""The operations beyond the common ones that both APIs have in the same words, by the last word of their path."""
MOVED = frozenset({"status", "snoozed_until"})
"""The paths of an alert's state that these change."""
FIELDS = ("message", "description", "priority")
"""The fields that have a call of their own."""
LASTING = {
    "entity": "resource",
    "source": "source",
    "responders": RESPONDERS,
    "visibleTo": VISIBLE_TO,
    "actions": f"extensions.{NAME}.actions",
}
"""The fields that no call changes, and the canonical paths that they hold."""
STAYS = "unchanged there: the API has no call that changes it"
UNSAID: Json = None
"""What is passed as the body of a request that has none."""

Steps = Mapping[str, Request]
"""The requests of one operation, in order, by name; a receipt holds the name of the step that it is for."""
Write = Callable[[Sending, str, str, Json], Request]
"""Makes a request about one alert, given its method, the rest of its path, and its body."""
Address = Callable[[Sending, Request], Generator[Request, Response, Request | Outcome]]
"""Puts the alert's id into a request that lacks it, or returns the outcome if there is none."""


def _as_it_is(sending: Sending, request: Request) -> Generator[Request, Response, Request | Outcome]:
    return request
    yield  # makes this a generator, though nothing has to be asked


@dataclass(frozen=True, kw_only=True)
class Api:
    """One of the two APIs: the path of its alerts, the method that changes a field, the field of the free-form texts
    and the path where they are added. `remove` makes the request that removes tags or details, if the API has one; the
    answer to a step `at_once` is no receipt, but the result itself. `actions` are the operations beyond the common ones
    that the two APIs have in different words, by the last word of their path, each with the field that it needs here.
    Where alerts are found `by_alias`, nothing has to be learnt from a receipt: with a key that may write and not read,
    an accepted request counts as done. `takes_notes` says that an acknowledgement and a close may have a note."""

    alerts: str
    change: str
    details: str
    details_at: str
    write: Write
    address: Address = _as_it_is
    remove: Callable[[Sending, str, list[str]], Request] | None = None
    at_once: frozenset[str] = field(default_factory=frozenset)
    actions: Mapping[str, str] = field(default_factory=dict)
    by_alias: bool = False
    takes_notes: bool = False


# --- steps and receipts ------------------------------------------------------------------------------------


def run(
    api: Api,
    sending: Sending,
    steps: Steps,
    seen: dict[str, Json] | None = None,
    altered: dict[str, str] | None = None,
) -> Call:
    """Sends the steps one after the other, each once the one before is confirmed."""
    ids: dict[str, str] = {}
    left = list(steps)
    if receipt := _held(sending, steps):
        outcome = yield from _look(api, sending, receipt)
        if not isinstance(outcome, Delivered):
            return outcome
        ids.update(outcome.ids)
        shown = yield from _newly_known(api, sending, ids.get("id"))
        ids.update(short_id(shown))
        seen = receipt.get("seen") or seen  # what was said then: an alert whose fallback is told may say more by now
        seen = _as_it_was(api, seen, shown)
        left = left[left.index(receipt["step"]) + 1 :]
    for name in left:
        request = yield from api.address(sending, steps[name])
        if not isinstance(request, Request):
            return request
        answer = yield request
        if answer.status in (404, 405):
            return Missing()
        if answer.status == 422:
            return _refused(answer)
        given = _given(answer)
        if given is not None:
            held = {"step": name, "request": given, "looks": 0, "seen": seen or {}}
            return Pending(after=FIRST_LOOK, seen={"receipt": held})
        is_said = isinstance(answer.json(), dict) and answer.status != 202
        if not is_said and name not in api.at_once:
            text = f"{answer.status} without a request id, so its outcome cannot be followed"
            return Again(reason=text, code=Code.NO_ID)
    return Delivered(ids=ids, seen=seen or {}, altered=altered or {})


def short_id(shown: Mapping[str, Json]) -> dict[str, str]:
    """Returns the short id that people see, which an alert has beside its long one."""
    tiny = shown.get("tinyId")
    return {"tiny": tiny} if isinstance(tiny, str) and tiny else {}


def _newly_known(api: Api, sending: Sending, alert: str | None) -> Generator[Request, Response, dict[str, Json]]:
    """Asks for an alert whose id has just been learnt, as no receipt tells its short id. Nothing is known of it with a
    key that may not read, or at an address that has no such call."""
    if alert is None or alert == sending.ids.get("id"):
        return {}
    answer = yield Request(method="GET", path=f"{api.alerts}/{segment(alert)}", by_the_way=True)
    return (bare(answer) or {}) if answer.status == 200 else {}


def _as_it_was(api: Api, seen: dict[str, Json] | None, shown: Mapping[str, Json]) -> dict[str, Json] | None:
    """Returns what was said, as far as the vendor took it. Of a create that only counted the alert once more it took
    nothing: the alert says what it said before, as where a gateway was killed that had created it in other words."""
    said, count = (seen or {}).get("said"), shown.get("count")
    if not isinstance(said, dict) or not isinstance(count, int) or count < 2:
        return seen
    there = _said(api, shown)
    kept = {name: there[name] for name in FIELDS if name in said and name in there}
    details = {key: there["details"][key] for key in said["details"] if key in there["details"]}
    tags = [tag for tag in said["tags"] if tag in there["tags"]]
    return {**(seen or {}), "said": {**said, **kept, "details": details, "tags": tags}}


def _held(sending: Sending, steps: Steps) -> dict[str, Any]:
    """Returns the receipt that an earlier attempt was given for one of these steps; an empty one if there is none."""
    held = sending.seen.get("receipt")
    return held if isinstance(held, dict) and held.get("step") in steps else {}


def has_receipt(sending: Sending) -> bool:
    """Returns whether an earlier attempt was given a receipt."""
    return isinstance(sending.seen.get("receipt"), dict)


def _given(answer: Response) -> str | None:
    """Returns the request id in a receipt."""
    request = answer.object().get("requestId")
    return request if isinstance(request, str) and request else None


def bare(answer: Response) -> dict[str, Json] | None:
    """Returns the object in an answer, without the envelope that one of the APIs has; `None` if there is none."""
    body = answer.json()
    found = body.get("data", body) if isinstance(body, dict) else None
    return found if isinstance(found, dict) else None


def _look(api: Api, sending: Sending, receipt: dict[str, Any]) -> Generator[Request, Response, Outcome]:
    """Asks for the state of a request: done, failed, discarded, not yet processed, or lost."""
    path = f"{api.alerts}/requests/{segment(str(receipt.get('request')))}"
    answer = yield Request(method="GET", path=path, accepts=frozenset({403, 404} if api.by_alias else {404}))
    if answer.status == 403:
        return Delivered()
    data = bare(answer)
    looks = receipt["looks"] + 1 if isinstance(receipt.get("looks"), int) else 1
    after = min(FIRST_LOOK * 2.0 ** min(looks, 16), LONGEST_PAUSE)
    if answer.status == 404 and looks >= MOST_LOOKS and sending.key is not None:
        return Pending(after=after, seen={"receipt": None})
    not_yet = Pending(after=after, seen={"receipt": {**receipt, "looks": looks}})
    if answer.status == 404 or data is None:
        return not_yet
    said = str(data.get("status") or "")
    if "discard" in said.lower():
        return Rejected(reason=f"discarded: {said}")
    if "processedAt" in data and not data["processedAt"]:
        return not_yet
    if data.get("isSuccess") is True or data.get("success") is True:
        alert = data.get("alertId")
        return Delivered(ids={"id": alert} if isinstance(alert, str) and alert else {})
    if not data.get("processedAt"):
        return not_yet
    if sending.operation is not Operation.CREATE and "not exist" in said.lower():
        return Missing()
    return Rejected(reason=f"failed: {said}")


def _refused(answer: Response) -> Outcome:
    """Returns the outcome of a 422: the content is refused, or the form of the key, which is no alert's fault."""
    why = f"422 {reason(answer)}".strip()
    return Held(reason=why, status=422) if "key format" in why.lower() else Rejected(reason=why)


def common(sending: Sending) -> dict[str, Json]:
    """Returns who did it and why, if the caller said so in the vendor's own dialect."""
    said = sending.verbatim or {}
    return {name: said[name] for name in COMMON if name in said}


# --- what an alert is --------------------------------------------------------------------------------------


def _said(api: Api, body: Mapping[str, Json]) -> dict[str, Json]:
    """Returns what a body says, by fingerprint, for the next update to compare with."""
    details, tags = body.get(api.details), body.get("tags")
    return {
        **{name: fingerprint(body[name]) for name in (*FIELDS, *LASTING) if name in body},
        "details": {key: fingerprint(value) for key, value in details.items()} if isinstance(details, dict) else {},
        "tags": list(tags) if isinstance(tags, list) else [],
    }


def create(api: Api, sending: Sending) -> Call:
    """Creates the alert, or counts it once more where one with its alias is open."""
    return (yield from run(api, sending, _creating(api, sending), {"said": _said(api, sending.body)}))


def _creating(api: Api, sending: Sending) -> Steps:
    alias = {"alias": fitted_key(sending.key)} if sending.key is not None else {}
    body = {**sending.body, **alias}
    return {"create": Request(method="POST", path=api.alerts, body=body, accepts=frozenset({422}), creates=True)}


def update(api: Api, sending: Sending) -> Call:
    """Sends what differs from what was last sent, one call per field. A repeat that changes nothing is sent as a
    create, which the vendor counts, as it does for every caller; what the alert says there stays as it was. Its note is
    the repeat's own: that of the first create is there already."""
    if not sending.body:
        return (yield from run(api, sending, _retelling(api, sending)))
    steps, altered = _changing(api, sending) if sending.changes else ({}, {})
    last, patch = sending.seen.get("said") or {}, sending.patch
    lasting = {
        path: STAYS for name, path in LASTING.items() if name in patch and fingerprint(patch[name]) != last.get(name)
    }
    said = _said(api, sending.body) | {name: last[name] for name in LASTING if name in last}
    if not steps and not altered:
        said = sending.seen.get("said") or said
        first = {name: value for name, value in sending.body.items() if name not in ("user", "note")}
        again = structs.replace(sending, body={**first, **common(sending)})
        return (yield from run(api, again, _creating(api, again), {"said": said}, lasting))
    return (yield from run(api, sending, steps, {"said": said}, {**altered, **lasting}))


def changes_fields(api: Api, sending: Sending) -> bool:
    """Returns whether an update has something to change there, and is no mere repeat."""
    return bool(sending.body) and sending.changes and bool(_changing(api, sending)[0])


def _changing(api: Api, sending: Sending) -> tuple[dict[str, Request], dict[str, str]]:
    """Returns the steps from what was last sent to what the alert is now, and what is impossible, by canonical path."""
    by = common(sending)
    body: Mapping[str, Json] = sending.body
    held = sending.seen.get("said")
    last: dict[str, Any] = held if isinstance(held, dict) else {}
    steps: dict[str, Request] = {}
    if "priority" in last and "priority" not in body:
        body = {**body, "priority": USUAL_PRIORITY}  # the vendor's default for an alert without one
    for name in FIELDS:
        is_other = fingerprint(body.get(name)) != last.get(name) if last else name in sending.patch
        if name in body and is_other:
            steps[name] = api.write(sending, api.change, f"/{name}", {name: body[name]})
    tags, tagged = body.get("tags") or [], last.get("tags") or []
    if more := [tag for tag in tags if tag not in tagged]:
        steps["tags"] = api.write(sending, "POST", "/tags", {"tags": more, **by})
    removing, altered = _taken_away(api, sending, "tags", [tag for tag in tagged if tag not in tags])
    steps = steps | removing
    details, detailed = body.get(api.details) or {}, last.get("details") or {}
    if known := {key: value for key, value in details.items() if detailed.get(key) != fingerprint(value)}:
        steps["details"] = api.write(sending, "POST", api.details_at, {api.details: known, **by})
    removing, staying = _taken_away(api, sending, "details", [key for key in detailed if key not in details])
    return steps | removing, altered | staying


def _taken_away(api: Api, sending: Sending, what: str, names: list[str]) -> tuple[dict[str, Request], dict[str, str]]:
    """Returns the step that removes tags or details, and that some stay there, by canonical path: all where the API has
    no such call, else those that are blank or have a comma, which the vendor would read as others, and remove those."""
    nameable = [name for name in names if name.strip() and "," not in name] if api.remove is not None else []
    steps = {f"fewer {what}": api.remove(sending, what, nameable)} if api.remove is not None and nameable else {}
    stay = {TAGS if what == "tags" else "custom": "removed entries stay there: they cannot be removed"}
    return steps, stay if len(nameable) < len(names) else {}


def _retelling(api: Api, sending: Sending) -> Steps:
    """Returns the steps that pass on a caller's own words about an alert that was there before the gateway."""
    said, by = sending.verbatim or {}, common(sending)
    steps = {name: api.write(sending, api.change, f"/{name}", {name: said[name]}) for name in FIELDS if name in said}
    for name, at in (("tags", "/tags"), (api.details, api.details_at)):
        if name in said:
            steps[name] = api.write(sending, "POST", at, {name: said[name], **by})
    return steps


# --- what is done to it ------------------------------------------------------------------------------------


def do(api: Api, word: str, sending: Sending) -> Call:
    """Carries out an operation that is one word of the path."""
    by, altered = common(sending), dict[str, str]()
    if api.takes_notes and sending.verbatim is None and sending.comment:
        by, altered = _note(sending.comment)
    return (yield from run(api, sending, {word: api.write(sending, "POST", f"/{word}", by)}, altered=altered))


def _note(text: str) -> tuple[dict[str, Json], dict[str, str]]:
    """Returns a note, cut to the longest that is taken and marked there, and what the report says of that."""
    if len(text) <= LONGEST_NOTE:
        return {"note": text}, {}
    return {"note": text[: LONGEST_NOTE - len(CUT)] + CUT}, {"comment": f"at most {LONGEST_NOTE:,} characters"}


def comment(api: Api, sending: Sending) -> Call:
    """Adds a note, or carries out what a caller of the same vendor asked for beyond the common operations. What the
    address has no call for becomes a note."""
    said = sending.verbatim or {}
    action = str(said.get("action"))
    needed = api.actions.get(action)
    fields = {name: value for name, value in said.items() if name not in ("action", "name")}
    if action not in ALIKE and needed not in said:
        note, altered = _note(sending.comment or str(said.get("note", "")))
        writing = api.write(sending, "POST", "/notes", {**common(sending), **note})
        return (yield from run(api, sending, {"notes": writing}, altered=altered))
    is_custom = action == "actions"
    path = f"actions/{segment(str(said.get('name')))}" if is_custom else action
    acting = {"action" if is_custom else path: api.write(sending, "POST", f"/{path}", fields)}
    return (yield from either(api, sending, acting, "notes", {**common(sending), **_note(sending.comment)[0]}))


def either(api: Api, sending: Sending, steps: Steps, word: str, body: Json) -> Call:
    """Carries out the steps; where that finds nothing, the operation that is one `word` of the path, which the report
    says. The alert may be gone, or the address may have no such call, as that for the keys of integrations has few:
    then it is still open."""
    instead = {word: api.write(sending, "POST", f"/{word}", body)}
    if not _held(sending, instead):
        outcome = yield from run(api, sending, steps)
        if not isinstance(outcome, Missing):
            return outcome
    about, as_what = ("status", "a close") if sending.operation is Operation.DELETE else ("comment", "a note only")
    return (yield from run(api, sending, instead, altered={about: f"sent as {as_what}: there is no such call there"}))
