"""The inbox reader against torn, repeated, reordered, oversized and garbage lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker.harness import user
from worker.accept import BadRecord, parse
from worker.inbox import Fault, Inbox, LineReader

LIMIT = 2000


def control(epoch: int = 1, action: str = "drain", **payload: Any) -> dict[str, Any]:
    return {"type": "control", "epoch": epoch, "payload": {"action": action, **payload}}


def inbox(path: Path, accepted: set[str] | None = None) -> Inbox:
    return Inbox(path, accepted or set(), set(), LIMIT)


def ids(found: list[Any]) -> list[str]:
    return [r["injection_id"] for r in found if not isinstance(r, Fault) and r["type"] == "user"]


def test_a_partial_line_waits_for_its_newline(tmp_path: Path) -> None:
    path = tmp_path / "in"
    reader = inbox(path)
    assert list(reader.read()) == []
    data = json.dumps(user("hi", "u.1")).encode()
    path.write_bytes(data[:20])
    assert list(reader.read()) == []
    path.write_bytes(data)
    assert list(reader.read()) == []
    path.write_bytes(data + b"\n")
    assert ids(list(reader.read())) == ["u.1"]
    assert list(reader.read()) == []


def test_a_lower_epoch_is_ignored_and_a_repeated_id_too(tmp_path: Path) -> None:
    path = tmp_path / "in"
    lines = [
        {**user("", "u.1"), "epoch": 3},
        {**user("", "u.2"), "epoch": 2},
        control(2),
        {**user("", "u.1"), "epoch": 4},
        {**user("", "u.3"), "epoch": 4},
        {**user("", "u.4"), "epoch": 3},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert ids(list(inbox(path).read())) == ["u.1", "u.3"]
    assert ids(list(inbox(path, {"u.1"}).read())) == ["u.3"]


def test_an_oversized_line_is_skipped_and_reported_once(tmp_path: Path) -> None:
    path = tmp_path / "in"
    small = json.dumps(user("hi", "u.1")).encode() + b"\n"
    big = json.dumps(user("x" * 200_000, "u.2")).encode() + b"\n"
    path.write_bytes(small + big[:100_000])
    reader = inbox(path)
    assert ids(list(reader.read())) == ["u.1"]
    path.write_bytes(small + big + json.dumps(user("", "u.3")).encode() + b"\n")
    fault, record = list(reader.read())
    assert isinstance(fault, Fault)
    assert fault.offset == len(small) and "longer than 2000" in fault.message
    assert ids([record]) == ["u.3"]


def test_a_fault_that_was_reported_before_is_not_again(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"{}\nnonsense\n")
    assert [f.offset for f in Inbox(path, set(), {3}).read() if isinstance(f, Fault)] == [0]


BAD = {
    "empty": b"{}",
    "list": b"[1]",
    "nested": b"[" * 20_000,
    "text": b"hello",
    "latin": b'{"type": "\xe9"}',
    "surrogate": json.dumps(user("\ud800", "u.1")).encode(),
    "number": b'{"type": "control", "epoch": ' + b"9" * 5000 + b"}",
    "no epoch": b'{"type": "control", "payload": {"action": "drain"}}',
    "bool epoch": json.dumps(control(epoch=True)).encode(),
    "negative epoch": json.dumps(control(epoch=-1)).encode(),
    "action": json.dumps(control(action="dance")).encode(),
    "payload": b'{"type": "control", "epoch": 1, "payload": []}',
    "no content": json.dumps({**user("", "u.1"), "content": None}).encode(),
    "no id": json.dumps({**user("", ""), "injection_id": ""}).encode(),
    "kind": json.dumps(user("", "u.1", kind="system")).encode(),
    "attempt": json.dumps(user("", "u.1", attempt="1")).encode(),
    "secrets": json.dumps({**user("", "u.1"), "secrets": "../x"}).encode(),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_record_is_said_so(name: str) -> None:
    with pytest.raises(BadRecord) as caught:
        parse(BAD[name])
    assert len(str(caught.value)) < 300


def repository(**changes: Any) -> bytes:
    record = user("", "u.1", kind="work")
    record["repository"] = {
        "url": "/srv/r.git",
        "project_uid": "p",
        "base_branch": "main",
        "base_commit": "a" * 40,
        "dependencies": [],
        **changes,
    }
    return json.dumps(record).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"url": ""},
        {"url": "a\nb"},
        {"project_uid": "../x"},
        {"project_uid": "a/b"},
        {"store": "relative"},
        {"base_branch": "--upload-pack=x"},
        {"base_commit": "HEAD"},
        {"base_commit": "a" * 39},
        {"attempt_ref": "refs/../x"},
        {"attempt_ref": "+refs/heads/x"},
        {"branch": "x:refs/heads/main"},
        {"expected": "main"},
        {"dependencies": [{"task": "a", "commit": "a" * 40, "ref": "main"}]},
        {"dependencies": "none"},
    ],
)
def test_what_git_must_not_see_is_refused(changes: dict[str, Any]) -> None:
    parse(repository())
    with pytest.raises(BadRecord):
        parse(repository(**changes))


garbage = st.one_of(
    st.binary(max_size=60).filter(lambda b: b"\n" not in b),
    st.binary(min_size=LIMIT + 1, max_size=LIMIT + 50).map(lambda b: b.replace(b"\n", b" ")),
    st.builds(lambda n: json.dumps({"type": n}).encode(), st.text(max_size=5)),
)
users = st.builds(
    lambda n, e, text: ("user", f"u.{n}", e, {**user(text, f"u.{n}"), "epoch": e}),
    st.integers(0, 9),
    st.integers(0, 3),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20),
)
lines = st.lists(st.one_of(users, garbage.map(lambda b: ("garbage", b))), max_size=30)


@settings(max_examples=150, deadline=None)
@given(lines=lines, cuts=st.lists(st.integers(0, 70_000), max_size=8), data=st.data())
def test_any_file_read_in_any_pieces_gives_each_valid_record_once(
    tmp_path_factory: pytest.TempPathFactory, lines: list[Any], cuts: list[int], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("inbox") / "in"
    whole = b"".join((json.dumps(x[3]).encode() if x[0] == "user" else x[1]) + b"\n" for x in lines)
    torn = data.draw(st.integers(0, 20))
    whole = whole[: len(whole) - torn] if lines and torn else whole
    expected: list[str] = []
    faults, epoch = 0, 0
    for line in whole.split(b"\n")[:-1]:
        if not line.strip():
            continue
        try:
            record = parse(line) if len(line) <= LIMIT else None
        except BadRecord:
            record = None
        if record is None:
            faults += 1
        elif record["epoch"] >= epoch:
            epoch = record["epoch"]
            if record["type"] == "user" and record["injection_id"] not in expected:
                expected.append(record["injection_id"])
    reader = inbox(path)
    found: list[Any] = []
    for end in [*sorted(cuts), len(whole)]:
        path.write_bytes(whole[:end])
        found += reader.read()
    assert ids(found) == expected
    assert sum(isinstance(f, Fault) for f in found) == faults


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=400), cuts=st.lists(st.integers(0, 400), max_size=5))
def test_lines_come_with_their_offsets(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("lines") / "in"
    reader = LineReader(path, limit=40)
    found: list[Any] = []
    for end in [*sorted(cuts), len(data)]:
        path.write_bytes(data[:end])
        found += reader.read()
    position = 0
    for line, raw in zip(found, data.split(b"\n")[:-1], strict=True):
        assert line.offset == position
        assert line.data == (raw if len(raw) <= 40 else None)
        position += len(raw) + 1
