"""Whose the objects are that were refused before their Series was read."""

from __future__ import annotations

import pytest

from dicom_node.node.missed import NEIGHBOURS_S, Missed

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
ONE, OTHER = ("CT1", "10.0.0.1"), ("CT2", "10.0.0.2")


@pytest.mark.parametrize(
    ("what", "lacks"),
    [
        ("a a a", {}),
        ("a a x", {"A": ("x",)}),
        ("a x a", {"A": ("x",)}),
        ("x a a", {"A": ("x",)}),
        ("a x y b", {"A": ("x", "y"), "B": ("x", "y")}),
        ("a x b y", {"A": ("x",), "B": ("x", "y")}),
        ("x y", {}),
        ("a ?x", {}),
        ("a A:x b", {"A": ("x",)}),
        ("b A:x b", {"A": ("x",)}),
    ],
)
def test_what_is_refused_belongs_to_its_neighbours(what: str, lacks: dict[str, tuple[str, ...]]):
    """a: an object of Series A is stored; x: one is refused; ?x: of another class; A:x: of A."""
    missed = Missed()
    for now, word in enumerate(what.split()):
        series, _, uid = word.rpartition(":")
        if word in ("a", "b"):
            missed.stored(1, ONE, (CT, word.upper()), now)
        else:
            subject = (MR if word[0] == "?" else CT, series)
            missed.refused(1, ONE, subject, uid.lstrip("?"), now)
    assert missed.ended(1, ONE) == lacks


@pytest.mark.parametrize(
    ("after_s", "sender", "lacks"),
    [(1.0, ONE, ("x",)), (1.0, OTHER, None), (NEIGHBOURS_S + 1, ONE, None)],
)
def test_with_an_association_for_each_image_the_neighbours_are_those_of_the_sender(
    after_s: float, sender: tuple[str, str], lacks: tuple[str, ...] | None
):
    missed = Missed()
    missed.stored(1, ONE, (CT, "A"), 0.0)
    assert missed.ended(1, ONE) == {}
    missed.refused(2, sender, (CT, ""), "x", after_s)
    assert missed.ended(2, sender).get("A") == lacks
    missed.stored(3, sender, (CT, "B"), after_s + 1.0)
    assert missed.ended(3, sender).get("B") == ("x",)
    missed.stored(4, sender, (CT, "C"), after_s + 2.0)
    assert missed.ended(4, sender) == {}, "what was given to a neighbour is not given again"


def test_a_peer_that_is_refused_all_day_costs_a_bounded_room():
    missed = Missed()
    missed.stored(1, ONE, (CT, "A"), 0.0)
    for n in range(5000):
        missed.refused(1, ONE, (CT, ""), f"1.{n}", 1.0)
    assert len(missed.ended(1, ONE)["A"]) == 1000
