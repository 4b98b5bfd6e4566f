"""The alerting rules for Prometheus: what they look at exists, each is a heading of the runbook, and promtool, where it
is there, sees them fire when they should and only then."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.metrics import Metrics, Stock
from gateway.watch import CODES

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
    known = set(re.findall(r"^# TYPE (\w+)", Metrics().text(Stock(), 0, is_strained=False).decode(), re.MULTILINE))
    for rule in rules():
        for name in re.findall(r"\balert_gateway_\w+", rule["expr"]):
            assert name in known or name.removesuffix("_total") in known, name


def test_the_process_is_measured_under_the_usual_names() -> None:
    text = Metrics().text(Stock(), 0, is_strained=False).decode()
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
