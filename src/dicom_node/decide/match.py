"""The match language: which Series a route or a model wants, said in one line, judged with reasons.

    Modality == "CT" and BodyPartExamined in ("CHEST", "THORAX") and SliceThickness <= 5
        and not (ImageType contains "LOCALIZER") and SeriesDescription ~ "chest|thorax|lung"

Names are DICOM keywords (and the node's own: NODE_KEYWORDS). A clause about an attribute that is
missing or empty is false, whatever its operator; there is no third value, so `not (X == 1)` is true
where X is missing. Of a multi-valued attribute one value that fits is enough (`!=`: none may be
equal). Text is compared without regard to case and surrounding spaces; a number in a text value
counts as that number where the literal is a number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from dicom_node.decide.expression import (
    And,
    Clause,
    Expression,
    Literal,
    Not,
    Or,
    ParseError,
    keywords,
    parse,
    unparse,
)
from dicom_node.decide.pattern import read_pattern
from dicom_node.domain.records import Attributes

__all__ = ["NODE_KEYWORDS", "Expression", "ParseError", "Verdict", "evaluate", "keywords"]
__all__ += ["parse", "unparse"]

NODE_KEYWORDS = frozenset({"CalledAE", "CallingAE", "InstancesInSeries"})
"""What the node itself knows about a Series, beside its header."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an expression holds, and the facts that decided it, with the values seen."""

    matched: bool
    explanation: str


def evaluate(expression: Expression, attributes: Attributes) -> Verdict:
    """Judge a Series by its attributes.

    The explanation lists every clause that failed (or, where it holds, the clauses that held).
    Values that identify a patient are not repeated in it.
    """
    match expression:
        case Clause():
            return _judge_clause(expression, attributes)
        case Not(operand):
            inner = evaluate(operand, attributes)
            suffix = ", which is excluded" if inner.matched else ""
            return Verdict(not inner.matched, inner.explanation + suffix)
        case And(operands):
            verdicts = [evaluate(o, attributes) for o in operands]
            matched = all(v.matched for v in verdicts)
        case Or(operands):
            verdicts = [evaluate(o, attributes) for o in operands]
            matched = any(v.matched for v in verdicts)
    deciding = dict.fromkeys(v.explanation for v in verdicts if v.matched == matched)
    return Verdict(matched, "; ".join(deciding))


def _judge_clause(clause: Clause, attributes: Attributes) -> Verdict:
    values = _values(attributes.get(clause.keyword))
    if not values:
        return Verdict(False, f"{clause.keyword} is missing")
    if clause.operator == "!=":
        matched = not any(_equal(v, clause.literals[0]) for v in values)
    else:
        holds = _HOLDS[clause.operator]
        matched = any(holds(v, clause.literals) for v in values)
    if matched and clause.operator == "contains":
        return Verdict(True, f"{clause.keyword} contains {_one_shown(clause.literals[0])}")
    seen = f"{clause.keyword} is {_shown(clause.keyword, values)}"
    return Verdict(matched, seen if matched else seen + _shortfall(clause, values))


def _values(value: object) -> tuple[Literal, ...]:
    """The values of an attribute, as text or numbers; empty ones and NaN count as missing."""
    several = value if isinstance(value, (tuple, list)) else (value,)
    kept: list[Literal] = []
    for one in several:
        if isinstance(one, bool) or one is None:
            continue
        if isinstance(one, (int, float)):
            if not math.isnan(one):
                kept.append(one)
        elif str(one).strip(" \0"):
            kept.append(str(one).strip(" \0"))
    return tuple(kept)


def _number(value: Literal) -> float | int | None:
    """The number that a value is or writes (DS and IS are text in a header)."""
    if not isinstance(value, str):
        return value
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _comparable(value: Literal, literal: Literal) -> tuple[float, float] | tuple[str, str] | None:
    """Both as numbers where one of them is a number, else both as text; None: not comparable."""
    if isinstance(value, str) and isinstance(literal, str):
        return value.lower(), literal.strip(" ").lower()
    one, other = _number(value), _number(literal)
    return None if one is None or other is None else (one, other)


def _equal(value: Literal, literal: Literal) -> bool:
    pair = _comparable(value, literal)
    return pair is not None and pair[0] == pair[1]


def _ordered(
    compare: Callable[[float | str, float | str], bool],
) -> Callable[[Literal, tuple[Literal, ...]], bool]:
    def holds(value: Literal, literals: tuple[Literal, ...]) -> bool:
        pair = _comparable(value, literals[0])
        return pair is not None and compare(pair[0], pair[1])

    return holds


_HOLDS: dict[str, Callable[[Literal, tuple[Literal, ...]], bool]] = {
    "==": lambda value, literals: _equal(value, literals[0]),
    "<": _ordered(lambda a, b: a < b),  # type: ignore[operator]
    "<=": _ordered(lambda a, b: a <= b),  # type: ignore[operator]
    ">": _ordered(lambda a, b: a > b),  # type: ignore[operator]
    ">=": _ordered(lambda a, b: a >= b),  # type: ignore[operator]
    "in": lambda value, literals: any(_equal(value, literal) for literal in literals),
    "contains": lambda value, literals: _equal(value, literals[0]),
    "~": lambda value, literals: read_pattern(str(literals[0])).found_in(str(value)),
    "exists": lambda _value, _literals: True,
}

_IDENTIFYING = re.compile(
    r"Patient(?!Sex$|Age$|Size$|Weight$|Position$|Orientation$)|Person|Physician|Operators|Accession"
)


def _shown(keyword: str, values: tuple[Literal, ...]) -> str:
    """The values, short and printable; those that may identify a patient are left out."""
    if _IDENTIFYING.search(keyword):
        return "a value that is not shown"
    shown = [_one_shown(v) for v in values[:4]]
    return ", ".join(shown) + (", ..." if len(values) > 4 else "")


def _one_shown(value: Literal) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= 64 else value[:61] + "...")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shortfall(clause: Clause, values: tuple[Literal, ...]) -> str:
    """What was wanted of the values: the end of the sentence that says why a clause failed."""
    wanted = ", ".join(_one_shown(literal) for literal in clause.literals)
    match clause.operator:
        case "==":
            return f", not {wanted}"
        case "!=":
            return ", which is excluded"
        case "in":
            return f", not one of {wanted}"
        case "~":
            return f", in which {wanted} is not found"
        case "contains":
            within = any(str(clause.literals[0]).lower() in str(v).lower() for v in values)
            hint = " as a whole value (~ finds a part of one)" if within else ""
            return f", without {wanted}{hint}"
        case operator:
            return f", not {operator} {wanted}"
