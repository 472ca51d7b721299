"""A spot instance that is wanted back: the worker saves its work, leaves, and says why."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.machine.machine import COORDINATOR, NODE, Machine
from tests.worker.harness import block, until
from worker.machine.metadata import Metadata
from worker.machine.watch import Watch


class Service(ThreadingHTTPServer):
    """An instance's metadata service, IMDSv2 only."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.notice: str | None = None
        self.tokens: list[str] = []
        self.asked: list[str] = []
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def end(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def do_PUT(self) -> None:
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.server.tokens.append(f"token-{len(self.server.tokens)}")
        self._answer(200, self.server.tokens[-1])

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.headers["X-aws-ec2-metadata-token"] != (self.server.tokens or ["-"])[-1]:
            self._answer(401, "")
        elif self.server.notice is None:
            self._answer(404, "")
        else:
            self._answer(200, self.server.notice)

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def metadata() -> Iterator[Service]:
    one = Service()
    yield one
    one.end()


NOTICE = json.dumps({"action": "terminate", "time": "2026-11-26T10:00:00Z"})


def test_the_worker_saves_its_work_and_leaves(machine: Machine, metadata: Service) -> None:
    machine.env.update(
        AWS_EC2_METADATA_SERVICE_ENDPOINT=metadata.url, http_proxy="http://127.0.0.1:9"
    )
    metadata.notice = NOTICE
    folder = machine.job()
    machine.start(spot=True)
    machine.prompt(block({"run": "sleep 1000"}), "u.1")
    assert machine.ended() == "exit 0", machine.log()
    assert machine.note("notice") == "SpotInterruption"
    assert machine.statuses()[-1] == ("stopped", "SpotInterruption")
    assert ("draining", "SpotInterruption") in machine.statuses()
    assert (folder / "worker.pid").exists()
    assert metadata.asked == ["/latest/meta-data/spot/instance-action"]


def test_those_that_live_by_its_files_leave_too(machine: Machine, metadata: Service) -> None:
    """The coordinator is wanted back: it says so where all the others look."""
    machine.env["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = metadata.url
    there, here = machine.job(), "cloud-0f1e2d3c-1-1"
    machine.job(here)
    machine.start(here, spot=False)
    machine.idle(here)
    metadata.notice = NOTICE
    machine.start(spot=True, node=COORDINATOR)
    for job in (there.name, here):
        assert machine.ended(job) == "exit 0", machine.log(job)
        assert machine.statuses(job)[-1] == ("stopped", "SpotInterruption")
    assert (machine.root / "machines" / COORDINATOR / "notice").read_text().strip() == NOTICE


def test_nothing_begins_any_more_where_a_machine_is_about_to_go(
    machine: Machine, metadata: Service
) -> None:
    machine.env["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = metadata.url
    metadata.notice = NOTICE
    machine.job()
    machine.start(spot=True)
    machine.ended()
    later = machine.job("cloud-0f1e2d3c-1-2").name
    assert machine.start(later)["reason"] == "SpotInterruption"
    assert machine.start(later, node="i-0c", coordinator=NODE)["leaving"] == NODE
    assert machine.note("claim", later) is None
    notice = machine.root / "machines" / NODE / "notice"
    os.utime(notice, (time.time() - 600,) * 2)  # it was not taken: that happens
    assert machine.start(later) == "started"
    machine.idle(later)


def test_a_machine_that_is_no_spot_one_asks_nobody(machine: Machine, metadata: Service) -> None:
    machine.env["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = metadata.url
    machine.job()
    machine.start()
    machine.idle()
    assert machine.stop() == "gone" and not metadata.tokens


def test_it_asks_again_until_there_is_a_notice(metadata: Service) -> None:
    told: list[str] = []
    watch = Watch(Metadata(metadata.url).notice, told.append, seconds=0.01)
    watch.start()
    until(lambda: len(metadata.asked) > 2, "for some questions")
    metadata.tokens.append("renewed")  # the old one is refused from now on
    until(lambda: len(metadata.tokens) > 2, "for a new token")
    assert watch.is_alive() and not told
    metadata.notice = NOTICE
    watch.join(20)
    assert told == [NOTICE]


def test_where_nobody_answers_nothing_is_told() -> None:
    told: list[str] = []
    watch = Watch(Metadata("http://127.0.0.1:9").notice, told.append, seconds=0.01)
    watch.start()
    watch.end()
    watch.join(20)
    assert not watch.is_alive() and not told
