"""The match language against itself: printed and read back, and judged in a second way."""

from __future__ import annotations

import operator
import re
import string

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.decide.expression import And, Clause, Expression, Not, Or
from dicom_node.decide.match import ParseError, evaluate, parse, unparse
from dicom_node.decide.pattern import PatternError, read_pattern

KEYWORDS = ("Modality", "Rows", "ImageType", "SliceThickness")
TEXTS = st.text(alphabet="ABab1 \\\"'.é", max_size=6)
NUMBERS = st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False)
LITERALS = TEXTS | NUMBERS

clauses = st.one_of(
    st.builds(
        lambda k, o, v: Clause(k, o, (v,)),
        st.sampled_from(KEYWORDS),
        st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "contains"]),
        LITERALS,
    ),
    st.builds(
        lambda k, v: Clause(k, "in", tuple(v)),
        st.sampled_from(KEYWORDS),
        st.lists(LITERALS, min_size=1, max_size=3),
    ),
    st.builds(
        lambda k, v: Clause(k, "~", (v,)),
        st.sampled_from(KEYWORDS),
        st.sampled_from(["a|b", r"\d", "^A", "a.*b", "1?$"]),
    ),
    st.builds(lambda k: Clause(k, "exists"), st.sampled_from(KEYWORDS)),
)
expressions = st.recursive(
    clauses,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(lambda o: And(tuple(o)), st.lists(inner, min_size=2, max_size=3)),
        st.builds(lambda o: Or(tuple(o)), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=8,
)
values = st.none() | TEXTS | NUMBERS | st.lists(TEXTS | NUMBERS, max_size=3).map(tuple)
headers = st.dictionaries(st.sampled_from(KEYWORDS), values, max_size=4)


@given(expressions)
def test_printing_and_reading_gives_the_same_expression(expression: Expression):
    assert parse(unparse(expression)) == expression


def naive(expression: Expression, header: dict) -> bool:
    """The meaning of an expression, written down as shortly as possible."""
    if isinstance(expression, Not):
        return not naive(expression.operand, header)
    if isinstance(expression, And):
        return all(naive(o, header) for o in expression.operands)
    if isinstance(expression, Or):
        return any(naive(o, header) for o in expression.operands)
    value = header.get(expression.keyword)
    several = value if isinstance(value, tuple) else (value,)
    present = [v.strip(" ") if isinstance(v, str) else v for v in several if v is not None]
    present = [v for v in present if v != ""]
    if not present:
        return False
    if expression.operator == "exists":
        return True
    if expression.operator == "~":
        pattern = expression.literals[0]
        return any(re.search(pattern, str(v), re.IGNORECASE) is not None for v in present)
    compare = {
        "==": operator.eq, "!=": operator.eq, "in": operator.eq, "contains": operator.eq,
        "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    }[expression.operator]  # fmt: skip
    found = any(
        compare(*pair)
        for v in present
        for literal in expression.literals
        if (pair := alike(v, literal)) is not None
    )
    return not found if expression.operator == "!=" else found


def alike(value: object, literal: object) -> tuple | None:
    if isinstance(value, str) and isinstance(literal, str):
        return value.lower(), literal.strip(" ").lower()
    try:
        numbers = [float(x) if isinstance(x, str) else x for x in (value, literal)]
    except ValueError:
        return None
    return numbers[0], numbers[1]


@given(expressions, headers)
def test_the_verdict_is_that_of_a_naive_evaluator(expression: Expression, header: dict):
    assert evaluate(expression, header).matched == naive(expression, header)


@given(expressions, headers)
def test_every_verdict_is_explained(expression: Expression, header: dict):
    assert evaluate(expression, header).explanation


@given(st.text(alphabet="ab(=!<>~)\"' ,.1andorti\\", max_size=40))
def test_any_text_is_an_expression_or_a_mistake_with_a_position(text: str):
    position = 0
    try:
        parse(text)
    except ParseError as error:
        position = error.position
    assert 0 <= position <= len(text)


ATOMS = st.sampled_from(["a", "b", "1", ".", "[ab]", "[^a]", r"\d", r"\w", r"\b", "^", "$", " "])
REPEATED = st.builds(
    lambda atom, mark: atom + mark,
    st.sampled_from(["a", "b", ".", "[ab]", r"\d", "(a|b)", "(ab)"]),
    st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{1,}"]),
)
PATTERNS = st.lists(ATOMS | REPEATED | st.just("|"), max_size=7).map("".join)


@given(PATTERNS, st.text(alphabet="abAB1 -", max_size=12))
def test_a_pattern_is_found_where_the_standard_library_finds_it(pattern: str, text: str):
    assert read_pattern(pattern).found_in(text) == (
        re.search(pattern, text, re.IGNORECASE) is not None
    )


@given(st.text(alphabet=string.ascii_letters[:4] + "()[]{}*+?|\\^$,-1", max_size=15))
def test_any_text_is_a_pattern_or_a_mistake_with_a_position(text: str):
    position = 0
    try:
        read_pattern(text).found_in("abc 123")
    except PatternError as error:
        position = error.position
    assert 0 <= position <= len(text)
