"""From slices to classes: what the network is shown of each, and the way of its answer back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from dicom_node.domain.errors import ToolError
from dicom_node.domain.tool import ToolContext
from dicom_node.tools.body import body_box
from dicom_node.tools.engine import Engine, OnEngine, Placed, engine_for, on_cpu, rungs
from dicom_node.tools.lung_tool import Segmented
from dicom_node.tools.mishaps import in_short, is_device_lost, is_shortage
from dicom_node.tools.side_by_side import Crew, in_order
from dicom_node.tools.slices import FoundSlice, Shown, Triple
from dicom_node.tools.unet import REACH, SIDE, UNet, cut, fused, network_from, paste

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dicom_node.domain.volume import Volume

_log = logging.getLogger("dicom_node")
TWO_MINDS = 1.1  # difference of the logits below which the best class is not 3 times as likely

Place = Callable[[UNet, Engine, tuple[float, float]], OnEngine]
Progress = Callable[[int, int], None]


class Predictor:
    """A trained network, loaded once.

    engine: what the last answer came from; another one than at first only after a mishap, which
    says what happened to that. place: puts the network on an engine.
    """

    def __init__(
        self,
        network: UNet,
        engine: Engine,
        window_hu: tuple[float, float],
        place: Place = Placed,
    ) -> None:
        if engine.threads > 0:
            torch.set_num_threads(engine.threads)
        self.engine = engine
        self.mishap = ""
        self.window_hu = window_hu
        self._top = engine
        self._place = place
        self._network = fused(network.eval())
        self._placed: OnEngine | None = None

    def warm(self) -> None:
        """Run the network once; where memory does not suffice now, a Series finds out again.

        Raises RuntimeError where it cannot be run, and ToolError where the device is lost.
        """
        try:
            self._on(self._top).warm()
        except RuntimeError as error:
            self._placed = None
            if not is_shortage(error):
                _raise_if_lost(self._top.device, error)
                raise

    def found(
        self, shown: Shown, progress: Progress = lambda _done, _total: None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Classes of every voxel, uint8 [slice, row, column]; and how unsure each slice is.

        That is the number of pixels in two minds against those of a class but 0.

        What `shown.memory` knows is not worked out again. Memory beyond input and output is that of
        a few batches of slices. Where it does not suffice all slices are worked out anew in smaller
        batches, then on the CPU, and there by torch at once where OpenVINO fails: every answer of a
        Series comes from one engine.
        Raises ToolError.
        """
        for engine in rungs(self._top):
            try:
                return self._all(self._on(engine), shown, progress)
            except RuntimeError as error:
                self._placed = None
                self.mishap = _mishap(engine, error)
            _let_go()  # after the exception, which holds what was allocated
        raise ToolError(f"The memory of {self._top.device} does not suffice for one slice.")

    def slices(self, shown: Shown, chosen: Sequence[Triple]) -> list[FoundSlice]:
        """What is found in the middle slice of each of some triples.

        Raises RuntimeError: what is worked out ahead takes no second way.
        """
        placed = self._on(self._top)
        batches = _batches(chosen, placed.engine.batch)
        return [
            FoundSlice.of(labels, unsure)
            for answers in in_order(partial(_answers, placed, shown), batches, self.crew)
            for labels, unsure in answers
        ]

    @property
    def crew(self) -> Crew:
        """Batches under way at a time. On a GPU the next is prepared while one is worked on; on a
        CPU each core has a slice of its own, for threads that share one wait for one another.
        """
        if self._top.device != "cpu":
            return Crew(workers=2)
        return Crew.of(self._top.threads or torch.get_num_threads())

    def logits(self, hu: Tensor) -> Tensor:
        """(B, 3, SIDE, SIDE) in HU -> float32 logits (B, classes, SIDE, SIDE)."""
        placed = self._on(self._top)
        with placed.turn:
            return placed.logits(hu.to(placed.device)).clone()

    def _on(self, engine: Engine) -> OnEngine:
        if self._placed is None or self._placed.engine != engine:
            self._placed = None
            self._placed = self._place(self._network, engine, self.window_hu)
        self.engine = engine
        return self._placed

    def _all(
        self, placed: OnEngine, shown: Shown, progress: Progress
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        labels: NDArray[np.uint8] = np.zeros(shown.voxels_zyx.shape, np.uint8)
        unsure = np.zeros(len(labels))
        missing = []
        for n, triple in enumerate(shown.beside):
            known = shown.remembered(triple) if placed.engine == self._top else None
            if known is None:
                missing.append(triple)
            else:
                labels[n], unsure[n] = known.labels(), known.unsure
        done = len(labels) - len(missing)
        batches = _batches(missing, placed.engine.batch)
        work = partial(_answers, placed, shown)
        for chosen, answers in zip(batches, in_order(work, batches, self.crew), strict=True):
            for (_, at, _), answer in zip(chosen, answers, strict=True):
                labels[at], unsure[at] = answer
            done += len(chosen)
            progress(done, len(labels))
        return labels, unsure


def _batches(triples: Sequence[Triple], size: int) -> list[Sequence[Triple]]:
    return [triples[first : first + size] for first in range(0, len(triples), size)]


@torch.inference_mode()
def _answers(
    placed: OnEngine, shown: Shown, chosen: Sequence[Triple]
) -> list[tuple[NDArray[np.uint8], float]]:
    """Classes [row, column] of the middle slice of each of at most `batch` triples; how unsure.

    The network always works on a whole batch, so that company does not change an answer.
    """
    voxels, spacing = shown.voxels_zyx, shown.spacing_yx_mm
    boxes = [body_box(voxels[[at]], spacing) for _, at, _ in chosen]
    used = sorted({i for triple in chosen for i in triple})
    planes = _tensor(np.stack([voxels[i] for i in used]))
    if placed.device.type == "cuda":
        planes = planes.pin_memory()
    with placed.turn:
        planes = planes.to(placed.device, non_blocking=True).float()
        inputs = torch.zeros((placed.engine.batch, 3, SIDE, SIDE), device=placed.device)
        for n, (triple, box) in enumerate(zip(chosen, boxes, strict=True)):
            hu = planes[[used.index(i) for i in triple]]
            inputs[n] = cut(hu[None], box, placed.air_hu)[0]
        logits = placed.logits(inputs)
        labels = torch.zeros(
            (len(chosen), *voxels.shape[1:]), dtype=torch.uint8, device=placed.device
        )
        for n, box in enumerate(boxes):
            paste(logits[n : n + 1], box, labels[n : n + 1])
        counts = _counts(logits[: len(chosen)]).cpu()
        found: NDArray[np.uint8] = labels.cpu().numpy()
    if not bool(counts[:, 2].all()):
        raise ToolError("The network gave values that are no numbers.")
    return [
        (plane, doubtful / max(lung, 1))
        for plane, (doubtful, lung, _) in zip(found, counts.tolist(), strict=True)
    ]


def _tensor(planes: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(planes if planes.dtype == np.int16 else planes.astype(np.float32))


def _counts(logits: Tensor) -> Tensor:
    """(B, classes, H, W) -> (B, 3): pixels in two minds, pixels of a class but 0, all is finite.

    In two minds: the best class is not three times as likely as the next.
    """
    best, next_best = logits[:, 0], torch.full_like(logits[:, 0], -torch.inf)
    for k in range(1, logits.shape[1]):
        next_best = torch.maximum(next_best, torch.minimum(best, logits[:, k]))
        best = torch.maximum(best, logits[:, k])
    doubtful = (best - next_best < TWO_MINDS).sum((1, 2))
    lung = (best > logits[:, 0]).sum((1, 2))
    return torch.stack((doubtful, lung, torch.isfinite(logits).all(1).all(1).all(1)), dim=1)


def _mishap(engine: Engine, error: RuntimeError) -> str:
    """What happened, where another engine may do better. Raises what none does."""
    if is_shortage(error):
        return f"Memory was short on {engine.device}"
    if engine.runtime != "torch":
        _log.warning(
            "OpenVINO failed, so torch runs the network for this series: %s", in_short(error)
        )
        return "OpenVINO failed"
    _raise_if_lost(engine.device, error)
    raise error


def _raise_if_lost(device: str, error: RuntimeError) -> None:
    if is_device_lost(device):
        what = f"The device {device} does not answer any more: {in_short(error)}"
        raise ToolError(what, lost=True) from error


def _let_go() -> None:
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


class LungSegmenter:
    """The network as a segmenter: volume in, RIGHT and LEFT out."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._usual = predictor.engine

    @property
    def label(self) -> str:
        """Of the engine that gave the last result."""
        return self._predictor.engine.label

    def __call__(self, volume: Volume, context: ToolContext) -> Segmented:
        """0, RIGHT, LEFT for a volume in canonical axes, HU. Raises ToolError without memory."""
        labels, unsure = self._predictor.found(_shown(volume, context), context.progress)
        used = self._predictor.engine
        notes: tuple[str, ...] = ()
        if used != self._usual:
            notes = (f"{self._predictor.mishap}: worked out by {used.label}.",)
        return Segmented(labels_zyx=labels, unsure=unsure, notes=notes)

    def ahead(self, volume: Volume, context: ToolContext) -> None:
        """Remember what is found in slices whose neighbours have arrived, until told to stop."""
        if context.memory is None or not volume.slice_keys:
            return
        shown = _shown(volume, context)
        wanted = shown.beside if context.all_there else shown.settled()
        new = [triple for triple in wanted if shown.remembered(triple) is None]
        for chosen in _batches(new, self._usual.batch * self._predictor.crew.workers):
            if context.stop():
                return
            try:
                found = self._predictor.slices(shown, chosen)
            except RuntimeError as error:
                if is_shortage(error):
                    return  # the step will see
                _raise_if_lost(self._usual.device, error)
                raise
            for triple, one in zip(chosen, found, strict=True):
                context.memory[shown.key(triple)] = one


def _shown(volume: Volume, context: ToolContext) -> Shown:
    slice_mm, row_mm, column_mm = volume.spacing_zyx_mm
    heights = volume.heights_mm or tuple(i * slice_mm for i in range(len(volume.voxels_zyx)))
    return Shown(
        voxels_zyx=volume.voxels_zyx,
        heights_mm=heights,
        spacing_yx_mm=(row_mm, column_mm),
        keys=volume.slice_keys,
        memory=context.memory,
    )


def lung_segmenter(
    weights: bytes,
    *,
    device: str,
    threads: int,
    window_hu: tuple[float, float],
    runtime: str = "torch",
) -> LungSegmenter:
    """Load the network from the bytes of a safetensors file, and run it once.

    runtime: as of `engine_for`; with "auto" torch runs it where OpenVINO does not work.
    Raises ToolError for weights of another shape, and for a device or runtime that is not there, or
    does not work.
    """
    try:
        state = load(weights)
        reach = state.get(REACH, torch.zeros(0)).tolist()
        network = network_from(state)
        engine = engine_for(device, threads, runtime, eight_bits=bool(reach))
        place = partial(_placed, reach)
        return LungSegmenter(_warmed(network, engine, window_hu, place, choice=runtime))
    except (KeyError, SafetensorError) as wrong:
        raise ToolError("The weights are not those of a lung U-Net.") from wrong
    except RuntimeError as refused:
        what = f"The network cannot be put on {device}: {in_short(refused)}"
        raise ToolError(what, lost=is_device_lost(device)) from refused


def _warmed(
    network: UNet, engine: Engine, window_hu: tuple[float, float], place: Place, *, choice: str
) -> Predictor:
    """Ready; through torch where OpenVINO does not work and nobody chose it."""
    predictor = Predictor(network, engine, window_hu, place)
    try:
        predictor.warm()
    except RuntimeError as refused:
        if engine.runtime == "torch":
            raise
        if choice != "auto":
            raise ToolError(
                'OpenVINO is installed and does not work: install it anew, or set runtime = "auto" '
                f"in the section [engine]. {in_short(refused)}"
            ) from refused
        _log.warning(
            "OpenVINO is installed and does not work, so torch is used: %s", in_short(refused)
        )
    else:
        return predictor
    predictor = Predictor(network, on_cpu(engine.threads), window_hu, place)
    predictor.warm()
    return predictor


def _placed(
    reach: Sequence[float], network: UNet, engine: Engine, window_hu: tuple[float, float]
) -> OnEngine:
    if engine.runtime == "torch":
        return Placed(network, engine, window_hu)
    from dicom_node.tools.openvino_network import OpenVinoNetwork  # noqa: PLC0415  (an extra)

    try:
        return OpenVinoNetwork(network, engine, window_hu, reach)
    except (ImportError, AttributeError, TypeError, ValueError, OSError) as broken:
        # half an installation, or a release with other names
        raise RuntimeError(f"{type(broken).__name__}: {broken}") from broken
