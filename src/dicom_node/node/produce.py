"""From the planes of one Series to result objects: read, gate, infer, encode. Keeps nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.decide.gate import (
    Admission,
    Repeats,
    admission,
    repeat_findings,
    repeats,
    stack_findings,
)
from dicom_node.decide.geometry import Fault, Finding, NotAStack, stack_of
from dicom_node.decide.moment import content_moment
from dicom_node.decide.plausibility import values_finding
from dicom_node.domain.errors import NodeError, NotAVolume, ToolError
from dicom_node.domain.policy import InputPolicy
from dicom_node.domain.tool import (
    ImageProcessingTool,
    NotApplicable,
    ProcessingResult,
    SegmentationResult,
    ToolContext,
)
from dicom_node.iod.identity import result_uids
from dicom_node.iod.image import read_volume, same_pixels, values_of
from dicom_node.iod.resample import mapped_back, regular
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
    """What one run gave.

    seconds: of decode, infer and encode, and of resample where that was done. volume and results:
    to look at. notes: of the results, with the warnings about their input first.
    """

    produced: tuple[Produced, ...]
    results: tuple[ProcessingResult, ...]
    volume: Volume
    sources: tuple[Source, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A Series before the gate.

    sources: along the normal, one at a position; none where they make no stack, which the last
    finding explains. findings: all that is unusual, as far as headers tell it (and the pixels of
    planes at one position).
    """

    sources: tuple[Source, ...]
    findings: tuple[Finding, ...]


def produce(
    sources: Sequence[Source],
    tool: ImageProcessingTool,
    settings: SegSettings,
    *,
    threads: int = 2,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Outcome:
    """Run a tool on the planes of one Series, if its policy admits them.

    Raises NotAVolume or PixelsUndecodable where the objects do not suit, ToolError where the tool
    fails. The same sources and tool give the same bytes.
    """
    seconds: dict[str, float] = {}
    policy = tool.input_policy()
    with _timed(seconds, "decode"):
        judged = judge(sources, policy)
        _admitted(judged.findings, policy)
        if not judged.sources:
            raise NotAVolume(judged.findings[-1].reason)
        ordered = judged.sources
        header = ordered[0].attributes
        suits = tool.can_process_image(header)
        if isinstance(suits, NotApplicable):
            raise NotAVolume(suits.reason)
        volume = read_volume(
            [source.path for source in ordered], tolerate=frozenset(Fault), threads=threads
        )
        admitted = _admitted((*judged.findings, *judge_values(volume, header)), policy)
    context = ToolContext(header=header, progress=progress)
    results = _results(tool, volume, context, admitted, seconds)
    with _timed(seconds, "encode"):
        produced = tuple(
            _encode(result, index, ordered, tool, settings, admitted)
            for index, result in enumerate(results)
        )
    notes = tuple(note for result in results for note in (*result.warnings, *result.notes))
    return Outcome(
        produced=produced,
        results=tuple(results),
        volume=volume,
        sources=ordered,
        seconds=seconds,
        notes=tuple(dict.fromkeys(notes)),
    )


def in_order(sources: Sequence[Source]) -> list[Source]:
    """The sources along the normal. Raises NotAVolume with the geometry's reason."""
    found = stack_of([source.attributes for source in sources])
    if isinstance(found, NotAStack):
        raise NotAVolume(found.reason)
    by_uid = {source.uid: source for source in sources}
    return [by_uid[uid] for uid in found.uids]


def judge(sources: Sequence[Source], policy: InputPolicy) -> Judged:
    """What is unusual about the planes of a Series, for a tool with this policy.

    Pixels are looked at only where planes lie at one position. Raises PixelsUndecodable.
    """
    repeated = repeats([source.attributes for source in sources])
    findings = _repeat_findings(repeated, {source.uid: source for source in sources})
    kept = [source for source in sources if source.uid not in repeated.dropped]
    found = stack_of([source.attributes for source in kept], tolerate=frozenset(Fault))
    if isinstance(found, NotAStack):
        failed = Finding(code=found.fault, reason=found.reason, missing=found.missing)
        return Judged(sources=(), findings=(*findings, failed))
    by_uid = {source.uid: source for source in kept}
    ordered = tuple(by_uid[uid] for uid in found.uids)
    return Judged(
        sources=ordered,
        findings=(*findings, *stack_findings(found, ordered[0].attributes, policy)),
    )


def judge_values(volume: Volume, header: Attributes) -> tuple[Finding, ...]:
    """What is wrong with the values of a CT; other modalities have no such scale."""
    found = values_finding(values_of(volume)) if header.get("Modality") == "CT" else None
    return () if found is None else (found,)


def _repeat_findings(repeated: Repeats, by_uid: Mapping[str, Source]) -> tuple[Finding, ...]:
    same = [same_pixels([by_uid[uid].path for uid in group]) for group in repeated.groups]
    return repeat_findings(repeated, same)


def _admitted(findings: Sequence[Finding], policy: InputPolicy) -> Admission:
    """The policy applied. Raises NotAVolume where it refuses."""
    found = admission(findings, policy)
    if found.refusal:
        raise NotAVolume(found.refusal)
    return found


def _results(
    tool: ImageProcessingTool,
    volume: Volume,
    context: ToolContext,
    admitted: Admission,
    seconds: dict[str, float],
) -> Sequence[ProcessingResult]:
    """What the tool gives, on the grid of `volume`, with the warnings in it."""
    given = volume
    if admitted.resample:
        with _timed(seconds, "resample"):
            given = regular(volume)
    with _timed(seconds, "infer"):
        results = _run(tool, given, context)
    if admitted.resample:
        with _timed(seconds, "map back"):
            results = [_mapped_back(result, given, volume) for result in results]
    if admitted.warnings:
        results = [replace(result, warnings=admitted.warnings) for result in results]
    return results


def _mapped_back(result: ProcessingResult, grid: Volume, source: Volume) -> ProcessingResult:
    if result.labels_zyx.shape != grid.voxels_zyx.shape:
        raise ToolError(f"the labels have the shape {result.labels_zyx.shape}, not that of voxels")
    return replace(result, labels_zyx=mapped_back(result.labels_zyx, grid, source))


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
    admitted: Admission,
) -> Produced:
    identity = tool.identity()
    series_uid, sop_uid = result_uids(
        [(source.uid, source.sha256) for source in ordered],
        tool_id=identity.tool_id,
        tool_version="+".join((tool.version_id(), *admitted.treated)),
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
