"""Text for people: wrapped to the terminal, indented under its head, safe to print."""

from __future__ import annotations

import shutil
import sys
import textwrap

import click

from dicom_node.domain.text import printable

WIDTH = 80


def width() -> int:
    """Columns to fill: those of the terminal, within reason; 80 where there is none."""
    columns = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH
    return min(max(columns, 60), 120)


def wrapped(text: str, *, indent: int = 0, head: str = "") -> str:
    """`text` in lines, all but the first indented; `head` stands in front of the first.

    Nothing is broken inside a word, so that a UID can be copied.
    """
    lines = textwrap.wrap(
        printable(text),
        max(width() - indent, 20),
        break_long_words=False,
        break_on_hyphens=False,
    )
    first, *more = lines or [""]
    return "\n".join((f"{head:<{indent}}{first}".rstrip(), *(" " * indent + line for line in more)))


def say(
    text: str, *, indent: int = 0, head: str = "", colour: str | None = None, bold: bool = False
) -> None:
    """Print it on standard output."""
    click.secho(wrapped(text, indent=indent, head=head), fg=colour, bold=bold)
