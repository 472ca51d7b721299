"""Several processes use one state at once; some of them are killed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from controller.store.base import Conflict
from controller.store.database import Database
from tests.store.helpers import insist, key, python, request, task

COUNTER = """
import sys
from pathlib import Path
from controller.store.database import Database
from tests.store.helpers import insist

database = Database(Path(sys.argv[1]))
print("ready")
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    insist(database, "a", lambda obj: obj["spec"].update(n=obj["spec"]["n"] + 1))
"""

APPLIER = """
import sys
from pathlib import Path
from controller.store.database import Database
from tests.store.helpers import request, task

database, field, mine = Database(Path(sys.argv[1])), *sys.argv[3:]
print("ready")
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    manifest = task("a", {field: number}, labels={field: str(number)})
    database.apply_many([request(manifest), request(task(f"{mine}-{number}"))])
"""

WRITER = """
import sys
from pathlib import Path
from controller.store.database import Database
from tests.store.helpers import task

database, round_ = Database(Path(sys.argv[1])), sys.argv[2]
number = 0
while True:
    name = f"r{round_}-{number}"
    made = database.create(task(name, {"prompt": name * 100}))
    database.update_status({**made, "status": {"said": name}})
    print(name)
    number += 1
"""

OPENER = """
import sys
from pathlib import Path
from controller.store.database import Database
from tests.store.helpers import task

print("ready")
sys.stdin.readline()
Database(Path(sys.argv[1])).create(task(sys.argv[2]))
"""


def run_together(*processes: tuple[str, Sequence[str | Path]]) -> None:
    """Start all, let them begin at the same moment, and see that they end well."""
    started = [python(code, *arguments) for code, arguments in processes]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.close()
        assert [process.wait(60) for process in started] == [0] * len(started)
    finally:
        for process in started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def test_no_update_is_lost(database: Database, path: Path) -> None:
    database.create(task("a", {"n": 0}))
    run_together(
        (COUNTER, (path, "150")), (COUNTER, (path, "150")), (APPLIER, (path, "60", "x", "one"))
    )
    made = database.get(key("a"))
    assert made is not None
    assert made["spec"] == {"n": 300, "x": 59}
    assert made["metadata"]["generation"] == 1 + 300 + 60


def test_two_appliers_at_once(database: Database, path: Path) -> None:
    database.create(task("a", {"n": 0}))
    run_together(
        (APPLIER, (path, "60", "x", "one")),
        (APPLIER, (path, "60", "x", "two")),
    )
    made = database.get(key("a"))
    assert made is not None
    assert made["spec"] == {"n": 0, "x": 59}
    assert made["metadata"]["labels"] == {"x": "59"}
    assert len(database.list("Task")) == 121


def test_a_state_made_by_several_at_once(path: Path) -> None:
    run_together(*[(OPENER, (path, f"t{number}")) for number in range(4)])
    with Database(path) as database:
        assert len(database.list("Task")) == 4


def test_conflicts_are_seen(database: Database, path: Path) -> None:
    database.create(task("a", {"n": 0}))
    with Database(path) as other:
        mine = database.get(key("a"))
        assert mine is not None
        insist(other, "a", lambda obj: obj["spec"].update(n=1))
        with pytest.raises(Conflict):
            database.update({**mine, "spec": {"n": 2}})
        assert other.apply(request(task("a", {"m": 1}))).resource["spec"] == {"n": 1, "m": 1}


def test_what_a_killed_writer_was_told_is_there(path: Path) -> None:
    dice = random.Random(7)
    told: list[str] = []
    for round_ in range(5):
        writer = python(WRITER, path, str(round_))
        assert writer.stdout is not None
        try:
            for _ in range(dice.randrange(5, 80)):
                told.append(writer.stdout.readline().strip())
        finally:
            writer.kill()
            writer.wait()
        told += writer.stdout.read().split("\n")[:-1]
        writer.stdout.close()
        with Database(path) as database:
            objects = {obj["metadata"]["name"]: obj for obj in database.list("Task")}
            for name in told:
                assert objects[name]["status"] == {"said": name}
                assert objects[name]["spec"] == {"prompt": name * 100}
            assert len(objects) - len(told) <= round_ + 1, "at most the one being written"
            assert database._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            changes, revision = database.changes_since(0)
            assert len(changes) == len(objects)
            assert revision == database.revision()
