"""How a result says which earlier one it replaces.

No attribute of a Segmentation or a Secondary Capture names an instance that it supersedes: the
Predecessor Documents Sequence is for structured documents (PS3.3 C.17.2) and the Predecessor
Structure Set Sequence for RT. What is there for any Series is the Related Series Sequence of the
General Series Module (PS3.3 C.7.3.1); as each result is a Series of its own, it names the result.
Its purposes (CID 7210, extensible) have none for this: so there is a code of our own, with its
scheme declared (PS3.3 C.12.1), and the same in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from dicom_node.domain.identifiers import derived_uid
from dicom_node.iod.composing import code

EARLIER = "what was made earlier, from fewer images, by another version or with other settings"
SCHEME = "99DICOMNODE"
SCHEME_UID = derived_uid("dicom-node", "coding scheme")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """An earlier result, of a kind, that a new one of that kind replaces."""

    kind: str
    sop_instance_uid: str
    series_uid: str


def mark_of(replaces: Sequence[Replacement], *, doubtful: bool = False) -> str:
    """What a person reads behind the name in a list of Series; "" where nothing is to be said."""
    return ", DOUBTFUL" * doubtful + ", replaces earlier" * bool(replaces)


def sentence(replaces: Sequence[Replacement]) -> str:
    """What a person reads in the comments; "" where nothing is replaced."""
    if not replaces:
        return ""
    series = ", ".join(sorted({r.series_uid for r in replaces}))
    return f"Replaces series {series}: {EARLIER}."


def relate(dataset: Dataset, replaces: Sequence[Replacement]) -> None:
    """Name the replaced Series in a data set that has its Study Instance UID."""
    series = sorted({r.series_uid for r in replaces})
    if not series:
        return
    dataset.RelatedSeriesSequence = [_related(uid, str(dataset.StudyInstanceUID)) for uid in series]
    scheme = Dataset()
    scheme.CodingSchemeDesignator = SCHEME
    scheme.CodingSchemeUID = SCHEME_UID
    scheme.CodingSchemeName = "dicom-node"
    dataset.CodingSchemeIdentificationSequence = [scheme]


def _related(series_uid: str, study_uid: str) -> Dataset:
    item = Dataset()
    item.StudyInstanceUID = study_uid
    item.SeriesInstanceUID = series_uid
    item.PurposeOfReferenceCodeSequence = [code("REPLACED", SCHEME, "Replaced by this Series")]
    return item
