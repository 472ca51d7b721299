"""Small parts: JSONPath, ages, tables, selectors, durations, outlines, goals, outcomes."""

from __future__ import annotations

from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import ages, jsonpath, outline, selectors, table
from cli.errors import CliError
from cli.options import duration
from cli.transcript_files import order_of

DOC: dict[str, Any] = {
    "items": [
        {"name": "a", "n": 1, "c": [{"type": "Ready", "status": "True"}]},
        {"name": "b", "n": 2, "c": []},
    ],
    "labels": {"codeswarm.dev/project": "greeter"},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".items[*].name", ["a", "b"]),
        ("items[0].name", ["a"]),
        ("$.items[-1].name", ["b"]),
        (".items[0:1].name", ["a"]),
        (".items[5].name", []),
        (".items[?(@.n>1)].name", ["b"]),
        ('.items[?(@.name=="a")].n', [1]),
        ("..name", ["a", "b"]),
        ('.items[*].c[?(@.type=="Ready")].status', ["True"]),
        (".labels.codeswarm\\.dev/project", ["greeter"]),
        (".labels['codeswarm.dev/project']", ["greeter"]),
        (".labels.*", ["greeter"]),
        (".missing.deep", []),
        (".", [DOC]),
    ],
)
def test_paths(path: str, found: list[Any]) -> None:
    assert jsonpath.evaluate(jsonpath.compile_path(path), DOC) == found


def test_templates() -> None:
    template = jsonpath.compile_template('n:{range .items[*]}{.name}{"\\t"}{.n},{end}{.labels}!')
    assert jsonpath.render(template, DOC) == 'n:a\t1,b\t2,{"codeswarm.dev/project":"greeter"}!'


@given(st.text(alphabet=".[]{}()?@*'\"=<>ab01\\: end range", max_size=30))
def test_any_text_is_a_path_or_an_error(text: str) -> None:
    for parse in (jsonpath.compile_path, jsonpath.compile_template):
        try:
            parse(text)
        except jsonpath.JsonPathError as error:
            assert str(error)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (119, "119s"), (120, "2m"), (185, "3m5s"), (599, "9m59s"), (601, "10m"),
        (10799, "179m"), (10800, "3h"), (3 * 3600 + 61, "3h1m"), (8 * 3600 + 60, "8h"),
        (47 * 3600, "47h"), (48 * 3600, "2d"), (50 * 3600, "2d2h"), (8 * 86400 + 3600, "8d"),
        (729 * 86400, "729d"), (730 * 86400, "2y"), (9 * 365 * 86400, "9y"), (-5, "<invalid>"),
    ],
)  # fmt: skip
def test_ages(seconds: float, text: str) -> None:
    assert ages.human(seconds) == text


def test_ages_of_times() -> None:
    now = ages.parse("2026-01-02T03:04:05Z")
    assert ages.age("2026-01-02T03:03:05.000000Z", now) == "60s"
    assert ages.age(None, now) == "<unknown>"
    assert ages.age("yesterday", now) == "<invalid>"


@given(st.text())
def test_cells_are_one_harmless_line(text: str) -> None:
    shown = table.cell(text)
    assert len(shown.splitlines()) <= 1
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown)


def test_columns_stand_below_each_other() -> None:
    assert table.render(["A", "LONG"], [["xyz", "1"], ["", "2"]]) == (
        "A     LONG\nxyz   1\n      2\n"
    )
    assert table.render(None, []) == ""


LABELS = {"tier": "web", "env": "prod"}


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        ("tier=web", True),
        ("tier==web,env=prod", True),
        ("tier!=web", False),
        ("other!=x", True),
        ("tier", True),
        ("!tier", False),
        ("env in (prod,test)", True),
        ("env notin (prod,test)", False),
        ("tier=web,env in (test, dev)", False),
    ],
)
def test_label_selectors(selector: str, fits: bool) -> None:
    predicate = selectors.label_predicate(selector)
    assert predicate is not None
    assert predicate(LABELS) is fits


@given(st.text(max_size=20))
def test_any_text_is_a_selector_or_an_error(text: str) -> None:
    try:
        selectors.label_predicate(text)
    except CliError as error:
        assert "label selector" in str(error)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1m30s", 90),
        ("2h", 7200),
        ("500ms", 0.5),
        ("-1", -1),
        ("1d", 86400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "1x", "1m 30s", "five"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(click.BadParameter):
        duration(text)


def test_selections() -> None:
    (tasks,) = selectors.parse(["task", "a", "b", "a"])
    assert (tasks.kind.kind, tasks.names) == ("Task", ("a", "b"))
    mixed = selectors.parse(["task/a", "swarm/x", "ct/b"])
    assert [(s.kind.kind, s.names) for s in mixed] == [("Task", ("a", "b")), ("Swarm", ("x",))]
    with pytest.raises(CliError):
        selectors.parse(["task/a", "b"])
    with pytest.raises(CliError):
        selectors.parse(["task/"])


def test_outlines_are_cut() -> None:
    value = {"longText": "\n".join("abcdefgh"), "list": list(range(20)), "map": {"inner": True}}
    lines = list(outline.lines(value))
    assert lines[0] == "Long Text:"
    assert "  ... (2 lines more)" in lines
    assert "  ... (8 more)" in lines
    assert lines[-2:] == ["Map:", "  Inner:  true"]


def test_jobs_are_ordered_by_worker_and_incarnation() -> None:
    jobs = ["s-1a2b3c4d-10-1", "s-1a2b3c4d-2-11", "s-1a2b3c4d-2-3", "odd"]
    assert sorted(jobs, key=order_of) == ["odd", "s-1a2b3c4d-2-3", "s-1a2b3c4d-2-11", jobs[0]]
