"""What a query found, in lines of at most 80 columns, with each UID whole on a line of its own."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from dicom_node.cli.asking import WIDTH, cell
from dicom_node.dimse.query import Level
from dicom_node.domain.records import Attributes

_UIDS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
_NOUNS = {"STUDY": "studies", "SERIES": "series", "IMAGE": "images"}
_ONE = {"STUDY": "study", "SERIES": "series", "IMAGE": "image"}
_HEADS = {
    "STUDY": ("patient ID", "patient name", "date", "modality", "series", "images"),
    "SERIES": ("number", "modality", "images", "description"),
    "IMAGE": ("number", "frames", "SOP Class"),
}
_WIDTHS = {"STUDY": (16, 24, 10, 9, 6, 6), "SERIES": (6, 8, 6, 50), "IMAGE": (6, 6, 50)}


def show(level: Level, matches: Sequence[Attributes], to: Console, *, cut: bool = False) -> None:
    """Print the matches; cut: say that there are more."""
    if not matches:
        to.print(f"no {_NOUNS[level]} found")
        return
    to.print(_line(level, _HEADS[level]), style="bold", markup=False)
    for match in _sorted(level, matches):
        to.print(_line(level, _values(level, match)), markup=False)
        if level == "STUDY":
            to.print(_described(match), markup=False)
        to.print(cell(f"  {text(match, _UIDS[level])}", WIDTH).rstrip(), style="dim", markup=False)
    more = ", and there are more: narrow the query, or raise --limit" if cut else ""
    noun = _NOUNS[level] if len(matches) != 1 else _ONE[level]
    to.print(f"{len(matches)} {noun}{more}", markup=False)


def text(match: Attributes, keyword: str) -> str:
    """A value as text; several with a comma; "" where the peer does not tell."""
    value = match.get(keyword, "")
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _sorted(level: Level, matches: Sequence[Attributes]) -> list[Attributes]:
    """Newest study first; series and images by their numbers."""
    if level == "STUDY":
        return sorted(
            matches, key=lambda m: (text(m, "StudyDate"), text(m, "StudyTime")), reverse=True
        )
    keyword = "SeriesNumber" if level == "SERIES" else "InstanceNumber"
    return sorted(matches, key=lambda m: (len(text(m, keyword)), text(m, keyword)))


def _values(level: Level, match: Attributes) -> tuple[str, ...]:
    if level == "STUDY":
        return (
            text(match, "PatientID"),
            text(match, "PatientName"),
            _date(text(match, "StudyDate")),
            text(match, "ModalitiesInStudy").replace(", ", "+"),
            text(match, "NumberOfStudyRelatedSeries").rjust(6),
            text(match, "NumberOfStudyRelatedInstances").rjust(6),
        )
    if level == "SERIES":
        return (
            text(match, "SeriesNumber").rjust(6),
            text(match, "Modality"),
            text(match, "NumberOfSeriesRelatedInstances").rjust(6),
            text(match, "SeriesDescription"),
        )
    return (
        text(match, "InstanceNumber").rjust(6),
        text(match, "NumberOfFrames").rjust(6),
        text(match, "SOPClassUID"),
    )


def _line(level: Level, values: Sequence[str]) -> str:
    widths = _WIDTHS[level]
    return " ".join(cell(v, w) for v, w in zip(values, widths, strict=True)).rstrip()


def _described(match: Attributes) -> str:
    accession = text(match, "AccessionNumber")
    parts = (text(match, "StudyDescription"), f"accession {accession}" if accession else "")
    return cell("  " + ", ".join(part for part in parts if part), WIDTH).rstrip()


def _date(value: str) -> str:
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if len(value) == 8 else value
