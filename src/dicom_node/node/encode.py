"""What a tool found, as result objects of the kinds that are asked for: one encoder a kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from dicom_node.decide.moment import content_moment
from dicom_node.domain.tool import AlgorithmIdentity, SegmentationResult
from dicom_node.iod import secondary
from dicom_node.iod.identity import result_uids
from dicom_node.iod.replacing import Replacement
from dicom_node.iod.secondary import encode_secondary_captures
from dicom_node.iod.seg import encode_segmentation
from dicom_node.iod.seg_settings import SegSettings

if TYPE_CHECKING:
    from dicom_node.domain.records import Attributes
    from dicom_node.domain.volume import Volume

SEG, SC = "seg", "sc"
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One instance to read: its file, its header attributes, the digest of its file."""

    path: Path
    attributes: Attributes
    sha256: str

    @property
    def uid(self) -> str:
        """Its SOP Instance UID."""
        return str(self.attributes["SOPInstanceUID"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Produced:
    """One result object as the bytes of a Part 10 file, with what the catalog keeps of it."""

    data: bytes
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    series_uid: str
    study_uid: str
    kind: str
    summary: Attributes


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What all objects of one run are made from.

    tool_version: with how the input was treated. replaces: earlier results; an object names those
    of its own kind.
    """

    volume: Volume
    sources: Sequence[Source]
    identity: AlgorithmIdentity
    tool_version: str
    settings: SegSettings
    replaces: Sequence[Replacement] = ()

    def replaced(self, kind: str) -> tuple[Replacement, ...]:
        """The earlier results of a kind."""
        return tuple(r for r in self.replaces if r.kind == kind)

    def uids(self, kind: str, name: str, index: int) -> tuple[str, str]:
        """Series and SOP Instance UID of the object number `index`; name: of its content."""
        return result_uids(
            [(source.uid, source.sha256) for source in self.sources],
            tool_id=self.identity.tool_id,
            tool_version=self.tool_version,
            digest=self.identity.digest,
            kind=name,
            index=index,
            replaces=[r.sop_instance_uid for r in self.replaced(kind)],
        )


def encoded(
    result: SegmentationResult, index: int, work: Work, kinds: Sequence[str]
) -> Iterator[Produced]:
    """The objects of result number `index`, kind after kind; unknown kinds give none."""
    for kind in dict.fromkeys(kinds):
        if kind in _ENCODERS:
            yield from _ENCODERS[kind](result, index, work)


def summary_of(result: SegmentationResult) -> Mapping[str, float]:
    """Segment label -> its first measurement, for people."""
    labels = {segment.number: segment.label for segment in result.segments}
    return {
        labels[m.segment]: round(m.value, 1) for m in result.measurements if m.segment in labels
    }


def _segmentation(result: SegmentationResult, index: int, work: Work) -> Iterator[Produced]:
    series_uid, sop_uid = work.uids(SEG, result.kind, index)
    data = encode_segmentation(
        result,
        source_paths=[source.path for source in work.sources],
        identity=work.identity,
        settings=work.settings,
        uids=(series_uid, sop_uid),
        content_at=content_moment([source.attributes for source in work.sources]),
        replaces=work.replaced(SEG),
    )
    yield _produced(SEG, _SEGMENTATION_STORAGE, (series_uid, sop_uid, data), work, result)


def _secondary_captures(result: SegmentationResult, index: int, work: Work) -> Iterator[Produced]:
    series_uid, _ = work.uids(SC, SC, index)
    captures = encode_secondary_captures(
        result,
        volume=work.volume,
        source_paths=[source.path for source in work.sources],
        identity=work.identity,
        settings=work.settings,
        series_uid=series_uid,
        content_at=content_moment([source.attributes for source in work.sources]),
        replaces=work.replaced(SC),
    )
    for capture in captures:
        made = (series_uid, capture.sop_instance_uid, capture.data)
        yield _produced(SC, secondary.SOP_CLASS_UID, made, work, result)


def _produced(
    kind: str,
    sop_class_uid: str,
    made: tuple[str, str, bytes],
    work: Work,
    result: SegmentationResult,
) -> Produced:
    series_uid, sop_instance_uid, data = made
    return Produced(
        data=data,
        sop_instance_uid=sop_instance_uid,
        sop_class_uid=sop_class_uid,
        transfer_syntax_uid=_EXPLICIT_LITTLE,
        series_uid=series_uid,
        study_uid=str(work.sources[0].attributes["StudyInstanceUID"]),
        kind=kind,
        summary=summary_of(result),
    )


_ENCODERS: Mapping[str, Callable[[SegmentationResult, int, Work], Iterator[Produced]]] = (
    MappingProxyType({SEG: _segmentation, SC: _secondary_captures})
)
