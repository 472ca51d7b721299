"""``logs``: which records, in which order, as which text; and how transcripts are read."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import render
from cli.follow import Line, Reader, Tail
from controller.domain.machine_logs import transcript
from controller.runtime.home import Home
from controller.store.base import Resource
from controller.store.database import Database
from tests.cli.conftest import Run
from tests.cli.samples import attempt, prompt, seed, set_status, swarm, swarm_status, task

FIRST, SECOND = "builders-1a2b3c4d-0-1", "builders-1a2b3c4d-1-2"
ERROR = {"class": "task", "message": "no"}
T0 = 1767323045.0  # 2026-01-02T03:04:05Z


def line(ts: float, event: str, injection: str | None = None, **data: Any) -> str:
    """One record of an outbox."""
    record = {
        "seq": int(ts * 10),
        "ts": T0 + ts,
        "job_id": "job",
        "node_id": "node",
        "injection_id": injection,
        "event": event,
        "data": data,
    }
    return json.dumps(record) + "\n"


def write(home: Home, job: str, *lines: str, folder: str = "builders-1a2b3c4d") -> Path:
    """A transcript with these lines added."""
    path = home.transcripts / "default" / folder / f"{job}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(lines)
    return path


@pytest.fixture
def library(db: Database) -> Resource:
    """A task with two attempts, on two workers."""
    seed(db, swarm(), swarm_status())
    attempts = [
        attempt(1, "Failed"),
        attempt(2, "Succeeded", worker=1, job=SECOND),
    ]
    return seed(db, task("greeter.library"), {"phase": "Succeeded", "attempts": attempts})


@pytest.fixture
def written(home: Home, library: Resource) -> str:
    """Its records, among another task's; the uid."""
    uid = str(library["metadata"]["uid"])
    write(
        home,
        FIRST,
        line(0, "thread_status", status="idle"),
        line(1, "turn_started", f"{uid}.1", attempt=1),
        line(2, "assistant", f"{uid}.1", item="a", text="I try.\nReally."),
        "this is no record\n",
        line(3, "assistant", "other.1", item="a", text="Another task."),
        line(
            4,
            "turn_complete",
            f"{uid}.1",
            status="failed",
            error={"class": "task", "message": "no"},
        ),
    )
    write(
        home,
        SECOND,
        line(5, "turn_started", f"{uid}.2", attempt=2),
        line(6, "task_started", f"{uid}.2", base_commit="a" * 40),
        line(6.1, "command_started", f"{uid}.2", item="c", command="make\ntest", source="agent"),
        line(
            6.2, "command_completed", f"{uid}.2",
            item="c", command="make", source="agent", exit_code=2, output="x\ny\n", seconds=0.5,
        ),
        line(6.3, "filechange_completed", f"{uid}.2", path="a.py", kind="add", status="ok"),
        line(
            6.4, "assistant", f"{uid}.2",
            item="b", text='Done.\n\nTASK_RESULT\n{"status": "done", "notes": "well"}',
        ),
        line(
            6.5, "task_complete", f"{uid}.2",
            head_commit="b" * 40, branch="codeswarm/greeter/library", pushed=True,
            files_changed=["a.py"], files_changed_count=1,
        ),
        line(7, "turn_complete", f"{uid}.2", status="completed", answer=""),
    )  # fmt: skip
    return uid


def test_a_task(run: Run, written: str) -> None:
    result = run("logs", "task/greeter.library")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "03:04:06  attempt 1 taken up",
        "03:04:07  I try.",
        "03:04:07  Really.",
        "03:04:09  turn failed: task: no",
        "03:04:10  attempt 2 taken up",
        "03:04:11  turn started at aaaaaaaaaa",
        "03:04:11  $ make ...",
        "03:04:11    x",
        "03:04:11    y",
        "03:04:11    exit 2, 0.5s",
        "03:04:11  + a.py",
        "03:04:11  Done.",
        "03:04:11  reports done: well",
        "03:04:11  committed bbbbbbbbbb on codeswarm/greeter/library, 1 file changed",
        "03:04:12  turn completed",
    ]
    assert run("logs", "greeter.library").stdout == result.stdout


