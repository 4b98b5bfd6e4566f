"""The configuration: all problems are reported at once, each with its path and a suggestion; what is left out gets its
default."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.config import Config
from gateway.config.loading import load, parse
from gateway.config.values import duration, size
from gateway.errors import ConfigurationError

MINIMAL = """
[inbound.ilert]
keys = { ci = "caller-key" }
[upstreams.oncall]
dialect = "ilert"
url = "https://api.ilert.com"
key = "upstream-key"
"""


def problems(text: str) -> list[str]:
    """The problems of a configuration, of which there must be some."""
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    return caught.value.problems


def having(text: str, *words: str) -> str:
    """The one problem that contains all these words."""
    found = problems(text)
    fitting = [problem for problem in found if all(word in problem for word in words)]
    assert len(fitting) == 1, f"{words} fit {len(fitting)} of {found}"
    return fitting[0]


def swapped(old: str, new: str, text: str = MINIMAL) -> str:
    """The configuration with one part replaced."""
    assert old in text
    return text.replace(old, new, 1)


# --- what is left out ----------------------------------------------------------------------------------------


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """interface.md, *Configuration*: each default as it stands there."""
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    config = parse(MINIMAL)
    assert config.listen == ("127.0.0.1", 8080)
    assert config.store == "/var/state/alert-gateway/gateway.db"
    assert config.retention == 30 * 86_400
    assert config.reply_timeout == 5
    assert config.max_body == 1 << 20
    upstream = config.upstreams["oncall"]
    assert (upstream.timeout, upstream.concurrency) == (10, 8)
    assert (upstream.retry.first, upstream.retry.most, upstream.retry.max_age) == (1, 60, 86_400)
    assert (upstream.destination.rules, upstream.destination.carry) == ("page", "full")


def test_files_as_editors_of_windows_save_them(tmp_path: Path) -> None:
    def saved(name: str, text: str) -> str:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
        return str(tmp_path / name)

    saved("keys/ci", "caller-key\n")
    text = swapped('{ ci = "caller-key" }', f'"dir:{tmp_path}/keys"')
    text = swapped('"upstream-key"', f'"file:{saved("key", "upstream-key")}"', text)
    config = load(saved("gateway.toml", text))
    assert config.inbounds["ilert"].keyring.caller("caller-key") == "ci"
    assert config.upstreams["oncall"].key_of("") == "upstream-key"


@pytest.mark.parametrize(
    ("dialect", "reply"),
    [("ilert", "accepted"), ("livesession", "delivered"), ("ibm_monitoring", "delivered"), ("uptinio", "delivered")],
)
def test_when_callers_are_answered_by_default(dialect: str, reply: str) -> None:
    """interface.md, *Reply*."""
    text = swapped("[inbound.ilert]", f"[inbound.{dialect}]")
    assert parse(text).inbounds[dialect].reply == reply


def test_reply_at_the_top_and_per_inbound() -> None:
    both = MINIMAL + '[inbound.uptinio]\nkeys = { ci = "k" }\nreply = "accepted"\n'
    config = parse('reply = "delivered"\n' + both)
    assert config.inbounds["ilert"].reply == "delivered"
    assert config.inbounds["uptinio"].reply == "accepted"


@pytest.mark.parametrize(
    ("dialect", "word"), [("ibm_monitoring", "disable"), ("livesession", "delete"), ("ilert", None), ("uptinio", None)]
)
def test_what_a_resolve_becomes_by_default(dialect: str, word: str | None) -> None:
    """canonical.md, *Operations*, resolve."""
    found = parse(swapped('dialect = "ilert"', f'dialect = "{dialect}"')).upstreams["oncall"]
    assert found.on_resolve == word


@pytest.mark.parametrize("written", ['["ilert"]', '{ name = "ilert" }', "7"])
def test_a_dialect_of_another_type_is_a_mistake_like_any_other(written: str) -> None:
    text = swapped('dialect = "ilert"', f"dialect = {written}")
    assert having(text, "upstreams.oncall.dialect").startswith("upstreams.oncall.dialect: must be a text")


def test_routes_may_be_left_out_when_there_is_one_upstream() -> None:
    [route] = parse(MINIMAL).routes
    assert [hop.upstream for hop in route.to] == ["oncall"]
    second = swapped("[upstreams.oncall]", "[upstreams.other]", MINIMAL[MINIMAL.index("[upstreams") :])
    assert "[[routes]]" in having(MINIMAL + second, "routes")


def test_scope_is_the_dialect_and_the_caller_unless_shared() -> None:
    """canonical.md, *Scope*."""
    inbound = parse(MINIMAL).inbounds["ilert"]
    assert inbound.scope_of("ci") != inbound.scope_of("cd")
    text = swapped('keys = { ci = "caller-key" }', 'keys = { ci = "a", cd = "b" }\nscope = "x"')
    shared = parse(text).inbounds["ilert"]
    assert shared.scope_of("ci") == shared.scope_of("cd")


def test_a_scope_is_not_called_as_a_caller_s_own_is() -> None:
    """A `scope` that equals another caller's own scope is refused: sharing alerts takes `scope` on both sides."""
    other = '[inbound.pagerduty]\nkeys = { ci = "x" }\nscope = "ilert/ci"\n'
    assert "'ci'" in having(MINIMAL + other, "inbound.pagerduty.scope")
    parse(MINIMAL + other.replace("ilert/ci", "team/ci"))
    parse(swapped('keys = { ci = "caller-key" }', 'keys = { ci = "a" }\nscope = "ilert/old"'))


