"""A proxy in front of the gateway, as README says under *Behind a proxy*: nginx itself, with as little in its
configuration as people write, and with what stands in README."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import house
from tests.reverse import needs_nginx, nginx

pytestmark = needs_nginx


@pytest.mark.parametrize("how", ["", "proxy_http_version 1.1; proxy_set_header X-Forwarded-Proto $scheme;"])
def test_whoever_comes_through_a_proxy_on_this_machine_is_no_operator(tmp_path: Path, how: str) -> None:
    """It needs no token from here; with nothing but `proxy_pass`, nginx asks as somebody from here does."""
    with (
        house(tmp_path, {"oncall": "ilert"}) as h,
        nginx(tmp_path / "n", f"location / {{ proxy_pass {h.url}; {how} }}") as front,
    ):
        ours = h.client.get(h.url + "/-/deliveries")
        assert (ours.status_code, ours.json()) == (200, {"deliveries": []})
        for path in ("deliveries", "callers", "report", "operations", "alerts/k"):
            theirs = h.client.get(f"{front}/-/{path}")
            assert (theirs.status_code, "forwarded from elsewhere" in theirs.text) == (403, True), theirs.text
        dropped = h.client.post(front + "/-/drop", json={"upstream": "oncall", "because": "why not"})
        assert dropped.status_code == 403
        assert h.client.get(front + "/-/ready").status_code == 200, "balancers ask"
