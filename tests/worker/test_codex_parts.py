"""Parts of the Codex runtime: TOML, usage, failures, questions, places."""

from __future__ import annotations

import json
import os
import shlex
import string
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker.codex_config import config
from worker.errors import RuntimeUnusable
from worker.runtimes import codex_toml
from worker.runtimes.codex_errors import turn_error, until_clock
from worker.runtimes.codex_home import without_refresh
from worker.runtimes.codex_program import check_version, native, own_folder
from worker.runtimes.codex_questions import command_request, file_request, shell_text
from worker.runtimes.codex_repository import instructions_of
from worker.runtimes.codex_sandbox import sandbox_of
from worker.runtimes.codex_threads import ThreadFile
from worker.runtimes.codex_usage import Ledger

# --- TOML --------------------------------------------------------------------------------------


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
SCALAR = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT
VALUE = st.recursive(
    SCALAR, lambda v: st.lists(v, max_size=3) | st.dictionaries(TEXT, v, max_size=3), max_leaves=8
)


@given(st.dictionaries(TEXT, VALUE, max_size=4))
def test_what_is_written_as_toml_reads_the_same(table: dict[str, Any]) -> None:
    assert tomllib.loads(codex_toml.dumps(table)) == table


@given(st.dictionaries(TEXT, VALUE, max_size=4), st.dictionaries(TEXT, VALUE, max_size=4))
def test_merging_keeps_what_is_not_overridden(under: dict[str, Any], over: dict[str, Any]) -> None:
    result = codex_toml.merged(under, over)
    assert set(result) == set(under) | set(over)
    assert all(result[name] == under[name] for name in set(under) - set(over))
    assert codex_toml.merged(result, over) == result


def test_tables_are_merged_and_lists_replaced() -> None:
    under = {"features": {"a": False, "b": False}, "list": [1]}
    over = {"features": {"b": True}, "list": [2]}
    assert codex_toml.merged(under, over) == {"features": {"a": False, "b": True}, "list": [2]}


@pytest.mark.parametrize("text", ["a =", "= 1", "[a\n", "a = 1\na = 2", "\x00"])
def test_what_is_no_toml_is_said(text: str) -> None:
    with pytest.raises(codex_toml.TomlError):
        codex_toml.loads(text)


def test_a_date_has_no_place() -> None:
    with pytest.raises(codex_toml.TomlError, match="date"):
        codex_toml.dumps(codex_toml.loads("a = 2026-11-26"))


# --- usage -------------------------------------------------------------------------------------


def usage(total: int, last: int) -> dict[str, Any]:
    def counts(number: int) -> dict[str, int]:
        return {"inputTokens": number, "outputTokens": number // 10, "totalTokens": 0}

    return {"total": counts(total), "last": counts(last)}


@given(st.lists(st.lists(st.integers(1, 1000), min_size=1, max_size=5), min_size=1, max_size=5))
def test_attempts_add_up_to_what_the_thread_used(attempts: list[list[int]]) -> None:
    ledger = Ledger()
    ledger.started("t")
    total = counted = 0
    for number, steps in enumerate(attempts):
        ledger.begin(f"attempt {number}")
        for step in steps:
            total += step
            last = ledger.told("t", usage(total, step))
            assert ledger.told("t", usage(total, step)) is None  # told twice, counted once
        assert last is not None
        assert last[0]["input"] == sum(steps)
        counted += last[0]["input"]
    assert counted == total


def test_a_resumed_thread_does_not_count_what_was_before() -> None:
    ledger = Ledger()
    ledger.begin("a")
    ledger.resumed("t")
    told = ledger.told("t", usage(5000, 700))  # nothing was replayed
    assert told is not None
    assert told[0]["input"] == 700
    ledger.begin("b")
    ledger.resumed("t")
    ledger.replayed("t", usage(4000, 300))  # it had not stored all
    told = ledger.told("t", usage(4100, 100))
    assert told is not None
    assert told[0]["input"] == 100


def test_counts_that_begin_anew_only_grow() -> None:
    ledger = Ledger()
    ledger.begin("a")
    ledger.started("t")
    ledger.told("t", usage(5000, 5000))
    assert ledger.told("t", usage(0, 0)) is None  # as after an overflow of the context window
    told = ledger.told("t", usage(300, 300))
    assert told is not None
    assert told[0]["input"] == 5300


@pytest.mark.parametrize("bad", [None, [], {"total": None}, {"total": {"inputTokens": "x"}}, 3])
def test_counts_that_are_none_are_passed_over(bad: Any) -> None:
    assert Ledger().told("t", bad) is None


# --- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("info", "message", "kind"),
    [
        ("usageLimitExceeded", "x", "quota"),
        ({"responseTooManyFailedAttempts": {"httpStatusCode": 429}}, "x", "quota"),
        ({"responseTooManyFailedAttempts": {"httpStatusCode": 502}}, "x", "overloaded"),
        ({"responseStreamDisconnected": {"httpStatusCode": None}}, "x", "overloaded"),
        ({"httpConnectionFailed": {"httpStatusCode": 403}}, "x", "auth"),
        ({"httpConnectionFailed": {"httpStatusCode": None}}, "x", "overloaded"),
        ({"httpConnectionFailed": {"httpStatusCode": 400}}, "x", "task"),
        ("other", "unexpected status 401 Unauthorized", "auth"),
        ("other", "stream disconnected before completion", "overloaded"),
        ("other", "who knows", "task"),
        ("somethingNew", "who knows", "task"),
        (None, "who knows", "task"),
        ([1], "who knows", "task"),
        ("sandboxError", "x", "infrastructure"),
    ],
)
def test_a_failure_has_its_class(info: Any, message: str, kind: str) -> None:
    assert turn_error({"message": message, "codexErrorInfo": info}).kind == kind


