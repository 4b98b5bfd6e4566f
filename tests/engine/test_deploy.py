"""The files in `deploy/` are consistent with the gateway: its own arguments, valid embedded configurations, matching
ports, probes, secrets and volumes, and time to drain. What cannot be run here (a cluster, an init system) is checked by
its own tool where that is installed."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import httpx
import pytest
import trustme
import yaml
from click.testing import CliRunner

from gateway import __version__
from gateway.cli.commands import main
from gateway.config.config import Config
from gateway.config.loading import parse
from gateway.process.service import DRAIN_SECONDS
from gateway.process.serving import LINGER, SETTLE
from gateway.store.ballast import SIZE as BALLAST
from gateway.store.postgres import MIGRATION
from tests.engine.certificates import write
from tests.processes import serving

DEPLOY = Path(__file__).parents[2] / "deploy"
MANIFESTS = sorted(path.stem for path in (DEPLOY / "kubernetes").glob("*.yaml"))
UNIT = DEPLOY / "systemd" / "alert-gateway.service"
UNIT_CONFIG = DEPLOY / "systemd" / "gateway.toml"
GATEWAY = "alert-gateway"
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
NEEDED = LINGER + SETTLE + DRAIN_SECONDS
"""Seconds that the gateway needs between SIGTERM and its exit."""
IN_THE_CLEAR = "is served without TLS"


# --- Kubernetes ------------------------------------------------------------------------------------------------


@cache
def _objects(manifest: str) -> list[dict[str, Any]]:
    text = (DEPLOY / "kubernetes" / f"{manifest}.yaml").read_text("utf8")
    return list(yaml.safe_load_all(text))


def _of_kind(manifest: str, kind: str) -> list[dict[str, Any]]:
    return [one for one in _objects(manifest) if one["kind"] == kind]


def _pod(manifest: str) -> Any:
    [deployment] = _of_kind(manifest, "Deployment")
    return deployment["spec"]["template"]["spec"]


def _container(manifest: str) -> Any:
    pod = _pod(manifest)
    [found] = [one for one in [*pod.get("initContainers", ()), *pod["containers"]] if one["name"] == GATEWAY]
    return found


def _text(manifest: str) -> str:
    """The configuration that the container is given, found by the container's argument."""
    arguments = _container(manifest)["args"]
    path = PurePosixPath(arguments[arguments.index("--config") + 1])
    [config_map] = _of_kind(manifest, "ConfigMap")
    assert _volume_at(manifest, path.parent)["configMap"]["name"] == config_map["metadata"]["name"]
    return str(config_map["data"][path.name])


def _volume_at(manifest: str, directory: PurePosixPath) -> Any:
    """The volume mounted at the nearest parent of a directory."""
    mounts = {PurePosixPath(one["mountPath"]): one["name"] for one in _container(manifest)["volumeMounts"]}
    nearest = next((path for path in (directory, *directory.parents) if path in mounts), None)
    assert nearest, f"nothing is mounted at {directory}"
    return next(one for one in _pod(manifest)["volumes"] if one["name"] == mounts[nearest])


def _config(text: str) -> Config:
    return parse(text, secrets=False)


def _files(text: str) -> Iterator[str]:
    """All files that a configuration refers to: secrets and certificates."""
    table = tomllib.loads(text)
    yield from re.findall(r'"file:([^"]+)"', text)
    yield from table.get("tls", {}).values()


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_the_arguments_are_the_gateways_own(manifest: str) -> None:
    _is_understood(_container(manifest)["args"])


def _is_understood(arguments: list[str]) -> None:
    command = main.commands[arguments[0]]
    command.make_context(arguments[0], list(arguments[1:]))


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_the_embedded_configuration_is_good(manifest: str, tmp_path: Path) -> None:
    """It has one warning only: operators reach a sidecar by port-forward, so it has no certificate."""
    (tmp_path / "gateway.toml").write_text(_text(manifest), "utf8")
    _is_good(tmp_path / "gateway.toml", warned_of=IN_THE_CLEAR if "initContainers" in _pod(manifest) else "")


