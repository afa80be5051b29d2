"""The lung network: a 2D U-Net, the way of a slice into it, and the way of its answer back.

Training (models/lung-unet/train) imports the same functions: what the network saw is what it gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its name everywhere)
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dicom_node.domain.errors import ToolError
from dicom_node.domain.tool import ToolContext
from dicom_node.tools.body import Box, body_box
from dicom_node.tools.lung_tool import Segmented
from dicom_node.tools.slices import FoundSlice, Shown, Triple

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dicom_node.domain.volume import Volume

SIDE = 256  # rows and columns of the network's input
CHANNELS = (16, 32, 64, 128, 256)
TWO_MINDS = 1.1  # difference of the logits below which the best class is not 3 times as likely


class Block(nn.Module):
    """Two 3 x 3 convolutions, each normalised and rectified."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1: nn.Module = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        x = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(x)))


class UNet(nn.Module):
    """Down by halves, up again, with the detail of each level carried across; 1.96 M parameters."""

    def __init__(self, channels: tuple[int, ...] = CHANNELS, outputs: int = 3) -> None:
        super().__init__()
        pairs = list(pairwise(channels))
        self.stem = Block(3, channels[0])
        self.down = nn.ModuleList(Block(a, b) for a, b in pairs)
        self.up = nn.ModuleList(Block(a + b, a) for a, b in reversed(pairs))
        self.head = nn.Conv2d(channels[0], outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) from `normalised`, H and W multiples of 16 -> logits (B, outputs, H, W)."""
        x = self.stem(x)  #                                            (B,  16, 256, 256)
        across = [x]
        for block in self.down:  #                                     (B, 256,  16,  16) at last
            x = block(F.max_pool2d(x, 2))
            across.append(x)
        across.pop()
        for block in self.up:  #                                       (B,  16, 256, 256) at last
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat((across.pop(), x), dim=1))
        logits: Tensor = self.head(x)  #                               (B,   3, 256, 256)
        return logits


def normalised(hu: Tensor, window_hu: tuple[float, float]) -> Tensor:
    """HU -> -1..1 over the window; what is below it (padding, the scan circle) counts as air."""
    low, high = window_hu
    return (hu.clamp(low, high) - low) * (2.0 / (high - low)) - 1.0


def cut(hu: Tensor, box: Box, air_hu: float) -> Tensor:
    """Whole slices (B, C, rows, columns) -> what the box shows of them, (B, C, SIDE, SIDE).

    A box may reach beyond the matrix: there is air. Shrinking averages, it does not skip pixels.
    """
    rows, columns = hu.shape[-2:]
    r0, r1 = max(box.top, 0), min(box.bottom, rows)
    c0, c1 = max(box.left, 0), min(box.right, columns)
    margins = (c0 - box.left, box.right - c1, r0 - box.top, box.bottom - r1)
    inside = F.pad(hu[..., r0:r1, c0:c1], margins, value=air_hu)
    return F.interpolate(
        inside, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False
    )


def paste(logits: Tensor, box: Box, labels: Tensor) -> None:
    """Write the classes of `logits` (B, classes, SIDE, SIDE) into `labels` (B, rows, columns).

    The logits, not the classes, are enlarged: a border falls between the pixels of the network.
    """
    rows, columns = labels.shape[-2:]
    size = (box.bottom - box.top, box.right - box.left)
    above = (logits[:, 1:] - logits[:, :1]).contiguous()  # class 0, the background, is at zero
    above = F.interpolate(above, size=size, mode="bilinear", align_corners=False)
    r0, r1 = max(box.top, 0), min(box.bottom, rows)
    c0, c1 = max(box.left, 0), min(box.right, columns)
    above = above[..., r0 - box.top : r1 - box.top, c0 - box.left : c1 - box.left]
    shown = labels[..., r0:r1, c0:c1]
    shown.zero_()
    best = torch.zeros_like(above[:, 0])
    for k in range(above.shape[1]):  # torch's argmax takes ten times as long
        shown.masked_fill_(above[:, k] > best, k + 1)
        torch.maximum(best, above[:, k], out=best)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Where and how the network runs.

    precision: "fp32" or "bf16"; threads: of torch on the CPU, 0 = as many as torch takes.
    """

    device: str
    precision: str
    batch: int = 1  # more gain nothing on a CPU: the activations leave the cache
    threads: int = 0

    @property
    def label(self) -> str:
        """What may change a result: the sort of device, and the precision."""
        return f"{self.device.partition(':')[0]}-{self.precision}"


def engine_for(device: str, threads: int) -> Engine:
    """`device` is "auto", "cpu" or "cuda:N"; auto takes the first CUDA device, else the CPU.

    Raises ToolError for a device that is not there.
    """
    devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if device == "auto":
        device = devices[0] if devices else "cpu"
    if device not in (*devices, "cpu"):
        raise ToolError(f"There is no device {device}; there are {', '.join((*devices, 'cpu'))}.")
    if device != "cpu":
        return Engine(device=device, precision="fp32", batch=16, threads=threads)
    precision = "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"  # noqa: SLF001
    return Engine(device=device, precision=precision, threads=threads)


