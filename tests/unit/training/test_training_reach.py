"""What eight bits have to hold is told beside the weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import data
import torch
import train
from reach import reach_of
from safetensors.torch import load_file

from dicom_node.tools.unet import REACH, UNet, fused, normalised

WINDOW = (-1024.0, 150.0)


def test_the_largest_answer_of_each_layer_is_found() -> None:
    torch.manual_seed(4)
    network = UNet((3, 5)).eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_var.fill_(0.02)  # else untrained layers give next to nothing
    shown = [torch.randn(2, 3, 32, 32) * 300 for _ in range(3)]
    reach = reach_of(network, shown, WINDOW)
    with torch.inference_mode():
        x = normalised(torch.cat(shown), WINDOW)
        quiet = fused(network)
        stem = [quiet.stem.conv1(x).relu()]
        stem.append(quiet.stem.conv2(stem[0]).relu())
        low = quiet.down[0](torch.nn.functional.max_pool2d(stem[1], 2))
    assert len(reach) == 6, "two for each of three blocks"
    assert torch.allclose(reach[:2], torch.stack([part.max() for part in stem]))
    assert torch.allclose(reach[3], low.max())
    assert torch.all(reach > 0)


def test_a_training_leaves_it_beside_the_weights_that_it_keeps(
    an_archive: Callable[..., data.Archive], a_config: dict[str, Any], tmp_path: Path
) -> None:
    task = train.Task(archives=[an_archive()], validation=None)
    trained = train.train(a_config, task, tmp_path)
    kept = load_file(tmp_path / "weights.safetensors")
    reach = kept.pop(REACH)
    assert reach.shape == (6,)
    assert torch.all(reach > 0)
    names = {name for name in trained.state_dict() if "num_batches" not in name}
    assert set(kept) == names
    examples = train.Examples(task.archives, a_config)
    again = [examples[n][0][None] for n in range(8, 8 + a_config["reach_of"])]
    assert torch.equal(reach, reach_of(trained, again, WINDOW)), "of examples it was not shown"
