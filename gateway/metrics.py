"""What the gateway counts about itself, as Prometheus metrics. Labels come from the configuration and from closed
lists, never from what callers send. It must not know any vendor."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.store import Waiting
from gateway.translation import Fate

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """One process's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "alert_gateway_requests", "Requests by dialect and outcome.", ["dialect", "outcome"], registry=self.registry
        )
        self._request_seconds = Histogram(
            "alert_gateway_request_seconds",
            "Time from a request's arrival to its answer.",
            ["dialect"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._attempts = Counter(
            "alert_gateway_deliveries",
            "Attempts to deliver, by upstream, what came of them, and why.",
            ["upstream", "outcome", "reason"],
            registry=self.registry,
        )
        self._attempt_seconds = Histogram(
            "alert_gateway_delivery_seconds",
            "Time that an attempt took.",
            ["upstream"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._lost = Counter(
            "alert_gateway_fields",
            "Fields that an upstream could not hold as they were said.",
            ["dialect", "upstream", "fate"],
            registry=self.registry,
        )
        self._depth = Gauge(
            "alert_gateway_waiting_deliveries", "Deliveries that wait.", ["upstream"], registry=self.registry
        )
        self._age = Gauge(
            "alert_gateway_oldest_waiting_seconds",
            "Age of the oldest delivery that waits.",
            ["upstream"],
            registry=self.registry,
        )
        self._held = Gauge(
            "alert_gateway_upstream_held",
            "1 while nothing is sent to an upstream because it refuses its key or shows a bad certificate.",
            ["upstream"],
            registry=self.registry,
        )

    def request(self, dialect: str, outcome: str, seconds: float) -> None:
        """A request was answered; `outcome` is the kind of problem, or `ok`."""
        self._requests.labels(dialect, outcome).inc()
        self._request_seconds.labels(dialect).observe(seconds)

    def attempt(self, upstream: str, outcome: str, reason: str, seconds: float) -> None:
        """An attempt ended."""
        self._attempts.labels(upstream, outcome, reason).inc()
        self._attempt_seconds.labels(upstream).observe(seconds)

    def report(self, dialect: str, upstream: str, fates: Iterable[Fate]) -> None:
        """A translation was reported on."""
        for fate in fates:
            if fate.fate != "mapped":
                self._lost.labels(dialect, upstream, fate.fate).inc()

    def text(self, waiting: Iterable[Waiting], upstreams: Iterable[str], held: frozenset[str], now: int) -> bytes:
        """Everything, in Prometheus' text format."""
        depths = {one.upstream: one for one in waiting}
        for upstream in upstreams:
            found = depths.get(upstream)
            self._depth.labels(upstream).set(found.count if found else 0)
            self._age.labels(upstream).set((now - found.oldest) / 1000 if found else 0)
            self._held.labels(upstream).set(upstream in held)
        return generate_latest(self.registry)
