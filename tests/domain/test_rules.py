"""Rules about what agents ask: which one answers, and what none may approve."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from controller.domain.rules import Verdict, judge, problem
from controller.resources.manifest import load

AGENTS = Path(__file__).parents[1] / "resources" / "manifests" / "agents.yaml"

CONTRACT = {"match": {"command": "^(git (status|diff|log)|ls|cat) "}, "decision": "approve"}


def rule(decision: str, name: str = "", **match: str) -> dict[str, Any]:
    return {"match": match, "decision": decision, **({"name": name} if name else {})}


def asks(command: str, **more: Any) -> dict[str, Any]:
    return {"kind": "command", "command": command, **more}


def answer(rules: list[dict[str, Any]], asked: dict[str, Any]) -> str:
    found = judge(rules, asked)
    return found.decision if found else "nobody"


@pytest.mark.parametrize(
    "command",
    ["git status -s", "ls -la", "cat a b", "/bin/bash -lc 'ls -la'", "git log -1 | cat -n",
     '/bin/bash -lc "git diff HEAD && ls -l \'a b\'"'],
)  # fmt: skip
def test_the_contracts_rule_approves(command: str) -> None:
    assert judge([CONTRACT], asks(command)) == Verdict("approve", "rules[0]")


@pytest.mark.parametrize(
    "command",
    ["ls", "rm -rf /", "lsx -l", "ls -l; rm -rf /", "ls -l && rm x", "ls -l | sh", "ls -l & rm x",
     "ls -l > /etc/passwd", "ls $(rm x)", "ls `rm x`", "ls -l\nrm x", "ls \"$(rm x)\"",
     "/bin/bash -lc 'ls -l; rm x'", "/bin/bash -lc 'ls -l\nrm x'", "./bash -c 'ls -l'",
     "bash -c 'bash -c \"ls -l\"'", "PATH=. ls -l", "ls -l " + "x" * 5000, "cat <(rm x)",
     "ls -l ||", "cat a; (rm x)", "l's' -l", " \n"],
)  # fmt: skip
def test_the_contracts_rule_leaves_to_a_person(command: str) -> None:
    assert judge([CONTRACT], asks(command)) is None


@pytest.mark.parametrize(
    "command",
    ["rm x", "ls; rm x", "ls && rm x", "x | rm x", "(rm x)", "echo $(rm x)", "a\nrm x",
     "/bin/bash -lc 'a\nrm x'", "{ rm x; }", "a & rm x", "echo `rm x`"],
)  # fmt: skip
def test_a_rule_that_denies_looks_everywhere(command: str) -> None:
    rules = [rule("deny", command="^rm "), rule("approve", kind="command")]
    assert answer(rules, asks(command)) == "deny"
    assert answer([rule("ask", command="^rm "), *rules[1:]], asks(command)) == "ask"


def test_the_first_rule_counts() -> None:
    rules = [rule("ask", "careful", command="--force"), rule("approve", "git", command="^git ")]
    assert judge(rules, asks("git push --force")) == Verdict("ask", "careful")
    assert judge(rules, asks("git push")) == Verdict("approve", "git")
    assert judge(list(reversed(rules)), asks("git push --force")) == Verdict("approve", "git")


def test_all_of_a_match_must_hold() -> None:
    rules = [rule("approve", kind="tool", tool="^web_", path="^docs/")]
    tool = {"kind": "tool", "tool": "web_search", "paths": ["docs/a"]}
    assert answer(rules, tool) == "approve"
    assert answer(rules, {**tool, "kind": "command"}) == "nobody"
    assert answer(rules, {**tool, "tool": "the web_"}) == "nobody"
    assert answer(rules, {**tool, "paths": ["src/a"]}) == "nobody"
    assert (
        answer([rule("approve", tool="Bash")], asks("anything; at all", tool="Bash")) == "approve"
    )


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["docs/a.md", "docs/b/c.md"], "approve"),
        (["docs/a.md", "src/b"], "nobody"),
        (["docs/../src/b"], "nobody"),
        (["/docs/a"], "nobody"),
        (["docs/a\nb"], "nobody"),
        ([], "nobody"),
    ],
)
def test_paths_that_may_be_approved(paths: list[str], expected: str) -> None:
    asked = {"kind": "file-change", "paths": paths}
    assert answer([rule("approve", path="^docs/")], asked) == expected


def test_one_path_is_enough_to_deny() -> None:
    asked = {"kind": "file-change", "paths": ["docs/a", "docs/../.git/hooks/x"]}
    assert answer([rule("deny", path=r"(^|/)\.git/")], asked) == "deny"


def test_a_tools_summary_is_no_command() -> None:
    """Runtimes show a call of another tool in the same field."""
    asked = {"kind": "tool", "tool": "cat", "command": "cat secrets"}
    assert answer([CONTRACT], asked) == "nobody"
    assert answer([rule("deny", command="^cat ")], asked) == "deny"


def test_what_is_not_known_whole_is_approved_by_nobody() -> None:
    asked = asks("ls -l", truncated=True)
    assert answer([CONTRACT, rule("approve", kind="command")], asked) == "nobody"
    assert answer([rule("deny", command="^ls")], asked) == "deny"


def test_rules_that_take_too_long_leave_it_to_a_person() -> None:
    ticks = itertools.count(0.0, 0.2)
    rules = [rule("deny", command=f"^never{n}") for n in range(10)] + [CONTRACT]
    found = judge(rules, asks("ls -l"), lambda: next(ticks))
    assert found == Verdict("ask", "rules that took too long")


def test_a_problem_names_its_place() -> None:
    assert problem([CONTRACT, rule("deny", kind="tool")]) == ""
    assert problem([CONTRACT, rule("deny", path="(a")]) == (
        'approvals.rules[1].match.path: "(a" is no regular expression that can be used: '
        "unclosed group"
    )


def test_a_rule_that_cannot_be_used_matches_nothing() -> None:
    assert (
        answer([rule("approve", command="(l"), rule("deny", command="(l")], asks("ls")) == "nobody"
    )


def test_what_a_shells_quotes_hide_is_seen() -> None:
    """As Codex quotes: within double quotes, what would be special has a backslash before it."""
    hidden = "/bin/bash -lc \"ls \\`rm x\\` 'q'\""
    assert judge([CONTRACT], asks(hidden)) is None
    assert answer([rule("deny", command="^rm ")], asks(hidden)) == "deny"


def test_the_contracts_manifest_has_rules_that_can_be_used() -> None:
    swarms = [d.obj for d in load([str(AGENTS)]) if d.obj["kind"] == "Swarm"]
    rules = [r for s in swarms for r in s["spec"].get("approvals", {}).get("rules", ())]
    assert rules == [CONTRACT]
    assert problem(rules) == ""
