"""Markdown that reads well as it stands: prose wrapped at 80 columns, tables aligned."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

from dicom_node.domain.text import printable

WIDTH = 80


class Page:
    """A document, built from above."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._heads: list[tuple[str, str]] = []
        self._contents_at: int | None = None

    def title(self, text: str) -> None:
        """Its name."""
        self._parts.append(f"# {text}")

    def contents(self) -> None:
        """Here stands the list of the sections, when all are known."""
        self._contents_at = len(self._parts)

    def head(self, number: str, text: str) -> None:
        """A section; its depth is that of its number."""
        self._heads.append((number, text))
        self._parts.append(f"{'#' * min(number.count('.') + 2, 6)} {number} {text}")

    def say(self, *sentences: str) -> None:
        """A paragraph."""
        self._parts.append(_wrapped(" ".join(sentences)))

    def items(self, texts: Iterable[str]) -> None:
        """A list."""
        lines = [_wrapped(text, first="- ", other="  ") for text in texts]
        if lines:
            self._parts.append("\n".join(lines))

    def drawing(self, text: str) -> None:
        """Lines as they are."""
        self._parts.append(f"```text\n{text.rstrip()}\n```")

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Columns aligned; the last, which may be long, is not filled up."""
        cells = [[_cell(text) for text in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)][:-1]
        rule = ["-" * width for width in widths] + ["---"]
        lines = [
            " | ".join([*(t.ljust(w) for t, w in zip(row, widths, strict=False)), row[-1]])
            for row in (list(heads), rule, *cells)
        ]
        self._parts.append("\n".join(f"| {line} |" for line in lines))

    def text(self) -> str:
        """All of it."""
        parts = list(self._parts)
        if self._contents_at is not None:
            shallow = [(n, t) for n, t in self._heads if n.count(".") < _DEPTH]
            lines = [f"{'  ' * n.count('.')}- {n} {t}" for n, t in shallow]
            parts.insert(self._contents_at, "\n".join(lines))
        return "\n\n".join(parts) + "\n"


_DEPTH = 3  # of the sections in the list of contents


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")


def _wrapped(text: str, first: str = "", other: str = "") -> str:
    lines = textwrap.wrap(
        printable(text),
        WIDTH,
        initial_indent=first,
        subsequent_indent=other,
        break_long_words=False,
        break_on_hyphens=False,
    )
    # what begins a list or a head in Markdown must not begin a line of prose
    return "\n".join(re.sub(r"^( *)([-+*#>]|\d+\.) ", r"\1\\\2 ", line) if i else line
                     for i, line in enumerate(lines))  # fmt: skip