def test_one_attempt_and_the_tail(run: Run, written: str) -> None:
    out = run("logs", "greeter.library", "--attempt", "1").stdout.splitlines()
    assert len(out) == 4
    assert run("logs", "greeter.library", "--tail", "1").stdout == "03:04:12  turn completed\n"
    result = run("logs", "greeter.library", "--attempt", "3")
    assert (result.exit_code, result.stderr) == (
        1,
        'error: task "greeter.library" has no attempt 3 (has: 1, 2)\n',
    )


def test_records_as_they_are(run: Run, written: str) -> None:
    out = run("logs", "greeter.library", "--json").stdout.splitlines()
    records = [json.loads(text) for text in out]
    assert [r["event"] for r in records][:3] == ["turn_started", "assistant", "turn_complete"]
    assert {r["injection_id"].rpartition(".")[0] for r in records} == {written}


def test_a_worker_and_a_swarm(run: Run, written: str) -> None:
    worker = run("logs", "builders/0").stdout.splitlines()
    assert "03:04:08  Another task." in worker
    assert "03:04:07 greeter.library  I try." in worker
    whole = run("logs", "swarm/builders").stdout.splitlines()
    assert whole[0] == "03:04:06 builders/0 greeter.library  attempt 1 taken up"
    assert whole[-1] == "03:04:12 builders/1 greeter.library  turn completed"
    assert [text[:8] for text in whole] == sorted(text[:8] for text in whole)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("task/nope", 'task "nope" not found'),
        ("swarm/nope", 'swarm "nope" not found'),
        ("builders/9", 'swarm "builders" has no worker 9'),
        ("secret/x", "a secret has no logs"),
        ("worker/builders", "is no worker"),
        ("nonsense/x", 'there is no kind "nonsense"'),
    ],
)
def test_what_has_no_logs(run: Run, written: str, what: str, message: str) -> None:
    result = run("logs", what)
    assert result.exit_code == 1
    assert message in result.stderr


def test_names_never_leave_the_transcripts(run: Run, home: Home, db: Database) -> None:
    secret = home.root / "logs" / "builders-1a2b3c4d"
    secret.mkdir(parents=True)
    (secret / "x-0-1.jsonl").write_text(line(1, "assistant", text="secret"))
    for what in ("swarm/../logs", "../logs/0", "swarm/..%2flogs"):
        result = run("logs", what)
        assert result.exit_code == 1
        assert "secret" not in result.stdout


def test_a_deleted_swarm_still_has_its_transcripts(run: Run, home: Home, db: Database) -> None:
    job = "gone-deadbeef-0-1"
    write(home, job, line(1, "assistant", text="Still here."), folder="gone-deadbeef")
    assert run("logs", "swarm/gone").stdout == "03:04:06 gone/0  Still here.\n"


def test_following_a_prompt_to_its_end(run: Run, home: Home, db: Database) -> None:
    seed(db, swarm(), swarm_status())
    made = seed(db, prompt("hello"), {"phase": "Running", "attempts": [attempt()]})
    uid = made["metadata"]["uid"]
    write(home, FIRST, line(1, "turn_started", f"{uid}.1", attempt=1))

    def play() -> None:
        write(home, FIRST, line(2, "assistant", f"{uid}.1", text="Hello."))
        with Database(home.state) as other:
            set_status(other, made, phase="Succeeded")

    timer = threading.Timer(0.3, play)
    timer.start()
    out = run("logs", "-f", "task/hello").stdout.splitlines()
    timer.join()
    assert out == ["03:04:06  attempt 1 taken up", "03:04:07  Hello."]


def test_no_control_character_of_an_agent_reaches_the_terminal(run: Run, home: Home) -> None:
    write(home, FIRST, line(1, "assistant", text="a\x1b[31mb\x07\x9bc"))
    out = run("logs", "swarm/builders").stdout
    assert out == "03:04:06 builders/0  a�[31mb��c\n"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = [
    "text", "command", "source", "exit_code", "output", "seconds", "path", "kind", "status",
    "attempt", "base_commit", "conflicts", "error", "head_commit", "files_changed", "decision",
    "files_changed_count", "branch", "pushed", "reason", "will_retry", "task", "state", "commit",
]  # fmt: skip


