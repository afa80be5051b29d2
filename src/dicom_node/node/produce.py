"""From the planes of one Series to result objects: read, gate, infer, encode. Keeps nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dicom_node.decide import subject
from dicom_node.decide.gate import (
    Admission,
    Repeats,
    admission,
    repeat_findings,
    repeats,
    stack_findings,
)
from dicom_node.decide.geometry import Fault, Finding, NotAStack, stack_of
from dicom_node.decide.plausibility import values_finding
from dicom_node.domain.errors import NodeError, NotAVolume, ToolError
from dicom_node.domain.policy import InputPolicy
from dicom_node.domain.tool import (
    DOUBTFUL,
    VOLUME,
    ImageProcessingTool,
    NotApplicable,
    ProcessingResult,
    ToolContext,
)
from dicom_node.iod.code_stream import Decode
from dicom_node.iod.image import HERE, Reading, read_volume, same_pixels, values_of
from dicom_node.iod.resample import mapped_back, regular
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.node.encode import NOTHING, SEG, Earlier, Produced, Source, Work, encoded

if TYPE_CHECKING:
    from dicom_node.domain.records import Attributes
    from dicom_node.domain.volume import Volume
    from dicom_node.node.ahead import Kept


_NO_DEPTH = (
    "Warning: the thickness of the only plane is not known: 1 mm stands for it, and no volume is "
    "given."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one run gave.

    seconds: of decode, infer and encode, and of resample where that was done. volume and results:
    to look at. notes: of the results, with the doubts and the warnings about their input first.
    doubts: of the tool about its results.
    """

    produced: tuple[Produced, ...]
    results: tuple[ProcessingResult, ...]
    volume: Volume
    sources: tuple[Source, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


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
    reading: Reading = HERE,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    kinds: Sequence[str] = (SEG,),
    earlier: Earlier = NOTHING,
    kept: Kept | None = None,
) -> Outcome:
    """Run a tool on the planes of one Series, if its policy admits them.

    kinds: of objects to make; a result may give one, or many, of each. earlier: results that the
    new ones replace, and name. kept: what was prepared while the Series arrived; it changes nothing
    but the time. Raises NotAVolume or PixelsUndecodable where the objects do not suit, ToolError
    where the tool fails. The same arguments give the same bytes.
    """
    seconds: dict[str, float] = {}
    policy = tool.input_policy()
    with _timed(seconds, "decode"):
        judged = judge(sources, policy, reading.decode)
        _admitted(judged.findings, policy)
        if not judged.sources:
            raise NotAVolume(judged.findings[-1].reason)
        ordered = judged.sources
        header = ordered[0].attributes
        suits = tool.can_process_image(header)
        if isinstance(suits, NotApplicable):
            raise NotAVolume(suits.reason)
        volume = _volume(ordered, reading, kept)
        admitted = _admitted((*judged.findings, *judge_values(volume, header)), policy)
    context = ToolContext(header=header, progress=progress, memory=kept.memory if kept else None)
    results = _results(tool, volume, context, admitted, seconds)
    with _timed(seconds, "encode"):
        work = Work(
            volume=volume,
            sources=ordered,
            identity=tool.identity(),
            tool_version="+".join((tool.version_id(), *admitted.treated)),
            settings=settings,
            earlier=earlier,
        )
        produced = tuple(
            made
            for index, result in enumerate(results)
            for made in encoded(result, index, work, kinds)
        )
    notes = tuple(note for result in results for note in (*result.warnings, *result.notes))
    return Outcome(
        produced=produced,
        results=tuple(results),
        volume=volume,
        sources=ordered,
        seconds=seconds,
        notes=tuple(dict.fromkeys(notes)),
        doubts=tuple(dict.fromkeys(doubt for result in results for doubt in result.doubts)),
    )


def _volume(ordered: Sequence[Source], reading: Reading, kept: Kept | None) -> Volume:
    paths = [source.path for source in ordered]
    if kept is None:
        return read_volume(paths, tolerate=frozenset(Fault), reading=reading)
    planes = {s.path: kept.planes[s.sha256] for s in ordered if s.sha256 in kept.planes}
    volume = read_volume(paths, tolerate=frozenset(Fault), reading=reading, planes=planes)
    kept.planes.clear()  # they are in the volume
    return replace(volume, slice_keys=tuple(source.sha256 for source in ordered))


def judge(sources: Sequence[Source], policy: InputPolicy, decode: Decode) -> Judged:
    """What is unusual about the planes of a Series, for a tool with this policy.

    Pixels are looked at only where planes lie at one position; decode is given what is compressed.
    Raises PixelsUndecodable.
    """
    headers = [source.attributes for source in sources]
    findings = subject.mixed(headers)
    if findings:
        return Judged(sources=(), findings=findings)  # no plane of one is held against the other's
    repeated = repeats(headers)
    findings = _repeat_findings(repeated, {source.uid: source for source in sources}, decode)
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


def _repeat_findings(
    repeated: Repeats, by_uid: Mapping[str, Source], decode: Decode
) -> tuple[Finding, ...]:
    groups = ([by_uid[uid].path for uid in group] for group in repeated.groups)
    same = [same_pixels(group, decode) for group in groups]
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
    warnings = admitted.warnings
    if not volume.depth_known:
        results = [_without_volumes(result) for result in results]
        warnings = (*warnings, _NO_DEPTH)
    return [_warned(result, warnings) for result in results]


def _warned(result: ProcessingResult, warnings: Sequence[str]) -> ProcessingResult:
    """The doubts about the result, and the warnings about the input, where readers look.

    The doubts first: of many sentences not everywhere is room for all.
    """
    said = (*(DOUBTFUL + doubt for doubt in result.doubts), *warnings)
    return replace(result, warnings=said) if said else result


def _without_volumes(result: ProcessingResult) -> ProcessingResult:
    measurements = tuple(m for m in result.measurements if m.name != VOLUME)
    return replace(result, measurements=measurements)


def _mapped_back(result: ProcessingResult, grid: Volume, source: Volume) -> ProcessingResult:
    """The result on the planes of the source; volumes are those of what is left of its labels."""
    if result.labels_zyx.shape != grid.voxels_zyx.shape:
        raise ToolError(f"the labels have the shape {result.labels_zyx.shape}, not that of voxels")
    labels = mapped_back(result.labels_zyx, grid, source)
    ml = source.ml_of(labels)
    measurements = tuple(
        replace(m, value=round(ml.get(m.segment or 0, 0.0), 2)) if m.name == VOLUME else m
        for m in result.measurements
    )
    return replace(result, labels_zyx=labels, measurements=measurements)


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


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - began
