"""`echo` and `find`: is a peer there, and what does it have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import click

from dicom_node.cli import audited, listing
from dicom_node.cli.asking import (
    a_uid,
    peer_argument,
    peer_offering,
    status_text,
    timeout_option,
    timeouts,
)
from dicom_node.cli.common import (
    EXIT_FAILED,
    complain,
    config_option,
    console,
    find_peer,
    json_option,
    print_json,
)
from dicom_node.cli.diagnosis import diagnosis
from dicom_node.config.load import load
from dicom_node.dimse import scu
from dicom_node.dimse.query import Level
from dicom_node.domain.errors import PeerError

_DATE = re.compile(r"[0-9]{8}(-([0-9]{8})?)?|-[0-9]{8}")  # PS3.4 §C.2.2.2.5
_CANCELLED = 0xFE00

STUDY_KEYS = (
    *("PatientID", "PatientName", "StudyInstanceUID", "StudyDate", "StudyTime"),
    *("AccessionNumber", "ModalitiesInStudy", "StudyDescription"),
    *("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"),
)
SERIES_KEYS = (
    *("StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber"),
    *("SeriesDescription", "BodyPartExamined", "NumberOfSeriesRelatedInstances"),
)
IMAGE_KEYS = (
    *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"),
    *("InstanceNumber", "NumberOfFrames"),
)
_ASKED: dict[Level, tuple[str, ...]] = {
    "STUDY": STUDY_KEYS,
    "SERIES": SERIES_KEYS,
    "IMAGE": IMAGE_KEYS,
}

_KEYWORDS: dict[Level, dict[str, str]] = {
    "STUDY": {
        "patient": "PatientID",
        "accession": "AccessionNumber",
        "study": "StudyInstanceUID",
        "date": "StudyDate",
        "modality": "ModalitiesInStudy",
    },
    "SERIES": {
        "study": "StudyInstanceUID",
        "series": "SeriesInstanceUID",
        "modality": "Modality",
    },
    "IMAGE": {"study": "StudyInstanceUID", "series": "SeriesInstanceUID"},
}
"""Which filters there are at each level: option -> keyword. A level has no keys of another."""

_UID_FILTERS = ("study", "series")
_FILTERS = "dicom_node.filters"

F = TypeVar("F", bound=Callable[..., Any])


@click.command()
@peer_argument
@click.option("--count", default=1, show_default=True, type=click.IntRange(1, 1000),
              help="How often to ask.")  # fmt: skip
@timeout_option(10.0)
@config_option
@json_option
def echo(peer: str, count: int, answer_s: float, config_path: Path | None, as_json: bool) -> int:
    """C-ECHO: does PEER answer, and if not, why?

    PEER is a configured name, the AE title of a configured peer, or AET@host:port.
    """
    config = load(config_path)
    other = find_peer(peer, config)
    rows: list[dict[str, Any]] = []
    for _ in range(count):
        began = perf_counter()
        outcome = scu.echo(
            peer=other, calling_ae=config.node.ae_title, timeouts=timeouts(config, answer_s)
        )
        milliseconds = round((perf_counter() - began) * 1000, 1)
        problem = ""
        if not outcome.succeeded:
            problem = diagnosis(outcome, other, config, asked="echo")
        rows.append(
            {
                "status": status_text(outcome),
                "milliseconds": milliseconds,
                "succeeded": outcome.succeeded,
                "problem": problem,
            }
        )
        where = f"{other.ae_title} at {other.host}:{other.port}"
        if problem and not as_json:
            complain(problem)
        elif not as_json:
            click.echo(f"{where}: {status_text(outcome)} success in {milliseconds:g} ms")
    if as_json:
        print_json({"peer": other.ae_title, "host": other.host, "port": other.port, "echoes": rows})
    return 0 if all(row["succeeded"] for row in rows) else EXIT_FAILED


def _keep(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Callback of a filter: where it was given, it is kept in the context."""
    if param.name in _UID_FILTERS:
        value = a_uid(ctx, param, value)
    if value is not None:
        ctx.meta.setdefault(_FILTERS, {})[param.name] = value


