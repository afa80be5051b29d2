"""How the sheet for the PACS is set: a name, and beside it the text, in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from datetime import UTC, datetime

from dicom_node.domain.text import printable

WIDTH = 80
_INDENT = 18
_GROUP = 8  # hex digits of a fingerprint


def rows(told: Iterable[tuple[str, str]]) -> Iterable[str]:
    """One after the other."""
    for name, text in told:
        yield from hanging(f"  {name}", text)


def hanging(head: str, text: str) -> list[str]:
    """The lines of one row."""
    lines = textwrap.wrap(
        printable(text), WIDTH - _INDENT, break_long_words=False, break_on_hyphens=False
    )
    first, *more = lines or [""]
    return [f"{head:<{_INDENT}}{first}", *(" " * _INDENT + line for line in more)]


def day(at: float) -> str:
    """Of a time in UTC seconds."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def fingerprint(digits: str) -> str:
    """In groups: to be compared by eye, and it fits a line no other way."""
    return " ".join(textwrap.wrap(digits, _GROUP))
