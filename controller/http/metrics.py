"""Prometheus metrics, put together when somebody asks: gauges from the world, sums from counts.

Labels are of closed sets, or names of Swarms and Projects that exist, or of a bounded number of
models.  A registry of its own; nothing global.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from controller.domain.cost import UNPRICED, parse
from controller.domain.usage import Usage
from controller.http.counts import Histograms
from controller.http.health import Health
from controller.http.monitor import Monitor
from controller.reconcile.context import Context

Requests = Callable[[], Mapping[tuple[str, str, int], int]]
"""Answered API requests by method, plural and HTTP status."""
KINDS = ("input", "cached_input", "cache_write", "output", "reasoning_output")
_SPENDER = ("namespace", "swarm", "project", "model")


def make_registry(
    monitor: Monitor, health: Health, api_requests: Requests | None = None
) -> CollectorRegistry:
    """A registry with everything that this controller tells."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ControllerCollector(monitor, health, api_requests))
    ProcessCollector(registry=registry)
    return registry


class ControllerCollector(Collector):
    """Reads the controller afresh for each scrape, in its event loop."""

    def __init__(self, monitor: Monitor, health: Health, api_requests: Requests | None) -> None:
        self._monitor = monitor
        self._health = health
        self._api_requests = api_requests

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: there is one collector of these names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        yield _gauge("build_info", "Which version runs.", ("version",), {(_version(),): 1})
        yield _gauge("ready", "Whether it converges.", (), {(): float(self._health.ready()[0])})
        report = self._health.look()
        yield _gauge("event_loop_lag_seconds", "How late the loop is.", (), {(): report.lag})
        if report.contact is not None:
            yield _gauge(
                "api_contact_seconds", "Since the last word of a watch.", (), {(): report.contact}
            )
        yield from self._counted()
        if self._api_requests is not None:
            yield _counter(
                "api_requests", "Requests to the API server; code 0: no answer.",
                ("verb", "resource", "code"),
                {(v, r, str(c)): n for (v, r, c), n in self._api_requests().items()},
            )  # fmt: skip
        ctx = self._monitor.ctx
        if ctx is not None:
            yield from _world(ctx)
            yield from _pauses(ctx)
            yield from self._tokens(ctx)

    def _counted(self) -> Iterator[Metric]:
        counts, feed = self._monitor.counts, self._monitor.feed
        yield _counter("reconcile", "Passes.", ("kind", "result"), counts.passes)
        yield _histogram("reconcile_duration_seconds", "Of a pass.", ("kind",), counts.durations)
        yield _histogram("queue_wait_seconds", "Of a ready key.", ("kind",), counts.waits)
        yield _histogram(
            "attempt_duration_seconds", "From its assignment to its end.", ("type", "outcome"),
            counts.attempts,
        )  # fmt: skip
        yield _histogram(
            "task_duration_seconds", "From its first start to its end.", ("type", "phase"),
            counts.tasks,
        )  # fmt: skip
        yield _counter("mail_records", "Records from workers.", ("event",), counts.records)
        yield _gauge("event_streams", "Clients of live events.", (), {(): len(feed)})
        yield _counter(
            "event_records_missed", "Live records that clients were too slow for.", (),
            {(): feed.missed},
        )  # fmt: skip

    def _tokens(self, ctx: Context) -> Iterator[Metric]:
        tokens = self._monitor.tokens
        tokens.prune(ctx.world)
        spent: dict[tuple[str, ...], Usage] = {
            (s.namespace, s.swarm, s.project, s.model): used for s, used in tokens.totals.items()
        }
        yield _counter(
            "tokens", "Tokens since the start; cached input is part of the input.",
            (*_SPENDER, "kind"), _by_kind(spent),
        )  # fmt: skip
        cost: dict[tuple[str, ...], float] = {
            (s.namespace, s.swarm, s.project, s.model): float(value)
            for s, value in tokens.costs.items()
        }
        yield _counter("cost_usd", "Cost of those tokens, for models with a price.", _SPENDER, cost)


