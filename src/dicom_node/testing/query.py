"""C-FIND of the test PACS: matching and answering, on plain data sets (PS3.4 §C.2.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

StatedCount = Callable[[str, int], int | None]
"""Series Instance UID, true count -> NumberOfSeriesRelatedInstances; None: not answered at all."""

UNIQUE_KEY = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
COMPUTED = frozenset(
    {
        "ModalitiesInStudy",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
        "NumberOfSeriesRelatedInstances",
        "QueryRetrieveLevel",
        "RetrieveAETitle",
        "SpecificCharacterSet",
    }
)


def true_count(_series_uid: str, count: int) -> int | None:
    """Say how many there are."""
    return count


def matching(identifier: Dataset, held: Sequence[Dataset]) -> list[Dataset]:
    """The instances of which all keys match; computed keys but ModalitiesInStudy are no filter."""
    keys = [e for e in identifier if keyword_for_tag(e.tag) not in COMPUTED]
    found = [h for h in held if all(_matches(key, h) for key in keys)]
    wanted = _values(identifier.get("ModalitiesInStudy"))
    if wanted:
        studies = {h.StudyInstanceUID for h in held if h.get("Modality") in wanted}
        found = [h for h in found if h.StudyInstanceUID in studies]
    return found


def answer(
    identifier: Dataset,
    found: Sequence[Dataset],
    ae_title: str,
    stated_count: StatedCount = true_count,
) -> Iterator[Dataset]:
    """One answer for each patient, study, series or instance, with the keys that were asked for."""
    level = str(identifier.get("QueryRetrieveLevel", "STUDY"))
    unique = UNIQUE_KEY.get(level, "StudyInstanceUID")
    groups: dict[str, list[Dataset]] = {}
    for header in found:
        groups.setdefault(str(header.get(unique, "")), []).append(header)
    for group in groups.values():
        result = Dataset()
        result.SpecificCharacterSet = group[0].get("SpecificCharacterSet", "ISO_IR 192")
        for key in identifier:
            keyword = keyword_for_tag(key.tag)
            if keyword in COMPUTED:
                continue
            result.add(
                group[0][key.tag] if key.tag in group[0] else DataElement(key.tag, key.VR, None)
            )
        result.QueryRetrieveLevel = level
        result.RetrieveAETitle = ae_title
        _count(result, identifier, group, stated_count)
        yield result


def _count(
    result: Dataset, identifier: Dataset, group: Sequence[Dataset], stated_count: StatedCount
) -> None:
    if "ModalitiesInStudy" in identifier:
        result.ModalitiesInStudy = sorted({str(h.get("Modality", "")) for h in group})
    if "NumberOfStudyRelatedSeries" in identifier:
        result.NumberOfStudyRelatedSeries = len({h.SeriesInstanceUID for h in group})
    if "NumberOfStudyRelatedInstances" in identifier:
        result.NumberOfStudyRelatedInstances = len(group)
    if "NumberOfSeriesRelatedInstances" in identifier:
        stated = stated_count(str(group[0].SeriesInstanceUID), len(group))
        if stated is not None:
            result.NumberOfSeriesRelatedInstances = stated


def _matches(key: DataElement, header: Dataset) -> bool:
    """Universal, list of UIDs, range, wildcard and single value matching."""
    wanted = _values(key.value)
    if not wanted or key.VR == "SQ":
        return True
    have = _values(header.get(key.tag).value if key.tag in header else None)
    if key.VR in ("DA", "TM", "DT") and "-" in wanted[0]:
        low, _, high = wanted[0].partition("-")
        return any((not low or v >= low) and (not high or v <= high) for v in have)
    if key.VR == "UI":
        return any(v in wanted for v in have)
    fold = str.casefold if key.VR == "PN" else str
    return any(fnmatchcase(fold(v), _pattern(fold(w))) for v in have for w in wanted)


def _pattern(wanted: str) -> str:
    return wanted.replace("[", "[[]")


def _values(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    several = value if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]
    return [str(v).strip() for v in several if str(v).strip()]
