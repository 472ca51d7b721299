"""What the measures on a cluster share: a lab, the API server's counters, the controller's own."""

from __future__ import annotations

import itertools
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import psutil

from controller.resources.kinds import GROUP, VERSION
from tests.kube import VARIABLE, ApiError, Cluster, KubeLab, wait
from tests.lab import swarm

ASKED = frozenset({"tokenreviews", "subjectaccessreviews"})
"""What is answered and not stored; a server asks so whenever its counters are read."""
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE", "APPLY", "DELETECOLLECTION"})
LOOK_SECONDS = 0.5
"""Between two looks at the controller's metrics."""
_SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Requests(Counter[tuple[str, str]]):
    """Requests by verb and resource (``tasks/status``), as kube-apiserver has counted them."""

    def writes(self, resource: str = "") -> int:
        """Writes, to one resource (its subresources with it) or to all."""
        return sum(
            count
            for (verb, name), count in self.items()
            if _is_write(verb, name) and (not resource or name.split("/")[0] == resource)
        )

    def since(self, before: Requests) -> Requests:
        """What was added."""
        return Requests({key: n - before[key] for key, n in self.items() if n > before[key]})

    def text(self) -> str:
        """Writes only, for people."""
        found = [f"{n} {at[0]} {at[1]}" for at, n in sorted(self.items()) if _is_write(*at)]
        return ", ".join(found) or "none"


def _is_write(verb: str, resource: str) -> bool:
    return verb in WRITES and resource not in ASKED


def samples(text: str, name: str) -> Iterator[tuple[dict[str, str], float]]:
    """Labels and values of one metric in Prometheus' text format."""
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match is not None and match[1] == name:
            yield dict(_LABEL.findall(match[2])), float(match[3])


