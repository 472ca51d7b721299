"""Mock blocks: found, parsed and checked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import TurnError
from worker.runtimes.script import Step, steps_of


def fenced(text: str) -> str:
    return f"Prompt.\n```mock\n{text}\n```\nMore.\n"


def verbs(prompt: str) -> list[str]:
    return [step.verb for step in steps_of(prompt) or []]


def test_the_contract_example_is_understood() -> None:
    steps = steps_of(
        fenced(
            """
- write: {path: src/hello.py, content: "print('hello')\\n"}    # a file
- run: "python3 src/hello.py"
- say: "halfway there"
- sleep: 0.2
- usage: {inputTokens: 1000, cachedInputTokens: 200, outputTokens: 50, reasoningOutputTokens: 10}
- ask: {command: "rm -rf build"}
- result: {status: blocked, notes: "needs a key"}
- malformed: true
- {crash: true, attempt: 1}
- hang: true
- route: "/swarm[reviewers]/idle please look at this"
- plan: {tasks: [{task_id: a, prompt: "x\\n```mock\\n- hang: true\\n```"}]}
- error: {class: quota, retryAfterSeconds: 5}
"""
        )
    )
    assert steps is not None and len(steps) == 13
    assert steps[0] == Step("write", {"path": "src/hello.py", "content": "print('hello')\n"})
    assert steps[8] == Step("crash", True, attempt=1)
    assert steps[11].value["tasks"][0]["prompt"].endswith("\n```")


@pytest.mark.parametrize(
    "prompt", ["", "no block", " ```mock\n- hang: true\n ```", "```mocks\n```", "```yaml\n- x\n```"]
)
def test_only_a_fence_at_the_beginning_of_a_line_is_one(prompt: str) -> None:
    assert steps_of(prompt) is None


def test_blocks_add_up_and_may_be_empty_or_json_or_have_windows_line_ends() -> None:
    assert verbs(fenced("- say: a") + fenced("") + fenced('[{"run": "true"}]')) == ["say", "run"]
    assert verbs(fenced("- say: a\n- say: b").replace("\n", "\r\n")) == ["say", "say"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- writ: {}", "step 1: unknown step 'writ'"),
        ("- say: a\n- run: [ls]", r"step 2 \(run\): must be a text"),
        ("- say: a\n  run: b", "step 1 must have exactly one of"),
        ("- attempt: 1", "step 1 must have exactly one of"),
        ("- {say: a, attempt: 0}", "attempt must be a whole number"),
        ("say: a", "must be a list of steps"),
        ("- hang", "step 1 is not a mapping"),
        ("- say: 'a", "invalid YAML"),
        ("- say: !!python/object:os.system x", "invalid YAML"),
        ("- say: &a x\n- say: *a", "aliases are not supported"),
        ("- say: 2024-13-45", "invalid YAML"),
        ("- plan: {day: 2024-01-05}", "cannot be written as JSON"),
        ("- plan: {n: .nan}", "cannot be written as JSON"),
        ("- say: " + "[" * 5000, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ("- write: {path: a}", "content is missing"),
        ("- write: {path: a, content: b, mode: c}", "unknown field 'mode'"),
        ("- write: {path: a, content: 1}", "content must be a text"),
        ('- run: "a\\0b"', "NUL"),
        ('- say: "\\uD800"', "lone surrogate"),
        ("- sleep: -1", "seconds, 0 or more"),
        ("- sleep: .inf", "seconds, 0 or more"),
        ("- usage: {inputTokens: 1.5}", "inputTokens must be a whole number"),
        ("- usage: {inputTokens: 1, cachedInputTokens: 2}", "cannot be more"),
        ("- result: {status: finished}", "status must be one of done"),
        ("- error: {class: network}", "class must be one of quota"),
        ("- error: {class: quota, retryAfterSeconds: soon}", "retryAfterSeconds must be"),
        ("- crash: 1", "must be true or false"),
    ],
)
def test_what_is_wrong_is_said_with_its_step(text: str, message: str) -> None:
    with pytest.raises(TurnError, match=message) as caught:
        steps_of(fenced(text))
    assert caught.value.kind == "task"


def test_an_open_fence_is_an_error() -> None:
    with pytest.raises(TurnError, match="not closed"):
        steps_of("```mock\n- say: a\n")


# Beyond U+FFFF JSON escapes pairs of surrogates, which YAML takes for two characters.
texts = st.text(
    alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0", max_codepoint=0xFFFF)
)
steps = st.one_of(
    st.builds(lambda p, c: {"write": {"path": p, "content": c}}, texts, texts),
    st.builds(lambda t: {"say": t}, texts),
    st.builds(lambda t: {"run": t}, texts),
    st.builds(lambda n: {"sleep": n}, st.floats(0.001, 1e5)),
    st.builds(lambda n: {"usage": {"outputTokens": n}}, st.integers(0, 1 << 40)),
)


@settings(max_examples=100, deadline=None)
@given(items=st.lists(steps, max_size=6), attempt=st.none() | st.integers(1, 9))
def test_any_valid_script_comes_back_step_by_step(items: list[Any], attempt: int | None) -> None:
    marked = [{**item, **({"attempt": attempt} if attempt else {})} for item in items]
    text = "\n".join(f"- {json.dumps(item)}" for item in marked)
    expected = [Step(verb, item[verb], attempt) for item in items for verb in item]
    assert steps_of(fenced(text)) == expected
    assert steps_of(fenced(json.dumps(marked))) == expected


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="-:{}[]'\"`\n ab&*!|>#%@,\t\u00e9\U0001f600", max_size=80))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        steps_of(fenced(text))
    except TurnError as error:
        assert error.kind == "task" and error.message.startswith("mock block: ")