def _is_good(path: Path, warned_of: str = "") -> None:
    checked = CliRunner().invoke(main, ["check", "--config", str(path), "--no-secrets"])
    assert checked.exit_code == 0, checked.output
    warnings = [line for line in checked.stderr.splitlines() if "warning" in line]
    assert [line for line in warnings if not (warned_of and warned_of in line)] == []
    assert len(warnings) == bool(warned_of)


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_ports_are_those_of_the_configuration(manifest: str) -> None:
    """The pod declares exactly the ports that listen beyond loopback."""
    config = _config(_text(manifest))
    shown = {one["name"]: one["containerPort"] for one in _container(manifest)["ports"]}
    assert config.admin
    reached = {"admin": config.admin, "callers": config.listen}
    assert shown == {name: port for name, (host, port) in reached.items() if host == "0.0.0.0"}


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_probes_ask_what_the_gateway_answers(manifest: str) -> None:
    container, config = _container(manifest), _config(_text(manifest))
    ports = {one["name"] for one in container["ports"]}
    probes = {name: container[name]["httpGet"] for name in PROBES if name in container}
    for name, probe in probes.items():
        assert probe["port"] in ports, name
        assert probe["path"] in ("/-/healthy", "/-/ready")
        assert probe.get("scheme", "HTTP") == ("HTTPS" if config.tls else "HTTP")
    assert probes["livenessProbe"]["path"] == "/-/healthy"  # promise 24: never restarted for an upstream's fault


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_every_file_that_is_referred_to_is_mounted(manifest: str) -> None:
    text = _text(manifest)
    paths = [PurePosixPath(path) for path in _files(text)]
    assert paths
    for path in paths:
        secret = _volume_at(manifest, path.parent)["secret"]
        assert path.name in {item["path"] for item in secret["items"]}, path
    for directory in re.findall(r'"dir:([^"]+)"', text):
        assert "secret" in _volume_at(manifest, PurePosixPath(directory))


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_no_mount_is_without_its_volume_and_no_volume_without_use(manifest: str) -> None:
    mounted = [one["name"] for one in _container(manifest)["volumeMounts"]]
    assert sorted(mounted) == sorted(one["name"] for one in _pod(manifest)["volumes"])


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_it_writes_only_where_it_may(manifest: str) -> None:
    """The root file system is read-only: the store and SQLite's temporary files are in an emptyDir that the container's
    user owns."""
    container, pod, config = _container(manifest), _pod(manifest), _config(_text(manifest))
    context = {**pod["securityContext"], **container["securityContext"]}
    assert context["readOnlyRootFilesystem"] and context["runAsNonRoot"] and not context["allowPrivilegeEscalation"]
    assert context["runAsUser"] == context["fsGroup"] == _users_number()
    scratch = next(one["value"] for one in container["env"] if one["name"] == "TMPDIR")
    written = [PurePosixPath(scratch)] + ([] if config.is_shared else [PurePosixPath(config.store).parent])
    for directory in written if not _is_elsewhere(manifest) else written[:1]:
        assert "emptyDir" in _volume_at(manifest, directory)
    assert all(one.get("readOnly") for one in container["volumeMounts"] if one["mountPath"] not in map(str, written))


def _is_elsewhere(manifest: str) -> bool:
    """Whether the store's URL is in a secret, so that the store is no file in the pod."""
    return str(tomllib.loads(_text(manifest))["store"]).startswith("file:")


def _users_number() -> int:
    found = re.search(r"--uid (\d+)", (DEPLOY.parent / "Dockerfile").read_text("utf8"))
    assert found
    return int(found[1])


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_secrets_are_for_the_gateway_alone_to_read(manifest: str) -> None:
    modes = [one["secret"]["defaultMode"] for one in _pod(manifest)["volumes"] if "secret" in one]
    assert modes and set(modes) == {0o440}


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_there_is_time_to_drain(manifest: str) -> None:
    assert _pod(manifest)["terminationGracePeriodSeconds"] >= math.ceil(NEEDED)