def test_a_sender_with_a_slash_names_a_caller() -> None:
    """A `from` with a slash and no caller is refused: such a route would match nothing, silently."""
    assert "'ilert'" in having(MINIMAL + '[[routes]]\nfrom = ["ilert/"]\nto = ["oncall"]\n', "routes[1].from")


def test_a_route_has_the_name_given_or_its_position_from_1() -> None:
    routes = '[[routes]]\nto = ["oncall"]\nwhen = ["severity = 0"]\n[[routes]]\nname = "rest"\nto = ["oncall"]\n'
    assert [route.name for route in parse(MINIMAL + routes).routes] == ["1", "rest"]


# --- durations and sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("10s", 10), ("2m", 120), ("1h", 3600), ("30d", 2_592_000), ("1.5s", 1.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "10 parsecs", "-1s", "s", "1m30s"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="2m"):
        duration(text)


@pytest.mark.parametrize("text", ["36526d", "9" * 30 + "s", "9" * 400 + "d"])
def test_a_duration_that_no_store_can_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="century"):
        duration(text)
    assert duration("36525d")


@pytest.mark.parametrize(
    ("value", "meant"), [(4096, 4096), ("4096", 4096), ("1KiB", 1024), ("1MiB", 1 << 20), ("2 GiB", 2 << 30)]
)
def test_sizes(value: str | int, meant: int) -> None:
    assert size(value) == meant