class Predictor:
    """A trained network, loaded once, on one device."""

    def __init__(self, network: UNet, engine: Engine, window_hu: tuple[float, float]) -> None:
        if engine.threads > 0:
            torch.set_num_threads(engine.threads)
        self.engine = engine
        self.window_hu = window_hu
        self._device = torch.device(engine.device)
        self._network = fused(network.eval()).to(self._device)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def found(
        self,
        shown: Shown,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Classes of every voxel, uint8 [slice, row, column]; and how unsure each slice is.

        That is the number of pixels in two minds against those of a class but 0.

        What `shown.memory` knows is not worked out again. Memory beyond input and output is that of
        one batch of slices.
        """
        labels: NDArray[np.uint8] = np.zeros(shown.voxels_zyx.shape, np.uint8)
        unsure = np.zeros(len(labels))
        missing = []
        for n, triple in enumerate(shown.beside):
            known = shown.remembered(triple)
            if known is None:
                missing.append(triple)
            else:
                labels[n], unsure[n] = known.labels(), known.unsure
        done = len(labels) - len(missing)
        for chosen in self._batches(missing):
            for (_, at, _), one in zip(chosen, self.slices(shown, chosen), strict=True):
                labels[at], unsure[at] = one.labels(), one.unsure
            done += len(chosen)
            progress(done, len(labels))
        return labels, unsure

    @torch.inference_mode()
    def slices(self, shown: Shown, chosen: Sequence[Triple]) -> list[FoundSlice]:
        """What is found in the middle slice of each of at most `engine.batch` triples.

        The network always works on a whole batch, so that company does not change an answer.
        """
        boxes = [body_box(shown.voxels_zyx[[at]], shown.spacing_yx_mm) for _, at, _ in chosen]
        inputs = torch.zeros((self.engine.batch, 3, SIDE, SIDE), device=self._device)
        for n, (triple, box) in enumerate(zip(chosen, boxes, strict=True)):
            planes = np.stack([np.asarray(shown.voxels_zyx[i], np.float32) for i in triple])
            hu = torch.from_numpy(planes)[None].to(self._device)
            inputs[n] = cut(hu, box, self.window_hu[0])[0]
        logits = self.logits(inputs)
        made = []
        for n, box in enumerate(boxes):
            plane = torch.zeros(
                (1, *shown.voxels_zyx.shape[1:]), dtype=torch.uint8, device=self._device
            )
            paste(logits[n : n + 1], box, plane)
            made.append(FoundSlice.of(plane[0].cpu().numpy(), _unsure(logits[n])))
        return made

    @torch.inference_mode()
    def logits(self, hu: Tensor) -> Tensor:
        """(B, 3, SIDE, SIDE) in HU -> float32 logits (B, classes, SIDE, SIDE)."""
        x = normalised(hu, self.window_hu).contiguous(memory_format=torch.channels_last)
        bf16 = self.engine.precision == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=bf16):
            logits: Tensor = self._network(x)
        return logits.float()

    def _batches(self, triples: Sequence[Triple]) -> Iterator[Sequence[Triple]]:
        for first in range(0, len(triples), self.engine.batch):
            yield triples[first : first + self.engine.batch]


def _unsure(logits: Tensor) -> float:
    """Pixels whose best class is not three times as likely as the next, against those of lung."""
    best, next_best = logits.topk(2, dim=0).values
    doubtful = int((best - next_best < TWO_MINDS).sum())
    lung = int((logits.argmax(dim=0) > 0).sum())
    return doubtful / max(lung, 1)


def fused(network: UNet) -> UNet:
    """The network with each normalisation worked into its convolution, in place; to run only."""
    for block in (b for b in network.modules() if isinstance(b, Block)):
        if isinstance(block.norm1, nn.BatchNorm2d) and isinstance(block.norm2, nn.BatchNorm2d):
            block.conv1 = fuse_conv_bn_eval(block.conv1, block.norm1)
            block.conv2 = fuse_conv_bn_eval(block.conv2, block.norm2)
            block.norm1, block.norm2 = nn.Identity(), nn.Identity()
    return network


class LungSegmenter:
    """The network as a segmenter: volume in, RIGHT and LEFT out."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.engine = predictor.engine

    def __call__(self, volume: Volume, context: ToolContext) -> Segmented:
        """0, RIGHT, LEFT for a volume in canonical axes, HU. Raises ToolError without memory."""
        try:
            labels, unsure = self._predictor.found(_shown(volume, context), context.progress)
        except torch.OutOfMemoryError as full:
            raise ToolError(f"The memory of {self.engine.device} does not suffice.") from full
        return Segmented(labels_zyx=labels, unsure=unsure)

    def ahead(self, volume: Volume, context: ToolContext) -> None:
        """Remember what is found in slices whose neighbours have arrived, until told to stop."""
        if context.memory is None or not volume.slice_keys:
            return
        shown = _shown(volume, context)
        for triple in shown.settled():
            if context.stop():
                return
            if shown.remembered(triple) is None:
                (one,) = self._predictor.slices(shown, [triple])
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
    weights: bytes, *, device: str, threads: int, window_hu: tuple[float, float]
) -> LungSegmenter:
    """Load the network from the bytes of a safetensors file.

    Raises ToolError for weights of another shape, and for a device that is not there.
    """
    try:
        network = network_from(load(weights))
        return LungSegmenter(Predictor(network, engine_for(device, threads), window_hu))
    except (KeyError, SafetensorError) as wrong:
        raise ToolError("The weights are not those of a lung U-Net.") from wrong
    except RuntimeError as refused:
        raise ToolError(f"The network cannot be put on {device}: {refused}") from refused


def network_from(state: Mapping[str, Tensor]) -> UNet:
    """The network that a state dictionary belongs to; its channels are read from the shapes."""
    channels = [state["stem.conv1.weight"].shape[0]]
    while (name := f"down.{len(channels) - 1}.conv1.weight") in state:
        channels.append(state[name].shape[0])
    network = UNet(tuple(channels), state["head.weight"].shape[0])
    complete = dict(network.state_dict())  # num_batches_tracked is not kept: only training has it
    complete |= {name: value.float() for name, value in state.items()}
    network.load_state_dict(complete)
    return network