def _filter(name: str, metavar: str, text: str) -> Callable[[F], F]:
    return click.option(name, metavar=metavar, help=text, callback=_keep, expose_value=False)


@click.command()
@peer_argument
@click.option("--level", default="study", show_default=True,
              type=click.Choice(["study", "series", "image"]), help="What to list.")  # fmt: skip
@_filter("--patient", "ID", "Patient ID; * and ? match anything.")
@_filter("--accession", "NUMBER", "Accession Number.")
@_filter("--study", "UID", "Study Instance UID; needed below the study level.")
@_filter("--series", "UID", "Series Instance UID; needed at the image level.")
@_filter("--date", "DATE", "Study Date: 20240131, or 20240101-20240131, or 20240101-.")
@_filter("--modality", "CT", "Modality.")
@click.option("--key", "more", multiple=True, metavar="KEYWORD=VALUE",
              help="Any other key; with an empty value only to be told it.")  # fmt: skip
@click.option("--limit", default=200, show_default=True, type=click.IntRange(1, 10_000),
              help="Stop after so many.")  # fmt: skip
@timeout_option(60.0)
@config_option
@json_option
@click.pass_context
def find(
    ctx: click.Context,
    peer: str,
    level: str,
    more: tuple[str, ...],
    limit: int,
    answer_s: float,
    config_path: Path | None,
    as_json: bool,
) -> int:
    """C-FIND: what does PEER have?

    PEER is a configured name, the AE title of a configured peer, or AET@host:port. Exit 1 if
    nothing was found.
    """
    config = load(config_path)
    other = peer_offering(peer, config, "query")
    asked = _level(level)
    keys = keys_of(asked, ctx.meta.get(_FILTERS, {}), more)
    audited.asked(config, other, "find", asked, keys)
    try:
        found = scu.find(
            peer=other,
            calling_ae=config.node.ae_title,
            level=asked,
            keys=keys,
            matches_max=limit,
            timeouts=timeouts(config, answer_s),
        )
    except PeerError as error:  # a key that cannot be asked for
        raise click.UsageError(str(error)) from error
    problem = ""
    if not found.outcome.succeeded and not (found.cut and found.outcome.status == _CANCELLED):
        problem = diagnosis(found.outcome, other, config, asked="find")
    if as_json:
        print_json(
            {
                "peer": other.ae_title,
                "level": asked,
                "status": status_text(found.outcome),
                "problem": problem,
                "cut": found.cut,
                "matches": [dict(match) for match in found.matches],
            }
        )
    elif found.matches or not problem:
        listing.show(asked, found.matches, console(), cut=found.cut)
    if problem and not as_json:
        complain(problem)
    return 0 if found.matches and not problem else EXIT_FAILED


def _level(text: str) -> Level:
    match text:
        case "series":
            return "SERIES"
        case "image":
            return "IMAGE"
        case _:
            return "STUDY"


def keys_of(
    level: Level, filters: Mapping[str, str], more: Sequence[str]
) -> dict[str, str | Sequence[str]]:
    """The keys of a query (PS3.4 §C.6.2): what is matched, and what is asked for.

    filters: option -> value. more: KEYWORD=VALUE. Raises UsageError where a filter is not one of
    the level, or not of its form.
    """
    name = level.lower()
    needed = {"STUDY": (), "SERIES": ("study",), "IMAGE": ("study", "series")}[level]
    for option in needed:
        if option not in filters:
            raise click.UsageError(f"--level {name} needs --{option} UID")
    if "date" in filters and not _DATE.fullmatch(filters["date"]):
        raise click.UsageError(f"--date {filters['date']}: 20240131 or 20240101-20240131 is wanted")
    keys: dict[str, str | Sequence[str]] = dict.fromkeys(_ASKED[level], "")
    for option, value in filters.items():
        if option not in _KEYWORDS[level]:
            raise click.UsageError(f"--{option} does not go with --level {name}")
        keys[_KEYWORDS[level][option]] = value
    for pair in more:
        keyword, equals, value = pair.partition("=")
        if not equals:
            raise click.UsageError(f"--key {pair}: KEYWORD=VALUE is wanted")
        keys[keyword] = value
    return keys