@pytest.mark.parametrize("value", ["", "1MB?", "-1", "lots", "1.5MiB"])
def test_what_is_no_size_is_refused_with_an_example(value: str) -> None:
    with pytest.raises(ValueError, match="1MiB"):
        size(value)


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ('retention = "soon"', "retention"),
        ("retention = 30", "retention"),
        ('reply_timeout = "5"', "reply_timeout"),
        ('max_body = "1 potato"', "max_body"),
        ("max_body = -1", "max_body"),
        ('reply = "never"', "reply"),
        ('max_body = "0"', "max_body"),
        ('listen = "8080"', "listen"),
        ('listen = "http://127.0.0.1:8080"', "listen"),
        ('listen = "127.0.0.1:99999"', "listen"),
        ('store = "gateway.db"', "store"),
        ('store = "sqlite://relative.db"', "store"),
        ('store = "mysql://host/db"', "store"),
        ('store = ""', "store"),
        ('reply_timeout = "36500d"', "reply_timeout"),
        ('max_body = "1000GiB"', "max_body"),
        ("max_body = 1", "max_body"),
        ('heartbeat = { url = "http://h", every = "1ms" }', "heartbeat.every"),
        ('heartbeat = { url = "http://h", every = "36500d" }', "heartbeat.every"),
        ('heartbeat = { url = "http://h", stall = "1ms" }', "heartbeat.stall"),
        ('heartbeat = { url = "hc.example.com/ping" }', "heartbeat.url"),
        ('heartbeat = { url = "https:///ping" }', "heartbeat.url"),
        ('store = "postgresql://gate:a/b@127.0.0.1/alerts"', "store"),
        ('store = "postgresql://gate:a@b@127.0.0.1/alerts"', "store"),
        ('store = "sqlite:///~/gateway.db"', "store"),
        ('store = "sqlite:///var/lib/gateway.db?mode=ro"', "store"),
        ('store = "sqlite:///var/lib/"', "store"),
        ('listen = "*:8080"', "listen"),
        ('listen = "::1"', "listen"),
    ],
)
def test_a_bad_value_at_the_top_is_named_by_its_path(line: str, path: str) -> None:
    assert having(line + "\n" + MINIMAL, path).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ('timeout = "quick"', "upstreams.oncall.timeout"),
        ('headers = { "X Y" = "z" }', "upstreams.oncall.headers"),
        ('retry = { first = "x" }', "upstreams.oncall.retry.first"),
        ('retry = { max_age = "x" }', "upstreams.oncall.retry.max_age"),
        ('concurrency = "many"', "upstreams.oncall.concurrency"),
        ("concurrency = 0", "upstreams.oncall.concurrency"),
        ('timeout = "0s"', "upstreams.oncall.timeout"),
        ('timeout = "1ms"', "upstreams.oncall.timeout"),
        ('timeout = "1d"', "upstreams.oncall.timeout"),
        ("concurrency = 1000000", "upstreams.oncall.concurrency"),
        ("rate = 1000000000000", "upstreams.oncall.rate"),
        ('retry = { first = "5m" }', "upstreams.oncall.retry.first"),
        ('retry = { most = "100d" }', "upstreams.oncall.retry.most"),
        ('rules = "loud"', "upstreams.oncall.rules"),
        ('carry = "some"', "upstreams.oncall.carry"),
        ('on_resolve = "explode"', "upstreams.oncall.on_resolve"),
        ('severity = { out = ["LOUD"] }', "upstreams.oncall.severity"),
        ("severity = { in = { WORD = 9 } }", "upstreams.oncall.severity"),
        ('defaults = { "condition.windwo" = 5 }', "upstreams.oncall.defaults"),
        ('defaults = { severity = "x" }', "upstreams.oncall.defaults"),
        ('defaults = { channels = ["slack"] }', "upstreams.oncall.defaults.channels[0]"),
    ],
)
def test_a_bad_value_of_an_upstream_is_named_by_its_path(line: str, path: str) -> None:
    assert any(problem.startswith(path) for problem in problems(MINIMAL + line + "\n"))


@pytest.mark.parametrize(
    "url",
    ["https://jane:s3cr3t@x.example", "https://jane:a/s3cr3t@x.example/b", "https://x.example/hook?token=s3cr3t"],
)
def test_a_credential_in_an_address_is_refused_and_not_repeated(url: str) -> None:
    """Problems are printed, and logged at a reload."""
    settings = f'[upstreams.ibm]\ndialect = "ibm_monitoring"\nurl = "{url}"\niam_key = "k"\niam_url = "{url}"\n'
    found = problems(f'public_url = "{url}"\n{MINIMAL}{settings}')
    assert len([one for one in found if "is not an address" in one and "•••" in one]) == 3
    assert "s3cr3t" not in "".join(found)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[inbound.grafana]\nhmac = []", "inbound.grafana.hmac: lists no secret: write one, or leave it out"),
        ("[inbound.grafana]\nhmac = true", "inbound.grafana.hmac: must be a text"),
        ("[inbound.grafana]\nhmac = [7]", "inbound.grafana.hmac: must be a text"),
        ('[upstreams.ibm]\ndialect = "ibm_monitoring"\niam_key = 7', "upstreams.ibm.iam_key: must be a text"),
        (
            '[upstreams.ibm]\ndialect = "ibm_monitoring"\niam_key = "k"\niam_url = "iam.cloud.ibm.com"',
            "upstreams.ibm.iam_url: 'iam.cloud.ibm.com' is not an address such as https://iam.cloud.ibm.com",
        ),
    ],
)
def test_a_dialect_s_own_settings_are_checked_like_all_others(text: str, says: str) -> None:
    """An empty list of secrets would accept unsigned requests, and a malformed address would show only in alerts that
    never arrive."""
    assert any(problem.startswith(says) for problem in problems(MINIMAL + text + "\n"))


