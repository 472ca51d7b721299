"""Regular expressions of people: their problems, and that none takes long."""

from __future__ import annotations

import time

import pytest

from controller.resources import patterns


def test_an_expression_is_searched() -> None:
    assert patterns.problem("^(git (status|diff|log)|ls|cat) ") == ""
    assert patterns.found("^(git (status|diff|log)|ls|cat) ", "git diff HEAD")
    assert patterns.found("diff", "git diff HEAD")
    assert not patterns.found("^diff", "git diff HEAD")


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(a", "unclosed group"),
        ("a{2,1}", "invalid repetition count range"),
        ("[b-a]", "invalid character class range"),
        ("(?=a)", "look-around"),
        (r"(a)\1", "backreferences are not supported"),
        (r"\w{1000}", "exceeds size limit"),
        ("(a{100}){13}", "1300 steps"),
        ("(a{0,90}b{0,90}){10,}", "steps"),
        ("(?:(?:a{20}){20}){20}", "8840 steps"),
    ],
)
def test_what_cannot_be_used_says_why(pattern: str, problem: str) -> None:
    assert problem in patterns.problem(pattern)
    assert "\n" not in patterns.problem(pattern)


@pytest.mark.parametrize(
    "pattern",
    ["a{1000}", "[a{99}]{3}", r"a\{99\}{99}", "{99}a", "(a|b){500}", "a{,5}b", "[]{}]{2}"],
)
def test_what_is_not_too_large(pattern: str) -> None:
    assert "steps" not in patterns.problem(pattern)


@pytest.mark.parametrize(
    "pattern",
    ["(a*)*[bc]", "(a|aa)+$", "(a|a)*[c-e]$", "^(a+)+$", "a[ab]{0,900}[cd][ef]",
     "([ab]{0,30}a){0,30}[cd]", "(.*.*.*.*.*a){0,50}[cd]"],
)  # fmt: skip
def test_no_expression_takes_long(pattern: str) -> None:
    text = "ab" * 500_000
    assert patterns.problem(pattern) == ""
    began = time.process_time()
    patterns.found(pattern, text)
    assert time.process_time() - began < 1.0
