"""docs/http.md says what there is: metrics with their labels, errors, settings."""

from __future__ import annotations

import re
from pathlib import Path

from controller.http import api, feed, files, inputs, kube_auth, server
from controller.http.app import _REFUSALS
from controller.http.guard import MAX_QUERY
from controller.http.health import Health, Limits
from controller.http.metrics import ControllerCollector
from controller.http.monitor import Monitor
from tests.lab import prompt, script, swarm

TEXT = (Path(__file__).parents[2] / "docs" / "http.md").read_text()


def rows(pattern: str) -> list[re.Match[str]]:
    return [found for line in TEXT.splitlines() if (found := re.match(pattern, line))]


def test_every_metric_is_in_the_table_with_its_labels(play):
    """What a run tells has no name and no label that the table does not have."""
    table = {
        m["name"]: (m["type"], set(re.findall(r"`([a-z]+)`", re.split("[:;]", m["labels"])[0])))
        for m in rows(r"\| `(?P<name>codeswarm_\w+)` \| (?P<type>\w+) \| (?P<labels>.*?) ?\|$")
    }

    async def scenario(rig):
        monitor = Monitor()
        monitor.watch(rig.ctx)
        rig.ctx.observer, rig.ctx.queue.waited = monitor, monitor.waited
        rig.apply(swarm(replicas=1), prompt("hello", script("say: hi")))
        await rig.phase("Task", "hello", "Succeeded")
        health = Health(lambda: (True, ""), contact=lambda: 1.0)
        collector = ControllerCollector(monitor, health, lambda: {("GET", "tasks", 200): 1})
        found = {}
        for family in collector.collect():
            name = family.name + ("_total" if family.type == "counter" else "")
            found[name] = family.type
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            assert labels <= table[name][1], name
        assert found == {name: kind for name, (kind, _) in table.items()}

    play(scenario)


def test_every_refusal_is_in_the_table():
    table = {(int(m[1]), reason) for m in rows(r"\| (\d+) \| (.+?) \|")
             for reason in re.findall(r"`(\w+)`", m[2])}  # fmt: skip
    own = {(405, "MethodNotAllowed"), (414, "TooLong"), (421, "WrongHost"), (500, "Internal")}
    assert table == own | {(status, reason) for status, reason, _ in _REFUSALS.values()}


def test_figures_are_those_of_the_code():
    limits = Limits()
    for figure in (limits.contact, limits.lag, limits.oldest):
        assert f"| {figure:g} |" in TEXT
    for words in (
        f"{inputs.MAX_JOBS} jobs may be named",
        f"{files.MAX_LISTED:,} are listed",
        f"{inputs.MAX_READ // 2**20} MiB at most",
        f"{inputs.DEFAULT_READ // 2**20} MiB if",
        f"{feed.MAX_WAITING:,} records or {feed.MAX_WAITING_BYTES // 2**20} MiB",
        f"{feed.MAX_STREAMS} streams",
        f"every {api.HEARTBEAT_SECONDS:g} seconds",
        f"within {server.HEAD_SECONDS:g} s and {server.MAX_HEAD // 1024} KiB",
        f"{server.MAX_CONNECTIONS} connections, {server.MAX_FROM_ONE} from one",
        f"A query above {MAX_QUERY // 1024} KiB",
    ):
        assert words in TEXT, words
    assert kube_auth.KEEP_SECONDS == 10 and "ten seconds" in TEXT
    assert server.STUCK_SECONDS == 60 and api.ASK_AGAIN_SECONDS == 60 and kube_auth.REVIEWS == 4