def test_of_a_few_words_all_are_named() -> None:
    found = problems(MINIMAL + 'rules = "loud"\n')
    assert found == ['upstreams.oncall.rules: must be "page", "quiet" or "refuse"']
    there = 'set = { urgency = "hi" }\n'
    assert problems(MINIMAL + '[[routes]]\nto = ["oncall"]\n' + there) == [
        'routes[1].set.urgency: must be "high" or "low"'
    ]


# --- problems ------------------------------------------------------------------------------------------------


def test_every_problem_is_said_at_once_each_with_its_path() -> None:
    text = """
    listn = "127.0.0.1:1"
    retention = "soon"
    [inbound.ilret]
    [inbound.uptinio]
    kees = { ci = "a" }
    [upstreams.oncall]
    dialect = "ilret"
    url = "api.ilert.com"
    [upstreams.other]
    dialect = "uptinio"
    url = "https://x"
    key = "env:ALERT_GATEWAY_TEST_NOT_SET"
    tiemout = "1s"
    [[routes]]
    to = ["onkall"]
    when = ["severty <= 3"]
    """
    found = problems(text)
    for path, suggestion in [
        ("listn", "'listen'"),
        ("retention", "2m"),
        ("inbound.ilret", "'ilert'"),
        ("inbound.uptinio.kees", "'keys'"),
        ("upstreams.oncall.dialect", "'ilert'"),
        ("upstreams.oncall.url", "https://"),
        ("upstreams.other.key", "ALERT_GATEWAY_TEST_NOT_SET"),
        ("upstreams.other.tiemout", "'timeout'"),
        ("routes[1].to", "'oncall'"),
        ("routes[1].when", "'severity'"),
    ]:
        assert any(problem.startswith(f"{path}:") and suggestion in problem for problem in found), (path, found)


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("[inbound.ilert]", "[inbound.ilert]\nkyes = 1", "inbound.ilert.kyes"),
        ('key = "upstream-key"', 'key = "upstream-key"\nretry = { frist = "1s" }', "upstreams.oncall.retry.frist"),
        ('key = "upstream-key"', 'key = "upstream-key"\nseverity = { outt = [] }', "upstreams.oncall.severity.outt"),
        ('key = "upstream-key"', 'key = "k"\n[[routes]]\nto = ["oncall"]\nwen = []', "routes[1].wen"),
        ('key = "upstream-key"', 'key = "k"\n[upstream]\n', "upstream"),
    ],
)
def test_an_unknown_key_is_an_error_with_a_suggestion(old: str, new: str, path: str) -> None:
    problem = having(swapped(old, new), path, "unknown key")
    assert problem.startswith(f"{path}:")
    assert "did you mean" in problem


def test_an_unknown_key_of_a_hop() -> None:
    text = MINIMAL + '[[routes]]\nto = [{ upstream = "oncall", sett = { team = "42" } }]\n'
    assert "sett" in having(text, "routes[1].to", "sett")


