"""Requests in a final answer for prompts to other swarms, and the workers of a target."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.routing import MAX_PROMPT, MAX_ROUTES, Route, decide, parse_routes
from controller.domain.targets import Expansion, expand
from controller.resources.names import TargetError


def test_lines_become_requests() -> None:
    answer = (
        "Done.\n/swarm[reviewers]/idle please look at this\n"
        "  /swarm[b]/0,2-4 \t all of you\n/swarm[c]/all go\nsee /swarm[x]/idle not a line\n"
    )
    assert parse_routes(answer) == [
        Route("reviewers", "idle", "please look at this", 2),
        Route("b", "0,2-4", "all of you", 3),
        Route("c", "all", "go", 4),
    ]


@pytest.mark.parametrize("fence", ["```", "~~~", "````"])
def test_fences_are_quotations(fence: str) -> None:
    answer = f"{fence}text\n/swarm[a]/idle quoted\n``\n{fence}\n/swarm[b]/idle real"
    assert [route.swarm for route in parse_routes(answer)] == ["b"]
    assert parse_routes(f"{fence}\n/swarm[a]/idle never closed") == []


def test_a_longer_fence_holds_a_shorter_one() -> None:
    answer = "````\n```\n/swarm[a]/idle x\n```\n````\n/swarm[b]/idle y"
    assert [route.swarm for route in parse_routes(answer)] == ["b"]


def test_only_so_many() -> None:
    assert len(parse_routes("/swarm[a]/idle x\n" * 1000)) == MAX_ROUTES


@pytest.mark.parametrize(
    ("route", "hops", "told"),
    [
        (Route("b", "idle", "x", 1), 0, "allowTo"),
        (Route("../a", "idle", "x", 1), 0, "allowTo"),
        (Route("a", "idle", "x", 1), 3, "maxHops is 3"),
        (Route("a", "idle", "", 1), 0, "no text"),
        (Route("a", "idle", "x" * (MAX_PROMPT + 1), 1), 0, "characters"),
        (Route("a", "some", "x", 1), 0, "workers"),
        (Route("a", "5-2", "x", 1), 0, "backwards"),
    ],
)
def test_what_is_not_allowed_is_refused_with_its_reason(route: Route, hops: int, told: str) -> None:
    good = Route("a", "idle", "x", 9)
    allowed, refused = decide([route, good], ["a"], hops, 3)
    assert refused[0].route == route
    assert told in refused[0].message
    assert allowed == ([good] if hops < 3 else [])


def test_nothing_is_allowed_by_default() -> None:
    assert decide([Route("a", "idle", "x", 1)], [], 0, 3)[0] == []


@given(st.lists(st.sampled_from(["/swarm[", "a", "]/", "idle", " x", "\n", "```", "0-9"]) | st.text(
    max_size=5), max_size=20).map("".join))  # fmt: skip
def test_no_text_makes_it_fail(text: str) -> None:
    routes = parse_routes(text)
    allowed, refused = decide(routes, ["a"], 0, 1)
    assert len(allowed) + len(refused) == len(routes)
    assert all(route.swarm == "a" and route.prompt for route in allowed)


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ("idle", None),
        (None, None),
        ("all", Expansion((0, 1, 4))),
        (1, Expansion((1,))),
        ("0,4", Expansion((0, 4))),
        ("0-3", Expansion((0, 1), (2, 3))),
        (9, Expansion((), (9,))),
    ],
)
def test_targets_are_expanded(workers: str | int | None, expected: Expansion | None) -> None:
    assert expand(workers, [4, 0, 1]) == expected


def test_a_target_that_cannot_be_read() -> None:
    with pytest.raises(TargetError):
        expand("sometimes", [0])
