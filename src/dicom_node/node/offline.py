"""Without a node: the series of a folder, and what a tool makes of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_node.decide import subject
from dicom_node.decide.geometry import split_localizers
from dicom_node.domain.errors import NodeError, NotDicom
from dicom_node.domain.tool import ImageProcessingTool, NotApplicable
from dicom_node.iod.header import read_attributes
from dicom_node.iod.image import Reading
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.node.applicability import Judge
from dicom_node.node.encode import Source
from dicom_node.node.produce import Outcome, produce


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSeries:
    """One series among files: its instances, each SOP Instance UID once."""

    series_uid: str
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a series: an outcome, or the reason why none."""

    series: FoundSeries
    outcome: Outcome | None = None
    reason: str = ""


def find_series(folder: Path) -> tuple[list[FoundSeries], dict[Path, str]]:
    """The series under a folder, by UID, and the files that are of none, with the reason.

    Files and folders whose name begins with a dot are not looked at.
    """
    series: dict[str, dict[str, Source]] = {}
    unused: dict[Path, str] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not _hidden(p, folder)):
        try:
            attributes = read_attributes(path)
        except NotDicom as error:
            unused[path] = str(error)
            continue
        missing = [
            name
            for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
            if not attributes.get(name)
        ]
        if missing:
            unused[path] = f"it has no {', '.join(missing)}"
            continue
        source = Source(path=path, attributes=attributes, sha256=_sha256(path))
        known = series.setdefault(str(attributes["SeriesInstanceUID"]), {})
        if source.uid in known:
            unused[path] = f"its SOP Instance UID is that of {known[source.uid].path.name}"
        known.setdefault(source.uid, source)
    found = [
        FoundSeries(series_uid=uid, sources=tuple(by_uid.values()))
        for uid, by_uid in series.items()
    ]
    return found, unused


def answers(
    found: Sequence[FoundSeries],
    tool: Callable[[], ImageProcessingTool],
    judge: Judge,
    settings: SegSettings,
    *,
    reading: Reading,
    progress: Callable[[int, int], None],
) -> Iterator[Answer]:
    """What the tool makes of each series, one after the other; the tool is loaded when needed."""
    for series in found:
        headers = [source.attributes for source in series.sources]
        mixed = subject.mixed(headers)
        if mixed:
            yield Answer(series=series, reason="; ".join(f.reason for f in mixed))
            continue
        split = split_localizers(headers)
        chosen = subject.chosen(split)
        suits = judge(subject.header(chosen))
        if isinstance(suits, NotApplicable):
            yield Answer(series=series, reason=suits.reason)
            continue
        uids = {str(attributes["SOPInstanceUID"]) for attributes in chosen}
        sources = [source for source in series.sources if source.uid in uids]
        try:
            outcome = produce(sources, tool(), settings, reading=reading, progress=progress)
        except NodeError as error:
            yield Answer(series=series, reason=str(error))
            continue
        yield Answer(series=series, outcome=outcome)


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
