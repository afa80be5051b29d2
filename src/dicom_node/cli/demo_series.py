"""The series that the demo shows: a folder of the user's, or the computed phantom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node.domain.errors import NodeError
from dicom_node.node.encode import Source
from dicom_node.node.offline import find_series
from dicom_node.testing.phantom import chest_phantom
from dicom_node.testing.series import write_series

PHANTOM_SLICES = 93


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSeries:
    """One CT series. truth(ordered sources) -> its labels [slice, row, column], if it has any."""

    title: str
    sources: tuple[Source, ...]
    truth: Callable[[Sequence[Source]], Any]
    has_truth: bool

    @property
    def paths(self) -> list[Path]:
        """Its files."""
        return [source.path for source in self.sources]

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return str(self.sources[0].attributes["SeriesInstanceUID"])

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return str(self.sources[0].attributes["StudyInstanceUID"])


def given_series(folder: Path) -> DemoSeries:
    """The CT series with most images under the folder. NodeError if there is none."""
    found, _ = find_series(folder)
    ct = [s for s in found if s.sources[0].attributes.get("Modality") == "CT"]
    if not ct:
        raise NodeError(f"there is no CT series under {folder}")
    largest = max(ct, key=lambda s: len(s.sources))
    first = largest.sources[0].attributes
    name = str(first.get("SeriesDescription", "")).strip()
    return DemoSeries(
        title=f"CT {name}".strip() + f", {len(largest.sources)} images",
        sources=largest.sources,
        truth=lambda _ordered: None,
        has_truth=False,
    )


def phantom_series(folder: Path) -> DemoSeries:
    """The chest phantom as DICOM files; it is computed, nobody was ever scanned for it."""
    volume, labels = chest_phantom(slices=PHANTOM_SLICES)
    if not folder.is_dir() or len(list(folder.glob("*.dcm"))) != PHANTOM_SLICES:
        write_series(folder, volume)
    (series,), _ = find_series(folder)
    return DemoSeries(
        title=f"chest phantom (computed), {len(series.sources)} images",
        sources=series.sources,
        truth=lambda _ordered: labels,
        has_truth=True,
    )
