"""Task graphs: faults, order, dependents."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.graph import (
    GraphError,
    GraphReason,
    Node,
    all_dependents,
    cycles,
    dependents,
    describe_chain,
    order,
    validate,
)


def nodes(**edges: str) -> list[Node]:
    """``nodes(a="", b="a")``: b depends on a."""
    return [Node(name, tuple(depends_on.split())) for name, depends_on in edges.items()]


def test_a_valid_graph_has_no_problems() -> None:
    assert validate(nodes(a="", b="a", c="a b")) == []


def test_each_fault_is_named() -> None:
    found = validate([Node("a", ("libary",)), Node("library"), Node("a"), Node("s", ("s",))])
    assert [(p.reason, p.node) for p in found] == [
        (GraphReason.DUPLICATE, "a"),
        (GraphReason.UNKNOWN_DEPENDENCY, "a"),
        (GraphReason.SELF_DEPENDENCY, "s"),
    ]
    assert "did you mean 'library'?" in found[1].message
    assert [p.reason for p in validate([])] == [GraphReason.EMPTY]


def test_a_cycle_is_given_exactly() -> None:
    found = validate(nodes(x="a", a="b", b="c", c="a"))
    assert [p.reason for p in found] == [GraphReason.CYCLE]
    assert found[0].chain == ("a", "b", "c", "a")
    assert found[0].message.endswith("a -> b -> c -> a")


def test_two_cycles_are_both_told() -> None:
    assert cycles(nodes(a="b", b="a", c="d", d="c")) == [("a", "b", "a"), ("c", "d", "c")]


def test_a_long_chain_is_shortened_in_messages_only() -> None:
    names = [f"n{n}" for n in range(100)]
    ring = [Node(name, (names[n - 1],)) for n, name in enumerate(names)]
    (problem,) = validate(ring)
    assert len(problem.chain) == 101
    assert "(81 more)" in problem.message
    assert describe_chain(("a", "b", "a")) == "a -> b -> a"


def test_the_order_is_stable() -> None:
    assert order(nodes(c="", b="a", a="", d="")) == ["c", "a", "b", "d"]
    with pytest.raises(GraphError, match="a -> b -> a"):
        order(nodes(a="b", b="a"))


def test_dependents() -> None:
    graph = nodes(a="", b="a", c="b", d="", e="c d")
    assert dependents(graph) == {"a": ("b",), "b": ("c",), "c": ("e",), "d": ("e",), "e": ()}
    assert all_dependents(graph, ["a"]) == {"b", "c", "e"}
    assert all_dependents(graph, ["unknown"]) == set()


@pytest.mark.parametrize("reverse", [False, True])
def test_ten_thousand_in_a_chain(reverse: bool) -> None:
    chain = [Node("n0")] + [Node(f"n{n}", (f"n{n - 1}",)) for n in range(1, 10_000)]
    given_order = list(reversed(chain)) if reverse else chain
    assert validate(given_order) == []
    assert order(given_order) == [node.name for node in chain]
    assert len(all_dependents(chain, ["n0"])) == 9_999
    ring = [*chain[1:], Node("n0", ("n9999",))]
    assert len(cycles(ring)[0]) == 10_001


names = st.integers(0, 8).map(lambda n: f"n{n}")
graphs = st.dictionaries(names, st.lists(names, max_size=4), min_size=1, max_size=9).map(
    lambda edges: [Node(name, tuple(depends_on)) for name, depends_on in edges.items()]
)


@given(graphs)
def test_a_graph_has_an_order_or_a_real_cycle(graph: list[Node]) -> None:
    edges = {node.name: set(node.depends_on) for node in graph}
    chains = cycles(graph)
    for chain in chains:
        assert chain[0] == chain[-1]
        assert len(set(chain)) == len(chain) - 1 >= 2
        for a, b in itertools.pairwise(chain):
            assert b in edges[a]
    if chains:
        with pytest.raises(GraphError):
            order(graph)
        return
    found = order(graph)
    assert sorted(found) == sorted(edges)
    for number, name in enumerate(found):
        later = set(found[number:]) - {name}
        assert not edges[name] & later
        # No later task that was given before could have come now.
        for other in sorted(later, key=list(edges).index):
            if list(edges).index(other) < list(edges).index(name):
                assert (edges[other] - {other}) & set(found[number:])