def test_a_hop_that_names_no_upstream() -> None:
    """The misspelt key alone is told of, and what is missing for it, not that there is no upstream `''`."""
    assert problems(MINIMAL + '[[routes]]\nto = [{ upsteam = "oncall" }]\n') == [
        "routes[1].to: unknown key 'upsteam'; did you mean 'upstream'?",
        "routes[1].to: `upstream` is required in a table",
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            swapped('"upstream-key"', '{ bye = "caller" }'),
            [
                "upstreams.oncall.key.bye: unknown key; did you mean 'by'?",
                "upstreams.oncall.key.by: is required",
                "upstreams.oncall.key.dir: is required",
            ],
        ),
        (swapped('url = "https://api.ilert.com"', ""), ["upstreams.oncall.url: is required"]),
        (swapped('"upstream-key"', "5"), ["upstreams.oncall.key: must be a text or a table, not a whole number"]),
        (MINIMAL + '[[routes]]\nto = ["oncall"]\nfallback = {}\n', ["routes[1].fallback.to: is required"]),
        (MINIMAL + "[heartbeat]\n", ["heartbeat.url: is required"]),
        (
            MINIMAL + '[heartbeat]\nurl = "env:ALERT_GATEWAY_TEST_NOT_SET"\n',
            ["heartbeat.url: the variable ALERT_GATEWAY_TEST_NOT_SET is not set"],
        ),
        (
            MINIMAL + '[[routes]]\nto = [{ upstream = "oncall", set = { team = { by = "caller", table = 5 } } },'
            ' { upstream = "oncal", set = { team = { by = "caller", table = "none.toml" } } }]\n',
            [
                "routes[1].to.set.team.table: must be a text, not a whole number",
                "routes[1].to.set.team.table: the table none.toml cannot be read: No such file or directory",
                "routes[1].to: no upstream 'oncal'; did you mean 'oncall'?",
            ],
        ),
        (MINIMAL + "[dialects.acme]\n", ["dialects.acme.fields: is required"]),
        (
            "inbound = 5\n[upstreams" + MINIMAL.partition("[upstreams")[2],
            ["inbound: must be a table, not a whole number"],
        ),
    ],
)
def test_what_is_missing_or_of_another_type_is_not_also_told_to_be_wrong(text: str, found: list[str]) -> None:
    assert problems(text) == found


def test_an_empty_name_of_a_fact_or_a_table_is_no_name() -> None:
    """It was taken for none, and the route set nothing, silently."""
    text = MINIMAL + '[[routes]]\nto = ["oncall"]\nset = { team = { by = "", table = "" } }\n'
    found = problems(text)
    assert found[0] == "routes[1].set.team.by: '' is not a field of an alert"
    assert found[1].startswith("routes[1].set.team.table: the table  cannot be read")


def test_an_upstream_without_a_credential() -> None:
    assert having(swapped('key = "upstream-key"', ""), "upstreams.oncall.key", "is required")


def test_another_way_to_write_a_variable_is_an_error() -> None:
    for written in ("${ILERT_KEY}", "ENV:ILERT_KEY", "$ILERT_KEY"):
        assert having(swapped('"upstream-key"', f'"{written}"'), "upstreams.oncall.key", "env:ILERT_KEY")


def test_a_reference_in_capitals_is_no_key() -> None:
    assert having(swapped('"upstream-key"', '"File:/run/key"'), "upstreams.oncall.key", "file:", "lower case")


def test_a_variable_with_a_line_feed_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERT_GATEWAY_TEST_KEY", "canary\n")
    said = having(swapped('"upstream-key"', '"env:ALERT_GATEWAY_TEST_KEY"'), "upstreams.oncall.key", "a line feed")
    assert "canary" not in said


def test_secrets_are_not_looked_for_when_only_the_file_is_checked() -> None:
    text = swapped('"upstream-key"', '"env:ALERT_GATEWAY_TEST_NOT_SET"')
    assert "oncall" in parse(text, secrets=False).upstreams
    assert having(text, "upstreams.oncall.key", "ALERT_GATEWAY_TEST_NOT_SET")


