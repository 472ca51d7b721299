"""Walking, packing and removing folders that somebody hostile filled."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from providers import archive
from providers.base import ProviderError, SwarmHandle
from worker import packing, walk

SWARM = SwarmHandle("default", "team", "0123456789abcdef")
DEEP = 3000


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A swarm's folder."""
    path = tmp_path / "swarm"
    path.mkdir()
    return path


def remove(path: Path) -> None:
    """Remove a folder by way of its parent."""
    parent = os.open(path.parent, os.O_RDONLY)
    try:
        walk.remove(parent, path.name)
    finally:
        os.close(parent)


def pack(top: Path, path: Path) -> tarfile.TarFile:
    """Pack a swarm's folder, and open what came of it."""
    folder = os.open(top, os.O_RDONLY)
    try:
        archive.pack(SWARM, folder, path, threading.Event())
    finally:
        os.close(folder)
    return tarfile.open(path)


def dig(path: Path, depth: int) -> None:
    """Make folders below each other, further down than any path can reach."""
    path.mkdir(exist_ok=True)
    current = os.open(path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=current)
        below = os.open("d", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=current))
    os.close(current)


def test_no_depth_is_too_deep(top: Path, tmp_path: Path) -> None:
    dig(top / "job", DEEP)
    with pack(top, tmp_path / "a.tar.gz") as tar:
        assert tar.getnames()[-1] == "team-01234567/job/" + "d/" * DEEP + "bottom"
    remove(top)
    assert not top.exists()


def test_removal_follows_no_symlink(top: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("kept")
    (top / "job").mkdir()
    (top / "job" / "folder").symlink_to(tmp_path / "precious")
    (top / "job" / "file").symlink_to(tmp_path / "precious" / "file")
    (top / "job" / "up").symlink_to("../..")
    (top / "link").symlink_to(tmp_path / "precious")
    remove(top / "link")
    remove(top)
    assert not top.exists()
    assert (tmp_path / "precious" / "file").read_text() == "kept"


def test_removal_opens_up_read_only_folders(top: Path) -> None:
    objects = top / "job" / "objects"
    objects.mkdir(parents=True)
    (objects / "pack").write_text("x")
    (objects / "pack").chmod(0o400)
    (top / "job" / "none").mkdir(mode=0o000)
    objects.chmod(0o500)
    (top / "job").chmod(0o500)
    code = (
        "import os, sys; from worker import walk; os.chdir(sys.argv[1]); "
        "walk.remove(os.open('.', os.O_RDONLY), 'swarm')"
    )
    command = [sys.executable, "-c", code, str(top.parent)]
    if os.geteuid() == 0:  # root may write everywhere, unless it gives that up
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv to give up root's right to write everywhere")
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=60)
    assert not top.exists()


def test_removing_what_is_not_there_is_no_error(top: Path) -> None:
    remove(top / "nothing")
    assert top.exists()


def test_a_folder_moved_away_during_the_walk_is_noticed(top: Path, tmp_path: Path) -> None:
    (top / "a" / "b").mkdir(parents=True)
    (tmp_path / "precious" / "file").mkdir(parents=True)
    folder = os.open(top, os.O_RDONLY)
    with pytest.raises(OSError, match="moved"):
        for node in walk.walk(folder):
            if node.leaving and node.path == "a/b":
                (top / "a").rename(tmp_path / "precious" / "a")
    os.close(folder)


def test_the_archive_keeps_files_and_links_as_they_are(top: Path, tmp_path: Path) -> None:
    repo = top / "job" / "repo"
    (repo / "env").mkdir(parents=True)
    (repo / "env" / "setting").write_text("an agent's file")
    (repo / "script").write_text("#!/bin/sh\n")
    (repo / "script").chmod(0o755)
    os.link(repo / "script", repo / "second name")
    (repo / "link").symlink_to("/etc/passwd")
    (repo / os.fsdecode(b"not \xff utf-8")).write_text("x")
    with pack(top, tmp_path / "a.tar.gz") as tar:
        tar.extraction_filter = lambda member, path: member  # newer Pythons would refuse the link
        tar.extractall(tmp_path / "out")
        link = tar.getmember("team-01234567/job/repo/link")
        assert (link.issym(), link.linkname) == (True, "/etc/passwd")
    out = tmp_path / "out" / "team-01234567" / "job" / "repo"
    assert (out / "env" / "setting").read_text() == "an agent's file"
    assert (out / "script").stat().st_mode & 0o777 == 0o755
    assert (out / "second name").read_text() == "#!/bin/sh\n"
    assert (out / os.fsdecode(b"not \xff utf-8")).read_text() == "x"


def test_the_archive_has_no_secrets_and_no_pipes(top: Path, tmp_path: Path) -> None:
    job = top / "job"
    (job / "secrets").mkdir(parents=True)
    (job / "secrets" / "u.1.json").write_text("hidden")
    (job / "env").write_text("hidden")
    (job / ".env.part").write_text("hidden")
    os.mkfifo(job / "wake")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(job / "socket"))
        with pack(top, tmp_path / "a.tar.gz") as tar:
            assert tar.getnames() == ["team-01234567/ARCHIVE.json", "team-01234567/job"]


def test_a_file_cut_off_while_it_is_packed_is_filled_up(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"12345")
    with (tmp_path / "log").open("rb") as file:
        reader = packing._Exactly(file, 8)
        assert reader.read(4) + reader.read(100) + reader.read(1) == b"12345\0\0\0"


def test_a_cancelled_archive_leaves_no_file(top: Path, tmp_path: Path) -> None:
    (top / "job").mkdir()
    cancelled = threading.Event()
    cancelled.set()
    folder = os.open(top, os.O_RDONLY)
    with pytest.raises(ProviderError, match="given up"):
        archive.pack(SWARM, folder, tmp_path / "out" / "a.tar.gz", cancelled)
    os.close(folder)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_finished_archive_is_known_by_the_swarms_uid(top: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    assert not archive.is_finished(path, SWARM)
    pack(top, path).close()
    assert archive.is_finished(path, SWARM)
    for other in (SwarmHandle("default", "team", "01234567-other"),):
        with pytest.raises(ProviderError) as refused:
            archive.is_finished(path, other)
        assert refused.value.reason == "ArchiveExists"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ProviderError):
        archive.is_finished(path, SWARM)


def test_a_destination_is_a_file_or_a_folder(tmp_path: Path) -> None:
    assert archive.archive_path(SWARM, tmp_path / "x.tar.gz") == tmp_path / "x.tar.gz"
    assert archive.archive_path(SWARM, tmp_path) == tmp_path / "default-team-01234567.tar.gz"
    (tmp_path / "x.tar.gz").mkdir()
    assert archive.archive_path(SWARM, tmp_path / "x.tar.gz").parent == tmp_path / "x.tar.gz"
