"""When a head commit counts as safe, gone, or not known."""

from controller.repository.durable import Durability, Places, durable, tips_of

PLACES = Places(
    attempt="refs/codeswarm/u/1",
    branch="refs/heads/codeswarm/p/t",
    integration="refs/heads/codeswarm/p/integration",
    base="refs/heads/main",
)
HEAD, OTHER = "a" * 40, "b" * 40


def test_a_ref_at_the_head_is_enough() -> None:
    for ref in PLACES.refs():
        verdict = durable(HEAD, {ref: HEAD, "refs/heads/x": OTHER}, PLACES)
        assert (verdict.durability, verdict.ref) == (Durability.DURABLE, ref)


def test_a_ref_elsewhere_is_not() -> None:
    verdict = durable(HEAD, {"refs/heads/mine": HEAD}, PLACES)
    assert verdict.durability is Durability.GONE


def test_what_cannot_be_read_is_never_gone() -> None:
    assert durable(HEAD, None, PLACES).durability is Durability.UNKNOWN
    assert durable(HEAD, None, PLACES, reachable=()).durability is Durability.UNKNOWN


def test_history_decides_where_no_ref_is_at_the_head() -> None:
    refs = {"refs/heads/main": OTHER, "refs/heads/x": HEAD}
    asked = durable(HEAD, refs, PLACES)
    assert asked.durability is Durability.UNKNOWN
    assert asked.history_needed
    assert durable(HEAD, refs, PLACES, {HEAD}).durability is Durability.DURABLE
    assert durable(HEAD, refs, PLACES, set()).durability is Durability.GONE
    assert tips_of(refs, [PLACES, PLACES]) == {"refs/heads/main": OTHER}


def test_unnamed_places_are_left_out() -> None:
    assert Places("", "", "", "refs/heads/main").refs() == ("refs/heads/main",)