class Bench:
    """A namespace with a controller, and the counters of both sides."""

    def __init__(self, lab: KubeLab) -> None:
        self.lab = lab
        self.cluster = lab.cluster
        self.aggregated = self._aggregated()
        """URL of the server that serves our kinds, where it is another one."""

    def start(self) -> psutil.Process:
        """Start a controller and wait until it is up."""
        return psutil.Process(self.lab.start().pid)

    def swarm(self, workers: int, deadline: float = 120.0) -> None:
        """Have so many workers ready."""
        self.lab.apply(swarm(replicas=workers))
        self.lab.wait(
            lambda: self.lab.status("Swarm", "builders").get("readyReplicas") == workers,
            f"{workers} workers",
            deadline,
        )

    def requests(self) -> Requests:
        """Answered requests so far, those of everybody."""
        done = self.cluster.kubectl("get", "--raw", "/metrics")
        if done.returncode != 0:
            raise SystemExit(f"the API server's counters cannot be read: {done.stderr}")
        found = Requests()
        for text in (done.stdout, self._passed_on()):
            for labels, value in samples(text, "apiserver_request_total"):
                if labels["code"].startswith("2"):
                    name = "/".join(filter(None, (labels["resource"], labels["subresource"])))
                    found[labels["verb"], name] += int(value)
        return found

    def _aggregated(self) -> str:
        path = f"/apis/apiregistration.k8s.io/v1/apiservices/{VERSION}.{GROUP}"
        service = self.cluster.request("GET", path)["spec"].get("service")
        if not service:
            return ""
        path = f"/api/v1/namespaces/{service['namespace']}/services/{service['name']}"
        host = self.cluster.request("GET", path)["spec"].get("externalName")
        if not host:
            raise SystemExit(f"{GROUP} is served by a server whose counters cannot be reached")
        return f"https://{host}:{service.get('port', 443)}"

    def _passed_on(self) -> str:
        """Counters of what kube-apiserver only passes on, which it does not count."""
        if not self.aggregated:
            return ""
        request = urllib.request.Request(
            f"{self.aggregated}/metrics",
            headers={"Authorization": f"Bearer {self.cluster.token}"},
        )
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return str(answer.read().decode())

    def metrics(self) -> str:
        """The controller's own metrics."""
        urls = re.findall(r"HTTP on (\S+)", self.lab.text())
        with urllib.request.urlopen(f"{urls[-1]}/metrics", timeout=30) as answer:
            return str(answer.read().decode())

    def tasks(self, phase: str = "Succeeded") -> int:
        """How many tasks the controller has in a phase, as its metrics say."""
        found = samples(self.metrics(), "codeswarm_tasks")
        return int(sum(value for labels, value in found if labels["phase"] == phase))

    def wait_tasks(
        self, count: int, deadline: float, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        """Wait until so many tasks have succeeded."""

        def done() -> bool:
            meanwhile()
            time.sleep(LOOK_SECONDS)
            return self.tasks() >= count

        self.lab.wait(done, f"{count} tasks", deadline)

    def check(self, count: int) -> None:
        """Every task has succeeded, in one attempt, and no worker was asked twice."""
        tasks = self.lab.list("Task")
        states = Counter(
            (t["status"].get("phase"), len(t["status"].get("attempts") or ())) for t in tasks
        )
        if states != {("Succeeded", 1): count}:
            raise SystemExit(f"not every task succeeded in one attempt: {dict(states)}")
        turns: Counter[str] = Counter()
        for path in self.lab.home.transcripts.rglob("*.jsonl"):
            for line in path.read_bytes().splitlines():
                record = json.loads(line)
                if record["event"] == "turn_started":
                    turns[record["injection_id"]] += 1
        uids = {task["metadata"]["uid"] for task in tasks}
        mine = {key: n for key, n in turns.items() if key.rpartition(".")[0] in uids}
        if len(mine) != count or set(mine.values()) != {1}:
            twice = [key for key, n in mine.items() if n > 1]
            raise SystemExit(f"{count} tasks, {len(mine)} turns, more than once: {twice[:5]}")


@contextmanager
def bench() -> Iterator[Bench]:
    """A fresh namespace and home; nothing of it lives on, nor is still being deleted."""
    cluster = Cluster(os.environ[VARIABLE])
    cluster.install_crds()
    with tempfile.TemporaryDirectory() as folder:
        with (
            cluster.namespace("bench") as namespace,
            KubeLab(cluster, namespace, Path(folder)) as lab,
        ):
            yield Bench(lab)
        wait(lambda: not _exists(cluster, namespace), "the namespace to be gone", 300)


def _exists(cluster: Cluster, namespace: str) -> bool:
    try:
        cluster.request("GET", f"/api/v1/namespaces/{namespace}")
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True


class Clients:
    """Bare clients, a process each, that share the numbers of the tasks among them.

    To be used in a ``with``, whose end is theirs too.
    """

    def __init__(self, lab: KubeLab, count: int, processes: int, *arguments: str) -> None:
        bounds = [count * n // processes for n in range(processes + 1)]
        self._processes = [
            subprocess.Popen(
                [
                    sys.executable, "-m", "bench.kube_client",
                    "--kubeconfig", lab.cluster.kubeconfig, "--namespace", lab.namespace,
                    "--first", str(first), "--last", str(last), *arguments,
                ],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for first, last in itertools.pairwise(bounds)
        ]  # fmt: skip
        for process in self._processes:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                self.__exit__()
                raise SystemExit("a client did not get ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def go(self) -> None:
        """Let them begin."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()

    def wait(self) -> tuple[float, float]:
        """Seconds of the slowest, and CPU seconds of all."""
        found = [process.communicate(timeout=900)[0].split() for process in self._processes]
        if any(process.returncode for process in self._processes):
            raise SystemExit("a client has failed")
        return max(float(words[0]) for words in found), sum(float(words[1]) for words in found)


class Memory:
    """The largest resident size seen of a process."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self.most = 0.0

    def look(self) -> None:
        """Look again."""
        self.most = max(self.most, self._process.memory_info().rss / 1e6)


def cpu(processes: Sequence[psutil.Process]) -> float:
    """CPU seconds that they have used, all together."""
    return float(sum(sum(process.cpu_times()[:2]) for process in processes))


def load() -> str:
    """How busy the machine is, in words."""
    return f"load {os.getloadavg()[0]:.1f}"


class Busy:
    """How much of the machine everybody has used since this was made."""

    def __init__(self) -> None:
        self._begin, self._used = time.monotonic(), self._now()

    @staticmethod
    def _now() -> float:
        times = psutil.cpu_times()
        return float(times.user + times.nice + times.system + times.irq + times.softirq)

    def text(self) -> str:
        """In words."""
        cores = (self._now() - self._used) / (time.monotonic() - self._begin)
        return f"{cores:.1f} of {os.cpu_count()} cores busy, {load()}"


def servers(bench: Bench) -> list[psutil.Process]:
    """The API server's processes and its etcd, as far as they run on this machine."""
    connections = psutil.net_connections("tcp4")
    listening = {c.laddr[1]: c.pid for c in connections if c.status == psutil.CONN_LISTEN and c.pid}
    ports = {urlsplit(url).port for url in (bench.cluster.server, bench.aggregated)}
    pids = {pid for port, pid in listening.items() if port in ports}
    used = {c.raddr[1] for c in connections if c.pid in pids and c.raddr}
    others = [psutil.Process(pid) for port, pid in listening.items() if port in used]
    return [*map(psutil.Process, pids), *(p for p in set(others) if p.name() == "etcd")]
