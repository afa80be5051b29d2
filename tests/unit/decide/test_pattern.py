"""Regular expressions that cannot run away."""

from __future__ import annotations

import pytest

from dicom_node.decide.pattern import PatternError, read_pattern


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("chest|lung", "Thin LUNG 1.0", True),
        ("chest|lung", "Abdomen", False),
        ("^ct.*lung$", "CT thorax LUNG", True),
        ("^lung", "CT lung", False),
        (r"\blung\b", "lungs", False),
        (r"\blung\b", "the lung.", True),
        (r"\d{1,2} ?mm", "5mm Chest", True),
        (r"^\d{3}$", "1234", False),
        (r"^\d{2,}$", "1234", True),
        ("[^a-z]", "abc", False),
        ("[A-C]x", "bX", True),
        ("[]-]", "a-b", True),
        (r"[\d.]mm", "5mm", True),
        (r"^[\W]$", "a", False),
        (r"1\.5", "125", False),
        ("(?:thin|thick) slice", "thick slice", True),
        ("(ab)*c", "ababc", True),
        ("(a|b)+d", "abad", True),
        ("colou?r", "color", True),
        ("", "anything", True),
        ("x", "a" * 256 + "x", False),  # beyond what is searched
        (r"\S\W\D", "a- ", True),
    ],
)
def test_a_pattern_is_found_or_not(pattern: str, text: str, found: bool):
    assert read_pattern(pattern).found_in(text) is found


@pytest.mark.parametrize(
    ("pattern", "position", "words"),
    [
        ("(a+)+", 4, "a repeat inside a repeat"),
        ("(a|(b*c))?", 9, "a repeat inside a repeat"),
        ("a**", 2, "only one repeat"),
        ("*a", 0, "write \\*"),
        ("^*", 1, "a position cannot be repeated"),
        ("(a", 0, "never closed"),
        ("a)", 1, "closes nothing"),
        ("[a", 0, "never closed"),
        ("[z-a]", 1, "a range such as a-z"),
        ("a{2,1}", 1, "n <= m <= 64"),
        ("a{65}", 1, "n <= m <= 64"),
        ("a{x}", 1, "expected {n}"),
        ("a{", 1, "expected {n}"),
        ("(?=a)", 0, "groups are plain"),
        (r"(a)\1", 3, "not in the subset"),
        ("a\\", 2, "ends too early"),
        ("a" * 201, 200, "at most 200 characters"),
    ],
)
def test_what_is_not_in_the_subset_is_refused_with_its_position(
    pattern: str, position: int, words: str
):
    with pytest.raises(PatternError) as caught:
        read_pattern(pattern)

    assert caught.value.position == position
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "pattern", ["a?" * 60 + "a" * 60 + "b", "a*" * 90 + "b", "(a|a)" * 30 + "b", "(a|aa|a)*b"]
)
def test_a_pattern_that_would_make_backtracking_endless_is_judged(pattern: str):
    assert not read_pattern(pattern).found_in("a" * 256)