def test_there_is_time_to_bring_the_store_up_to_date() -> None:
    """A startup probe that gives up earlier would restart the migration again and again."""
    probe = _container("central")["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= MIGRATION


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_the_image_is_of_this_release(manifest: str) -> None:
    assert _container(manifest)["image"] == f"alert-gateway:{__version__}"
    assert f"`docker build -t {_container(manifest)['image']} .`" in (DEPLOY.parent / "README.md").read_text("utf8")


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_selectors_find_the_pods(manifest: str) -> None:
    [deployment] = _of_kind(manifest, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [one["spec"]["selector"] for one in _of_kind(manifest, "Service")]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in _of_kind(manifest, "PodDisruptionBudget")]
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in _of_kind(manifest, "NetworkPolicy")]
    assert all(selector.items() <= labels for selector in selectors)


def test_services_and_policies_name_ports_that_there_are() -> None:
    for manifest in MANIFESTS:
        ports = {one["name"] for one in _container(manifest)["ports"]}
        named = [one["targetPort"] for service in _of_kind(manifest, "Service") for one in service["spec"]["ports"]]
        for policy in _of_kind(manifest, "NetworkPolicy"):
            named += [one["port"] for rule in policy["spec"]["ingress"] for one in rule["ports"]]
        assert set(named) <= ports


def test_the_sidecar_is_a_native_one_within_64_mib() -> None:
    """It answers success only for what an upstream has, as its emptyDir is lost with the pod, and its own trouble does
    not fail the pod."""
    container = _container("sidecar")
    assert container in _pod("sidecar")["initContainers"] and container["restartPolicy"] == "Always"
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"] == "64Mi"
    config = _config(_text("sidecar"))
    assert config.durable == "container" and config.listen[0] == "127.0.0.1"
    assert "readinessProbe" not in container and container["startupProbe"]["httpGet"]["path"] == "/-/ready"


def test_what_waits_fits_into_the_sidecars_volume() -> None:
    """A pod whose emptyDir outgrows its limit is evicted, with the application and all waiting alerts. The store has
    each command twice, as itself and in its alert; the rest of an alert takes less than 4 KiB."""
    config = _config(_text("sidecar"))
    room = _bytes(_volume_at("sidecar", PurePosixPath(config.store).parent)["emptyDir"]["sizeLimit"])
    most = 2 * config.max_waiting.bytes + 4096 * config.max_waiting.deliveries + BALLAST
    assert most <= 0.6 * room, "the rest is for what has ended"
    assert config.retention <= 86_400
    assert _bytes(_container("sidecar")["resources"]["requests"]["ephemeral-storage"]) >= room


def _bytes(text: str) -> int:
    assert text.endswith("Mi")
    return int(text.removesuffix("Mi")) << 20


def test_the_central_gateway_survives_the_loss_of_one() -> None:
    [deployment] = _of_kind("central", "Deployment")
    [budget] = _of_kind("central", "PodDisruptionBudget")
    replicas = deployment["spec"]["replicas"]
    assert replicas >= 2 and 1 <= budget["spec"]["minAvailable"] < replicas
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    [callers] = [one for one in _of_kind("central", "Service") if one["metadata"]["name"] == GATEWAY]
    assert [one["targetPort"] for one in callers["spec"]["ports"]] == ["callers"]


def test_operators_reach_pods_that_are_not_ready() -> None:
    """No pod is ready while the store is away, which is when operators look."""
    services = _of_kind("central", "Service")
    [operators] = [one for one in services if [port["targetPort"] for port in one["spec"]["ports"]] == ["admin"]]
    assert operators["spec"]["publishNotReadyAddresses"] is True
    assert operators["metadata"]["labels"]["app"] == GATEWAY, "a ServiceMonitor finds it, and the rules their job"
    assert not any(one["spec"].get("publishNotReadyAddresses") for one in services if one is not operators)


# --- a plain machine -------------------------------------------------------------------------------------------


