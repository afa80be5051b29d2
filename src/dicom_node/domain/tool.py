"""What a tool is: arrays in, results out; it knows neither DICOM objects nor files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from dicom_node.domain.policy import InputPolicy
from dicom_node.domain.volume import Volume

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A coded concept: value, coding scheme designator, meaning (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str


VOLUME = Code(value="118565006", scheme="SCT", meaning="Volume")
MILLILITRE = Code(value="mL", scheme="UCUM", meaning="mL")
WARNING = "Warning: "  # begins a sentence about the input
DOUBTFUL = "Doubtful: "  # begins a sentence in which a tool doubts its own result


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment of a segmentation (PS3.3 C.8.20.4).

    number from 1; rgb 0..255. laterality is the type's modifier (CID 244): how a lung gets a side.
    """

    number: int
    label: str
    category: Code
    type: Code
    laterality: Code | None
    rgb: tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A number with a UCUM unit, about a segment (or the whole volume where `segment` is None)."""

    name: Code
    value: float
    unit: Code
    segment: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmIdentity:
    """Who made a result (PS3.3 10.16 Algorithm Identification Macro).

    version is the tool's own; digest is the SHA-256 of its weights, or of its code.
    """

    tool_id: str
    name: str
    version: str
    digest: str
    manufacturer: str = "dicom-node"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentationResult:
    """Voxels of a Volume, each with at most one segment.

    labels_zyx: uint8, the shape of the Volume that the tool was given, 0 = background, else
        Segment.number. All zero is a readable result: nothing was found.
    notes: sentences for the reader (what was ignored); written into the object. doubts: why the
        result may be wrong. warnings: the doubts, and what is to be said of the input, by the node;
        written into the object and each segment's description, as far as there is room.
    """

    labels_zyx: NDArray[np.uint8]
    segments: tuple[Segment, ...]
    measurements: tuple[Measurement, ...] = ()
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    kind: str = "segmentation"


ProcessingResult = SegmentationResult  # further kinds join here as a union


@dataclass(frozen=True, slots=True)
class Applicable:
    """The tool can process the Series."""


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """The tool cannot, and why, in one sentence that a PACS administrator understands."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """What a running tool may know and use.

    header: attributes of the first instance (keyword -> value), for reading only.
    progress: called with (done, total), both in slices. memory: what the tool has kept of this
    Series while it arrived (see WorksAhead), or None. stop: whether to leave off working ahead.
    all_there: whether no further slice is expected, while it works ahead.
    """

    header: Mapping[str, object] = field(default_factory=dict)
    progress: Callable[[int, int], None] = lambda _done, _total: None
    memory: MutableMapping[tuple[str, ...], object] | None = None
    stop: Callable[[], bool] = lambda: False
    all_there: bool = False


class ImageProcessingTool(Protocol):
    """The contract with anybody's model."""

    def description(self) -> str:
        """What it finds, in one line."""

    def version_id(self) -> str:
        """Changes whenever the same input may give another output."""

    def identity(self) -> AlgorithmIdentity:
        """What is written into each result."""

    def can_process_image(self, header: Mapping[str, object]) -> Applicable | NotApplicable:
        """Judge by the attributes of a Series (keyword -> value, from its first instance)."""

    def input_policy(self) -> InputPolicy:
        """What is to be done with a Series that is not quite what the tool was made for."""

    def process(self, volume: Volume, context: ToolContext) -> Sequence[ProcessingResult]:
        """Read the voxels, give results on the same grid. Raises ToolError for its own failures."""


@runtime_checkable
class WorksAhead(Protocol):
    """A tool that judges slices one by one can begin while the Series still arrives."""

    def ahead(self, volume: Volume, context: ToolContext) -> None:
        """Work on the slices that are there, and leave in `context.memory` what `process` can use.

        volume: neighbouring slices; all of them where `context.all_there` is true; its voxels may
        change when this has returned. Called again and again, so what is in the memory need not be
        done again. What `process` gives must be the same, to the bit, with and without that memory:
        `volume.slice_keys` tell which slice is which, and slices may still come between any two.
        Returns when there is nothing to do, or when `context.stop()`, asked after every few slices,
        says so.
        """
