"""Claude Code's pure parts: what is allowed, what is shown, what a failure is, what was used."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.runtimes.claude_failures import Ending, failure
from worker.runtimes.claude_policy import Policy
from worker.runtimes.claude_questions import Remembered, change, question, summary
from worker.runtimes.claude_usage import CLASSES, AttemptUsage, from_api

INSIDE: dict[str, Any] = {"file_path": "src/a.py", "content": "x"}
OUTSIDE: dict[str, Any] = {"file_path": "/etc/passwd", "content": "x"}
COMMAND: dict[str, Any] = {"command": "make test"}
UNCONFINED: dict[str, Any] = {**COMMAND, "dangerouslyDisableSandbox": True}
URL: dict[str, Any] = {"url": "https://example.org"}

POLICIES = ("never", "on-request", "on-failure", "untrusted")
# In the order of POLICIES: a = allowed, ? = asked, - = refused.
TABLE = {
    ("read-only", "Read", "/etc/hosts"): "aaaa",
    ("read-only", "Write", "inside"): "-???",
    ("read-only", "Bash", "command"): "-???",
    ("workspace-write", "Write", "inside"): "aaa?",
    ("workspace-write", "Write", "outside"): "-???",
    ("workspace-write", "Bash", "command"): "a?a?",
    ("workspace-write", "Agent", "command"): "aaaa",
    ("workspace-write", "mcp__x__y", "command"): "-???",
    ("danger-full-access", "Write", "outside"): "aaa?",
    ("danger-full-access", "Bash", "command"): "aaa?",
    ("danger-full-access", "WebFetch", "url"): "aaa?",
}
CONFINED = {
    ("read-only", "Bash", "command"): "aaa?",
    ("workspace-write", "Bash", "command"): "aaa?",
    ("workspace-write", "Bash", "unconfined"): "-???",
}
CALLS = {
    "inside": INSIDE, "outside": OUTSIDE, "command": COMMAND, "unconfined": UNCONFINED, "url": URL,
    "/etc/hosts": {"file_path": "/etc/hosts"},
}  # fmt: skip
SIGNS = {"allow": "a", "ask": "?", "deny": "-"}


@pytest.mark.parametrize(
    ("case", "confined"), [(c, False) for c in TABLE] + [(c, True) for c in CONFINED]
)
def test_the_table_of_the_documentation_holds(
    case: tuple[str, str, str], confined: bool, tmp_path: Path
) -> None:
    sandbox, tool, call = case
    made = [Policy(name, sandbox, False, tmp_path, confined) for name in POLICIES]
    verdicts = [policy.verdict(tool, CALLS[call]) for policy in made]
    expected = CONFINED[case] if confined else TABLE[case]
    assert "".join(SIGNS[verdict.action] for verdict in verdicts) == expected
    assert all(verdict.reason for verdict in verdicts if verdict.action != "allow")


@pytest.mark.parametrize("policy", POLICIES)
def test_without_network_access_nothing_is_fetched(policy: str, tmp_path: Path) -> None:
    for sandbox in ("read-only", "workspace-write"):
        made = Policy(policy, sandbox, False, tmp_path)
        assert made.verdict("WebFetch", URL).action == "deny" and not made.online
    made = Policy(policy, "workspace-write", True, tmp_path)
    assert made.verdict("WebFetch", URL).action == ("ask" if policy == "untrusted" else "allow")


@pytest.mark.parametrize(
    "path", ["../out", "/etc/x", "link/x", "a/../../x", "loop", "", "a\0b", "."]
)
def test_no_path_leads_out_of_the_checkout(path: str, tmp_path: Path) -> None:
    root = tmp_path / "repo"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    verdict = Policy("never", "workspace-write", False, root).verdict("Edit", {"file_path": path})
    assert verdict.action == "deny"


def test_a_change_is_shown_as_a_diff(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\ntwo\nthree\n")
    edit = {"file_path": str(tmp_path / "a.py"), "old_string": "two", "new_string": "2"}
    asked = question("Edit", edit, tmp_path, "because", []).told("r")
    assert asked["kind"] == "file-change" and asked["paths"] == ["a.py"]
    assert asked["diff"].splitlines()[:2] == ["--- a/a.py", "+++ b/a.py"]
    assert "-two\n+2\n" in asked["diff"]
    write = {"file_path": "new/b.py", "content": "x\n"}
    assert change("Write", write, tmp_path) == "--- /dev/null\n+++ b/new/b.py\n@@ -0,0 +1 @@\n+x\n"
    many = {"file_path": "a.py", "edits": [edit, {"old_string": "2", "new_string": "II"}]}
    assert "+II\n" in change("MultiEdit", many, tmp_path)


def test_a_question_says_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "link").symlink_to("/etc")
    write = {"file_path": "src/link/made", "content": "x"}
    assert question("Write", write, tmp_path, "", []).paths == ["src/link/made", "/etc/made"]
    assert question("Write", INSIDE, tmp_path, "", []).paths == ["src/a.py"]


def test_what_cannot_be_compared_is_shown_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * (1 << 20))
    for name in ("pipe", "large", "missing"):
        edit = {"file_path": name, "old_string": "a", "new_string": "b"}
        assert change("Edit", edit, tmp_path) == "-a\n+b\n"
    assert change("Write", {"file_path": "large", "content": "b"}, tmp_path) == "+b\n"
    assert change("Edit", {"file_path": 3, "edits": [None]}, tmp_path) == ""


def test_a_call_is_told_in_one_line(tmp_path: Path) -> None:
    assert summary("Read", {"file_path": str(tmp_path / "a")}, tmp_path) == "Read a"
    assert summary("WebFetch", URL, tmp_path) == "WebFetch https://example.org"
    assert summary("Other", {"b": [1]}, tmp_path) == 'Other {"b": [1]}'
    assert len(summary("Other", {"b": "x" * 9_999}, tmp_path)) < 500


def test_what_is_approved_for_the_session_is_the_like_and_no_more(tmp_path: Path) -> None:
    kept = Remembered(tmp_path)
    kept.keep("Bash", COMMAND)
    kept.keep("Write", INSIDE)
    kept.keep("WebFetch", URL)
    assert kept.covers("Bash", {**COMMAND, "description": "again"})
    assert not kept.covers("Bash", {"command": "make test; rm -rf /"})
    assert not kept.covers("Bash", UNCONFINED)
    assert kept.covers("Edit", {"file_path": "other.py"}) and not kept.covers("Write", OUTSIDE)
    assert kept.covers("WebFetch", {}) and not kept.covers("WebSearch", {})


@pytest.mark.parametrize(
    ("ending", "kind", "part"),
    [
        (Ending("API Error: 429 slow", status=429, retry_after=60), "quota", "slow"),
        (Ending("Credit balance is too low", status=400), "quota", "balance"),
        (Ending("x", error="rate_limit"), "quota", ""),
        (Ending("API Error: 529 overloaded", status=529), "overloaded", ""),
        (Ending("API Error: Connection closed mid-response"), "overloaded", ""),
        (Ending("Invalid API key", status=401), "auth", ""),
        (Ending("no", error="authentication_failed"), "auth", ""),
        (Ending("Prompt is too long", status=400), "task", "freshThreadPerPrompt"),
        (Ending("not found", status=404, model="nosuch"), "task", "model 'nosuch'"),
        (Ending("", subtype="error_during_execution", errors=["it broke"]), "task", "it broke"),
        (Ending(""), "task", "no reason"),
    ],
)
def test_an_ending_has_its_class(ending: Ending, kind: str, part: str) -> None:
    found = failure(ending)
    assert found.kind == kind and part in found.message
    assert found.retry_after == (60 if ending.retry_after else None)


# --- usage --------------------------------------------------------------------------------------

counts = st.integers(0, 10_000)
calls = st.fixed_dictionaries(
    {
        "input_tokens": counts,
        "cache_read_input_tokens": counts,
        "cache_creation_input_tokens": counts,
        "output_tokens": counts,
    }
)


def as_process(calls: list[dict[str, int]]) -> dict[str, int]:
    """What a process reports after these calls."""
    names = {
        "inputTokens": "input_tokens",
        "cacheReadInputTokens": "cache_read_input_tokens",
        "cacheCreationInputTokens": "cache_creation_input_tokens",
        "outputTokens": "output_tokens",
    }
    return {ours: sum(call[theirs] for call in calls) for ours, theirs in names.items()}


@given(st.lists(st.lists(calls, max_size=4), max_size=5))
def test_a_total_is_the_sum_of_the_calls(turns: list[list[dict[str, int]]]) -> None:
    """Turns of one attempt."""
    usage = AttemptUsage("s")
    told: list[dict[str, Any]] = []
    for turn in turns:
        usage.begin()
        usage.named("m")
        for call in turn:
            told.append(usage.call("m-20260101", call) or {})
        told += usage.settle({"m": {**as_process(turn), "contextWindow": 9}})
    whole = [call for turn in turns for call in turn]
    expected = {name: sum(from_api(call)[name] for call in whole) for name in CLASSES}
    if told:
        assert told[-1]["total"] == expected and told[-1]["context_window"] == 9
    for before, after in itertools.pairwise(told):
        assert all(before["total"][name] <= after["total"][name] for name in CLASSES)


def test_a_turn_that_got_no_result_keeps_what_its_calls_used() -> None:
    usage = AttemptUsage("s")
    for _ in range(2):
        usage.begin()
        told = usage.call("m", {"input_tokens": 10, "output_tokens": 1})
    assert told is not None and told["total"]["total"] == 22


def test_other_models_of_a_turn_are_told_apart() -> None:
    usage = AttemptUsage("s")
    usage.begin()
    usage.named("big")
    usage.call("big", {"input_tokens": 10, "output_tokens": 1})
    assert usage.call("small", {"input_tokens": 5}) is None
    used = {"big": {"inputTokens": 30}, "small": {"inputTokens": 5}, "none": {"inputTokens": 0}}
    assert [(t["session"], t["model"], t["total"]["input"]) for t in usage.settle(used)] == [
        ("s", "big", 30), ("s/small", "small", 5)
    ]  # fmt: skip


@given(st.dictionaries(st.text(), st.one_of(st.none(), st.integers(), st.text(), st.booleans())))
def test_any_usage_gives_counts(usage: dict[str, Any]) -> None:
    found = from_api(usage)
    assert all(value >= 0 for value in found.values())
    assert found["total"] == found["input"] + found["output"]
