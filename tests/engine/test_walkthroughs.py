"""The README's walkthroughs (issue 6.10), run as a new user would: the very commands of its shell blocks, in bash, with
gateways in processes of their own, and the output of each block.

Only ports and the directory below `/tmp` are changed in them and in `deploy/walkthroughs/`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import apsw
import httpx
import pytest
import yaml

from tests.engine.test_config_schema import complaints

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf8")
CHAPTER = README.partition("\n## Walkthroughs\n")[2].partition("\n## ")[0]
FILES = ROOT / "deploy" / "walkthroughs"
DIRECTORY = "/tmp/alert-gateway"
PORTS = ("8080", "8090", "8099", "9092")
NIGHT, PROOF, LEAVE = "It is 3 a.m.", "Prove that nothing was missed", "Leave a vendor"
SEVERAL, SIDECAR = "Tell several", "Run a sidecar"
SEPARATOR = "\x1e"
LONGEST = 90.0
"""Seconds that a walkthrough may take on a busy machine."""
VENDORS_KEY = {"authorization": "GenieKey vendors-key"}

pytestmark = pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl")


def blocks(title: str = "") -> list[str]:
    """The shell blocks below a heading of the chapter; without one, those at its beginning, which all walkthroughs
    share."""
    text = CHAPTER.partition(f"\n### {title}\n")[2] if title else CHAPTER
    return re.findall(r"^```sh\n(.*?)^```$", text.partition("\n### ")[0], re.DOTALL | re.MULTILINE)


def _free_ports(count: int) -> list[str]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in sockets]


@dataclass
class Checkout:
    """A directory with what the commands need of a checkout, and the ports and paths in use there."""

    path: Path
    ports: Mapping[str, str]

    def changed(self, text: str) -> str:
        """A text of the README or a configuration with this checkout's ports and directory."""
        for port, other in self.ports.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{other}")
        return text.replace(DIRECTORY, str(self.path / "run"))

    @contextlib.contextmanager
    def walked(self, steps: list[str]) -> Iterator[list[str]]:
        """Runs blocks one after the other in one shell; yields what each printed, while the processes they started
        still run."""
        script = self.changed(f"printf '{SEPARATOR}'\n".join(steps))
        log = self.path / "stderr.log"
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=self.path,
                env={name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            ) as shell,
        ):
            try:
                printed = shell.communicate(timeout=LONGEST)[0].decode()
                assert shell.returncode == 0, f"{printed}\n{log.read_text()}\n{self._logs()}"
                yield printed.split(SEPARATOR)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGKILL)

    def _logs(self) -> str:
        return "\n".join(path.read_text() for path in (self.path / "run").glob("*.log"))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a further command that is not in the README."""
        command = [".venv/bin/alert-gateway", *words]
        return subprocess.run(command, cwd=self.path, capture_output=True, text=True, timeout=LONGEST, check=False)

    def at_the_vendor(self, path: str) -> httpx.Response:
        """What the stand-in for Opsgenie answers."""
        return httpx.get(f"http://127.0.0.1:{self.ports['8090']}{path}", headers=VENDORS_KEY, trust_env=False)


@pytest.fixture(scope="module")
def vendors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The port of the vendors' stand-in, started by the chapter's first block."""
    there = _checkout(tmp_path_factory.mktemp("vendors"), {})
    with there.walked(blocks()) as [printed]:
        assert '"ready":true' in printed
        yield there.ports["8090"]


def _checkout(path: Path, ports: Mapping[str, str]) -> Checkout:
    """A checkout's `deploy/walkthroughs` and `.venv`, with free ports but for those given."""
    found = Checkout(path, {**dict(zip(PORTS, _free_ports(len(PORTS)), strict=True)), **ports})
    (path / "deploy" / "walkthroughs").mkdir(parents=True)
    (path / "run").mkdir()
    (path / ".venv").symlink_to(sys.prefix)
    for file in FILES.iterdir():
        (path / "deploy" / "walkthroughs" / file.name).write_text(found.changed(file.read_text("utf8")), "utf8")
    return found


@pytest.fixture
def checkout(tmp_path: Path, vendors: str) -> Checkout:
    """A checkout beside the running vendors, as a walkthrough assumes."""
    return _checkout(tmp_path, {"8090": vendors})


def test_every_walkthrough_is_walked() -> None:
    """Every heading has a test here, and every configuration in the directory is used."""
    assert re.findall(r"^### (.+)$", CHAPTER, re.MULTILINE) == [NIGHT, PROOF, LEAVE, SEVERAL, SIDECAR]
    assert {file.name for file in FILES.iterdir()} == set(re.findall(r"deploy/walkthroughs/(\S+\.toml)", CHAPTER))


def test_an_editor_has_nothing_to_say_against_a_configuration() -> None:
    assert {file.name: complaints(file.read_text("utf8")) for file in FILES.iterdir()} == {
        file.name: [] for file in FILES.iterdir()
    }


def test_it_is_3_a_m(checkout: Checkout) -> None:
    with checkout.walked(blocks(NIGHT)) as [begun, looked, mended, asked]:
        assert '"status":"success"' in begun, "the caller was told that it is taken"
        assert re.search(r"^oncall: waiting", looked, re.MULTILINE) and "401" in looked and "key-refused" in looked
        assert re.search(r"^status: dead", looked, re.MULTILINE) and "unmet" in looked
        assert "status (uptinio)" in mended and "will be sent again" in mended
        shown = checkout.at_the_vendor("/opsgenie/v2/alerts/db-1%2Fdisk?identifierType=alias").json()["data"]
        assert asked.startswith("Disk full on db-1\n"), "found by the vendor's own id"
        ids = rf"id\s+{shown['id']},\s+tiny\s+{shown['tinyId']}"
        assert re.search(rf"^oncall: present, key db-1/disk,\s+{ids}$", asked, re.MULTILINE)
        assert re.search(r"^status: present", asked, re.MULTILINE)
        assert re.search(r"\tretry\t1\t0\t", asked), "the operators' log has who sent again"


