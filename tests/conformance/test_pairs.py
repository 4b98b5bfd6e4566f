"""Every ordered pair of dialects: what an alert of one becomes in the other, what becomes of every field, and that an
alert carried in the other's free-form container comes back as it was sent."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from gateway.asked import Command
from gateway.canonical import PATHS, SERVER_OWNED, Flat, flatten, in_order, unflatten
from gateway.mapping.carry import LIMIT, credible, restore
from gateway.mapping.remembering import LONGEST, MOST, Remembered
from gateway.mapping.report import forms
from gateway.mapping.table import CARRIED
from gateway.mapping.translation import Said, translate
from gateway.mapping.wire import copied, get, put, remove
from gateway.registry import dialects
from tests.conformance.samples import CREATES, NAMES, PAIRS, alert_of, asked, can_be_cleared, destination, saying
from tests.conformance.strategies import alerts
from tests.recorded import Recorder, plain

WITH_CONTAINER = [(one, other) for one, other in PAIRS if dialects()[other].mapping.container]
NONSENSE: tuple[Any, ...] = (
    1,
    [],
    {"fields": 3},
    {"fields": {"nonsense": 1, "severity": "x", "kind": "neither"}},
    {"marks": [], "added": {}, "spans": 1},
    {"spans": {"details": [9], "summary": ["a", "b"]}, "added": [1, {}]},
)
CLEARABLE = tuple(path for path in PATHS if can_be_cleared(path))
HYPOTHESIS = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def _said(origin: str, target: str, command: Command, **more: Any) -> tuple[Flat, Said]:
    """Returns the alert that a command makes, and its translation for another vendor."""
    flat = alert_of(dialects()[origin], command)
    words = dict(command.verbatim) if origin == target else None
    there = destination(target)
    return flat, translate(saying(flat, origin, there, verbatim=words, dropped=command.dropped, **more), there)


@pytest.mark.parametrize(("origin", "target"), PAIRS)
def test_what_becomes_of_the_documented_samples(origin: str, target: str, recorder: Recorder) -> None:
    found = {}
    for name, example in CREATES:
        if name == origin:
            _, said = _said(origin, target, asked(name, example))
            found[example.name] = {
                "sends": said.body,
                "report": [[fate.field, fate.fate, fate.to, fate.why] for fate in said.report],
            }
            _is_as_if_worked_out(origin, target, asked(name, example))
    about = f"what our rows make of the documented samples; checked against the table of fields of {target}"
    recorder.same(f"reports/{origin}-{target}.json", "samples", found, source=about)


def _is_as_if_worked_out(origin: str, target: str, command: Command) -> None:
    """What is remembered of other alerts of the same shape is what is worked out of this one alone: its body, its
    report, and all forms of that."""
    with pytest.MonkeyPatch.context() as patched:
        _, remembered = _said(origin, target, command)
        in_all_forms = forms(remembered.report)
        patched.setattr(Remembered, "__getitem__", lambda self, shape: self._find(*shape), raising=False)
        _, said = _said(origin, target, command)
        assert msgspec.json.encode(remembered.body) == msgspec.json.encode(said.body)
        assert remembered.report == said.report
        assert in_all_forms == forms(said.report)


def test_what_is_remembered_is_bounded() -> None:
    """Callers choose the names of fields that no vendor documents."""
    remembered = Remembered(lambda *names: len(names))
    assert remembered["x" * LONGEST, "y"] == 2 and not remembered
    for number in range(3 * MOST // 1000):
        assert remembered[f"{number:01000}",] == remembered[f"{number:01000}",] == 1
        assert 1 <= len(remembered) <= MOST // 1000


class _Name(str):
    """A path that counts how often paths are compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        _Name.compared += 1
        return str.__eq__(self, other)


def _counting(part: Any) -> Any:
    """A part of a shape with paths that count."""
    if isinstance(part, tuple | frozenset):
        return type(part)(map(_counting, part))
    return _Name(part) if isinstance(part, str) else part