def _world(ctx: Context) -> Iterator[Metric]:
    world, queue = ctx.world, ctx.queue
    yield _gauge("controller_epoch", "Its incarnation.", (), {(): ctx.epoch})
    yield _gauge("queue_depth", "Keys that are ready.", (), {(): len(queue)})
    yield _gauge("queue_oldest_seconds", "How long the first waits.", (), {(): queue.oldest()})
    yield _gauge("queue_scheduled", "Keys that are due later.", (), {(): queue.scheduled})
    yield _gauge("reconcile_running", "Passes under way.", (), {(): queue.running})
    tasks: Counter[tuple[str, ...]] = Counter()
    for task in world.tasks.values():
        tasks[task.settled_phase, task.kind] += 1
    yield _gauge("tasks", "Task objects.", ("phase", "type"), tasks)
    asked: Counter[tuple[str, ...]] = Counter()
    for key, swarm in world.approvals.items():
        asked[key.namespace, swarm] += 1
    yield _gauge(
        "approvals_open", "Questions whose agent waits.", ("namespace", "swarm"), asked
    )  # fmt: skip
    swarms = {(s.key.namespace, s.key.name): s for s in world.swarms.values()}
    projects = {(p.key.namespace, p.key.name): p for p in world.projects.values()}
    yield _gauge(
        "workers", "Workers as the Swarm's status has them.", ("namespace", "swarm", "state"),
        {(*at, state): n for at, swarm in swarms.items() for state, n in swarm.states.items()},
    )  # fmt: skip
    yield _gauge(
        "swarm_tokens", "status.usage of a Swarm.", ("namespace", "swarm", "kind"),
        _by_kind({at: swarm.used for at, swarm in swarms.items()}),
    )  # fmt: skip
    yield _gauge(
        "project_tokens", "status.usage of a Project.", ("namespace", "project", "kind"),
        _by_kind({at: project.used for at, project in projects.items()}),
    )  # fmt: skip
    yield _gauge(
        "swarm_cost_usd", "The priced part of a Swarm's cost.", ("namespace", "swarm"),
        _dollars({at: swarm.cost for at, swarm in swarms.items()}),
    )  # fmt: skip
    yield _gauge(
        "swarm_machines", "Machines of its own that a Swarm has.", ("namespace", "swarm"),
        {at: swarm.rented for at, swarm in swarms.items() if swarm.machines.shown},
    )  # fmt: skip
    yield _gauge(
        "swarm_machines_cost_usd", "The priced part of what they cost so far, ended ones too.",
        ("namespace", "swarm"),
        {at: float(s.machines.cost) for at, s in swarms.items() if s.machines.priced},
    )  # fmt: skip
    yield _gauge(
        "project_cost_usd", "The priced part of a Project's cost.", ("namespace", "project"),
        _dollars({at: project.cost for at, project in projects.items()}),
    )  # fmt: skip
    yield _gauge(
        "swarm_cost_incomplete", "1: a Swarm's usage is in part without a price.",
        ("namespace", "swarm"), _incomplete({at: swarm.cost for at, swarm in swarms.items()}),
    )  # fmt: skip
    yield _gauge(
        "project_cost_incomplete", "1: a Project's usage is in part without a price.",
        ("namespace", "project"), _incomplete({at: p.cost for at, p in projects.items()}),
    )  # fmt: skip


def _pauses(ctx: Context) -> Iterator[Metric]:
    now, pauses = ctx.clock.now(), ctx.world.pauses
    held: Counter[tuple[str, ...]] = Counter((pause.reason,) for pause in pauses.holding(now))
    yield _gauge("paused_credentials", "That a model provider refused.", ("reason",), held)
    yield _gauge(
        "swarm_paused", "1 while its credential's pause lets no turn begin.",
        ("namespace", "swarm", "reason"),
        {
            (swarm.key.namespace, swarm.key.name, pause.reason): 1
            for swarm in ctx.world.swarms.values()
            if (pause := pauses.held(swarm.credential, now)) is not None
        },
    )  # fmt: skip


def _by_kind(used: Mapping[tuple[str, ...], Usage]) -> dict[tuple[str, ...], int]:
    return {(*at, kind): getattr(u, kind) for at, u in used.items() if u for kind in KINDS}


def _dollars(costs: Mapping[tuple[str, ...], str]) -> dict[tuple[str, ...], float]:
    found = {at: parse(text) for at, text in costs.items()}
    return {at: float(cost) for at, cost in found.items() if cost is not None}


def _incomplete(costs: Mapping[tuple[str, ...], str]) -> dict[tuple[str, ...], float]:
    return {at: float(text.endswith(UNPRICED)) for at, text in costs.items() if text}


Values = Mapping[tuple[str, ...], float]


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Values) -> Metric:
    family = GaugeMetricFamily(f"codeswarm_{name}", text, labels=labels)
    for at, value in values.items():
        family.add_metric(at, value)
    return family


def _counter(name: str, text: str, labels: tuple[str, ...], values: Values) -> Metric:
    family = CounterMetricFamily(f"codeswarm_{name}", text, labels=labels)
    for at, value in values.items():
        family.add_metric(at, value)
    return family


def _histogram(name: str, text: str, labels: tuple[str, ...], values: Histograms) -> Metric:
    family = HistogramMetricFamily(f"codeswarm_{name}", text, labels=labels)
    for at, found in values.by_labels.items():
        family.add_metric(at, found.buckets(), found.sum)
    return family


def _version() -> str:
    try:
        return metadata.version("codeswarm")
    except metadata.PackageNotFoundError:
        return "unknown"
