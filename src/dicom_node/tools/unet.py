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
from dicom_node.tools.body import Box, body_box

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dicom_node.domain.volume import Volume

SIDE = 256  # rows and columns of the network's input
CHANNELS = (16, 32, 64, 128, 256)
CONTEXT_MM = 8.0  # so far below and above a slice are those that are shown beside it
REACH_MM = 20.0  # a slice further away is no neighbour


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


def neighbours(heights_mm: Sequence[float]) -> list[tuple[int, int, int]]:
    """For each slice, what the network is shown: (a slice below, itself, a slice above).

    heights_mm: strictly rising. Of the slices within REACH_MM that one whose distance is nearest to
    CONTEXT_MM; at an end of the stack, and beside a gap, the slice itself.
    """
    return [
        (_beside(heights_mm, i, -1), i, _beside(heights_mm, i, 1)) for i in range(len(heights_mm))
    ]


def _beside(heights_mm: Sequence[float], at: int, step: int) -> int:
    best, off = at, float("inf")
    i = at + step
    while 0 <= i < len(heights_mm):
        distance = abs(heights_mm[i] - heights_mm[at])
        if distance > REACH_MM or abs(distance - CONTEXT_MM) >= off:
            break
        best, off = i, abs(distance - CONTEXT_MM)
        i += step
    return best


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
    batch: int = 4
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

    @torch.inference_mode()
    def labels(
        self,
        voxels_zyx: NDArray[np.generic],
        heights_mm: Sequence[float],
        spacing_yx_mm: tuple[float, float],
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> NDArray[np.uint8]:
        """Classes of every voxel: uint8, shape of `voxels_zyx` (canonical axes, HU).

        heights_mm: of each slice, strictly rising. Memory beyond input and output is that of one
        batch of slices.
        """
        labels: NDArray[np.uint8] = np.zeros(voxels_zyx.shape, np.uint8)
        beside = neighbours(heights_mm)
        for first, stop in self._batches(len(voxels_zyx)):
            shown, boxes = [], []
            for below, at, above in beside[first:stop]:
                box = body_box(voxels_zyx[at : at + 1], spacing_yx_mm)
                chosen = np.ascontiguousarray(voxels_zyx[[below, at, above]], np.float32)
                hu = torch.from_numpy(chosen)[None].to(self._device)
                shown.append(cut(hu, box, self.window_hu[0]))
                boxes.append(box)
            logits = self.logits(torch.cat(shown))
            for n, box in enumerate(boxes):
                out = torch.zeros(
                    (1, *voxels_zyx.shape[1:]), dtype=torch.uint8, device=self._device
                )
                paste(logits[n : n + 1], box, out)
                labels[first + n] = out[0].cpu().numpy()
            progress(stop, len(voxels_zyx))
        return labels

    @torch.inference_mode()
    def logits(self, hu: Tensor) -> Tensor:
        """(B, 3, SIDE, SIDE) in HU -> float32 logits (B, classes, SIDE, SIDE)."""
        x = normalised(hu, self.window_hu).contiguous(memory_format=torch.channels_last)
        bf16 = self.engine.precision == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=bf16):
            logits: Tensor = self._network(x)
        return logits.float()

    def _batches(self, slices: int) -> Iterator[tuple[int, int]]:
        for first in range(0, slices, self.engine.batch):
            yield first, min(first + self.engine.batch, slices)


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

    def __call__(self, volume: Volume, progress: Callable[[int, int], None]) -> NDArray[np.uint8]:
        """0, RIGHT, LEFT for a volume in canonical axes, HU. Raises ToolError without memory."""
        slice_mm, row_mm, column_mm = volume.spacing_zyx_mm
        heights = volume.heights_mm or tuple(i * slice_mm for i in range(len(volume.voxels_zyx)))
        try:
            return self._predictor.labels(volume.voxels_zyx, heights, (row_mm, column_mm), progress)
        except torch.OutOfMemoryError as full:
            raise ToolError(f"The memory of {self.engine.device} does not suffice.") from full


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
