"""How large the answers of each layer become: what arithmetic in eight bits has to hold."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dicom_node.tools.unet import UNet, blocks, fused, normalised


@torch.inference_mode()
def reach_of(network: UNet, shown: Iterable[Tensor], window_hu: tuple[float, float]) -> Tensor:
    """As `dicom_node.tools.unet.REACH` has it. shown: batches (B, 3, H, W) in HU."""
    quiet = fused(copy.deepcopy(network).cpu().eval())
    convolutions = [conv for block in blocks(quiet) for conv in (block.conv1, block.conv2)]
    reach = torch.zeros(len(convolutions))

    def look(at: int) -> None:
        def seen(_layer: nn.Module, _shown: object, answer: Tensor) -> None:
            reach[at] = torch.maximum(reach[at], answer.max())

        convolutions[at].register_forward_hook(seen)

    for at in range(len(convolutions)):
        look(at)
    for batch in shown:
        quiet(normalised(batch, window_hu))
    return reach
