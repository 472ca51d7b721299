"""Writes to one Task over its whole life, and how long one prompt takes on a cluster."""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict
from typing import Any

from kubernetes import client, config, watch

from bench.kube_lab import Bench, bench, load
from bench.machine import percentile
from controller.resources.kinds import GROUP, VERSION
from tests.lab import git, project, prompt, script, work

FEWEST = 6
"""Writes to a Task that its whole life may cost."""
PROMPTS = ("short", "before", "long")


class Versions:
    """Every version of every Task in a namespace, as a watch tells them."""

    def __init__(self, bench: Bench) -> None:
        self.seen: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        self.at: dict[tuple[str, str], float] = {}
        """When a task was first seen in a phase, by the monotonic clock."""
        api = client.CustomObjectsApi(config.new_client_from_config(bench.cluster.kubeconfig))
        self._watch = watch.Watch()
        self._stream = self._watch.stream(
            api.list_namespaced_custom_object,
            GROUP, VERSION, bench.lab.namespace, "tasks", timeout_seconds=3600,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for event in self._stream:
            obj = event["object"]
            name = obj["metadata"]["name"]
            version = obj["metadata"]["resourceVersion"]
            known = self.seen[name]
            if not known or known[-1][1]["metadata"]["resourceVersion"] != version:
                known.append((event["type"], obj))
            phase = (obj.get("status") or {}).get("phase", "")
            self.at.setdefault((name, phase), time.monotonic())

    def gone(self, name: str) -> bool:
        """Whether a task's deletion was told."""
        return any(type_ == "DELETED" for type_, _ in self.seen[name])

    def until_its_end(self, name: str) -> int:
        """How many versions of a task there were when it had succeeded."""
        phases = [(obj.get("status") or {}).get("phase") for _, obj in self.seen[name]]
        return phases.index("Succeeded") + 1

    def story(self, name: str) -> str:
        """What each version of a task came from, in words."""
        words, before = [], ""
        for type_, obj in self.seen[name]:
            meta, status = obj["metadata"], obj.get("status") or {}
            states = [attempt["state"] for attempt in status.get("attempts") or ()]
            word = (states or [status.get("phase") or "created"])[-1]
            if type_ == "DELETED":
                word = "gone"
            elif "deletionTimestamp" in meta:
                word = "being deleted"
            words.append(word if word != before else f"{word} (again)")
            before = word
        return ", ".join(words)


def lives(bench: Bench) -> bool:
    """Three kinds of tasks from creation to deletion; whether the aim is reached."""
    lab = bench.lab
    path = lab.path / "repo.git"
    git("init", "--quiet", "--bare", "--initial-branch=main", str(path))
    bench.start()
    bench.swarm(1)
    versions = Versions(bench)
    before = bench.requests()
    lab.create(prompt("short"))
    lab.wait_phase("Task", "short", "Succeeded")
    lab.create(prompt("before", script("sleep: 2.5")), prompt("long", script(
        "usage: {inputTokens: 10, outputTokens: 5}", "sleep: 1", "result: {status: done}"
    )))  # fmt: skip
    lab.wait_phase("Task", "long", "Succeeded")
    lab.create(project(
        repository={"url": str(path), "baseBranch": "main"}, tasks=[work("branch", "sleep: 1")]
    ))  # fmt: skip
    lab.wait_phase("Project", "demo", "Completed", deadline=60)
    for name in PROMPTS:
        lab.delete("Task", name)
    lab.delete("Project", "demo")
    names = (*PROMPTS, "demo.branch", "demo.integration")
    lab.wait(lambda: all(versions.gone(name) for name in names), "the tasks to be gone", 90)
    counted = bench.requests().since(before)
    ends, whole = [], []
    for name in names:
        theirs = 2 if name in PROMPTS else 1  # the person's own; a project's task is only deleted
        ends.append(versions.until_its_end(name))
        whole.append(len(versions.seen[name]) - theirs)
        print(f"  {name}: {len(versions.seen[name])} writes ({versions.story(name)})")
    total = sum(len(seen) for seen in versions.seen.values())
    told = counted.writes("tasks")
    print(f"  {len(names)} tasks: {total} versions by the watch, {told} writes by the counters")
    print(
        f"  writes to a Task until its end, creation included: {min(ends)} to {max(ends)}; of the "
        f"controller over its whole life: {min(whole)} to {max(whole)} (aim {FEWEST})"
    )
    return max(*ends, *whole) <= FEWEST


def latencies(bench: Bench, count: int) -> None:
    """One prompt after another, from the answer to its creation to the end that a watch tells."""
    versions = Versions(bench)
    found = []
    for number in range(count):
        name = f"one-{number}"
        begin = time.monotonic()
        bench.lab.create(prompt(name))
        bench.lab.wait(lambda name=name: (name, "Succeeded") in versions.at, "a prompt")
        found.append(1000 * (versions.at[name, "Succeeded"] - begin))
    print(
        f"  one prompt, from its creation to Succeeded as a watch tells it: median "
        f"{statistics.median(found):.0f} ms, p99 {percentile(found, 0.99):.0f} ms ({load()})"
    )


def measure(single: int) -> bool:
    """Count, then time ``single`` prompts; whether the aim is reached."""
    print("writes to a Task")
    with bench() as room:
        reached = lives(room)
        latencies(room, single)
        room.lab.stop()
    return reached
