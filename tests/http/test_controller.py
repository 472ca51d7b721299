"""HTTP of a real controller in the file home: its probes, its transcripts, its live records."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.http.endpoint import EndpointFile
from tests.lab import Lab, project, prompt, script, swarm, work

pytestmark = pytest.mark.e2e
BASE = "/api/v1/namespaces/default"
LIMIT = 30.0


def connect(lab: Lab) -> tuple[http.client.HTTPConnection, dict[str, str]]:
    """A connection as the home's ``http.json`` says, and the header with its token."""
    endpoint = EndpointFile(lab.home.http).read()
    assert endpoint is not None
    address = urllib.parse.urlsplit(endpoint.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=LIMIT)
    return connection, {"Authorization": f"Bearer {endpoint.token}"}


def ask(lab: Lab, path: str, *, token: bool = True) -> tuple[int, dict[str, str], bytes]:
    """One request: status, headers, body."""
    connection, headers = connect(lab)
    try:
        connection.request("GET", path, headers=headers if token else {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def metrics(lab: Lab) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All samples by name and labels."""
    status, _, body = ask(lab, "/metrics", token=False)
    assert status == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(samples: dict[Any, float], name: str, **labels: str) -> float:
    return samples.get((name, tuple(sorted(labels.items()))), 0.0)


def live(lab: Lab, query: str = "") -> tuple[http.client.HTTPConnection, Iterator[dict[str, Any]]]:
    """A stream of live records, listening when this returns."""
    connection, headers = connect(lab)
    connection.request("GET", f"{BASE}/events{query}", headers=headers)
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.readline().startswith(b": ")

    def records() -> Iterator[dict[str, Any]]:
        while line := answer.readline():
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))

    return connection, records()


def handles(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_a_project_s_transcripts_metrics_and_probes(lab: Lab) -> None:
    lab.repository()
    price = '{inputTokensUsdPerM: "2", outputTokensUsdPerM: "10"}'
    lab.home.config.write_text(f"modelPricing: {{GPT-5.4: {price}}}\n")
    lab.start()
    usage = "usage: {inputTokens: 1000, outputTokens: 10}"
    lab.apply(
        swarm(replicas=2, agent={"runtime": "mock", "model": "gpt-5.4"}),
        project(tasks=[work("a", usage), work("b", depends_on=["a"])]),
    )
    lab.wait_phase("Project", "demo", "Completed")

    status, _, body = ask(lab, "/healthz", token=False)
    assert (status, json.loads(body)["status"]) == (200, "ok")
    assert ask(lab, "/readyz", token=False)[0] == 200
    assert ask(lab, f"{BASE}/transcripts", token=False)[0] == 401

    listed = json.loads(ask(lab, f"{BASE}/transcripts?swarm=builders")[2])["transcripts"]
    assert {row["job"] for row in listed} == {w["job"] for w in lab.swarm("builders")["workers"]}
    for row in listed:
        path = lab.home.transcripts / "default" / row["swarm"] / f"{row['job']}.jsonl"
        got = b""
        while True:
            part = f"{BASE}/transcripts/{row['swarm']}/{row['job']}?offset={len(got)}&limit=500"
            status, headers, body = ask(lab, part)
            assert status == 200
            if not body:
                break
            got += body
        assert got == path.read_bytes() and int(headers["x-codeswarm-size"]) == len(got)

    seen = metrics(lab)
    assert value(seen, "codeswarm_tasks", phase="Succeeded", type="work") == 2
    assert value(seen, "codeswarm_tasks", phase="Succeeded", type="integration") == 1
    assert value(seen, "codeswarm_controller_epoch") == 1
    spent = {"namespace": "default", "swarm": "builders", "project": "demo", "model": "gpt-5.4"}
    used = lab.project("demo")["usage"]
    assert value(seen, "codeswarm_tokens_total", kind="input", **spent) == 1000
    assert value(seen, "codeswarm_cost_usd_total", **spent) == pytest.approx(0.0021)
    by_project = {"namespace": "default", "project": "demo"}
    assert value(seen, "codeswarm_project_tokens", kind="input", **by_project) == 1000
    assert used["inputTokens"] == 1000
    count = value(seen, "codeswarm_task_duration_seconds_count", type="work", phase="Succeeded")
    assert count == 2
    assert value(seen, "codeswarm_reconcile_total", kind="Project", result="success") > 0
    lab.wait(
        lambda: (
            value(
                metrics(lab),
                "codeswarm_workers",
                namespace="default",
                swarm="builders",
                state="Idle",
            )
            == 2
        ),
        "two idle workers in the metrics",
    )


def test_live_records_arrive_while_the_turn_runs(lab: Lab) -> None:
    lab.start()
    lab.apply(swarm(replicas=1))
    lab.wait_phase("Swarm", "builders", "Running")
    connection, records = live(lab, "?task=hello")
    other, others = live(lab, "?task=another")
    gate = lab.path / "gate"
    wait = f'run: "while [ ! -e {gate} ]; do sleep 0.02; done"'
    lab.apply(prompt("hello", script("say: one", wait, "say: two")))
    texts = []
    for record in records:
        assert (record["namespace"], record["swarm"], record["task"]) == (
            "default", "builders", "hello",
        )  # fmt: skip
        if record["record"]["event"] == "assistant":
            texts.append(record["record"]["data"]["text"])
            gate.touch()  # only now the turn goes on: the record came while it ran
        if record["record"]["event"] == "turn_complete":
            break
    assert texts == ["one", "two"]
    lab.apply(prompt("another", script("say: hi")))
    assert next(others)["task"] == "another"
    connection.close()
    other.close()


def test_the_end_of_the_controller_ends_streams_and_does_not_wait_for_them(lab: Lab) -> None:
    lab.start()
    connection, records = live(lab)
    lab.stop()
    assert list(records) == []
    assert not lab.home.http.exists()
    connection.close()


def test_a_killed_controller_leaves_nothing_that_its_successor_takes_over(lab: Lab) -> None:
    lab.start()
    old = EndpointFile(lab.home.http).read()
    assert old is not None
    lab.kill()
    assert EndpointFile(lab.home.http).read() == old
    lab.start()
    new = EndpointFile(lab.home.http).read()
    assert new is not None and new.token != old.token
    connection, _ = connect(lab)
    connection.request(
        "GET", f"{BASE}/transcripts", headers={"Authorization": f"Bearer {old.token}"}
    )
    assert connection.getresponse().status == 401
    connection.close()
    assert ask(lab, f"{BASE}/transcripts")[0] == 200


def test_several_controllers_on_one_machine(tmp_path: Path) -> None:
    with Lab(tmp_path / "a") as one, Lab(tmp_path / "b") as two:
        one.start()
        two.start()
        assert ask(one, f"{BASE}/transcripts")[0] == ask(two, f"{BASE}/transcripts")[0] == 200
        connection, _ = connect(one)
        _, wrong = connect(two)
        connection.request("GET", f"{BASE}/transcripts", headers=wrong)
        assert connection.getresponse().status == 401
        connection.close()


def test_settings_say_where_and_whether(lab: Lab) -> None:
    lab.home.config.write_text("http: {enabled: false}\n")
    lab.start()
    assert not lab.home.http.exists()
    lab.stop()
    lab.home.config.write_text("http: {host: localhost, port: 0}\n")
    lab.start()
    assert ask(lab, "/healthz")[0] == 200


def test_people_are_told_where_it_listens(lab: Lab) -> None:
    def said(verb: str) -> str:
        command = [sys.executable, "-m", "cli.main", "--home", str(lab.home.root), verb]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    lab.start()
    endpoint = EndpointFile(lab.home.http).read()
    assert endpoint is not None
    assert f"HTTP        {endpoint.url}\n" in said("status")
    assert f"OK    http        {endpoint.url}\n" in said("doctor")
    lab.kill()  # the file stays, and nobody believes it
    assert "HTTP" not in said("status")
    assert "http " not in said("doctor")


def test_no_handle_stays_open_after_many_clients(lab: Lab) -> None:
    lab.start()
    pid = lab.controller.pid
    ask(lab, "/metrics")
    before = handles(pid)
    for _ in range(30):
        connection, _ = live(lab)
        connection.close()
        ask(lab, f"{BASE}/transcripts")
    lab.wait(lambda: handles(pid) <= before, "its handles to be closed")


def test_agents_never_see_the_token_or_the_socket(lab: Lab) -> None:
    lab.repository()
    lab.start()
    ask(lab, "/healthz")
    endpoint = EndpointFile(lab.home.http).read()
    assert endpoint is not None
    lab.apply(
        swarm(replicas=1),
        prompt("look", script('run: "env; ls -l /proc/$PPID/fd; ls -l /proc/self/fd"')),
    )
    lab.wait_phase("Task", "look", "Succeeded")
    listed = json.loads(ask(lab, f"{BASE}/transcripts")[2])["transcripts"]
    path = f"{BASE}/transcripts/{listed[0]['swarm']}/{listed[0]['job']}"
    text = ask(lab, path)[2].decode()
    assert "PATH=" in text and endpoint.token not in text
    port = int(endpoint.url.rpartition(":")[2])
    held = [c for p in lab.processes() for c in p.net_connections("tcp")]
    assert not [c for c in held if c.laddr and c.laddr.port == port]
    assert endpoint.token not in lab.log.read_text()