@pytest.mark.parametrize("error", [None, {}, "x", 3, {"message": 3, "codexErrorInfo": {"a": 1}}])
def test_any_error_has_a_text(error: Any) -> None:
    assert turn_error(error).message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Please try again in 17s.", 17),
        ("Please try again in 1m30.5s.", 90.5),
        ("try again in 250ms", 0.25),
        ("Try again in 2 days 3 hours 1 minute.", 2 * 86400 + 3 * 3600 + 60),
        ("retry after 5 seconds", 5),
        ("Try again later.", None),
        ("try again in a while", None),
    ],
)
def test_when_a_quota_ends_is_read(text: str, seconds: float | None) -> None:
    error = turn_error({"message": text, "codexErrorInfo": "usageLimitExceeded"})
    assert error.retry_after == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("try again at 3:36 AM.", 140),
        ("try again at 3:34 AM", 20),
        ("try again at 1:00 AM", 77180),
        ("credits or try again at Nov 29th, 2026 3:34 AM.", 259220),
        ("try again at Nov 1st, 2026 3:34 AM.", 0),
        ("try again at Foo 29th, 2026 3:34 AM.", None),
        ("try again at 25:99 AM", None),
        ("try again later", None),
    ],
)
def test_a_time_of_day_is_read(text: str, seconds: float | None) -> None:
    assert until_clock(text, datetime(2026, 11, 26, 3, 34, 40)) == seconds


# --- questions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("/bin/bash -lc 'ls -l; true'", "ls -l; true"),
        ("bash -c ls", "ls"),
        ("/bin/bash -lc 'a' b", "/bin/bash -lc 'a' b"),
        ("python -c 'import x'", "python -c 'import x'"),
        ("bash -lc 'unbalanced", "bash -lc 'unbalanced"),
        ("", ""),
    ],
)
def test_a_command_is_shown_as_the_shell_gets_it(command: str, text: str) -> None:
    assert shell_text(command) == text


@given(st.text(string.printable, min_size=1, max_size=40))
def test_nothing_of_a_command_is_hidden(script: str) -> None:
    assert shell_text(f"/bin/bash -lc {shlex.quote(script)}") == script


def test_only_decisions_that_codex_offers_are_offered() -> None:
    rule = {"acceptWithExecpolicyAmendment": {"execpolicy_amendment": ["git", "push"]}}
    refuse = {"applyNetworkPolicyAmendment": {"network_policy_amendment": {"action": "deny"}}}
    asked = command_request({"command": "x", "availableDecisions": ["accept", rule, "cancel"]})
    assert list(asked.choices) == ["approve", "approve-always", "deny", "cancel"]
    assert asked.choices["approve-always"] == rule
    assert asked.question.amendments == ("commands that begin with: git push",)
    assert list(command_request({"availableDecisions": [refuse]}).choices) == ["deny", "cancel"]
    assert list(command_request({}).choices) == ["approve", "deny", "cancel"]


def test_a_question_about_the_network_names_the_host() -> None:
    params = {"networkApprovalContext": {"host": "example.com", "protocol": "https"}}
    question = command_request(params).question
    assert (question.kind, question.tool) == ("tool", "network:example.com")


def test_input_for_a_running_command_is_not_that_command() -> None:
    question = command_request({"kind": "writeStdin", "command": "sh"}).question
    assert (question.kind, question.tool) == ("tool", "writeStdin")
    question = command_request({"kind": "command", "command": "sh"}).question
    assert (question.kind, question.tool) == ("command", "")


