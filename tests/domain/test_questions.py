"""What workers tell of questions, however odd, becomes what an Approval can hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.questions import default_answer, fitting, question
from controller.resources.admission import admit

NAMES = ["kind", "command", "tool", "arguments_digest", "cwd", "reason", "diff", "paths",
         "decisions", "amendments", "request_id", "id", "swarm", "job"]  # fmt: skip
odd = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=30), st.just("x" * 200_000),
    st.just("\ud800"), st.just("\x00"),
    st.sampled_from(["command", "file-change", "tool", "approve", "deny", "cancel"]),
    st.lists(st.one_of(st.text(max_size=5), st.integers(), st.just("y" * 5000)), max_size=4),
    st.just(["z" * 4000] * 300), st.lists(st.sampled_from(["approve-always", "deny", "x"])),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES), odd))
@settings(max_examples=150, deadline=None)
def test_any_record_becomes_a_valid_request(told: dict[str, Any]) -> None:
    asked = question(told)
    assert not {"id", "swarm", "job"} & set(asked)
    request = {**asked, "id": "i", "swarm": "s", "job": "j"}
    admit(
        {
            "apiVersion": "codeswarm.dev/v1alpha1",
            "kind": "Approval",
            "metadata": {"name": "a", "namespace": "default"},
            "spec": {"request": request},
        }
    )
    assert {"deny", "cancel"} & set(asked["decisions"])
    assert len(json.dumps(asked).encode()) < 1_200_000


def test_everything_is_kept() -> None:
    told = {
        "request_id": "u.1/1", "kind": "file-change", "cwd": "/w", "reason": "r", "diff": "+a\n",
        "paths": ["a", "b"], "tool": "Edit", "arguments_digest": "0f", "amendments": ["m"],
        "decisions": ["deny", "approve", "approve-always"],
    }  # fmt: skip
    assert question(told) == {
        "kind": "file-change", "directory": "/w", "reason": "r", "diff": "+a\n",
        "paths": ["a", "b"], "tool": "Edit", "argumentsDigest": "0f", "amendments": ["m"],
        "decisions": ["approve", "approve-always", "deny"],
    }  # fmt: skip


@pytest.mark.parametrize(
    "told",
    [
        {"command": "c" * 16_384},
        {"command": "ls", "paths": ["a"] * 200},
        {"command": "ls", "paths": ["a", 1]},
        {"command": "ls", "paths": ["p" * 4097]},
        {"diff": "d" * 200_000},
        {"tool": "t" * 256},
    ],
)
def test_what_may_have_been_cut_says_so(told: dict[str, Any]) -> None:
    assert question(told)["truncated"] is True


def test_an_old_workers_question() -> None:
    assert question({"command": "rm", "cwd": "/w"}) == {
        "kind": "command", "command": "rm", "directory": "/w", "decisions": ["approve", "deny"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("decision", "offered", "fits", "default"),
    [
        ("approve", ["approve", "deny"], "approve", "approve"),
        ("approve", ["approve-always", "deny"], None, "deny"),
        ("approve", ["approve-always", "cancel"], None, "cancel"),
        ("deny", ["approve", "cancel"], "cancel", "cancel"),
        ("deny", ["deny", "cancel"], "deny", "deny"),
        ("ask", ["approve", "deny"], None, "deny"),
    ],
)
def test_decisions_that_are_offered(
    decision: str, offered: list[str], fits: str | None, default: str
) -> None:
    assert fitting(decision, offered) == fits
    assert default_answer(decision, offered) == default