def test_prove_that_nothing_was_missed(checkout: Checkout) -> None:
    with checkout.walked(blocks(PROOF)) as [begun, told, shown]:
        assert (begun.count('"status":"success"'), begun.count('"status":"invalid event"')) == (4, 1)
        assert ledger(told)["shop"] == ["4", "3", "0", "0", "1", "0", "0"]
        assert ledger(told)["oncall"][:2] == ["0", "3"], "each was confirmed"
        assert "\tunknown key\t1\t" in shown and "curl/" in shown
        assert re.search(r"  oncall  resolve  delivered 200, took ", shown) and "dead" not in shown

    config = str(checkout.path / "deploy" / "walkthroughs" / "proof.toml")
    with contextlib.closing(apsw.Connection(str(checkout.path / "run" / "proof.db"))) as store:
        store.execute("DELETE FROM deliveries WHERE id = (SELECT max(id) FROM deliveries WHERE state = 'delivered')")
    found = checkout.run("report", "--config", config)
    assert (found.returncode, found.stderr) == (1, "the ledger does not add up for shop\n")
    assert ledger(found.stdout)["shop"] == ["4", "2", "0", "0", "1", "0", "0"]


def test_leave_a_vendor(checkout: Checkout) -> None:
    with checkout.walked(blocks(LEAVE)) as [begun, both, alone, left]:
        assert [said.count("Request will be processed") for said in (begun, both, alone)] == [1, 1, 3]
        assert "upstreams.old: good" in both and "opsgenie → new (ilert)" in both
        answer, _, road = left.partition("Site is slow\nresolved")
        assert '"alias":"web-1"' in answer and '"status":"closed"' in answer, "callers find it by the old vendor's id"
        assert re.search(r"^old: gone", road, re.MULTILINE) and "new:" not in road

        config = str(checkout.path / "run" / "gateway.toml")
        assert "upstreams.old" not in Path(config).read_text()
        second, third = (checkout.run("trace", "--config", config, key).stdout for key in ("web-2", "web-3"))
        assert re.findall(r"^(\w+): (\w+), key", second, re.MULTILINE) == [("old", "gone"), ("new", "gone")]
        assert re.findall(r"^(\w+): (\w+), key", third, re.MULTILINE) == [("new", "present")]
        there = checkout.at_the_vendor("/opsgenie/v2/alerts/web-3?identifierType=alias")
        assert there.status_code == 404, "the old vendor is not told any more"


def test_tell_several(checkout: Checkout) -> None:
    with checkout.walked(blocks(SEVERAL)) as [rehearsed, told]:
        assert "1 test passed" in rehearsed and "route bad: severity <= 3 holds" in rehearsed
        assert "routing_key: approximated → routingKey (set by route bad)" in rehearsed
        assert '"responders":[{"type":"team","name":"payments"}]' in rehearsed
        roads = dict(
            re.findall(r"^alert \d+; key (\S+?)(?:;.*?)?$(.*?)(?=^Trouble|\Z)", told, re.DOTALL | re.MULTILINE)
        )
        assert re.findall(r"^(\w+): (\w+), key", roads["till-1"], re.MULTILINE) == [
            ("database", "present"),
            ("payments", "present"),
        ]
        assert re.findall(r"^(\w+): (\w+), key", roads["lift-2"], re.MULTILINE) == [
            ("away", "waiting"),
            ("standby", "present"),
        ]
        assert "unreachable" in roads["lift-2"]
        for field in ("routing_key", "extensions.opsgenie.responders"):
            assert f"approximated: {field} (set by route bad)" in roads["till-1"], "the report has why it was set"
        assert checkout.at_the_vendor("/opsgenie/v2/alerts/till-1?identifierType=alias").status_code == 200


def test_run_a_sidecar(checkout: Checkout) -> None:
    with checkout.walked(blocks(SIDECAR)) as [refused, asked, told]:
        assert refused.endswith(" 503\n") and "no upstream has accepted this yet; it is stored" in refused
        assert re.search(r"^\d+\twaiting\toncall\tcreate\t", asked, re.MULTILINE)
        assert "The queue is full\n" in asked and "key-refused" in asked
        assert '"status":"success"' in told and " 202\n" in told
        assert ledger(told)["anonymous"] == ["2", "1", "0", "0", "1", "0", "0"], "one alert, said twice"
        assert ledger(told)["oncall"][:2] == ["1", "0"]


def test_the_sidecar_is_the_one_of_the_manifest() -> None:
    """They differ only in addresses, secrets and names of this machine."""
    [said, *_] = yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "sidecar.yaml").read_text("utf8"))
    there = tomllib.loads(said["data"]["gateway.toml"])
    here = tomllib.loads((FILES / "sidecar.toml").read_text("utf8"))
    assert here.keys() == there.keys() and here["durable"] == there["durable"] == "container"
    assert all(here[name] == there[name] for name in ("max_waiting", "retention"))
    assert here["inbound"] == there["inbound"] == {"pagerduty": {}}
    assert here["upstreams"]["oncall"]["dialect"] == there["upstreams"]["oncall"]["dialect"]


def ledger(printed: str) -> dict[str, list[str]]:
    """The lines of a printed ledger: callers and upstreams by name, with their figures."""
    rows = (line.split("\t") for line in printed.splitlines() if "\t" in line)
    return {name: figures for name, *figures in rows}