def test_a_diff_of_every_kind() -> None:
    changes = [
        {"kind": {"type": "add"}, "diff": "one\n"},
        {"kind": {"type": "delete"}, "diff": "gone\n"},
        {"kind": {"type": "update", "move_path": None}, "diff": "@@ -1 +1 @@\n-a\n+b\n"},
    ]
    question = file_request({}, changes, ["a", "b", "c"], "/w").question
    assert question.diff == (
        "--- /dev/null\n+++ a\n+one\n\n--- b\n+++ /dev/null\n-gone\n\n"
        "--- c\n+++ c\n@@ -1 +1 @@\n-a\n+b\n"
    )


def test_a_question_names_every_place_that_its_change_reaches(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "link").symlink_to("/etc")
    moved = {"kind": {"type": "update", "move_path": "/etc/cron.d/b"}, "diff": "-a\n+b\n"}
    plain = {"kind": {"type": "add"}, "diff": "x\n"}
    names = ["src/b", "src/link/hosts"]
    asked = file_request({"grantRoot": "/"}, [moved, plain], names, str(tmp_path)).question
    assert set(asked.paths) == {*names, "/etc/cron.d/b", "/etc/hosts", "/"}
    assert "+++ /etc/cron.d/b\n" in asked.diff


# --- places ------------------------------------------------------------------------------------


def test_the_native_program_is_found_behind_npms_script(tmp_path: Path) -> None:
    scope = tmp_path / "node_modules" / "@openai"
    script = scope / "codex" / "bin" / "codex.js"
    binary = scope / "codex-linux-x64" / "vendor" / "x86_64-unknown-linux-musl" / "bin" / "codex"
    for path in (script, binary):
        path.parent.mkdir(parents=True)
        path.write_text("")
        path.chmod(0o755)
    link = tmp_path / "codex"
    link.symlink_to(script)
    assert native(link) in (binary, link)  # the link, on a machine of another kind
    assert own_folder(binary) == binary.parent.parent


def test_a_program_in_a_system_folder_has_no_folder_of_its_own() -> None:
    assert own_folder(Path("/usr/bin/codex")) == Path("/usr/bin/codex")
    assert own_folder(Path("/home/ada/.local/bin/codex")) == Path("/home/ada/.local/bin/codex")
    assert own_folder(Path("/opt/codex/codex")) == Path("/opt/codex")


@pytest.mark.parametrize("text", ["codex-cli 0.169.0", "codeswarm/0.160.0 (Debian)", "1.0.0", ""])
def test_a_version_that_will_do(text: str) -> None:
    check_version(text)


def test_an_old_version_is_said() -> None:
    with pytest.raises(RuntimeUnusable, match=r"0\.159\.9 is too old: 0\.160\.0"):
        check_version("codex-cli 0.159.9")


def test_temporary_files_get_a_place_of_their_own_where_the_worker_lies_in_it() -> None:
    here = sandbox_of(config(Path("/tmp/w")), {}).policy()
    assert here["excludeSlashTmp"]
    assert here["writableRoots"] == ["/tmp/w/repo/.git", "/tmp/w/tmp"]
    assert sandbox_of(config(Path("/scratch/w")), {"TMPDIR": "/scratch"}).temp is not None
    elsewhere = sandbox_of(config(Path("/srv/w/w"), network_access=True), {}).policy()
    assert elsewhere == {
        "type": "workspaceWrite",
        "writableRoots": ["/srv/w/w/repo/.git"],
        "networkAccess": True,
        "excludeSlashTmp": False,
        "excludeTmpdirEnvVar": False,
    }


def test_a_thread_is_kept(tmp_path: Path) -> None:
    kept = ThreadFile(tmp_path / "thread.json")
    assert kept.read() == ""
    kept.write("01a2")
    assert ThreadFile(tmp_path / "thread.json").read() == "01a2"
    for text in ("", "[", "[]", '{"thread": 3}', "[" * 100_000):
        (tmp_path / "thread.json").write_text(text)
        assert kept.read() == ""


def test_instructions_are_a_plain_file_of_the_checkout(tmp_path: Path) -> None:
    path = tmp_path / "AGENTS.md"
    assert instructions_of(tmp_path) == ""
    path.write_text("Mind the sparrow.")
    assert "Mind the sparrow." in instructions_of(tmp_path)
    path.write_text("x" * (1 << 20))
    assert len(instructions_of(tmp_path)) < 40_000
    path.unlink()
    os.mkfifo(path)
    assert instructions_of(tmp_path) == ""


def test_a_copied_login_cannot_be_renewed() -> None:
    auth = {"tokens": {"access_token": "a", "refresh_token": "r"}, "last_refresh": "x"}
    kept = json.loads(without_refresh(json.dumps(auth).encode()))
    assert kept == {**auth, "tokens": {"access_token": "a", "refresh_token": ""}}
    for text in (b"", b"[]", b"{", b'{"tokens": null, "OPENAI_API_KEY": "k"}'):
        assert without_refresh(text) == text