@pytest.mark.parametrize("value", [1, None])
@pytest.mark.parametrize("target", ["ilert", "pagerduty"])
def test_work_grows_no_faster_than_the_number_of_fields(
    target: str, value: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers choose how many fields there are that no vendor documents: a request has room for 100,000."""
    names = tuple(f"extensions.ilert.u{number}" for number in range(500))
    flat = {"kind": "occurrence", "summary": "Disk full", **dict.fromkeys(names, value)}

    def worked_out(remembered: Remembered[Any], shape: tuple[Any, ...]) -> Any:
        remembered._find(*_counting(shape))
        return remembered._find(*shape)

    monkeypatch.setattr(Remembered, "__missing__", worked_out)
    monkeypatch.setattr(_Name, "compared", 0)
    for changed in (None, names):
        there = destination(target)
        assert isinstance(translate(saying(flat, "ilert", there, changed=changed), there).report, tuple)
    assert 0 < _Name.compared <= 20 * len(names)


@pytest.mark.parametrize("target", [name for name in NAMES if dialects()[name].mapping.room])
def test_texts_leave_room_for_what_is_carried_as_one(target: str) -> None:
    """Both vendors refuse an alert whose free-form texts have more than 8,000 characters; a cut object is none."""
    there = destination(target)
    flat: Flat = {"summary": "Disk full", "custom": {"log": "x" * 7_500}, "extensions.elsewhere.log": "y" * 1_000}
    flat |= {"extensions.elsewhere.short": "z", "team": "payments"}
    held = get(translate(saying(flat, "elsewhere", there), there).body, str(there.mapping.container))
    assert sum(len(name) + len(text) for name, text in held.items()) <= 8_000
    fields = msgspec.json.decode(held[CARRIED])["fields"]
    assert "team" in fields and "extensions.elsewhere.log" not in fields, "the largest is left out"


@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize("is_akin", [False, True])
def test_what_a_route_sets_takes_the_place_of_what_the_alert_says(target: str, is_akin: bool) -> None:
    there, origin = destination(target), target if is_akin else "elsewhere"
    flat: Flat = {"summary": "said", "severity": 6, "urgency": "low", "resource": "said", "team": "said"}
    by_route: Flat = {"summary": "set", "severity": 1, "urgency": "high", "resource": "set", "team": "set"}
    told = there.mapping.meaning(translate(saying(flat, origin, there, replaced=by_route), there).body)
    wanted = there.mapping.meaning(translate(saying(by_route, origin, there), there).body)
    assert {path: told.get(path) for path in flat} == {path: wanted.get(path) for path in flat}


@pytest.mark.parametrize("target", NAMES)
def test_a_report_points_to_what_is_there(target: str) -> None:
    """The body has a value wherever the report puts a field, unless the vendor implies that field."""
    for origin, example in CREATES:
        _, said = _said(origin, target, asked(origin, example))
        for fate in said.report:
            if fate.to and fate.field not in dialects()[target].mapping.implied:
                assert get(said.body, fate.to) is not UNSET, f"{origin} {example.name}: {fate.field} at {fate.to}"


@pytest.mark.parametrize(("origin", "target"), PAIRS)
@HYPOTHESIS
@given(data=st.data())
def test_whatever_is_sent_is_what_the_vendor_takes(origin: str, target: str, data: st.DataObject) -> None:
    """Bodies encode and fit the vendor's struct, and every field of the alert has exactly one fate."""
    body, command = data.draw(alerts(origin))
    flat, said = _said(origin, target, command)
    sent = msgspec.json.decode(msgspec.json.encode(said.body))
    mapping = dialects()[target].mapping
    if not _lacks_control(target):
        msgspec.convert(sent, mapping.wire)
    msgspec.convert(sent, mapping.partial)
    _is_as_if_worked_out(origin, target, command)
    fields = [fate.field for fate in said.report if fate.fate != "dropped"]
    assert len(fields) == len(set(fields)), "two fates for one field"
    expected = {path for path, value in flat.items() if path not in SERVER_OWNED and value is not None}
    assert expected - set(fields) <= {"kind"}, "a field without a fate"
    if origin == target:
        _sends_the_callers_words(body, sent, target, command.verbatim.keys())


@pytest.mark.parametrize("origin", NAMES)
@HYPOTHESIS
@given(data=st.data())
def test_an_alert_put_together_of_paths_falls_into_the_same(origin: str, data: st.DataObject) -> None:
    """In whatever order they come, also those of extensions and groups; and in the order of the canonical alert."""
    _, command = data.draw(alerts(origin))
    flat = alert_of(dialects()[origin], command)
    again = flatten(unflatten(dict(data.draw(st.permutations(list(flat.items()))))))
    own = [path for path in again if path in PATHS]
    assert again == flat and own == [path for path in PATHS if path in flat]
    assert list(flatten(unflatten(flat))) == list(in_order(flat))


def test_a_window_longer_than_uptinio_takes_is_cut() -> None:
    """IBM accepts windows of more than thirty years, for which Uptinio refused the alert."""
    [command] = [asked(origin, example) for origin, example in CREATES if origin == "ibm_monitoring"][:1]
    longer = msgspec.structs.replace(command, patch={**command.patch, "condition.window": 1e9 + 1})
    _, said = _said("ibm_monitoring", "uptinio", longer)
    assert get(said.body, "threshold.duration") == 10**9
    assert [fate.fate for fate in said.report if fate.field == "condition.window"] == ["approximated"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("changed", [None, ("summary",)])
def test_a_late_note_is_not_put_into_the_callers_own_words(name: str, changed: tuple[str, ...] | None) -> None:
    """The caller's words are shared with the stored alert, so what is added for one page must not stay in them."""
    there = destination(name)
    for command in (asked(origin, example) for origin, example in CREATES if origin == name):
        flat, words = alert_of(dialects()[name], command), dict(command.verbatim)
        before = msgspec.json.encode(words)
        late = saying(flat, name, there, verbatim=words, said=words, changed=changed, late="Late by 7 minutes.")
        said = translate(late, there)
        assert msgspec.json.encode(words) == before
        if details := there.mapping.details:
            for told in (said.body, said.patch) if changed else (said.body,):
                assert str(get(told, details)).startswith("Late by 7 minutes.")


@pytest.mark.parametrize("target", [name for name in NAMES if dialects()[name].mapping.container])
def test_what_is_carried_with_an_update_is_not_put_into_the_alert_itself(target: str) -> None:
    """What the alert has is shared with its translation."""
    there, flat = (
        destination(target),
        {"summary": "Disk full", "team": "db", "custom": {"a": "1"}, "labels": {"b": "2"}},
    )
    before = copied(flat)
    for changed in (None, ("custom", "labels", "team")):
        assert translate(saying(flat, "elsewhere", there, changed=changed), there).report
        assert flat == before


@pytest.mark.parametrize("target", NAMES)
def test_an_update_empties_nothing_that_the_target_requires(target: str) -> None:
    """Nor where there is nothing to put there instead: what the target has stays."""
    there = replace(destination(target), defaults={})
    cleared = [(path, None) for path in there.mapping.needed.intersection(CLEARABLE)]
    for path, nothing in [*cleared, *((path, " ") for path in there.mapping.needed & {"summary", "source"})]:
        said = translate(saying({path: nothing}, "elsewhere", there, changed=(path,)), there)
        patch = msgspec.json.decode(msgspec.json.encode(said.patch))
        for row in there.mapping.rows:
            if row.required and path in row.paths:
                assert get(patch, row.wires[0]) not in (None, "", " ", []), row.wires[0]


@pytest.mark.parametrize(("origin", "target"), PAIRS)
def test_whatever_is_cleared_can_be_told(origin: str, target: str) -> None:
    """A field that has become empty is sent as such where that is possible, and causes no failure anywhere."""
    there = destination(target)
    for name, example in CREATES:
        if name != origin:
            continue
        flat = alert_of(dialects()[origin], asked(name, example))
        for path in CLEARABLE:
            cleared = in_order({**flat, path: None})
            said = translate(saying(cleared, origin, there, changed=(path,)), there)
            msgspec.json.encode(said.patch)
            if origin != target:  # a caller of the same vendor clears what can be cleared there
                msgspec.convert(said.body, there.mapping.partial)


def _lacks_control(target: str) -> bool:
    """Returns whether the struct requires fields that only the call adds."""
    mapping = dialects()[target].mapping
    required = {item.encode_name for item in msgspec.structs.fields(mapping.wire) if item.required}
    return bool(required & {drop.wire for drop in mapping.dropped})


def _sends_the_callers_words(body: dict[str, Any], sent: dict[str, Any], target: str, own: Collection[str]) -> None:
    """Fails unless the same vendor receives every field as it was sent, unknown ones included, and nothing is added to
    the caller's `own` words but a key. These may be more than the alert, where that is one of several in a request; and
    rows may have an object for fields that the vendor does not know, where these are beside the others."""
    mapping = dialects()[target].mapping
    fitted = {wire for entry in mapping.rows if entry.fit or entry.required for wire in entry.wires}
    gone = {drop.wire for drop in mapping.dropped if drop.control}
    gone |= {wire for entry in mapping.rows if entry.side == "reply" for wire in entry.wires}
    keyed = {wire for entry in mapping.rows if "dedup_key" in entry.paths for wire in entry.wires}
    body = copied(body)
    for wire in gone:
        remove(body, wire)
    beside = {name: held for inner in sent.values() if isinstance(inner, dict) for name, held in inner.items()}
    for name, value in body.items():
        is_beside = beside.get(name) == value or (isinstance(value, dict) and beside.items() >= value.items())
        if name not in keyed and value is not None and value != {} and not is_beside:
            assert name in sent, f"{name} was lost"
            assert sent[name] == value or any(wire.split(".")[0] == name for wire in fitted), f"{name} was changed"
    assert sent.keys() - body.keys() <= keyed | fitted | set(own)


@pytest.mark.parametrize("name", NAMES)
@HYPOTHESIS
@given(data=st.data())
def test_the_same_vendor_needs_no_defaults(name: str, data: st.DataObject) -> None:
    """An upstream requires no field that a caller of the same vendor may leave out."""
    body, command = data.draw(alerts(name))
    mapping = dialects()[name].mapping
    assume(not any(body.get(entry.wires[0]) == "" for entry in mapping.rows if entry.required))
    bare = replace(destination(name), defaults={})
    flat = alert_of(dialects()[name], command)
    said = translate(saying(flat, name, bare, verbatim=dict(command.verbatim)), bare)
    assert "defaults" not in " ".join(fate.why for fate in said.report)


# --- there and back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("origin", "target"), WITH_CONTAINER)
@HYPOTHESIS
@given(data=st.data())
def test_an_alert_comes_back_as_it_was_sent(origin: str, target: str, data: st.DataObject) -> None:
    """A → B → A keeps every field but ids, keys, versions and times; null on a create is the same as absent."""
    _, command = data.draw(alerts(origin))
    flat, said = _said(origin, target, command)
    _comes_back(flat, said, target)


@pytest.mark.parametrize(("origin", "target"), WITH_CONTAINER)
def test_the_documented_samples_come_back(origin: str, target: str) -> None:
    for name, example in CREATES:
        if name == origin:
            _comes_back(*_said(origin, target, asked(name, example)), target)
            late = "" if origin == target else "Delivered late."  # at the same vendor nothing carried undoes it
            _comes_back(*_said(origin, target, asked(name, example), late=late), target)


def _comes_back(flat: Flat, said: Said, target: str) -> None:
    mapping = dialects()[target].mapping
    body = plain(said.body)
    carried = get(body, f"{mapping.container}.{CARRIED}")
    if carried is not UNSET:
        assert len(msgspec.json.encode(carried)) <= LIMIT
    fitted = {path for entry in mapping.rows if entry.fit for path in entry.paths} if carried is UNSET else set()
    sent, returned = _told(flat), _told(_returned(body, target))
    assert sent.keys() - returned.keys() == set()
    assert {path: value for path, value in returned.items() if path not in fitted} == {
        path: value for path, value in sent.items() if path not in fitted
    }


def _returned(body: Any, target: str) -> Flat:
    dialect = dialects()[target]
    reading = dialect.mapping.interpret(body)
    carried = credible(reading.carried, [one.mapping for one in dialects().values()])  # as with an upstream of each
    return in_order({"kind": dialect.kind, **restore(reading.whole(), carried)})


def _told(flat: Flat) -> Flat:
    never = SERVER_OWNED | {"dedup_key"}
    return {path: plain(value) for path, value in flat.items() if path not in never and value is not None}


@pytest.mark.parametrize(("origin", "target"), [pair for pair in WITH_CONTAINER if pair[0] != pair[1]])
def test_a_change_made_at_the_vendor_wins_over_what_was_carried(origin: str, target: str) -> None:
    """A carried value does not undo an edit that somebody made at the vendor."""
    name, example = next((name, example) for name, example in CREATES if name == origin)
    _, said = _said(origin, target, asked(name, example))
    mapping = dialects()[target].mapping
    changed = copied(plain(said.body))
    leaf = mapping.holder("summary")
    put(changed, leaf, "edited there")
    assert _returned(changed, target)["summary"] == "edited there"


@pytest.mark.parametrize("name", NAMES)
def test_a_carried_object_that_makes_no_sense_is_left_alone(name: str) -> None:
    mapping = dialects()[name].mapping
    if not mapping.container:
        pytest.skip("nothing can be carried there")
    _, example = next((origin, example) for origin, example in CREATES if origin == name)
    plainly = dict(asked(name, example).patch)
    assert [restore(plainly, nonsense) for nonsense in NONSENSE] == [plainly] * len(NONSENSE)


@pytest.mark.parametrize("odd", [5, -1e308, True, "x", [5], {"a": 1}], ids=repr)
@pytest.mark.parametrize("target", NAMES)
def test_a_carried_field_that_its_vendor_cannot_have_said_keeps_no_alert_back(target: str, odd: Any) -> None:
    """Whoever posts to a vendor can put anything into its container. What is left can be told, and once more by an
    update, which goes by the times that an alert already has."""
    own = dialects()[target].mapping
    paths = [path for entry in own.rows for path in entry.paths if path.startswith("extensions.")]
    for path in [*paths, "condition.window", "renotify.interval"]:
        carried = credible({"fields": {path: odd}}, [dialects()[name].mapping for name in NAMES])
        for origin, example in CREATES:
            command = msgspec.structs.replace(asked(origin, example), carried=carried)
            flat, said = _said(origin, target, command)
            assert msgspec.json.decode(msgspec.json.encode(said.body)) is not None
            if command.amend:
                command.amend(flat)