def _settings() -> dict[str, list[str]]:
    """The unit's settings; a setting may occur several times."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text("utf8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_starts_the_gateway_with_its_own_arguments() -> None:
    [start] = _settings()["ExecStart"]
    program, *arguments = start.split()
    assert PurePosixPath(program).name == "alert-gateway"
    _is_understood(arguments)
    assert _settings()["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert _settings()["Type"] == ["exec"]  # it tells no init system that it is ready


def test_the_units_configuration_is_good_and_its_credentials_are_loaded() -> None:
    _is_good(UNIT_CONFIG)
    text = UNIT_CONFIG.read_text("utf8")
    loaded = {one.partition(":")[0] for one in _settings()["LoadCredential"]}
    named = [PurePosixPath(path) for path in _files(text)]
    assert {path.name for path in named} == loaded
    assert {str(path.parent) for path in named} == {f"/run/credentials/{UNIT.name}"}
    [directory] = _settings()["StateDirectory"]
    assert PurePosixPath(_config(text).store).parent == PurePosixPath("/var/lib") / directory


def test_the_unit_is_started_again_for_as_long_as_it_takes() -> None:
    """Without this setting systemd gives up after five starts in ten seconds, as when the database is away for a
    night."""
    assert _settings()["Restart"] == ["always"] and _settings()["StartLimitIntervalSec"] == ["0"]


def test_the_unit_leaves_time_to_drain() -> None:
    [seconds] = _settings()["TimeoutStopSec"]
    assert float(seconds.removesuffix("s")) >= NEEDED


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """Verified with another program in place of the gateway's, which is not installed here."""
    text = UNIT.read_text("utf8").replace("/opt/alert-gateway/bin/alert-gateway", sys.executable)
    (tmp_path / UNIT.name).write_text(text, "utf8")
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / UNIT.name)], capture_output=True, text=True, timeout=60
    )
    assert verified.returncode == 0 and UNIT.name not in verified.stderr, verified.stderr


# --- served as they are -----------------------------------------------------------------------------------------


def _here(text: str, directory: Path) -> str:
    """The configuration with its files in the test's directory, and a free port for operators."""
    for path in _files(text):
        (directory / PurePosixPath(path).name).write_text("s3cr3t-0123456789abcdef", "utf8")
        text = text.replace(path, str(directory / PurePosixPath(path).name))
    text = re.sub(r'^admin = "[^"]*"', 'admin = "127.0.0.1:0"', text, flags=re.MULTILINE)
    return text.replace("/var/lib/alert-gateway", str(directory))


@pytest.mark.parametrize("text", [_text("sidecar"), UNIT_CONFIG.read_text("utf8")], ids=["sidecar", "systemd"])
def test_a_gateway_serves_from_it_and_answers_its_probes(text: str, tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(_here(text, tmp_path), "utf8")
    with serving(config) as running:
        admin = running.waits_for("serving.admin")[0]["url"]
        assert [httpx.get(admin + path).status_code for path in ("/-/healthy", "/-/ready")] == [200, 200]
        assert running.waits_for("serving")[0]["dialects"] == list(tomllib.loads(text)["inbound"])


# --- the image -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["plain", "admin", "tls", "proxy"])
def test_the_image_is_healthy_whatever_the_configuration_and_not_when_it_hangs(way: str, tmp_path: Path) -> None:
    cert, key = write(tmp_path, trustme.CA(), "localhost")
    top = {"admin": 'admin = "127.0.0.1:0"\n', "tls": f'tls = {{ cert = "{cert}", key = "{key}" }}\n'}.get(way, "")
    config = tmp_path / "gateway.toml"
    upstream = '[upstreams.oncall]\ndialect = "ilert"\nurl = "http://127.0.0.1:9"\nkey = "there"\n'
    config.write_text(f'{top}store = "sqlite://{tmp_path}/gateway.db"\n[inbound.ilert]\n{upstream}')
    found = re.search(r"^HEALTHCHECK .*\\\n +CMD (.*)$", (DEPLOY.parent / "Dockerfile").read_text("utf8"), re.MULTILINE)
    assert found
    env = {**os.environ, **({"http_proxy": "http://127.0.0.1:9"} if way == "proxy" else {})}
    with serving(config) as running:
        port = running.url.rpartition(":")[2]
        line = [sys.executable, *(word.replace("8080", port) for word in json.loads(found[1])[1:])]
        assert subprocess.run(line, env=env, timeout=20, check=False).returncode == 0
        running.signal(signal.SIGSTOP)
        assert subprocess.run(line, env=env, capture_output=True, timeout=20, check=False).returncode != 0
