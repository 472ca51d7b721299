"""Transcripts: byte for byte the outbox, whatever the batches, replays and restarts."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from controller.reconcile.transcripts import Transcripts
from providers.base import RecordBatch

UID = "12345678-0000-4000-8000-000000000000"
JOB = "builders-12345678-0-1"
PLACE = ("default", "builders", UID, JOB)

lines = st.lists(
    st.binary(min_size=1, max_size=12).map(lambda b: b.replace(b"\n", b"_")), max_size=20
)


def batches(items, cuts):
    """The same lines in batches that begin and end at the cuts, some of them again."""
    offsets = [0]
    for item in items:
        offsets.append(offsets[-1] + len(item) + 1)
    for begin, end in cuts:
        begin, end = sorted((begin % (len(items) + 1), end % (len(items) + 1)))
        if begin < end:
            yield RecordBatch(JOB, items[begin:end], offsets[end]), begin


@given(lines, st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=12))
def test_any_batches_and_replays_give_a_prefix(tmp_path_factory, items, cuts):
    root = tmp_path_factory.mktemp("transcripts")
    transcripts, read = Transcripts(root), 0
    transcripts.open(*PLACE)
    for batch, begin in batches(items, cuts):
        if begin > read:  # a follower never leaves lines out
            continue
        transcripts.append(batch)
        read = max(read, begin + len(batch.lines))
        if len(batch.lines) % 3 == 0:  # the controller is killed, and begins anew
            transcripts.close_all()
            transcripts = Transcripts(root)
            transcripts.open(*PLACE)
    transcripts.close_all()
    path = root / "default" / "builders-12345678" / f"{JOB}.jsonl"
    wanted = b"".join(item + b"\n" for item in items[:read])
    assert (path.read_bytes() if path.exists() else b"") == wanted


def test_a_restart_begins_where_turns_were_settled(tmp_path):
    transcripts = Transcripts(tmp_path)
    assert transcripts.open(*PLACE) == 0
    transcripts.append(RecordBatch(JOB, [b"one", b"two"], 8))
    transcripts.settle(JOB, transcripts.end(JOB))
    transcripts.append(RecordBatch(JOB, [b"three"], 14))
    transcripts.flush()
    assert Transcripts(tmp_path).open(*PLACE) == 8
    assert [x for x in Transcripts(tmp_path).recall("default", "builders", JOB) if x] == [b"three"]


def test_a_note_that_is_damaged_only_makes_it_read_more(tmp_path):
    transcripts = Transcripts(tmp_path)
    transcripts.open(*PLACE)
    (tmp_path / "default" / "builders-12345678" / f"{JOB}.settled").write_text("-3x")
    assert Transcripts(tmp_path).open(*PLACE) == 0


def test_what_cannot_be_noted_is_noted_later(tmp_path):
    transcripts = Transcripts(tmp_path)
    transcripts.open(*PLACE)
    note = tmp_path / "default" / "builders-12345678" / f"{JOB}.settled"
    note.mkdir()
    transcripts.append(RecordBatch(JOB, [b"one"], 4))
    transcripts.settle(JOB, transcripts.end(JOB))
    transcripts.flush()
    note.rmdir()
    transcripts.flush()
    assert note.read_text() == "4"


def test_transcripts_are_for_their_owner_alone(tmp_path):
    transcripts = Transcripts(tmp_path)
    transcripts.open(*PLACE)
    transcripts.append(RecordBatch(JOB, [b"one"], 4))
    folder = tmp_path / "default" / "builders-12345678"
    assert os.stat(folder).st_mode & 0o077 == 0
    assert os.stat(folder / f"{JOB}.jsonl").st_mode & 0o077 == 0


def test_nobody_s_transcript_is_empty(tmp_path):
    transcripts = Transcripts(tmp_path)
    assert transcripts.recall("default", "builders", JOB) == []
    assert transcripts.recall("default", "builders", "odd") == []
    transcripts.append(RecordBatch("unknown", [b"x"], 2))
    assert not list(tmp_path.iterdir())
