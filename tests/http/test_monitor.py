"""What the observer of a controller counts and passes on, with the real reconcilers at work."""

from __future__ import annotations

import json

from controller.http.counts import Counts, Histogram, Histograms
from controller.http.feed import Filter
from controller.http.health import Health
from controller.http.metrics import make_registry
from controller.http.monitor import Monitor
from controller.reconcile.infos import task_info
from providers.base import RecordBatch
from tests.lab import project, prompt, script, swarm, work


def watched(rig):
    """A monitor for a rig's controller, from now on."""
    monitor = Monitor()
    monitor.watch(rig.ctx)
    rig.ctx.observer = monitor
    rig.ctx.queue.waited = monitor.waited
    return monitor


def test_histograms_are_cumulative():
    histogram = Histogram((1.0, 5.0))
    for value in (0.5, 1.0, 3.0, 5.5):
        histogram.add(value)
    assert histogram.buckets() == [("1.0", 2.0), ("5.0", 3.0), ("+Inf", 4.0)]
    assert histogram.sum == 10.0
    several = Histograms((1.0,))
    several.add(("a",), 1)
    several.add(("b",), 1)
    assert set(several.by_labels) == {("a",), ("b",)}


def test_a_project_s_run_is_counted(play):
    async def scenario(rig):
        monitor = watched(rig)
        rig.apply(swarm(replicas=1), prompt("hello", script("say: hi")))
        await rig.phase("Task", "hello", "Succeeded")
        counts = monitor.counts
        assert counts.passes["Task", "success"] >= 2 and counts.passes["Swarm", "success"] >= 1
        assert not [labels for labels in counts.passes if labels[1] == "error"]
        assert set(counts.durations.by_labels) >= {("Task",), ("Swarm",)}
        assert set(counts.waits.by_labels) >= {("Task",), ("Swarm",)}
        assert set(counts.attempts.by_labels) == {("prompt", "Succeeded")}
        assert set(counts.tasks.by_labels) == {("prompt", "Succeeded")}
        assert counts.records["turn_complete",] == 1

    play(scenario)


def ended(**attempt):
    """A Task whose attempt is open, and the same one after its end."""
    meta = {"name": "t", "namespace": "default", "uid": "u", "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z"}  # fmt: skip
    first = {
        "number": 1, "state": "Running", "job": "j", "injectionId": "u.1", "swarm": "s",
        "worker": 0, "assignedAt": "2026-01-01T00:00:10.000000Z",
    }  # fmt: skip
    spec = {"target": {"swarm": "s"}}
    began = {"metadata": meta, "spec": spec, "status": {"phase": "Running", "attempts": [first]}}
    last = {**first, "finishedAt": "2026-01-01T00:00:40.000000Z", **attempt}
    status = {"phase": "Waiting", "attempts": [last]}
    if attempt["state"] == "Succeeded":
        status |= {"phase": "Succeeded", "startedAt": "2026-01-01T00:00:00Z",
                   "finishedAt": "2026-01-01T00:00:40Z"}  # fmt: skip
    return task_info(began), task_info({**began, "status": status}), {"status": status}


def test_attempts_and_tasks_are_timed_at_their_end():
    counts = Counts()
    before, after, obj = ended(state="Failed", **{"class": "Timeout"})
    counts.task(before, after, obj)
    assert counts.attempts.by_labels[("prompt", "Timeout")].sum == 30.0
    assert not counts.tasks.by_labels
    before, after, obj = ended(state="Succeeded")
    counts.task(before, after, obj)
    counts.task(after, after, obj)
    counts.task(None, after, obj)
    assert counts.attempts.by_labels[("prompt", "Succeeded")].sum == 30.0
    assert counts.tasks.by_labels[("prompt", "Succeeded")].counts.count(1) == 1
    assert counts.tasks.by_labels[("prompt", "Succeeded")].sum == 40.0


