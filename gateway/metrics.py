"""What the gateway counts about itself, as Prometheus metrics. Labels come from the configuration and from closed
lists, never from what callers send. It must not know any vendor."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.delivery.breaker import RESERVE, Breaker
from gateway.errors import ProblemKind
from gateway.logs import WORKER
from gateway.mapping.report import Fate, forms
from gateway.store import Waiting

_PREFIX = "alert_gateway_"
_OfWorkers = Literal["mostrecent", "livemin", "livemax"]
WATCHED = (ProblemKind.OVERLOADED.value, ProblemKind.INTERNAL.value, ProblemKind.UNAUTHORIZED.value)
"""Outcomes of requests that operators alert on: their counters start at 0 (see `Metrics.serve`)."""
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Stock(NamedTuple):
    """Deliveries in the store that are not delivered: those that wait, and the number of dead letters, by upstream."""

    waiting: Iterable[Waiting] = ()
    dead: Mapping[str, int] = {}


def _go_on_counting(worker: str) -> None:
    """Makes a worker continue the metric files of the worker that it replaces, by naming them by worker instead of by
    process id: files of each process would grow in number with every worker that dies, and a scrape reads them all."""
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]


class Metrics:
    """One process's metrics, in a registry of their own. Counters on the path of a request are cached for each set of
    labels, of which there are few: looking one up costs more than counting."""

    def __init__(self) -> None:
        if WORKER in os.environ:
            _go_on_counting(os.environ[WORKER])
        disable_created_metrics()  # type: ignore[no-untyped-call]  # further series, which hardly anybody reads
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._shown: set[str] = set()
        self._count_requests()
        self._count_deliveries()
        self._show_upstreams()
        self._show_what_is_read_again()
        self._show_store()

    def _count_requests(self) -> None:
        self._requests = cache(
            self._counter("requests", "Requests by dialect and outcome.", "dialect", "outcome").labels
        )
        self._request_seconds = cache(
            self._times("request_seconds", "Time from a request's arrival to its answer.", "dialect").labels
        )
        self._loops = self._counter("loops", "Commands that came back to this gateway; not forwarded.", "dialect")
        self._lost = cache(
            self._counter(
                "fields", "Fields that an upstream could not hold exactly.", "dialect", "upstream", "fate"
            ).labels
        )

    def _count_deliveries(self) -> None:
        self._attempts = cache(
            self._counter(
                "deliveries",
                "Delivery attempts by upstream, outcome and reason.",
                "upstream",
                "outcome",
                "reason",
            ).labels
        )
        self._attempt_seconds = cache(self._times("delivery_seconds", "Duration of an attempt.", "upstream").labels)

    def _show_upstreams(self) -> None:
        self._depth = self._gauge("waiting_deliveries", "Deliveries waiting in the outbox.", "upstream")
        self._dead = self._gauge(
            "dead_deliveries", "Dead letters neither retried nor dropped, except for `no-upstream`.", "upstream"
        )
        self._age = self._gauge("oldest_waiting_seconds", "Age of the oldest waiting delivery.", "upstream")
        self._open = self._gauge(
            "upstream_open",
            "1 while the upstream's breaker is open: it fails, and only probes are sent.",
            "upstream",
            of_workers="livemax",
        )
        self._held = self._gauge(
            "upstream_held",
            "1 while an upstream is held: nothing is sent, because of its key, its certificate or a proxy.",
            "upstream",
            of_workers="livemax",
        )
        self._keys_held = self._gauge(
            "keys_held",
            "Refused keys of an upstream that has one per entry; deliveries with them wait.",
            "upstream",
            of_workers="livemax",
        )
        self._retries = self._gauge(
            "retry_budget",
            "Retries allowed at once; below 1, failed deliveries wait until it has grown.",
            "upstream",
            of_workers="livemin",
        )

    def _show_what_is_read_again(self) -> None:
        self._reloads = self._counter("config_reloads", "Reloads of the configuration.", "outcome")
        self._reloaded = self._gauge(
            "config_last_reload_successful",
            "1 unless the last reload was refused and the previous configuration kept.",
            of_workers="livemin",
        )
        self._certificates = self._counter("tls_reloads", "Reloads of certificates, successful or refused.", "outcome")
        self._certificate = self._gauge(
            "tls_last_reload_successful",
            "1 unless the last certificate reload was refused and the previous certificate kept.",
            of_workers="livemin",
        )
        self._certificate_ends = self._gauge(
            "tls_not_after_timestamp_seconds",
            "Expiry of the served certificate, or of one of its chain if earlier; only with `tls`.",
            "file",
            of_workers="livemin",
        )
        self._reloaded.set(1)
        self._certificate.set(1)

    def _show_store(self) -> None:
        self._strained = self._gauge(
            "store_strained", "1 while the disk is full: alerts are refused, deliveries still recorded."
        )
        self._away = self._gauge(
            "store_unavailable",
            "1 while the store takes no commits; counts from the store are then of the last commit.",
        )
        self._log = self._gauge(
            "store_log_bytes",
            "Size of SQLite's write-ahead log, which grows for as long as any program reads in one transaction.",
        )
        self._purged = self._counter(
            "purged",
            "Rows removed after their retention: deliveries and alerts that ended, idempotency keys.",
            "what",
        )
        self._purged_at = self._gauge("last_purge_timestamp_seconds", "When expired rows were last looked for.")
        self._purge_behind = self._gauge("purge_behind", "1 while more expired rows are left than one batch removes.")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, text, labels, registry=self.registry)

    def _times(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(_PREFIX + name, text, labels, buckets=_BUCKETS, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str, of_workers: _OfWorkers = "mostrecent") -> Gauge:
        """`of_workers` says which worker's value is shown where there are several."""
        return Gauge(_PREFIX + name, text, labels, multiprocess_mode=of_workers, registry=self.registry)

    def serve(self, dialects: Iterable[str]) -> None:
        """Sets counters of what must not happen to 0 at the start, so that an alert on their growth sees the first."""
        for dialect in dialects:
            self._loops.labels(dialect)
            for outcome in WATCHED:
                self._requests(dialect, outcome)

    def request(self, dialect: str, outcome: str, seconds: float) -> None:
        """A request was answered; `outcome` is the kind of problem, or `ok`."""
        self._requests(dialect, outcome).inc()
        self._request_seconds(dialect).observe(seconds)

    def refused(self, dialect: str, outcome: str) -> None:
        """A request was refused at the edge, before there was a whole one to take time."""
        self._requests(dialect, outcome).inc()

    def attempt(self, upstream: str, outcome: str, reason: str, seconds: float) -> None:
        """An attempt ended."""
        self._attempts(upstream, outcome, reason).inc()
        self._attempt_seconds(upstream).observe(seconds)

    def report(self, dialect: str, upstream: str, fates: tuple[Fate, ...]) -> None:
        """A translation was reported on."""
        for word, count in forms(fates).counts:
            self._lost(dialect, upstream, word).inc(count)

    def loop(self, dialect: str) -> None:
        """A command came back to a gateway that had forwarded it."""
        self._loops.labels(dialect).inc()

    def reload(self, *, is_good: bool, is_counted: bool = True) -> None:
        """The configuration was loaded again, or refused; `is_counted` is false if it is counted elsewhere."""
        self._reloads.labels("good" if is_good else "bad").inc(is_counted)
        self._reloaded.set(is_good)

    def purge(self, removed: Mapping[str, int], now: int, *, is_behind: bool) -> None:
        """A batch of expired rows was removed, `removed` of each kind; `is_behind` says that more is left."""
        for what, count in removed.items():
            self._purged.labels(what).inc(count)
        self._purged_at.set(now / 1000)
        self._purge_behind.set(is_behind)

    def certificate(self, *, is_good: bool) -> None:
        """The files of the gateway's own certificate have changed."""
        self._certificates.labels("good" if is_good else "bad").inc()
        self._certificate.set(is_good)

    def certificate_ends(self, path: str, at: float | None) -> None:
        """Sets when the certificate in this file ends. Without one there is no sample, as 0 would mean 1970."""
        if at is not None:
            self._certificate_ends.labels(path).set(at)

    def upstreams(
        self, breakers: Mapping[str, Breaker], budgets: Mapping[str, float], held: Mapping[str, Sequence[str]]
    ) -> None:
        """Sets the state of each upstream. To be called regularly, not just when metrics are collected: the values of
        workers that are not asked count too."""
        self._shown.update(breakers)
        for upstream in sorted(self._shown):  # also those dismissed, or they would be shown as open for ever
            breaker = breakers.get(upstream)
            self._held.labels(upstream).set(breaker is not None and breaker.state == "held")
            self._open.labels(upstream).set(breaker is not None and breaker.state == "open")
            self._retries.labels(upstream).set(budgets.get(upstream, RESERVE))
            self._keys_held.labels(upstream).set(len(held.get(upstream, ())))

    def text(self, stock: Stock | None, now: int, *, is_strained: bool, is_away: bool, log_size: int = 0) -> bytes:
        """All metrics in Prometheus' text format; `stock` is None where the store cannot be read. `is_away` says that
        the store takes no commits, whether it can be read or not; `log_size` is in bytes."""
        self._strained.set(is_strained)
        self._away.set(is_away)
        self._log.set(log_size)
        if stock is not None:
            self._show_stock(stock, now)
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # one of several workers speaks for all
            together = CollectorRegistry()
            MultiProcessCollector(together)  # type: ignore[no-untyped-call]
            return generate_latest(together)
        return generate_latest(self.registry)

    def _show_stock(self, stock: Stock, now: int) -> None:
        depths = {one.upstream: one for one in stock.waiting}
        self._shown.update(depths, stock.dead)
        for upstream in sorted(self._shown):
            found = depths.get(upstream)
            self._depth.labels(upstream).set(found.count if found else 0)
            self._dead.labels(upstream).set(stock.dead.get(upstream, 0))
            self._age.labels(upstream).set(max(0, now - found.oldest) / 1000 if found else 0)
