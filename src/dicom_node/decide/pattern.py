"""Regular expressions for the match language: a subset whose search cannot run away.

The text that is searched comes from anybody's header. So the search follows all possible ways at
once (sets of positions, no backtracking), and its cost is bounded by pattern length × text length².
In the subset: letters, `.`, `[a-z]`, `[^a-z]`, `\\d \\w \\s \\b`, `^`, `$`, `|`, `( )`, `*`, `+`,
`?`, `{n}`, `{n,}`, `{n,m}`. Case is ignored. A repeat inside a repeat is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MAX_PATTERN = 200  # characters
MAX_SEARCHED = 256  # characters of a value; longer values are searched up to there
MAX_COUNT = 64  # the largest number in {n,m}


class PatternError(ValueError):
    """The pattern is outside the subset; `position` counts characters from 0."""

    def __init__(self, message: str, position: int) -> None:
        self.position = position
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class _One:
    """One character that passes a test."""

    test: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class _Anchor:
    """A position, not a character: start, end, or edge of a word."""

    kind: str


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Either:
    branches: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    part: _Node
    least: int
    most: int | None


_Node = _One | _Anchor | _Sequence | _Either | _Repeat


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that was read; `found_in` searches it."""

    text: str
    root: _Node

    def found_in(self, value: str) -> bool:
        """Whether the pattern occurs anywhere in the first MAX_SEARCHED characters, in any case."""
        lowered = value[:MAX_SEARCHED].lower()
        return bool(_ends(self.root, set(range(len(lowered) + 1)), lowered))


def read_pattern(text: str) -> Pattern:
    """Read a pattern of the subset. Raises PatternError."""
    if len(text) > MAX_PATTERN:
        raise PatternError(f"a pattern has at most {MAX_PATTERN} characters", MAX_PATTERN)
    return Pattern(text=text, root=_Reader(text).whole())


def _ends(node: _Node, starts: set[int], text: str) -> set[int]:
    """Every position where the node may end, when it begins at any of `starts`."""
    match node:
        case _One(test):
            return {i + 1 for i in starts if i < len(text) and test(text[i])}
        case _Anchor(kind):
            return {i for i in starts if _anchored(kind, i, text)}
        case _Sequence(parts):
            for part in parts:
                starts = _ends(part, starts, text)
            return starts
        case _Either(branches):
            return set().union(*(_ends(branch, starts, text) for branch in branches))
        case _Repeat():
            return _repeated(node, starts, text)


def _repeated(node: _Repeat, starts: set[int], text: str) -> set[int]:
    for _ in range(node.least):
        starts = _ends(node.part, starts, text)
    reached, edge, count = set(starts), starts, node.least
    while edge and (node.most is None or count < node.most):
        edge = _ends(node.part, edge, text) - reached
        reached |= edge
        count += 1
    return reached


def _anchored(kind: str, position: int, text: str) -> bool:
    if kind == "^":
        return position == 0
    if kind == "$":
        return position == len(text)
    before = position > 0 and _is_word(text[position - 1])
    after = position < len(text) and _is_word(text[position])
    return before != after


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


_CLASSES: dict[str, Callable[[str], bool]] = {
    "d": str.isdecimal,
    "w": _is_word,
    "s": str.isspace,
    "D": lambda c: not c.isdecimal(),
    "W": lambda c: not _is_word(c),
    "S": lambda c: not c.isspace(),
}


def _exactly(character: str) -> Callable[[str], bool]:
    wanted = character.lower()
    return lambda c: c == wanted


def _between(first: str, last: str) -> Callable[[str], bool]:
    return lambda c: first <= c <= last or first <= c.upper() <= last


class _Reader:
    """Recursive descent over the pattern's text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._repeats = 0  # read so far: tells whether a group has one in it

    def whole(self) -> _Node:
        node = self._either()
        if self._at < len(self._text):
            raise PatternError("this ) closes nothing", self._at)
        return node

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _take(self) -> str:
        character = self._peek()
        if not character:
            raise PatternError("the pattern ends too early", self._at)
        self._at += 1
        return character

    def _either(self) -> _Node:
        branches = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            branches.append(self._sequence())
        return branches[0] if len(branches) == 1 else _Either(tuple(branches))

    def _sequence(self) -> _Node:
        parts: list[_Node] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeat())
        return _Sequence(tuple(parts))

    def _repeat(self) -> _Node:
        before = self._repeats
        atom = self._atom()
        at, mark = self._at, self._peek()
        if mark not in ("*", "+", "?", "{") or not mark:
            return atom
        if isinstance(atom, _Anchor):
            raise PatternError("a position cannot be repeated", at)
        if self._repeats != before:
            raise PatternError("a repeat inside a repeat is refused: it may run away", at)
        self._at += 1
        self._repeats += 1
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(mark) or self._counts()
        if self._peek() in ("*", "+", "?", "{") and self._peek():
            raise PatternError("only one repeat at a time", self._at)
        return _Repeat(atom, least, most)

    def _counts(self) -> tuple[int, int | None]:
        at = self._at - 1
        end = self._text.find("}", at)
        first, comma, last = self._text[at + 1 : end if end > at else at + 1].partition(",")
        bounded = not comma or last
        last = last if comma else first
        numbers = [n for n in (first, last) if n]
        if not first or not all(n.isascii() and n.isdigit() and len(n) < 4 for n in numbers):
            raise PatternError("expected {n}, {n,} or {n,m}", at)
        least, most = int(first), int(last) if bounded else None
        if max(least, most or 0) > MAX_COUNT or (most is not None and most < least):
            raise PatternError(f"{{n,m}} wants n <= m <= {MAX_COUNT}", at)
        self._at = end + 1
        return least, most

    def _atom(self) -> _Node:
        at = self._at
        character = self._take()
        if character == "(":
            return self._group(at)
        if character == "[":
            return _One(self._set(at))
        if character == ".":
            return _One(lambda c: c != "\n")
        if character in "^$":
            return _Anchor(character)
        if character == "\\":
            return _Anchor("b") if self._peek() == "b" and self._take() else _One(self._escaped())
        if character in "*+?{}]":
            raise PatternError(f"write \\{character} for the character itself", at)
        return _One(_exactly(character))

    def _group(self, at: int) -> _Node:
        if self._text.startswith("?:", self._at):
            self._at += 2
        elif self._peek() == "?":
            raise PatternError("groups are plain: no (?...)", at)
        node = self._either()
        if self._peek() != ")":
            raise PatternError("this ( is never closed", at)
        self._at += 1
        return node

    def _escaped(self) -> Callable[[str], bool]:
        at = self._at - 1
        character = self._take()
        if character in _CLASSES:
            return _CLASSES[character]
        if character.isalnum():
            raise PatternError(f"\\{character} is not in the subset: \\d \\w \\s \\b", at)
        return _exactly(character)

    def _set(self, at: int) -> Callable[[str], bool]:
        negated = self._peek() == "^"
        self._at += negated
        tests: list[Callable[[str], bool]] = []
        while self._peek() != "]" or not tests:
            if not self._peek():
                raise PatternError("this [ is never closed", at)
            tests.append(self._member())
        self._at += 1
        return lambda c: any(test(c) for test in tests) != negated

    def _member(self) -> Callable[[str], bool]:
        at = self._at
        first = self._take()
        if first == "\\":
            return self._escaped()
        following = self._text[self._at + 1 : self._at + 2]
        if self._peek() != "-" or following in ("]", ""):
            return _exactly(first)
        self._at += 1
        last = self._take()
        if last == "\\" or last < first:
            raise PatternError("expected a range such as a-z", at)
        return _between(first, last)
