"""WHAT: the number that a command is given, and the series that it led to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from dicom_node.cli.telling import say
from dicom_node.domain.records import Series

LISTED = 40  # series; --json lists all

F = TypeVar("F", bound=Callable[..., Any])


def what_argument(*, required: bool = True) -> Callable[[F], F]:
    """WHAT: a UID, an accession number or a patient ID; never the empty text, which is what a
    variable holds that nobody has set."""

    def decorate(command: F) -> F:
        return click.argument("what", required=required, callback=_text)(command)

    return decorate


def _text(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise click.BadParameter("it is empty: give a UID, an accession number ...", ctx, param)
    return None if value is None else value.strip()


def named(some: Sequence[Series]) -> list[dict[str, str]]:
    """Which series they are, for programs."""
    return [{"series_uid": s.series_uid, "description": _described(s)} for s in some]


def list_them(some: Sequence[Series]) -> None:
    """Which series they are, if they are more than one: a line each."""
    if len(some) < 2:
        return
    for series in some[:LISTED]:
        say(f"{series.series_uid}  {_described(series)}", head="  ", indent=2)
    if len(some) > LISTED:
        say(f"and {len(some) - LISTED} more: --json lists all", head="  ", indent=2)


def _described(series: Series) -> str:
    return " ".join(part for part in (series.modality, series.description) if part) or "?"