@given(
    event=st.sampled_from(sorted(render.records.EVENTS)) | st.text(max_size=10),
    data=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=8) | JSON,
)
def test_any_record_can_be_shown(event: str, data: Any) -> None:
    for text in render.lines({"event": event, "data": data}):
        assert not any(ord(c) < 32 and c != "\t" for c in text)


class Growing:
    """A transcript that shows a little more with every look."""

    job = FIRST

    def __init__(self, data: bytes, steps: list[int]) -> None:
        self._data = data
        self._steps = steps
        self.end = 0

    def grow(self) -> bool:
        """A step further; False at the end."""
        self.end = min(len(self._data), self.end + (self._steps.pop() if self._steps else 10**6))
        return self.end < len(self._data)

    def size(self) -> int:
        """What there is now."""
        return self.end

    def read(self, offset: int, limit: int) -> bytes:
        """At most what there is now."""
        return self._data[: self.end][offset : offset + limit]


@given(
    records=st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9)), max_size=12),
    steps=st.lists(st.integers(1, 40), max_size=20),
)
def test_every_record_is_read_once_however_the_file_grows(
    records: list[dict[str, str]], steps: list[int]
) -> None:
    data = b"".join(json.dumps(r).encode() + b"\n" + b"\n[1]\n{torn\n" for r in records)
    transcript = Growing(data, steps)
    tail = Tail(transcript)
    read: list[Line] = []
    more = True
    while more:
        more = transcript.grow()
        read += tail.read()
    assert [found.record for found in read] == records


def test_streams_are_merged_by_time_and_keep_their_own_order() -> None:
    one = Growing("".join(line(ts, "a") for ts in (1, 4, 3)).encode(), [])
    two = Growing("".join(line(ts, "b") for ts in (2, 5)).encode(), [])
    two.job = SECOND  # type: ignore[misc]
    reader = Reader(lambda _: True)
    reader.add([one, two])
    one.grow()
    two.grow()
    order = [(found.record["event"], found.at - T0) for found in reader.read()]
    assert [at for event, at in order if event == "a"] == [1, 4, 3]
    assert order[:3] == [("a", 1), ("b", 2), ("a", 4)]


def test_an_answer_does_not_repeat_what_was_said() -> None:
    told = render.Told()

    def said(text: str, turn: str = "t.1") -> list[str]:
        record = {"event": "assistant", "injection_id": turn, "data": {"text": text}}
        return render.lines(told.without_repeats(record))

    assert said("beginning") == ["beginning"]
    assert said('beginning\n\nTASK_RESULT\n{"status": "done"}') == ["reports done"]
    assert said("beginning", "t.2") == ["beginning"]
    assert said("beginning of more", "t.2") == ["beginning of more"]


def test_a_limit_that_was_hit_is_named() -> None:
    error = {"class": "interrupted", "message": "the turn was interrupted: Timeout"}
    data = {"status": "interrupted", "reason": "Timeout", "error": error}
    assert render.lines({"event": "turn_complete", "data": data}) == [
        "turn interrupted: it took longer than timeoutSeconds (a project's taskTimeoutSeconds)"
    ]


def test_a_swarms_logs_have_the_set_up_of_its_machines(run: Run, home: Home, db: Database) -> None:
    """Not a worker's, and not a task's; one machine's alone by its id."""
    seed(db, swarm(), swarm_status())
    machine = "i-0aa0aa0aa0aa0aa0a"
    path = write(home, FIRST, line(9, "turn_started"))
    text = "2026-01-02T03:04:06Z begins: role coordinator\nSetting up nfs-kernel-server\n"
    path.with_name(f"{machine}.jsonl").write_bytes(transcript(machine, text, T0))
    told = ["begins: role coordinator", "Setting up nfs-kernel-server"]
    whole = run("logs", "swarm/builders").output.splitlines()
    assert [line.partition(f"{machine}  ")[2] for line in whole[:2]] == told
    assert "taken up" in whole[2]
    alone = run("logs", f"builders/{machine}").output.splitlines()
    assert [line.partition("  ")[2] for line in alone] == told
    assert run("logs", "builders/0").output.count("\n") == 1
    absent = run("logs", "builders/i-0bb0bb0bb0bb0bb0b")
    assert absent.exit_code == 1 and "no set-up log of i-0bb" in absent.output
