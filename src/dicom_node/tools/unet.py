"""The lung network: a 2D U-Net, the way of a slice into it, and the way of its answer back.

Training (models/lung-unet/train) imports the same functions: what the network saw is what it gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812  (its name everywhere)
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dicom_node.tools.body import Box

SIDE = 256  # rows and columns of the network's input
CHANNELS = (16, 32, 64, 128, 256)
SHOWN = 3  # slices: one between its neighbours
TISSUE_HU = (-160.0, 150.0)
REACH = "reach"
"""Beside the weights: the largest value that each convolution but the last gives, rectified; in the
order of `blocks`. Arithmetic in eight bits has to hold it."""


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
        self.stem = Block(2 * SHOWN, channels[0])
        self.down = nn.ModuleList(Block(a, b) for a, b in pairs)
        self.up = nn.ModuleList(Block(a + b, a) for a, b in reversed(pairs))
        self.head = nn.Conv2d(channels[0], outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 6, H, W) from `normalised`, H and W multiples of 16 -> logits (B, outputs, H, W)."""
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


def blocks(network: UNet) -> list[Block]:
    """In the order in which they are run."""
    every = (network.stem, *network.down, *network.up)
    return [block for block in every if isinstance(block, Block)]


def normalised(hu: Tensor, window_hu: tuple[float, float]) -> Tensor:
    """HU (B, C, H, W) -> -1..1 (B, 2 C, H, W): over the window, and over TISSUE_HU.

    What is below (padding, the scan circle) counts as air. Rib, muscle, fluid and fat differ by a
    tenth of the window only: in the second half they are as far apart as air and tissue are.
    """
    seen = [(hu.clamp(a, b) - a) * (2.0 / (b - a)) - 1.0 for a, b in looks(window_hu)]
    return torch.cat(seen, dim=1)


def looks(window_hu: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    """The windows through which the network is shown each slice, in HU."""
    return window_hu, TISSUE_HU


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


def fused(network: UNet) -> UNet:
    """The network with each normalisation worked into its convolution, in place; to run only."""
    for block in (b for b in network.modules() if isinstance(b, Block)):
        if isinstance(block.norm1, nn.BatchNorm2d) and isinstance(block.norm2, nn.BatchNorm2d):
            block.conv1 = fuse_conv_bn_eval(block.conv1, block.norm1)
            block.conv2 = fuse_conv_bn_eval(block.conv2, block.norm2)
            block.norm1, block.norm2 = nn.Identity(), nn.Identity()
    return network


def network_from(state: Mapping[str, Tensor]) -> UNet:
    """The network that a state dictionary belongs to; its channels are read from the shapes."""
    channels = [state["stem.conv1.weight"].shape[0]]
    while (name := f"down.{len(channels) - 1}.conv1.weight") in state:
        channels.append(state[name].shape[0])
    network = UNet(tuple(channels), state["head.weight"].shape[0])
    complete = dict(network.state_dict())  # num_batches_tracked is not kept: only training has it
    complete |= {name: value.float() for name, value in state.items() if name != REACH}
    network.load_state_dict(complete)
    return network
