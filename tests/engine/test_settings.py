"""What settings do, seen from outside: limits of the outbox, mistakes that are reported, secrets that are never shown,
and the warnings of `check`. All of it is interface.md, *Configuration*."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.checking import warnings
from gateway.config.loading import parse
from gateway.errors import ConfigurationError
from tests.chaos_upstream import CLOSE, chaos
from tests.clients.callers import ibm_alert, ilert_event, livesession_alert, uptinio_alert
from tests.engine.vendors import OK, before, down, page, table
from tests.harness import KEY, inbound_tables
from tests.raw import request, wire

ILERT = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'
THERE = '[upstreams.there]\ndialect = "{dialect}"\nurl = "https://example.com"\n{more}\n'


def there(more: str = 'key = "secret-key"', dialect: str = "ilert") -> str:
    """A configuration with one upstream."""
    return ILERT + THERE.format(dialect=dialect, more=more)


def problems(text: str) -> str:
    """The problems that a configuration is refused with."""
    with pytest.raises(ConfigurationError) as refused:
        parse(text)
    return str(refused.value)


def test_max_waiting_is_a_number_of_deliveries_and_a_size() -> None:
    """`max_waiting = { deliveries = 1000000, bytes = "2GiB" }`: either may be given; a bare number is deliveries."""
    both = parse('max_waiting = { deliveries = 10, bytes = "1MiB" }\n' + there()).max_waiting
    assert (both.deliveries, both.bytes) == (10, 1 << 20)
    usual = parse(there()).max_waiting
    assert (usual.deliveries, usual.bytes) == (1_000_000, 2 << 30)
    assert parse("max_waiting = 7\n" + there()).max_waiting.deliveries == 7
    assert "max_waiting.deliveries" in problems("max_waiting = { deliveries = 0 }\n" + there())
    assert "max_waiting.bytes" in problems('max_waiting = { bytes = "much" }\n' + there())
    assert "did you mean 'deliveries'" in problems("max_waiting = { delivery = 5 }\n" + there())


@pytest.mark.parametrize("limit", ["deliveries = 10", 'bytes = "4KiB"'])
def test_once_so_much_waits_more_is_refused_before_it_is_acknowledged(tmp_path: Path, limit: str) -> None:
    """guarantees.md 12: 429 or 503 with Retry-After in the caller's words; once deliveries have left, requests are
    accepted again."""
    with chaos(CLOSE) as upstream:
        text = table("there", upstream.url, "ilert", first="300ms")
        with before(tmp_path, text, top=f"max_waiting = {{ {limit} }}\nreply_timeout = '50ms'") as h:
            taken = [page(h, f"key-{number}", details="x" * 200).status for number in range(40)]
            assert taken[:10] == [202] * 10
            assert set(taken) <= {202, 503}
            page_body = ilert_event("ALERT", "one more", summary="s")
            h.wait_for(lambda: h.call("POST", "/ilert/api/events", page_body, key=None).status == 503)
            refused = {
                "ilert": h.call("POST", "/ilert/api/events", page_body, key=None),
                "ibm_monitoring": h.call("POST", "/ibm_monitoring/api/alerts", ibm_alert("n")),
                "livesession": h.call("POST", "/livesession/v1/alerts", livesession_alert("n")),
                "uptinio": h.call("POST", "/uptinio/alerts", uptinio_alert("n")),
            }
            assert {name: one.status for name, one in refused.items()} == dict.fromkeys(refused, 503)
            assert all(int(one.headers["retry-after"]) > 0 for one in refused.values())
            assert refused["ilert"].body["status"] == 503
            assert refused["ibm_monitoring"].body["errors"]
            assert refused["livesession"].body["error"]["http_status_code"] == 503
            assert refused["uptinio"].body["error"]["code"] == "service_unavailable"
            assert h.call("GET", "/uptinio/alerts").status == 200, "reads are not refused"


def test_check_warns_of_paths_that_another_dialect_has_at_the_root() -> None:
    """interface.md, *HTTP*: at the root a side route yields to another dialect's main route, and `check` says so."""
    text = inbound_tables() + "\n" + THERE.format(dialect="ilert", more='key = "secret-key"')
    said = [one for one in warnings(parse(text)) if "/ilert/api/alerts" in one]
    assert [one for one in said if "GET /api/alerts " in one and "ibm_monitoring" in one], said
    assert not [one for one in warnings(parse(there())) if "/ilert/api/alerts" in one], "alone it yields to nobody"


