"""A planner's answer: found, checked field by field, named, stored."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.planning import (
    Plan,
    PlanProblem,
    PlanReason,
    parse_plan,
    plan_from_json,
)

ONE = {"task_id": "T-001", "title": "add", "prompt": "Write add.py"}
TWO = {
    "task_id": "T-002",
    "title": "subtract",
    "prompt": "Write sub.py\n```mock\n- say: hi\n```",
    "acceptance_criteria": ["sub(3, 2) == 1"],
    "depends_on": ["T-001"],
    "owned_paths": ["./sub.py", "docs/"],
}
GRAPH = {"tasks": [ONE, TWO]}


def plan(answer: str) -> Plan:
    """The plan, which must be there."""
    found = parse_plan(answer)
    assert isinstance(found, Plan), found
    return found


def problem(answer: str) -> PlanProblem:
    """The problem, which must be there."""
    found = parse_plan(answer)
    assert isinstance(found, PlanProblem), found
    return found


def answer_with(*tasks: Any) -> str:
    """An answer with these tasks."""
    return "TASK_GRAPH_JSON\n" + json.dumps({"tasks": list(tasks)})


@pytest.mark.parametrize(
    "template",
    [
        "TASK_GRAPH_JSON\n%s",
        "Here is the plan.\n\nTASK_GRAPH_JSON\n%s\nThat was it.",
        "TASK_GRAPH_JSON\n```json\n%s\n```",
        "TASK_GRAPH_JSON:\n\n```\n%s\n```\n",
        "```\nTASK_GRAPH_JSON\n%s\n```",
        "### TASK_GRAPH_JSON\n%s",
        "TASK_GRAPH_JSON %s",
        "Only fenced:\n```json\n%s\n```",
        "%s",
    ],
)
@pytest.mark.parametrize("value", [GRAPH, {"graph": GRAPH}, {"graph": [ONE, TWO]}, [ONE, TWO]])
@pytest.mark.parametrize("indent", [None, 2])
def test_the_plan_in_many_dresses(template: str, value: Any, indent: int | None) -> None:
    found = plan(template % json.dumps(value, indent=indent))
    assert [task.name for task in found.tasks] == ["t-001", "t-002"]
    second = found.tasks[1]
    assert second.task_id == "T-002"
    assert second.prompt == TWO["prompt"]
    assert second.depends_on == ("t-001",)
    assert second.owned_paths == ("sub.py", "docs/")
    assert second.acceptance_criteria == ("sub(3, 2) == 1",)


def test_the_last_valid_one_that_has_tasks_counts() -> None:
    first, last = answer_with(ONE), answer_with({**ONE, "task_id": "LAST"})
    empty, broken = answer_with(), "TASK_GRAPH_JSON\n{broken"
    assert plan(first + "\n" + last).tasks[0].task_id == "LAST"
    assert plan(last + "\n" + empty + "\n" + broken).tasks[0].task_id == "LAST"
    assert plan(last + '\n```json\n["not", "a", "plan"]\n```').tasks[0].task_id == "LAST"


def test_ids_are_kept_and_names_never_meet() -> None:
    ids = ["A b", "a-b", "A_B", "integration", "plan", "é", "x" * 100, "X" * 100]
    found = plan(answer_with(*({**ONE, "task_id": task_id} for task_id in ids)))
    assert [task.task_id for task in found.tasks] == ids
    names = [task.name for task in found.tasks]
    assert len(set(names)) == len(ids)
    assert not {"integration", "plan"} & set(names)
    assert all(len(name) <= 32 for name in names)


@pytest.mark.parametrize(
    ("answer", "reason", "told"),
    [
        ("I could not plan it.", PlanReason.MISSING, "TASK_GRAPH_JSON"),
        ("", PlanReason.MISSING, "TASK_GRAPH_JSON"),
        ("TASK_GRAPH_JSON\n{", PlanReason.MALFORMED, "not valid JSON"),
        ("TASK_GRAPH_JSON\nno json", PlanReason.MALFORMED, "no JSON follows"),
        ('TASK_GRAPH_JSON\n{"jobs": []}', PlanReason.MALFORMED, "'tasks'"),
        ('TASK_GRAPH_JSON\n{"tasks": {}}', PlanReason.MALFORMED, "not an object"),
        (answer_with(), PlanReason.INVALID, "no tasks"),
        (answer_with("x"), PlanReason.MALFORMED, "tasks[0] must be an object, not a string"),
        (answer_with({"task_id": "a"}), PlanReason.MALFORMED, "tasks[0] (a).prompt is missing"),
        (answer_with({"prompt": "a"}), PlanReason.MALFORMED, "tasks[0].task_id is missing"),
        (answer_with({**ONE, "prompt": " "}), PlanReason.INVALID, "(T-001).prompt is empty"),
        (answer_with({**ONE, "task_id": 7}), PlanReason.MALFORMED, "not a number"),
        (answer_with({**ONE, "depends_on": "T"}), PlanReason.MALFORMED, "list of strings"),
        (answer_with({**ONE, "depends_on": [1]}), PlanReason.MALFORMED, "depends_on[0]"),
        (answer_with({**ONE, "owned_paths": ["../x"]}), PlanReason.INVALID, "leaves the"),
        (answer_with({**ONE, "owned_paths": ["/x"]}), PlanReason.INVALID, "absolute"),
        (answer_with({**ONE, "prompt": "x" * 262_145}), PlanReason.INVALID, "at most 262144"),
        (answer_with({**ONE, "depends_on": ["T-002"]}), PlanReason.INVALID, "'T-002', which is"),
        (answer_with({**ONE, "depends_on": ["T-001"]}), PlanReason.INVALID, "on itself"),
        (answer_with(ONE, ONE), PlanReason.INVALID, "more than once"),
        (
            answer_with({**ONE, "depends_on": ["T-002"]}, TWO),
            PlanReason.INVALID,
            "T-001 -> T-002 -> T-001",
        ),
        (
            answer_with({**ONE, "depends_on": [f"T-{n}" for n in range(65)]}),
            PlanReason.INVALID,
            "65 items; at most 64",
        ),
        (
            answer_with(*({**ONE, "task_id": f"T-{n}"} for n in range(1001))),
            PlanReason.INVALID,
            "1001 tasks; at most 1000",
        ),
        (
            'TASK_GRAPH_JSON\n[{"task_id": "a", "prompt": "\\ud800"}]',
            PlanReason.MALFORMED,
            "not valid Unicode",
        ),
        ("TASK_GRAPH_JSON\n" + "[" * 100_000, PlanReason.MALFORMED, "not valid JSON"),
    ],
)
def test_what_is_wrong_is_told_exactly(answer: str, reason: PlanReason, told: str) -> None:
    found = problem(answer)
    assert found.reason is reason
    assert told in found.message


def test_the_problem_told_is_that_of_the_plan_not_of_something_beside_it() -> None:
    found = problem(answer_with(ONE, ONE) + '\n```json\n["x"]\n```')
    assert "more than once" in found.message


def test_a_thousand_tasks_and_storing_them() -> None:
    tasks = [
        {**ONE, "task_id": f"T-{n}", "depends_on": [f"T-{n - 1}"] if n else []} for n in range(1000)
    ]
    found = plan(answer_with(*tasks))
    assert len(found.tasks) == 1000
    assert plan_from_json(found.canonical()) == found
    assert isinstance(plan_from_json("nonsense"), PlanProblem)


def test_the_digest_is_of_the_content() -> None:
    spaced = "TASK_GRAPH_JSON\n" + json.dumps(GRAPH, indent=4)
    assert plan(spaced).digest() == plan(answer_with(ONE, TWO)).digest()
    assert plan(answer_with(ONE)).digest() != plan(answer_with(ONE, TWO)).digest()
    assert len(plan(spaced).digest()) == 64


pieces = st.sampled_from(
    ["TASK_GRAPH_JSON", "{", "}", "[", "]", "\n", "```json\n", "```", json.dumps(GRAPH), '"tasks":']
)


@given(st.lists(pieces | st.text(max_size=8), max_size=20).map("".join))
def test_no_text_makes_it_fail(text: str) -> None:
    found = parse_plan(text)
    assert isinstance(found, Plan | PlanProblem)


words = st.text(min_size=1, max_size=20).filter(str.strip)
noise = st.text(max_size=80).filter(lambda s: "TASK_GRAPH_JSON" not in s and "`" not in s)


@st.composite
def plans(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Valid tasks: each may depend on those before it."""
    ids = draw(st.lists(words, min_size=1, max_size=8, unique=True))
    return [
        {
            "task_id": task_id,
            "title": draw(words),
            "prompt": draw(words),
            "acceptance_criteria": draw(st.lists(st.text(max_size=10), max_size=3)),
            "depends_on": draw(
                st.lists(st.sampled_from(ids[:number]), max_size=3, unique=True)
                if number
                else st.just([])
            ),
            "owned_paths": draw(st.lists(st.sampled_from(["a", "b/", "c/d"]), unique=True)),
        }
        for number, task_id in enumerate(ids)
    ]


@settings(deadline=None)
@given(plans(), noise, noise, st.booleans(), st.sampled_from([None, 2]))
def test_any_valid_plan_is_found_in_noise(
    tasks: list[dict[str, Any]], before: str, after: str, fenced: bool, indent: int | None
) -> None:
    text = json.dumps({"tasks": tasks}, indent=indent)
    body = f"```json\n{text}\n```" if fenced else text
    found = plan(f"{before}\nTASK_GRAPH_JSON\n{body}\n{after}")
    assert json.loads(found.canonical()) == {"tasks": tasks}
    assert plan_from_json(found.canonical()) == found


@pytest.mark.parametrize(
    "text",
    [
        "TASK_GRAPH_JSON" + "*" * 60_000 + "!",
        "TASK_GRAPH_JSON\n[" * 5_000,
        "```json\n[" * 7_000,
        "```\n" * 10_000 + " \n" * 10_000,
        '{"a":' * 20_000,
    ],
)
@pytest.mark.timeout(20)
def test_no_text_takes_long(text: str) -> None:
    assert isinstance(parse_plan(text), PlanProblem)