def test_not_toml_and_not_there(tmp_path: Path) -> None:
    assert problems("[inbound")[0].startswith("not TOML")
    with pytest.raises(ConfigurationError, match=r"gateway\.toml"):
        load(tmp_path / "gateway.toml")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "inbound = 5",
        "upstreams = []",
        'inbound = { ilert = "yes" }',
        'routes = "oncall"',
        MINIMAL + "[[routes]]\nto = 5",
        MINIMAL + "[[routes]]\n",
        MINIMAL + "[[routes]]\nto = [7]",
        MINIMAL + '[[routes]]\nto = ["oncall"]\nset = 5',
        MINIMAL + '[[routes]]\nto = [{ upstream = "oncall", set = 5 }]',
        MINIMAL + "defaults = { channels = 5 }",
        MINIMAL + "defaults = 5",
        MINIMAL + "severity = 5",
        MINIMAL + "retry = 5",
        MINIMAL + "metrics = 5",
        MINIMAL + "headers = 5",
        MINIMAL + "timeout = 5",
        swapped('dialect = "ilert"', "dialect = 5"),
        swapped("keys = {", "keys = 5 #"),
        swapped("keys = {", "scope = 5\nkeys = {"),
        swapped('url = "https://api.ilert.com"', "url = 5"),
        swapped('"upstream-key"', "5"),
    ],
)
def test_whatever_is_written_there_the_answer_is_problems_and_no_crash(text: str) -> None:
    assert problems(text)


# --- who may call, from where --------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "127.8.8.8:0"])
def test_a_keyless_inbound_on_loopback(address: str) -> None:
    config = parse(f'listen = "{address}"\n' + swapped('keys = { ci = "caller-key" }', ""))
    assert not config.inbounds["ilert"].keyring


@pytest.mark.parametrize("address", ["0.0.0.0:8080", "[::]:8080", "10.0.0.7:80", "gateway.example:80", ":8080"])
def test_a_keyless_inbound_anywhere_else_is_refused(address: str) -> None:
    """interface.md: anonymous callers, allowed on loopback only, unless `anonymous = true` says so out loud."""
    top = f'listen = "{address}"\n'
    assert any(
        "anonymous = true" in one or one.startswith("listen")
        for one in problems(top + swapped('keys = { ci = "caller-key" }', ""))
    )


def test_the_same_path_below_two_names_is_no_clash() -> None:
    """Webhooks have no path of their own, and are served below the names of their dialects alone."""
    more = f'{MINIMAL}\n[inbound.grafana]\nkeys = {{ g = "k" }}\n[inbound.alertmanager_webhook]\nkeys = {{ a = "k" }}\n'
    assert len(parse(more).inbounds) == 3


@pytest.mark.parametrize("address", ["localhost.evil.example:80", "127.evil.example:80"])
def test_a_name_that_only_looks_like_loopback_is_not(address: str) -> None:
    text = f'listen = "{address}"\n' + swapped('keys = { ci = "caller-key" }', "")
    assert having(text, "inbound.ilert", "anonymous = true")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("{}", "inbound.ilert.keys: lists no caller: write one, or leave `keys` out if callers need none"),
        ("{ ci = [] }", "inbound.ilert.keys.ci: lists no secret: write one, or leave the caller out"),
    ],
)
def test_keys_that_are_taken_out_to_the_last_let_nobody_in(keys: str, says: str) -> None:
    """Empty keys are refused rather than read as an inbound without keys, which lets in everybody on loopback, where a
    proxy may be in front."""
    assert says in problems(swapped('{ ci = "caller-key" }', keys))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("*:8080", "'0.0.0.0:8080'"),
        ("127.0.0.1:65536", "is not HOST:PORT"),
        ("127.0.0.1:\uff18\uff10\uff18\uff10", "is not HOST:PORT"),
        (":8080", "'127.0.0.1:8080'"),
        ("8080", "'127.0.0.1:8080'"),
        ("::1", "'[::1]:8080'"),
    ],
)
def test_an_address_to_listen_on_that_is_none_is_told_with_one(written: str, meant: str) -> None:
    """`*:8080` and `::1` are refused with a suggestion, as the gateway could not listen there."""
    assert having(f'listen = "{written}"\n' + MINIMAL, "listen: ", meant)


def test_an_address_to_listen_on_is_a_host_and_a_port() -> None:
    for written, meant in {"[::1]:8080": ("::1", 8080), "127.0.0.1:65535": ("127.0.0.1", 65535)}.items():
        assert parse(f'listen = "{written}"\n' + MINIMAL).listen == meant