def test_headers_that_are_too_large_are_refused_with_an_id(tmp_path: Path) -> None:
    """interface.md, *HTTP*: every answer to a vendor route carries `Alert-Gateway-Id`, the edge's refusals too."""
    with before(tmp_path, table("there", "http://127.0.0.1:1", "ilert")) as h, wire(h.url) as connection:
        connection.say(request("GET", "/livesession/v1/alerts", None, "X: " + "a" * 33_000))
        answer = connection.hear()
        assert answer is not None and answer.status == 431
        assert answer.headers["alert-gateway-id"].isdigit()
        assert answer.body["error"]["http_status_code"] == 431


def test_values_of_the_wrong_kind_are_problems_with_their_path() -> None:
    """`check` reports every problem of the file at once, each with its path; none is found only when the value is
    used."""
    ibm = 'iam_key = "secret-key"\niam_url = 5\n'
    assert "upstreams.there.iam_url" in problems(there(ibm, "ibm_monitoring"))
    said = problems(there('key = "secret-key"\nretry = { first = "0s", most = "0ms" }\n'))
    assert "upstreams.there.retry.first" in said and "upstreams.there.retry.most" in said
    assert "upstreams.there.timeout" in problems(there('key = "secret-key"\ntimeout = "0s"\n'))
    assert "reply_timeout" in problems('reply_timeout = "0s"\n' + there())


def test_a_literal_secret_may_begin_with_a_dollar_and_is_never_shown() -> None:
    """A secret is `env:NAME`, `file:PATH` or literal; `${X}` is an error. It never appears in an error or a `repr`."""
    secret = "$ecret-0123456789"
    config = parse(there(f"key = '{secret}'").replace(KEY, "$caller-0123456789"))
    key = config.upstreams["there"].key
    assert key is not None and key.value() == secret
    assert secret not in repr(config) and "$caller-0123456789" not in repr(config)
    assert config.inbounds["ilert"].keyring.caller("$caller-0123456789") == "ci"
    wrong = problems(there(f"key = '{secret}'\ntimeout = 'soon'\ncolour = '{secret}'"))
    assert secret not in wrong
    assert "env:X" in problems(there("key = '${X}'"))


def test_a_page_leads_to_the_trace_at_the_public_address(tmp_path: Path) -> None:
    """`public_url` is where operators reach `/-/…`; the id in the link is the one in the caller's answer."""
    with chaos(OK) as upstream:
        top = 'public_url = "https://alerts.example.com/gateway/"'
        with before(tmp_path, table("oncall", upstream.url, "ilert"), top=top) as h:
            number = down(h).headers["alert-gateway-id"]
            h.wait_for(lambda: upstream.got)
    lines = upstream.got[0].body["details"].split("\n")
    assert f"trace: https://alerts.example.com/gateway/-/alerts/{number}" in lines


def test_a_reload_sees_another_public_address() -> None:
    """A reload restarts only upstreams that have changed, and links must lead to the new address all the same."""
    first, same, other = (
        parse(f'public_url = "https://{name}.example.com"\n' + there()).upstreams["there"].written for name in "aab"
    )
    assert first == same != other


@pytest.mark.parametrize("address", ["alerts.example.com", "ftp://alerts.example.com", "https://a.example/?x=1", ""])
def test_what_is_no_public_address_is_refused(address: str) -> None:
    assert "public_url: " in problems(f'public_url = "{address}"\n' + there())


def test_a_store_that_outlives_its_containers_needs_no_waiting_for_upstreams() -> None:
    stores = ("postgresql://a@b/c", "sqlite:///tmp/a.db")
    texts = [f'durable = "container"\nstore = "{store}"\n' + there() for store in stores]
    told = [list(warnings(parse(text))) for text in texts]
    assert [any(line.startswith("durable: ") for line in one) for one in told] == [True, False]
    assert "durable: " in problems('durable = "pod"\n' + there())
