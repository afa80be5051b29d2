"""Expressions of the match language: their parts, and their way from text and back.

    or < and < not < clause;  clause: KEYWORD (== != < <= > >= contains ~) literal,
    KEYWORD in (literal, ...), KEYWORD exists;  literal: a number, or a text in quotes in which
    \\ before a quote or a \\ stands for that character.

What an expression means is said in `match`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from dicom_node.decide.pattern import PatternError, read_pattern

MAX_LENGTH = 4000  # characters of an expression
MAX_DEPTH = 40  # of nested `not` and parentheses

Literal = str | int | float


class ParseError(ValueError):
    """The expression cannot be read; `position` counts characters from 0."""

    def __init__(self, message: str, position: int) -> None:
        self.position = position
        super().__init__(f"{message} (at character {position + 1})")


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison. literals: none for `exists`, several for `in`, one for all others."""

    keyword: str
    operator: str
    literals: tuple[Literal, ...] = ()


@dataclass(frozen=True, slots=True)
class Not:
    """The operand does not hold."""

    operand: Expression


@dataclass(frozen=True, slots=True)
class And:
    """All operands hold; at least two."""

    operands: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of the operands holds; at least two."""

    operands: tuple[Expression, ...]


Expression = Clause | Not | And | Or


COMPARISONS = ("==", "!=", "<=", ">=", "<", ">", "in", "contains", "~", "exists")

_WORDS = frozenset({"and", "or", "not", "in", "contains", "exists"})
_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?![A-Za-z_]))
      | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<name>[A-Za-z][A-Za-z0-9]*)
      | (?P<sign>==|!=|<=|>=|<|>|~|\(|\)|,)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number, text, name, word, sign, end
    text: str
    position: int


def parse(text: str) -> Expression:
    """Read an expression. Raises ParseError: where, and what was expected there."""
    if len(text) > MAX_LENGTH:
        raise ParseError(f"an expression has at most {MAX_LENGTH} characters", MAX_LENGTH)
    return _Parser(tuple(_tokens(text))).whole()


def unparse(expression: Expression) -> str:
    """The text of an expression: `parse` makes the same expression of it."""
    match expression:
        case Clause(keyword, "exists", _):
            return f"{keyword} exists"
        case Clause(keyword, "in", literals):
            return f"{keyword} in ({', '.join(map(_written, literals))})"
        case Clause(keyword, operator, literals):
            return f"{keyword} {operator} {_written(literals[0])}"
        case Not(operand):
            return f"not {_operand(operand, Or | And)}"
        case And(operands):
            return " and ".join(_operand(o, Or | And) for o in operands)
        case Or(operands):
            return " or ".join(_operand(o, Or) for o in operands)


def keywords(expression: Expression) -> frozenset[str]:
    """Every keyword that the expression asks about."""
    match expression:
        case Clause(keyword):
            return frozenset({keyword})
        case Not(operand):
            return keywords(operand)
        case And(operands) | Or(operands):
            return frozenset().union(*(keywords(o) for o in operands))


def _operand(expression: Expression, looser: object) -> str:
    written = unparse(expression)
    return f"({written})" if isinstance(expression, looser) else written  # type: ignore[arg-type]


def _written(literal: Literal) -> str:
    if isinstance(literal, str):
        return '"' + literal.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(literal)


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ParseError(_not_a_token(text[at]), at)
        kind = found.lastgroup or ""
        if kind == "name" and found.group() in _WORDS:
            kind = "word"
        if kind != "space":
            yield _Token(kind, found.group(), at)
        at = found.end()
    yield _Token("end", "", len(text))


def _not_a_token(character: str) -> str:
    if character in "\"'":
        return "a text without its closing quote"
    hint = " (to compare, write ==)" if character == "=" else ""
    return f"{character!r} is not understood{hint}"


class _Parser:
    """Recursive descent: or < and < not < clause."""

    def __init__(self, tokens: tuple[_Token, ...]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def whole(self) -> Expression:
        expression = self._or()
        if self._now.kind != "end":
            raise self._expected("'and', 'or' or the end")
        return expression

    @property
    def _now(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._now
        self._at += 1
        return token

    def _accept(self, *texts: str) -> bool:
        token = self._now
        if token.kind in ("sign", "word") and token.text in texts:
            self._at += 1
            return True
        return False

    def _expected(self, what: str) -> ParseError:
        token = self._now
        found = "the end" if token.kind == "end" else repr(token.text[:30])
        return ParseError(f"expected {what}, found {found}", token.position)

    def _or(self) -> Expression:
        operands = [self._and()]
        while self._accept("or"):
            operands.append(self._and())
        return operands[0] if len(operands) == 1 else Or(tuple(operands))

    def _and(self) -> Expression:
        operands = [self._not()]
        while self._accept("and"):
            operands.append(self._not())
        return operands[0] if len(operands) == 1 else And(tuple(operands))

    def _not(self) -> Expression:
        position = self._now.position
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ParseError(f"nested deeper than {MAX_DEPTH}", position)
        expression: Expression
        if self._accept("not"):
            expression = Not(self._not())
        elif self._accept("("):
            expression = self._or()
            if not self._accept(")"):
                raise self._expected("'and', 'or' or ')'")
        else:
            expression = self._clause()
        self._depth -= 1
        return expression

    def _clause(self) -> Clause:
        if self._now.kind != "name":
            raise self._expected("a DICOM keyword, 'not' or '('")
        keyword = self._next().text
        operator = self._now.text
        if not self._accept(*COMPARISONS):
            hint = ' (write: not (X in ("A", "B")))' if operator == "not" else ""
            raise self._expected(f"one of {' '.join(COMPARISONS)}{hint}")
        if operator == "exists":
            return Clause(keyword, operator)
        if operator == "in":
            return Clause(keyword, operator, self._several())
        position = self._now.position
        literal = self._literal()
        if operator == "~":
            _check_pattern(literal, position)
        return Clause(keyword, operator, (literal,))

    def _several(self) -> tuple[Literal, ...]:
        if not self._accept("("):
            raise self._expected("'(' and a list of values")
        literals = [self._literal()]
        while self._accept(","):
            literals.append(self._literal())
        if not self._accept(")"):
            raise self._expected("',' or ')'")
        return tuple(literals)

    def _literal(self) -> Literal:
        token = self._now
        if token.kind == "text":
            self._at += 1
            return re.sub(r"\\([\\\"'])", r"\1", token.text[1:-1])
        if token.kind != "number":
            raise self._expected('a number or a text in quotes, such as "CT"')
        self._at += 1
        if re.fullmatch(r"[-+]?[0-9]{1,18}", token.text):
            return int(token.text)
        value = float(token.text)
        if math.isinf(value):
            raise ParseError("this number is too large", token.position)
        return value


def _check_pattern(literal: Literal, position: int) -> None:
    if not isinstance(literal, str):
        raise ParseError('~ wants a pattern in quotes, such as "chest|lung"', position)
    try:
        read_pattern(literal)
    except PatternError as error:
        raise ParseError(f"in the pattern: {error}", position + 1 + error.position) from error