def test_anonymous_said_out_loud_and_keys_are_enough_anywhere() -> None:
    top = 'listen = "0.0.0.0:8080"\n'
    assert isinstance(parse(top + MINIMAL), Config)
    loud = parse(top + swapped('keys = { ci = "caller-key" }', "anonymous = true"))
    assert loud.inbounds["ilert"].anonymous


def test_the_name_of_everybody_else_is_taken() -> None:
    """interface.md: callers without a key are one caller named `anonymous`, so that name is reserved."""
    assert having(swapped("{ ci =", "{ anonymous ="), "inbound.ilert.keys.anonymous")


def test_one_credential_of_two_callers_is_an_error() -> None:
    """A credential identifies its caller, so two callers cannot have the same."""
    text = swapped('keys = { ci = "caller-key" }', 'keys = { ci = "same-key", cd = "same-key" }')
    named = [problem for problem in problems(text) if problem.startswith("inbound.ilert.keys")]
    assert len(named) == 2
    others = 'cc = "env:ALERT_GATEWAY_TEST_NOT_SET", ce = "env:ALERT_GATEWAY_TEST_NOT_SET", '
    found = problems("listn = 1\n" + swapped("{ ci", "{ " + others + "ci", text))
    assert set(named) < set(found), "it is told of beside others"
    assert sum("another caller" in problem for problem in found) == 2, "secrets that are missing are not the same"


def test_throwing_away_is_explicit() -> None:
    """interface.md: alerts are thrown away only explicitly (`to = []`, `because = "…"`)."""
    assert having(MINIMAL + "[[routes]]\nto = []\n", "routes[1].to", "because")
    [route] = parse(MINIMAL + '[[routes]]\nto = []\nbecause = "a rehearsal"\n').routes
    assert (route.to, route.because) == ((), "a rehearsal")


@pytest.mark.parametrize("to", ['to = "oncall"', 'name = "x"'])
def test_a_route_with_another_mistake_is_not_told_that_it_throws_away(to: str) -> None:
    [said] = problems(MINIMAL + f"[[routes]]\n{to}\n")
    assert said.startswith("routes[1].to: ") and "because" not in said


def test_a_route_from_somebody_who_cannot_call() -> None:
    text = MINIMAL + '[[routes]]\nfrom = ["uptinio"]\nto = ["oncall"]\n'
    assert having(text, "routes[1].from", "uptinio")


def test_a_route_from_a_caller_that_is_not_listed() -> None:
    """interface.md: every problem of the file is reported; `ilert/nobody` can never match, as no caller has that
    name."""
    text = MINIMAL + '[[routes]]\nfrom = ["ilert/nobody"]\nto = ["oncall"]\n'
    assert having(text, "routes[1].from", "nobody")


def test_what_a_route_sets_is_checked_like_an_alert() -> None:
    good = MINIMAL + '[[routes]]\nto = [{ upstream = "oncall", set = { condition = { window = 60 }, team = "42" } }]\n'
    assert parse(good).routes[0].to[0].replaced == {"team": "42", "condition.window": 60}
    bad = swapped('team = "42"', "team = 42", good)
    assert having(bad, "routes[1].to")
    unknown = swapped("team =", "teem =", good)
    assert having(unknown, "routes[1].to", "teem")


def test_dotted_and_nested_defaults_are_the_same() -> None:
    dotted = parse(MINIMAL + '[upstreams.oncall.defaults]\n"condition.expression" = "a"\n')
    nested = parse(MINIMAL + '[upstreams.oncall.defaults.condition]\nexpression = "a"\n')
    flat = {"condition.expression": "a"}
    assert dotted.upstreams["oncall"].destination.defaults == flat
    assert nested.upstreams["oncall"].destination.defaults == flat


