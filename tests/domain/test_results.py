"""The TASK_RESULT block: found, read, believed or not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.results import (
    ReportedStatus,
    ResultProblem,
    ResultReason,
    TaskResult,
    parse_result,
)

FULL = {
    "task_id": "T-001",
    "status": "done",
    "branch": "codeswarm/p/t",
    "base_commit": "a" * 40,
    "head_commit": "b" * 40,
    "files_changed": ["src/a.py"],
    "verification": ["pytest: passed", "ruff: clean"],
    "notes": "fine",
}


def result(answer: str) -> TaskResult:
    """The report, which must be there."""
    found = parse_result(answer)
    assert isinstance(found, TaskResult), found
    return found


def problem(answer: str) -> ResultProblem:
    """The problem, which must be there."""
    found = parse_result(answer)
    assert isinstance(found, ResultProblem), found
    return found


@pytest.mark.parametrize(
    "answer",
    [
        "TASK_RESULT\n{}",
        "All done.\n\nTASK_RESULT\n{}\n\nBye.",
        "TASK_RESULT:\n```json\n{}\n```",
        "```\nTASK_RESULT\n{}\n```",
        "**TASK_RESULT**\n\n~~~\n{}\n~~~",
        "## TASK_RESULT\n{}",
        "TASK_RESULT {}",
        "TASK_RESULT\r\n{}\r\n",
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_the_block_in_many_dresses(answer: str, indent: int | None) -> None:
    found = result(answer.replace("{}", json.dumps(FULL, indent=indent)))
    assert found == TaskResult(
        status=ReportedStatus.DONE,
        task_id="T-001",
        branch="codeswarm/p/t",
        base_commit="a" * 40,
        head_commit="b" * 40,
        files_changed=("src/a.py",),
        verification="pytest: passed\nruff: clean",
        notes="fine",
    )


def test_lines_of_key_and_value() -> None:
    found = result(
        "Done!\nTASK_RESULT\nstatus: needs_followups\nbranch: codeswarm/p/t\n"
        "files_changed:\n- a.py\n- b.py\nverification: pytest, ruff\n"
        "notes: first line\n  second: line\n\nAnything else?"
    )
    assert found.status is ReportedStatus.NEEDS_FOLLOWUPS
    assert found.files_changed == ("a.py", "b.py")
    assert found.verification == "pytest\nruff"
    assert found.notes == "first line\nsecond: line"


def test_lines_as_a_list_in_a_fence() -> None:
    found = result('TASK_RESULT\n```\n- status: `done`\n- files_changed: ["x"]\n```\n')
    assert (found.status, found.files_changed) == (ReportedStatus.DONE, ("x",))


def test_the_last_block_counts() -> None:
    done, blocked = (f'TASK_RESULT\n{{"status": "{s}"}}\n' for s in ("done", "blocked"))
    assert result(done + blocked).status is ReportedStatus.BLOCKED
    assert problem(done + "TASK_RESULT\n{oops").reason is ResultReason.MALFORMED


@pytest.mark.parametrize(
    "answer", ["", "done", '{"status": "done"}', "see TASK_RESULT above", "TASK_RESULTS\n{}"]
)
def test_missing(answer: str) -> None:
    assert problem(answer).reason is ResultReason.MISSING


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("", "nothing follows"),
        ("some words", "nothing follows"),
        ("{", "not valid JSON"),
        ("{}", "no status"),
        ("[1]", "not a list"),
        ('{"status": 1}', "a number"),
        ('{"status": "finished"}', "'finished'"),
        ("status: perhaps", "'perhaps'"),
        ("notes: I did it", "no status"),
        ('{"status": "done", "files_changed": "a"}', "files_changed"),
        ('{"status": "done", "files_changed": [1]}', "files_changed"),
        ('{"status": "done", "branch": ["x"]}', "branch must be a string"),
        ('{"status": "done", "notes": NaN}', "NaN"),
        ("[" * 100_000, "not valid JSON"),
        ('{"status": "done", "n": ' + "9" * 5000 + "}", "not valid JSON"),
    ],
)
def test_malformed_is_told_exactly_and_is_never_a_success(body: str, told: str) -> None:
    found = problem("TASK_RESULT\n" + body)
    assert found.reason is ResultReason.MALFORMED
    assert told in found.message


def test_limits_and_unicode() -> None:
    long = {"status": "done", "notes": "x" * 100_000, "files_changed": ["f"] * 1000}
    found = result("TASK_RESULT\n" + json.dumps(long))
    assert (len(found.notes), len(found.files_changed)) == (8192, 200)
    odd = result('TASK_RESULT\n{"status": "done", "notes": "\\ud800 ok"}')
    assert odd.notes.encode() == b"? ok"


pieces = st.sampled_from(
    ["TASK_RESULT", "{", "}", "[", "\n", "```", "status: done", '{"status": "done"}', ":", "- x"]
)


@given(st.lists(pieces | st.text(max_size=8), max_size=20).map("".join))
def test_no_text_makes_it_fail(text: str) -> None:
    found = parse_result(text)
    if isinstance(found, TaskResult):
        assert "TASK_RESULT" in text
    else:
        assert found.message


@given(
    st.sampled_from(ReportedStatus),
    st.text(max_size=50),
    st.lists(st.text(min_size=1, max_size=10), max_size=5),
    st.text(max_size=50).filter(lambda s: "TASK_RESULT" not in s),
)
def test_a_report_survives_noise(
    status: ReportedStatus, notes: str, files: list[str], noise: str
) -> None:
    block = json.dumps({"status": status, "notes": notes, "files_changed": files}, indent=2)
    found = result(f"{noise}\nTASK_RESULT\n{block}\n{noise}")
    assert found.status is status
    assert found.files_changed == tuple(files)


@pytest.mark.parametrize(
    "text",
    [
        "TASK_RESULT" + "*" * 60_000 + "!",
        "*" * 60_000 + "TASK_RESULT!",
        "TASK_RESULT\n" + " " * 60_000 + "!",
        "TASK_RESULT\nnotes: x\n" + "`" * 60_000,
        "TASK_RESULT\n" * 5_000,
        "TASK_RESULT\n```\n" + " \n" * 30_000,
    ],
)
@pytest.mark.timeout(20)
def test_no_text_takes_long(text: str) -> None:
    assert isinstance(parse_result(text), TaskResult | ResultProblem)
