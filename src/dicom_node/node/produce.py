"""From the planes of one Series to result objects: read, gate, infer, encode. Keeps nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.decide.geometry import NotAStack, stack_of
from dicom_node.decide.moment import content_moment
from dicom_node.domain.errors import NodeError, NotAVolume, ToolError
from dicom_node.domain.tool import (
    ImageProcessingTool,
    NotApplicable,
    ProcessingResult,
    SegmentationResult,
    ToolContext,
)
from dicom_node.iod.identity import result_uids
from dicom_node.iod.image import read_volume
from dicom_node.iod.seg import encode_segmentation
from dicom_node.iod.seg_settings import SegSettings

if TYPE_CHECKING:
    from dicom_node.domain.records import Attributes
    from dicom_node.domain.volume import Volume


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
class Outcome:
    """What one run gave. seconds: of decode, infer and encode. volume and results: to look at."""

    produced: tuple[Produced, ...]
    results: tuple[ProcessingResult, ...]
    volume: Volume
    sources: tuple[Source, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def produce(
    sources: Sequence[Source],
    tool: ImageProcessingTool,
    settings: SegSettings,
    *,
    threads: int = 2,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Outcome:
    """Run a tool on the planes of one Series.

    Raises NotAVolume or PixelsUndecodable where the objects do not suit, ToolError where the tool
    fails. The same sources and tool give the same bytes.
    """
    seconds: dict[str, float] = {}
    ordered = in_order(sources)
    header = ordered[0].attributes
    suits = tool.can_process_image(header)
    if isinstance(suits, NotApplicable):
        raise NotAVolume(suits.reason)
    with _timed(seconds, "decode"):
        volume = read_volume([source.path for source in ordered], threads=threads)
    with _timed(seconds, "infer"):
        results = _run(tool, volume, ToolContext(header=header, progress=progress))
    with _timed(seconds, "encode"):
        produced = tuple(
            _encode(result, index, ordered, tool, settings) for index, result in enumerate(results)
        )
    notes = tuple(note for result in results for note in result.notes)
    return Outcome(
        produced=produced,
        results=tuple(results),
        volume=volume,
        sources=tuple(ordered),
        seconds=seconds,
        notes=notes,
    )


def in_order(sources: Sequence[Source]) -> list[Source]:
    """The sources along the normal. Raises NotAVolume with the geometry's reason."""
    found = stack_of([source.attributes for source in sources])
    if isinstance(found, NotAStack):
        raise NotAVolume(found.reason)
    by_uid = {source.uid: source for source in sources}
    return [by_uid[uid] for uid in found.uids]


def _run(
    tool: ImageProcessingTool, volume: Volume, context: ToolContext
) -> Sequence[ProcessingResult]:
    """Anybody's code: whatever it raises is the tool's failure, not the node's."""
    try:
        return tool.process(volume, context)
    except NodeError:
        raise
    except Exception as error:  # a tool may raise anything
        raise ToolError(f"{type(error).__name__}: {error}") from error


def _encode(
    result: SegmentationResult,
    index: int,
    ordered: Sequence[Source],
    tool: ImageProcessingTool,
    settings: SegSettings,
) -> Produced:
    identity = tool.identity()
    series_uid, sop_uid = result_uids(
        [(source.uid, source.sha256) for source in ordered],
        tool_id=identity.tool_id,
        tool_version=tool.version_id(),
        digest=identity.digest,
        kind=result.kind,
        index=index,
    )
    encoded = encode_segmentation(
        result,
        source_paths=[source.path for source in ordered],
        identity=identity,
        settings=settings,
        uids=(series_uid, sop_uid),
        content_at=content_moment([source.attributes for source in ordered]),
    )
    return Produced(
        data=encoded,
        sop_instance_uid=sop_uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_uid=series_uid,
        study_uid=str(ordered[0].attributes["StudyInstanceUID"]),
        kind="seg",
        summary=summary_of(result),
    )


def summary_of(result: SegmentationResult) -> Mapping[str, float]:
    """Segment label -> its first measurement, for people."""
    labels = {segment.number: segment.label for segment in result.segments}
    return {
        labels[m.segment]: round(m.value, 1) for m in result.measurements if m.segment in labels
    }


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - began
