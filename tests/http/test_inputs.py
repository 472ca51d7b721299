"""Names and queries from strangers: only what can be meant gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.http import inputs
from controller.http.inputs import BadInput
from controller.resources.names import job_name

HOSTILE = [
    "", ".", "..", "../x", "a/b", "a\\b", "a\0", "a\n", "A", "-a", "a-", "a b", "%2e%2e", "~",
    "a" * 64, "é", "a.b", "＊", "a\r\nX: y",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_no_names(text):
    for check in (inputs.namespace, inputs.folder, inputs.job):
        with pytest.raises(BadInput):
            check(text)


@given(st.text())
def test_no_name_that_passes_leads_anywhere_else(text):
    for check in (inputs.namespace, inputs.folder, inputs.job):
        try:
            assert check(text) == text
        except BadInput:
            continue
        assert text and text.isascii() and "/" not in text and text[0].isalnum()


@pytest.mark.parametrize("swarm", ["builders", "a", "x" * 50, "ends-in-cut-" + "y" * 20 + "-z"])
def test_every_name_that_the_controller_makes_passes(swarm):
    uid = "1a2b3c4d-0000-4000-8000-000000000000"
    assert inputs.job(job_name(swarm, uid, 999, 123456)) == job_name(swarm, uid, 999, 123456)
    assert inputs.is_folder(f"{swarm}-{uid[:8]}")


def test_a_machines_set_up_log_is_a_transcript_too():
    assert inputs.job("i-0aa0aa0aa0aa0aa0a") == "i-0aa0aa0aa0aa0aa0a"


def test_a_query_has_only_known_names_once():
    items = [("job", "a"), ("job", "b"), ("swarm", "s")]
    found = inputs.query(items, "job", "swarm", several="job")
    assert found == {"job": ["a", "b"], "swarm": ["s"]}
    with pytest.raises(BadInput, match="unknown query parameter; known here: swarm"):
        inputs.query([("token", "secret")], "swarm")
    with pytest.raises(BadInput, match="swarm is given more than once"):
        inputs.query([("swarm", "a"), ("swarm", "b")], "swarm")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"limit": ["0"]}, "limit must be from 1 to 4194304"),
        ({"limit": ["4194305"]}, "limit must be from 1 to 4194304"),
        ({"offset": ["-1"]}, "offset must be a whole number"),
        ({"offset": ["1e9"]}, "offset must be a whole number"),
        ({"offset": ["١"]}, "offset must be a whole number"),
        ({"offset": ["9" * 40]}, "offset must be a whole number"),
    ],
)
def test_ranges_are_bounded(given, words):
    with pytest.raises(BadInput, match=words):
        inputs.range_of(given)


def test_a_range_has_defaults():
    assert inputs.range_of({}) == inputs.Range(0, 1024 * 1024)
    assert inputs.range_of({"offset": ["7"], "limit": ["4194304"]}) == inputs.Range(7, 4194304)


def test_jobs_are_checked_and_counted():
    assert inputs.jobs_of({}) is None
    assert inputs.jobs_of({"job": ["a-1a2b3c4d-0-1"]}) == {"a-1a2b3c4d-0-1"}
    with pytest.raises(BadInput, match="more than 500 jobs"):
        inputs.jobs_of({"job": ["a-1a2b3c4d-0-1"] * 501})
    with pytest.raises(BadInput):
        inputs.jobs_of({"job": ["../../etc/passwd"]})
