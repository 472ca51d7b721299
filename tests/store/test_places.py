"""Where the state may lie, and what is said when it cannot be used."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.store.base import StoreUnavailable
from controller.store.database import Database
from controller.store.filesystem import file_system_of
from controller.store.schema import VERSION
from tests.store.helpers import NOBODY, in_child, key, task

MOUNTS = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 27 0:40 / /home rw,relatime shared:9 master:2 - nfs4 server:/home rw
41 40 0:41 / /home/local\040disk rw - xfs /dev/vdb rw
42 27 0:42 / /mnt/over rw - ext4 /dev/vdc rw
43 42 0:43 / /mnt/over rw - fuse.sshfs me@there: rw
44 27 0:44 / /mnt/overlap rw - tmpfs tmpfs rw
garbage
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/root/.codeswarm", ("ext4", "/")),
        ("/home/me/.codeswarm", ("nfs4", "/home")),
        ("/homes/me", ("ext4", "/")),
        ("/home/local disk/x", ("xfs", "/home/local disk")),
        ("/mnt/over/x", ("fuse.sshfs", "/mnt/over")),
        ("/mnt/overlap", ("tmpfs", "/mnt/overlap")),
    ],
)
def test_file_system_of(path: str, expected: tuple[str, str]) -> None:
    assert file_system_of(Path(path), MOUNTS) == expected


def test_no_mounts_known() -> None:
    assert file_system_of(Path("/x"), "") == ("unknown", "/")


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "lustre", "fuse.sshfs"])
def test_network_file_systems_are_refused(path: Path, kind: str) -> None:
    mounts = f"1 0 0:1 / / rw - ext4 disk rw\n2 1 0:2 / {path.parents[1]} rw - {kind} server rw\n"
    with pytest.raises(StoreUnavailable, match=rf"\({kind}, mounted at .*set CODESWARM_HOME to"):
        Database(path, mountinfo=mounts)
    assert not path.parent.exists()


def test_a_link_to_a_network_file_system_is_refused(tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    remote.mkdir()
    (tmp_path / "home").symlink_to(remote)
    mounts = f"1 0 0:1 / / rw - ext4 disk rw\n2 1 0:2 / {remote} rw - nfs server rw\n"
    with pytest.raises(StoreUnavailable, match="network file system"):
        Database(tmp_path / "home" / "state.db", mountinfo=mounts)


def test_only_its_owner_may_read(database: Database, path: Path) -> None:
    database.create(task("a"))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["state.db", "state.db-shm", "state.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_commits_are_synchronous(database: Database) -> None:
    pragma = database._connection.execute
    assert pragma("PRAGMA synchronous").fetchone() == (2,)
    assert pragma("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_newer_version_is_left_alone(path: Path) -> None:
    with Database(path) as database:
        database.create(task("a"))
        database._connection.execute("UPDATE meta SET value = 99 WHERE name = 'schema'")
    before = path.read_bytes()
    expected = rf"schema version 99, .*newer.*up to {VERSION}: upgrade Codeswarm.*CODESWARM_HOME"
    with pytest.raises(StoreUnavailable, match=expected):
        Database(path)
    assert path.read_bytes() == before


def test_another_programs_file_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="another program's SQLite file"):
        Database(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["not a database at all, but some text " * 50, "torn"])
def test_a_damaged_file_is_named(path: Path, damage: str) -> None:
    if damage == "torn":
        with Database(path) as database:
            for number in range(200):
                database.create(task(f"t{number}"))
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (path.stat().st_size - 4096))
    else:
        path.parent.mkdir()
        path.write_text(damage)
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match=r"state\.db is damaged.*move it away"):
        Database(path).list("Task")
    assert path.read_bytes() == before


def test_things_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="in the way"):
        Database(tmp_path / "file" / "state.db")
    (tmp_path / "home" / "state.db").mkdir(parents=True)
    with pytest.raises(StoreUnavailable, match="in the way"):
        Database(tmp_path / "home" / "state.db")


def test_a_writer_that_does_not_end(database: Database, path: Path) -> None:
    database.create(task("a"))
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        with (
            Database(path, busy_seconds=0.05) as other,
            pytest.raises(StoreUnavailable, match="another process is writing"),
        ):
            assert other.get(key("a")) is not None, "reading goes on"
            other.create(task("b"))
    finally:
        blocker.close()
    database.create(task("b"))


def test_what_a_program_breaks_off_is_undone(database: Database) -> None:
    with pytest.raises(KeyboardInterrupt), database._transaction() as transaction:
        transaction.collect_orphans()
        database._connection.execute("UPDATE meta SET value = 77 WHERE name = 'revision'")
        raise KeyboardInterrupt
    assert database.revision() == 0
    database.create(task("a"))


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A home with one task, that everybody may read and nobody else may write."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        home = Path(folder) / "home"
        with Database(home / "state.db") as database:
            database.create(task("a"))
        yield home
        home.chmod(0o755)


def _attempt(path: Path) -> str:
    try:
        with Database(path) as database:
            database.create(task("b"))
    except StoreUnavailable as error:
        return str(error)
    return "it worked"


@pytest.mark.parametrize("modes", [(0o555, 0o444), (0o755, 0o444), (0o500, 0o400), (0o555, 0o600)])
def test_a_read_only_directory(foreign: Path, modes: tuple[int, int]) -> None:
    path = foreign / "state.db"
    path.chmod(modes[1])
    foreign.chmod(modes[0])
    said = in_child(lambda: _attempt(path), uid=NOBODY)
    assert str(path) in said and "CODESWARM_HOME" in said, said
    foreign.chmod(0o700)
    path.chmod(0o600)
    with Database(path) as database:
        assert [obj["metadata"]["name"] for obj in database.list("Task")] == ["a"]


def test_a_new_state_in_a_read_only_directory(foreign: Path) -> None:
    foreign.chmod(0o555)
    said = in_child(lambda: _attempt(foreign / "sub" / "state.db"), uid=NOBODY)
    assert "cannot be made (Permission denied): set CODESWARM_HOME" in said


def test_a_full_disk_loses_nothing(path: Path) -> None:
    """The limit on file sizes stands for the disk's end; the kernel refuses the write."""

    def fill() -> str:
        with Database(path) as database:
            database.create(task("a"))
            wal = path.with_name("state.db-wal").stat().st_size
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (wal + 100_000, hard))
            try:
                database.create(task("b", {"prompt": "x" * 1_000_000}))
            except StoreUnavailable as error:
                said = str(error)
            else:
                return "it worked"
            assert database.get(key("a")) is not None
            assert database.get(key("b")) is None
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            database.create(task("c"))
        return said

    said = in_child(fill)
    assert said.startswith((f"no space left for {path}", f"{path} cannot be read or written")), said
    assert "space" in said and "nothing was changed" in said
    with Database(path) as database:
        assert [obj["metadata"]["name"] for obj in database.list("Task")] == ["a", "c"]
        assert database._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_no_more_pages(database: Database) -> None:
    database.create(task("a"))
    pages = database._connection.execute("PRAGMA page_count").fetchone()[0]
    database._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match=r"no space left for .*nothing was changed"):
        database.create(task("b", {"prompt": "x" * 100_000}))
    database._connection.execute("PRAGMA max_page_count = 1000000")
    assert database.get(key("b")) is None
    assert database.create(task("b"))["metadata"]["resourceVersion"] == "2"


def test_the_wake_file_may_be_anything(database: Database, path: Path) -> None:
    path.with_name("wake").write_text("mine")
    database.create(task("a"))
    assert path.with_name("wake").read_text() == "mine"
    path.with_name("wake").unlink()
    os.mkfifo(path.with_name("wake"))
    database.create(task("b"))
