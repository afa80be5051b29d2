"""What a tool found, as result objects of the kinds that are asked for: one encoder a kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from dicom_node.decide.moment import content_moment
from dicom_node.domain.tool import AlgorithmIdentity, SegmentationResult
from dicom_node.iod import secondary
from dicom_node.iod.identity import manner, result_uids
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
    """One result object as the bytes of a Part 10 file, with what the catalog keeps of it.

    replaces: SOP Instance UIDs of the earlier results that it names.
    """

    data: bytes
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    series_uid: str
    study_uid: str
    kind: str
    summary: Attributes
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What was made of the Series before.

    replaces: what the new results take the place of; an object names those of its own kind. Unless
    it is the same object again: then it names what it named, which is one of `named`, and its
    Series is one of `series`.
    """

    replaces: tuple[Replacement, ...] = ()
    named: tuple[tuple[Replacement, ...], ...] = ()
    series: frozenset[str] = frozenset()


NOTHING = Earlier()


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What an object is called, and what it names."""

    series_uid: str
    sop_instance_uid: str
    replaces: tuple[Replacement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What all objects of one run are made from. tool_version: with how the input was treated."""

    volume: Volume
    sources: Sequence[Source]
    identity: AlgorithmIdentity
    tool_version: str
    settings: SegSettings
    earlier: Earlier

    def made(self, kind: str, name: str, index: int, result: SegmentationResult) -> Made:
        """The object number `index`; name: of its content."""
        for named in self.earlier.named:
            same = self._made(kind, name, index, result, named)
            if same.series_uid in self.earlier.series:
                return same
        return self._made(kind, name, index, result, self.earlier.replaces)

    def _made(
        self,
        kind: str,
        name: str,
        index: int,
        result: SegmentationResult,
        named: Sequence[Replacement],
    ) -> Made:
        replaces = tuple(r for r in named if r.kind == kind)
        series_uid, sop_instance_uid = result_uids(
            [(source.uid, source.sha256) for source in self.sources],
            tool_id=self.identity.tool_id,
            tool_version=self.tool_version,
            digest=self.identity.digest,
            kind=name,
            manner=manner(self.settings, self.identity, result.segments),
            index=index,
            replaces=[r.sop_instance_uid for r in replaces],
        )
        return Made(series_uid=series_uid, sop_instance_uid=sop_instance_uid, replaces=replaces)


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
    made = work.made(SEG, result.kind, index, result)
    data = encode_segmentation(
        result,
        source_paths=[source.path for source in work.sources],
        headers=[source.attributes for source in work.sources],
        identity=work.identity,
        settings=work.settings,
        uids=(made.series_uid, made.sop_instance_uid),
        content_at=content_moment([source.attributes for source in work.sources]),
        replaces=made.replaces,
    )
    yield _produced(SEG, _SEGMENTATION_STORAGE, made, data, work, result)


def _secondary_captures(result: SegmentationResult, index: int, work: Work) -> Iterator[Produced]:
    made = work.made(SC, SC, index, result)
    captures = encode_secondary_captures(
        result,
        volume=work.volume,
        source_paths=[source.path for source in work.sources],
        identity=work.identity,
        settings=work.settings,
        series_uid=made.series_uid,
        content_at=content_moment([source.attributes for source in work.sources]),
        replaces=made.replaces,
    )
    for capture in captures:
        one = replace(made, sop_instance_uid=capture.sop_instance_uid)
        yield _produced(SC, secondary.SOP_CLASS_UID, one, capture.data, work, result)


def _produced(
    kind: str,
    sop_class_uid: str,
    made: Made,
    data: bytes,
    work: Work,
    result: SegmentationResult,
) -> Produced:
    return Produced(
        data=data,
        sop_instance_uid=made.sop_instance_uid,
        sop_class_uid=sop_class_uid,
        transfer_syntax_uid=_EXPLICIT_LITTLE,
        series_uid=made.series_uid,
        study_uid=str(work.sources[0].attributes["StudyInstanceUID"]),
        kind=kind,
        summary=summary_of(result),
        replaces=tuple(r.sop_instance_uid for r in made.replaces),
    )


_ENCODERS: Mapping[str, Callable[[SegmentationResult, int, Work], Iterator[Produced]]] = (
    MappingProxyType({SEG: _segmentation, SC: _secondary_captures})
)
