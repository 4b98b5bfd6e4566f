"""Shared by the tests of described dialects as upstreams."""

from __future__ import annotations

from tests.engine.descriptions import DEEP, SOURCE, TITLES, WRAPPED
from tests.harness import KEY, UPSTREAM_KEY


def outbound(name: str, url: str, more: str = "") -> str:
    """A gateway whose callers speak ilert and the described dialect, with an upstream of that dialect."""
    callers = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n[inbound.{name}]\nkeys = {{ ci = "{KEY}" }}\n'
    there = f'[upstreams.there]\ndialect = "{name}"\nurl = "{url}/hook"\nkey = "{UPSTREAM_KEY}"\n{more}'
    return f"{callers}{there}{TITLES if name == 'datadog' else SOURCE if name == 'source' else DEEP}"


STATE = """
[dialects.state]
auth = "none"
[dialects.state.fields]
summary = "name"
status = { at = "type", acknowledge = "ACKNOWLEDGEMENT", resolve = ["RECOVERY", "OK"] }
severity = { at = "type", words = { CRITICAL = 2, WARNING = 4, INFO = 6 } }
dedup_key = "id"
[inbound.state]
anonymous = true
"""
"""One word gives both severity and state, as at Splunk On-Call, Zenduty, Nagios and Checkmk."""


def wrapped(url: str) -> str:
    """A gateway that speaks both to its callers, with upstreams of both."""
    there = f'[upstreams.topic]\ndialect = "topic"\nurl = "{url}/topic"\nkey = "{UPSTREAM_KEY}"\n'
    there += f'[upstreams.many]\ndialect = "many"\nurl = "{url}/many"\n[[routes]]\nto = ["topic", "many"]\n'
    callers = f'[inbound.topic]\nkeys = {{ ci = "{KEY}" }}\n[inbound.many]\nanonymous = true\n'
    return f"{callers}{there}{WRAPPED}"