def test_live_records_say_whose_they_are(play):
    async def scenario(rig):
        monitor = watched(rig)
        listener = monitor.feed.listen(Filter("default"))
        elsewhere = monitor.feed.listen(Filter("other"))
        rig.apply(swarm(replicas=1), prompt("hello", script("say: hi")))
        await rig.phase("Task", "hello", "Succeeded")
        sent = [json.loads(text) for text in (await listener.take(1)).texts]
        job = rig.swarm()["workers"][0]["job"]
        uid = rig.get("Task", "hello")["metadata"]["uid"]
        assert {(e["namespace"], e["swarm"], e["job"]) for e in sent} == {
            ("default", "builders", job)
        }
        of_task = [e for e in sent if e["task"] == "hello"]
        assert {e["record"]["injection_id"] for e in of_task} == {f"{uid}.1"}
        assert "turn_complete" in [e["record"]["event"] for e in of_task]
        assert (await elsewhere.take(0.01)).texts == ()

    play(scenario)


def test_no_record_breaks_the_stream_s_framing(play):
    async def scenario(rig):
        monitor = watched(rig)
        rig.apply(swarm(replicas=1))
        await rig.phase("Swarm", "builders", "Running")
        listener = monitor.feed.listen(Filter("default"))
        job = rig.swarm()["workers"][0]["job"]
        lines = [
            b'{"event":"assistant",\r\r"data":{"text":"a\\r\\ndata: x\\u2028"},"job_id":"forged"}',
            b'{"event":"assistant","data":{"text":"\\ud800"}}',
            b'{"event":"assistant","data":{"n":NaN}}',
            b'{"event":"not one of ours","data":{}}',
            b"nonsense",
            '{"event":"assistant","data":{"text":"é"}}'.encode("utf-16"),
        ]
        end = sum(len(line) + 1 for line in lines) + 10**6
        rig.manager._mail.on_mail(RecordBatch(job, lines, end))
        texts = (await listener.take(1)).texts
        assert len(texts) == 3
        for text in texts:
            assert text.isascii() and b"\r" not in text and b"\n" not in text
            assert json.loads(text)["job"] == job

    play(scenario)


def test_metrics_of_a_whole_controller_can_be_told(play):
    from prometheus_client.exposition import generate_latest

    async def scenario(rig):
        monitor = watched(rig)
        registry = make_registry(monitor, Health(lambda: (True, "")), lambda: {("GET", "x", 0): 3})
        rig.apply(swarm(replicas=2), project(tasks=[work("a")]))
        await rig.phase("Project", "demo", "Completed")
        text = generate_latest(registry).decode()
        assert 'codeswarm_tasks{phase="Succeeded",type="work"} 1.0' in text
        assert 'codeswarm_tasks{phase="Succeeded",type="integration"} 1.0' in text
        assert (
            'codeswarm_workers{namespace="default",state="Idle",swarm="builders"} 2.0' in text
        ) or ('codeswarm_workers{namespace="default",swarm="builders",state="Idle"} 2.0' in text)
        assert 'codeswarm_api_requests_total{code="0",resource="x",verb="GET"} 3.0' in text
        assert "codeswarm_controller_epoch 1.0" in text
        assert "codeswarm_approvals_open{" not in text

        async def ask(job, record):
            told = {"request_id": "r", "command": "rm"}
            job.emit("exec_approval_required", told, record["injection_id"])
            await rig.pass_time(1000)

        rig.provider.work = ask
        rig.apply(prompt("p"))
        await rig.until(lambda: rig.store.list("Approval"), "the question")
        await rig.pass_time(1)
        text = generate_latest(registry).decode()
        assert 'codeswarm_approvals_open{namespace="default",swarm="builders"} 1.0' in text

    play(scenario)


def test_metrics_tell_of_pauses(play):
    from prometheus_client.exposition import generate_latest

    async def scenario(rig):
        registry = make_registry(watched(rig), Health(lambda: (True, "")))
        error = {"class": "quota", "message": "no", "retry_after_seconds": 60}
        rig.provider.script = lambda job, record: {"status": "failed", "error": error}
        rig.apply(swarm(replicas=1), prompt("p"))
        await rig.until(lambda: rig.task("p").get("reason") == "QuotaExhausted", "a pause")
        told = [line for line in generate_latest(registry).decode().splitlines() if "pause" in line]
        assert 'codeswarm_paused_credentials{reason="QuotaExhausted"} 1.0' in told
        assert any(line.startswith("codeswarm_swarm_paused{") for line in told)

    play(scenario)
