"""Prompts: what they tell, and that nobody else's text begins a fence in them."""

import re

from hypothesis import given
from hypothesis import strategies as st

from controller.domain.outcome import Verdict, settle
from controller.domain.planning import Plan, parse_plan
from controller.domain.prompts import (
    Dependency,
    Merge,
    Previous,
    Work,
    integration_prompt,
    plan_prompt,
    retry_note,
    work_prompt,
)
from controller.domain.results import TaskResult, parse_result

FENCE = re.compile(r"^(```|~~~).*$", re.MULTILINE)
MOCK = "Write it.\n```mock\n- say: hi\n```\nThat is all."


def test_a_task_is_told_everything() -> None:
    text = work_prompt(
        Work(
            task_id="T-007",
            title="Greeting library",
            prompt=MOCK,
            branch="codeswarm/greeter/library",
            acceptance_criteria=("greets Ada", "two\nlines"),
            owned_paths=("src/greet.py", "docs/"),
            dependencies=(Dependency("base", "Base", "c" * 40, ("a.py",), "use a()"),),
            previous=Previous(1, "Timeout", "took too long", "refs/codeswarm/u/1"),
        )
    )
    for told in (
        "T-007", "Greeting library", "greets Ada", "src/greet.py", "docs/", "base: Base",
        "cccccccccccc", "use a()", "TASK_RESULT", "needs_followups", "codeswarm/greeter/library",
        "Attempt 1 failed (Timeout)", "took too long", "refs/codeswarm/u/1",
    ):  # fmt: skip
        assert told in text, told
    assert MOCK in text
    assert text.index("\n```mock\n") > 0


def test_what_is_absent_is_not_mentioned() -> None:
    text = work_prompt(Work("t", "", "Do it.", "b"))
    for absent in ("Acceptance", "Owned", "builds on", "another attempt", "None"):
        assert absent not in text


def test_the_specification_stays_flush_left() -> None:
    text = plan_prompt("Calculator", MOCK)
    assert "\n```mock\n- say: hi\n```\n" in text
    assert "TASK_GRAPH_JSON" in text
    assert FENCE.findall(text) == ["```", "```"]


def test_an_integration_is_told_merges_and_verification() -> None:
    merges = [Merge("library", "d" * 40, "Library"), Merge("docs", "e" * 40)]
    given_ = integration_prompt("Greeter", "codeswarm/g/integration", merges, ["make test"])
    assert "- library (dddddddddddd): Library" in given_
    assert "make test" in given_
    found = integration_prompt("Greeter", "b", merges, None)
    assert "strongest verification" in found
    none = integration_prompt("Greeter", "b", merges, [])
    assert "strongest verification" not in none
    assert "These commands" not in none


def test_the_instructions_do_not_answer_themselves() -> None:
    echoed = "I was told:\n" + work_prompt(Work("t", "T", "Do it.", "b"))
    assert not isinstance(parse_plan(plan_prompt("P", "Spec.")), Plan)
    found = parse_result(echoed)
    assert not isinstance(found, TaskResult) or found.status != "done"
    outcome = settle({"status": "completed", "answer": echoed}, None, "work")
    assert outcome.verdict is not Verdict.SUCCESS


hostile = st.lists(
    st.sampled_from(["```mock", "```", "~~~", "\n", "\r\n", "\u2028", " ", "- crash: true", "x"]),
    max_size=10,
).map("".join)


@given(hostile, hostile, hostile, hostile)
def test_only_the_users_own_prompt_can_begin_a_fence(a: str, b: str, c: str, d: str) -> None:
    previous = Previous(1, a, b, c)
    texts = [
        work_prompt(
            Work(
                task_id=a,
                title=b,
                prompt="Do it.",
                branch=d,
                acceptance_criteria=(a, b),
                owned_paths=(c,),
                dependencies=(Dependency(a, b, c, (d, a), b + "\n" + c),),
                previous=previous,
            )
        ),
        plan_prompt(a, "Spec.", previous),
        integration_prompt(a, b, [Merge(a, b, c)], [d, a], previous),
    ]
    for text in texts:
        assert not FENCE.search(text)


def test_work_that_was_stopped_is_found_and_not_called_a_failure() -> None:
    ref, commit = "refs/codeswarm/u/1", "c" * 40
    text = retry_note(Previous(1, "TimeLimit", "interrupted", ref, commit, stopped=True))
    assert commit in text and ref in text and "cherry-pick" in text
    assert "failed (" not in text and "interrupted" not in text
