"""Callers' keys that are removed while nobody calls: whoever presents one afterwards is refused."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from gateway.config.loading import parse
from gateway.process.service import Gateway
from tests.harness import served


def test_a_key_that_was_taken_away_while_nobody_called_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key files are followed in the background, not only when somebody calls: a removed or emptied key does not
    work for the first call after a quiet time either."""
    monkeypatch.setattr("gateway.config.secrets.BEING_WRITTEN", 2.0)
    monkeypatch.setattr("gateway.config.following.BEING_WRITTEN", 2.0)
    (tmp_path / "keys").mkdir()
    places = {name: tmp_path / "keys" / name for name in ("removed", "emptied", "stays")}
    places |= {"alone": tmp_path / "alone", "token": tmp_path / "token"}
    for name, place in places.items():
        place.write_text(f"the-key-of-{name}")
    text = f"""
    store = "sqlite://{tmp_path}/gateway.db"
    admin_token = "file:{places["token"]}"
    [inbound.opsgenie]
    keys = "dir:{tmp_path}/keys"
    [inbound.jsm_ops]
    keys = {{ alone = "file:{places["alone"]}" }}
    [upstreams.next]
    dialect = "ilert"
    url = "http://127.0.0.1:9"
    key = "k"
    """
    with served(Gateway(parse(text)).app) as url:

        def status(path: str, key: str) -> int:
            return httpx.get(url + path, headers={"Authorization": key}, timeout=10).status_code

        def let_in() -> list[str]:
            of_dir = [one for one in ("removed", "emptied", "stays") if _is_in(one, "/opsgenie/v2/alerts", "GenieKey")]
            of_file = ["alone"] if _is_in("alone", "/jsm_ops/alerts", "Bearer") else []
            return [*of_dir, *of_file, *(["token"] if _is_in("token", "/-/callers", "Bearer") else [])]

        def _is_in(name: str, path: str, scheme: str) -> bool:
            return status(path, f"{scheme} the-key-of-{name}") != 401

        assert let_in() == ["removed", "emptied", "stays", "alone", "token"]
        places["removed"].unlink()
        for name in ("emptied", "alone", "token"):
            places[name].write_text("")
        time.sleep(6)
        assert let_in() == ["stays"]
