"""The alerting rules for Prometheus: the metrics in them exist, each rule has a heading in the runbook, and promtool,
where installed, sees them fire when they should and only then."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.metrics import Metrics, Stock
from gateway.watch.trouble import CODES

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus-rules.yml"


def rules() -> list[dict[str, Any]]:
    """Every rule of the file."""
    return [rule for group in yaml.safe_load(RULES.read_text("utf8"))["groups"] for rule in group["rules"]]


def headings() -> set[str]:
    """The headings of the README's runbook."""
    text = (ROOT / "README.md").read_text("utf8").partition("## Runbook")[2].partition("\n## ")[0]
    return set(re.findall(r"^### `?([\w-]+)`?", text, re.MULTILINE))


def test_every_metric_that_a_rule_looks_at_exists() -> None:
    known = set(
        re.findall(
            r"^# TYPE (\w+)", Metrics().text(Stock(), 0, is_strained=False, is_away=False).decode(), re.MULTILINE
        )
    )
    for rule in rules():
        for name in re.findall(r"\balert_gateway_\w+", rule["expr"]):
            assert name in known or name.removesuffix("_total") in known, name
    assert not [name for name in known if name.endswith("_created")], "a series more for each"


def test_what_replicas_see_together_is_one_alert() -> None:
    """An upstream's trouble is one alert, however many gateways over one store report it."""
    of_upstreams = [rule for rule in rules() if "$labels.upstream" in rule["annotations"]["summary"]]
    assert len(of_upstreams) > 2
    for rule in of_upstreams:
        assert rule["expr"].startswith("max by (upstream) ("), rule["alert"]


def test_a_gateway_that_is_gone_altogether_is_down() -> None:
    """Where no target is left, there is no `up` series that could be 0."""
    [rule] = [rule for rule in rules() if rule["annotations"]["runbook"] == "README: gateway-down"]
    [asked, absent] = rule["expr"].split(" or ")
    assert absent == f"absent({asked.removesuffix(' == 0')})"


def test_whatever_was_not_taken_up_has_a_rule() -> None:
    known = re.findall(
        r"^# TYPE (\w+_last_reload_successful)",
        Metrics().text(Stock(), 0, is_strained=False, is_away=False).decode(),
        re.M,
    )
    assert len(known) > 1 and all(any(name in rule["expr"] for rule in rules()) for name in known)


def test_a_counter_that_a_rule_looks_at_is_there_before_it_first_counts() -> None:
    """Prometheus sees no increase in a series that first appears as 1, so the first event, perhaps the only one, would
    be missed."""
    metrics = Metrics()
    metrics.serve(["d"])
    text = metrics.text(Stock(), 0, is_strained=False, is_away=False).decode()
    for rule in rules():
        for name, outcomes in re.findall(r'(\w+_total)(?:\{outcome=~?"([^"]+)"\})?\[', rule["expr"]):
            for outcome in outcomes.split("|"):
                labels = f'dialect="d",outcome="{outcome}"' if outcome else 'dialect="d"'
                assert f"{name}{{{labels}}} 0.0" in text, rule["alert"]


def test_the_process_is_measured_under_the_usual_names() -> None:
    text = Metrics().text(Stock(), 0, is_strained=False, is_away=False).decode()
    for name in ("process_open_fds", "process_max_fds", "process_resident_memory_bytes"):
        assert float(re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)[0]) > 0


def test_every_rule_and_every_alarm_is_a_heading_of_the_runbook() -> None:
    named = {rule["annotations"]["runbook"].removeprefix("README: ") for rule in rules()}
    assert (named | set(CODES)) <= headings()


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool")
def test_the_rules_fire_when_they_should(tmp_path: Path) -> None:
    tests = tmp_path / "alerts.test.yml"
    tests.write_text((Path(__file__).parent / "alerts.test.yml").read_text("utf8").replace("RULES", str(RULES)))
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(tests)]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
