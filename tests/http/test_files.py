"""Transcripts by name: regular files below the root, and nothing that a link leads to."""

from __future__ import annotations

import os

import pytest

from controller.http.files import Listed, TranscriptFiles
from tests.http.harness import handles, transcript

FOLDER, JOB = "builders-1a2b3c4d", "builders-1a2b3c4d-0-1"


def test_nothing_is_there_at_first(tmp_path):
    files = TranscriptFiles(tmp_path / "none")
    assert files.list("default") == []
    assert files.open("default", FOLDER, JOB) is None


def test_transcripts_are_listed_by_folder_worker_and_incarnation(tmp_path):
    for job in ("builders-1a2b3c4d-10-1", "builders-1a2b3c4d-2-12", "builders-1a2b3c4d-2-3"):
        transcript(tmp_path, job=job)
    transcript(tmp_path, b"12345", folder="another-00000000", job="another-00000000-0-1")
    transcript(tmp_path, namespace="other")
    files = TranscriptFiles(tmp_path)
    assert [each.job for each in files.list("default")] == [
        "another-00000000-0-1",
        "builders-1a2b3c4d-2-3",
        "builders-1a2b3c4d-2-12",
        "builders-1a2b3c4d-10-1",
    ]
    transcript(tmp_path, job="i-0aa0aa0aa0aa0aa0a")
    assert "i-0aa0aa0aa0aa0aa0a" in [each.job for each in files.list("default")]
    assert files.list("default")[0] == Listed("another-00000000", "another-00000000-0-1", 5)
    assert len(files.list("other")) == 1


def test_a_swarm_s_name_means_the_newest_of_that_name(tmp_path):
    old = transcript(tmp_path, folder="builders-00000000", job="builders-00000000-0-1")
    new = transcript(tmp_path)
    transcript(tmp_path, folder="builders-x-11111111", job="builders-x-11111111-0-1")
    os.utime(old.parent, (1, 1))
    os.utime(new.parent, (2, 2))
    files = TranscriptFiles(tmp_path)
    assert [each.folder for each in files.list("default", swarm="builders")] == [FOLDER]
    assert files.list("default", swarm="builder") == []


def test_only_the_jobs_asked_for(tmp_path):
    transcript(tmp_path)
    transcript(tmp_path, job="builders-1a2b3c4d-1-2")
    jobs = frozenset({"builders-1a2b3c4d-1-2", "builders-1a2b3c4d-9-9"})
    found = TranscriptFiles(tmp_path).list("default", jobs=jobs)
    assert [each.job for each in found] == ["builders-1a2b3c4d-1-2"]


def test_a_part_is_read_from_its_offset(tmp_path):
    transcript(tmp_path, b"0123456789")
    opened = TranscriptFiles(tmp_path).open("default", FOLDER, JOB)
    assert opened is not None
    with opened.file:
        assert opened.size == 10
        assert opened.read(3, 4) == b"3456"
        assert opened.read(8, 100) == b"89"
        assert opened.read(10, 1) == b""


@pytest.mark.parametrize("place", ["namespace", "folder", "file"])
def test_no_link_is_followed(tmp_path, place):
    outside = transcript(tmp_path / "outside", b"secret\n")
    root = tmp_path / "root"
    if place == "namespace":
        root.mkdir()
        (root / "default").symlink_to(outside.parent.parent)
    elif place == "folder":
        (root / "default").mkdir(parents=True)
        (root / "default" / FOLDER).symlink_to(outside.parent)
    else:
        (root / "default" / FOLDER).mkdir(parents=True)
        (root / "default" / FOLDER / f"{JOB}.jsonl").symlink_to(outside)
    files = TranscriptFiles(root)
    assert files.list("default") == []
    assert files.open("default", FOLDER, JOB) is None


def test_the_root_itself_may_be_a_link(tmp_path):
    transcript(tmp_path / "there")
    (tmp_path / "root").symlink_to(tmp_path / "there")
    assert len(TranscriptFiles(tmp_path / "root").list("default")) == 1


def test_pipes_and_folders_are_no_transcripts(tmp_path):
    inside = tmp_path / "default" / FOLDER
    inside.mkdir(parents=True)
    os.mkfifo(inside / f"{JOB}.jsonl")
    (inside / "builders-1a2b3c4d-1-1.jsonl").mkdir()
    (inside / "notes.jsonl").write_text("x")
    (inside / f"{JOB}.settled").write_text("0")
    files = TranscriptFiles(tmp_path)
    assert files.list("default") == []
    assert files.open("default", FOLDER, JOB) is None
    assert files.open("default", FOLDER, "builders-1a2b3c4d-1-1") is None


def test_no_handle_is_left_open(tmp_path):
    transcript(tmp_path)
    files = TranscriptFiles(tmp_path)
    before = handles()
    for _ in range(20):
        files.list("default")
        files.open("default", FOLDER, "builders-1a2b3c4d-9-9")
        opened = files.open("default", FOLDER, JOB)
        assert opened is not None
        opened.file.close()
    assert handles() == before