@pytest.mark.parametrize(
    ("condition", "says"),
    [("caller = cii", "did you mean 'ci'?"), ("dialect = ilrt", "'ilrt' is not an [inbound.…]; did you mean 'ilert'?")],
)
def test_a_condition_on_a_sender_that_nobody_is(condition: str, says: str) -> None:
    """A condition on an unknown caller or dialect is refused: it would match nothing, silently."""
    assert having(MINIMAL + f'[[routes]]\nwhen = ["{condition}"]\nto = ["oncall"]\n', "routes[1].when", says)


def test_of_many_callers_some_are_named() -> None:
    keys = ", ".join(f'c{number:02} = "key-{number}"' for number in range(30))
    text = swapped('keys = { ci = "caller-key" }', f"keys = {{ {keys} }}")
    route = '[[routes]]\nfrom = ["ilert/nobody"]\nwhen = ["caller = someone"]\nto = ["oncall"]\n'
    assert problems(text + route) == [
        "routes[1].from: ilert has no caller 'nobody'; there are c00, c01, c02, c03, c04 and 25 more",
        "routes[1].when: there is no caller 'someone'; there are c00, c01, c02, c03, c04 and 25 more",
    ]


def test_a_condition_on_a_sender_that_is_there() -> None:
    when = '["caller = ci", "caller != nobody", "caller = anonymous", "dialect = ilert"]'
    assert len(parse(MINIMAL + f'[[routes]]\nwhen = {when}\nto = ["oncall"]\n').routes[0].when) == 4


def test_one_route_in_single_brackets_is_told_how_it_is_written() -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse(MINIMAL + '[routes]\nto = ["oncall"]\n')
    assert raised.value.problems == ["routes: must be a list, not a table: write [[routes]]"]


def test_an_inbound_with_a_mistake_is_there_all_the_same() -> None:
    """Only the mistake itself is reported, and not also that references to the table have no target."""
    own = '[dialects.acme.fields]\nsumary = "title"\n[inbound.acme]\n'
    own += '[[tests]]\nfrom = "acme/ops"\nsend = {}\nexpect = {}\n'
    with pytest.raises(ConfigurationError) as raised:
        parse(MINIMAL + '[[routes]]\nfrom = ["acme"]\nwhen = ["dialect = acme"]\nto = ["oncall"]\n' + own)
    assert raised.value.problems == [
        "dialects.acme.fields.sumary: is not a field of an alert; did you mean 'summary'?",
    ]


def test_what_is_set_wrongly_is_named_by_its_path() -> None:
    for value, says in (('"HIGH"', "must be a whole number, not a text"), ("9", "must be at most 7")):
        text = MINIMAL + f'[[routes]]\nto = ["oncall"]\nset = {{ severity = {value} }}\n'
        assert having(text, "severity") == f"routes[1].set.severity: {says}"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (MINIMAL + "[upstreams.oncall.defaults]\n", "upstreams.oncall.defaults"),
        (MINIMAL + '[[routes]]\nto = ["oncall"]\n[routes.set]\n', "routes[1].set"),
    ],
)
def test_all_that_is_wrong_in_one_table_is_named(text: str, path: str) -> None:
    assert problems(text + 'summry = "x"\nseverity = 9\nteam = "db"\ncondition = { windw = 60, window = "1m" }\n') == [
        f"{path}.summry: is not a field of an alert; did you mean 'summary'?",
        f"{path}.severity: must be at most 7",
        f"{path}.condition.windw: is not a field of an alert; did you mean 'condition.window'?",
        f"{path}.condition.window: must be a whole number or a number, not a text",
    ]


def test_what_a_test_expects_of_nobody_is_named_with_a_suggestion() -> None:
    sample = '[[tests]]\nfrom = "ilert"\nsend = {}\n'
    found = problems(MINIMAL + sample + 'expect = { to = ["oncal"], wake = true, "oncal.priority" = "HIGH" }\n')
    assert found == [
        "tests[1].expect: 'wake' is not to, route, refused, wakes, or a field of an upstream; did you mean 'wakes'?",
        "tests[1].expect: 'oncal.priority' is not to, route, refused, wakes, or a field of an upstream; "
        "did you mean 'oncall'?",
        "tests[1].expect.to: no upstream 'oncal'; did you mean 'oncall'?",
    ]
