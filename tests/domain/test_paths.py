"""Owned paths: overlap, conflicts with holders, files outside."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.paths import Claims, PathProblem, normalise, normalise_all, outside, overlap


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("src/a.py", "src/a.py"),
        ("./src//a.py", "src/a.py"),
        ("docs/", "docs/"),
        ("docs/.", "docs/"),
        ("a/./b/", "a/b/"),
        (".", "./"),
        ("./", "./"),
        (".github/", ".github/"),
        ("..a/b", "..a/b"),
    ],
)
def test_one_spelling(path: str, expected: str) -> None:
    assert normalise(path) == expected
    assert normalise(expected) == expected


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../b", "a/..", "a\0b"])
def test_what_is_no_claim_is_refused_and_never_claims(path: str) -> None:
    with pytest.raises(PathProblem):
        normalise(path)
    assert normalise_all([path, "x"]) == ("x",)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (["a.py"], ["a.py"], True),
        (["a.py"], ["b.py"], False),
        (["a"], ["ab"], False),
        (["docs/"], ["docs/x.md"], True),
        (["docs/"], ["docs/deep/er/"], True),
        (["docs/"], ["docsx/y"], False),
        (["docs"], ["docs/x"], False),
        (["./"], ["x/y"], True),
        (["./"], ["./"], True),
        ([], ["x"], False),
        ([], [], False),
        (["x", "docs/"], ["y", "docs/a"], True),
    ],
)
def test_overlap(a: list[str], b: list[str], expected: bool) -> None:
    assert overlap(a, b) is expected
    assert overlap(b, a) is expected


def test_outside_names_the_files_that_no_claim_covers() -> None:
    files = ["src/a.py", "docs/deep/x.md", "README.md", "src/ab.py"]
    assert outside(files, ["src/a.py", "docs/"]) == ["README.md", "src/ab.py"]
    assert outside(files, []) == []
    assert outside(files, ["./"]) == []


segment = st.sampled_from(["a", "b", "c"])
claim = st.builds(
    lambda parts, end: "/".join(parts) + end,
    st.lists(segment, min_size=1, max_size=4),
    st.sampled_from(["", "/"]),
)
claims = st.lists(claim, max_size=4)


def naive(a: str, b: str) -> bool:
    """Overlap of two claims by its definition."""
    if a == b:
        return True
    return (a.endswith("/") and b.startswith(a)) or (b.endswith("/") and a.startswith(b))


@given(claims, claims)
def test_overlap_is_what_its_definition_says(a: list[str], b: list[str]) -> None:
    assert overlap(a, b) == any(naive(x, y) for x in a for y in b)


@given(st.lists(st.tuples(st.integers(0, 5), claims), max_size=12), claims)
def test_claims_answer_as_a_scan_would(
    steps: list[tuple[int, list[str]]], asked: list[str]
) -> None:
    held: Claims[int] = Claims()
    model: dict[int, list[str]] = {}
    for holder, paths in steps:
        if paths:
            held.add(holder, paths)
            model[holder] = paths
        else:
            held.remove(holder)
            model.pop(holder, None)
    conflicting = {h for h, paths in model.items() if overlap(paths, asked)}
    found = held.conflict(asked)
    assert (found in conflicting) if conflicting else found is None
    assert len(held) == len(model)
    for holder in model:
        other = held.conflict(asked, ignore=holder)
        others = conflicting - {holder}
        assert (other in others) if others else other is None
    for holder in list(model):
        held.remove(holder)
    assert held.conflict(["./"]) is None
