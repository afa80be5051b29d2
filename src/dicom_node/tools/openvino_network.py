"""The network through OpenVINO, on the CPU; in eight bits where the reach of its layers is known.

OpenVINO is an extra of the installation; nothing else needs it.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from dicom_node.tools.engine import Engine
from dicom_node.tools.unet import SHOWN, SIDE, Block, UNet, blocks, looks

_WEIGHTS, _ANSWERS = 255, 256  # steps: of weights from -max to max, of rectified answers from 0
_LEAST = 1e-6  # of a reach: a layer may give nothing at all
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}


def the_library() -> Any:
    """OpenVINO, without the package that comes with it and tells its maker of each import."""
    sys.modules.setdefault("openvino_telemetry", cast("ModuleType", None))  # cannot be imported
    import openvino  # noqa: PLC0415  (need not be installed)

    return openvino


class OpenVinoNetwork:
    """A network, `fused`, ready for batches of one size, in any thread. reach: as of `model_of`."""

    def __init__(
        self,
        network: UNet,
        engine: Engine,
        window_hu: tuple[float, float],
        reach: Sequence[float] = (),
    ) -> None:
        openvino = the_library()
        self.engine = engine
        self.device = torch.device("cpu")
        self.turn: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        self.air_hu = window_hu[0]
        streams = engine.threads or torch.get_num_threads()
        self._compiled = openvino.Core().compile_model(
            model_of(network, engine.batch, window_hu, reach),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _HINTS[engine.precision],
                "INFERENCE_NUM_THREADS": streams,
                "NUM_STREAMS": streams,
                "ENABLE_CPU_PINNING": False,  # the cores are shared with the receiver
            },
        )
        self._own = threading.local()

    def logits(self, hu: Tensor) -> Tensor:
        """(B, 3, SIDE, SIDE) in HU -> float32 logits (B, classes, SIDE, SIDE); B is the batch."""
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        (found,) = self._own.request.infer({0: hu.contiguous().numpy()}).values()
        return torch.from_numpy(found)

    def warm(self) -> None:
        """Run it once, so that no Series pays for what the first run costs."""
        self.logits(torch.zeros((self.engine.batch, SHOWN, SIDE, SIDE)))


def model_of(
    network: UNet, batch: int, window_hu: tuple[float, float], reach: Sequence[float] = ()
) -> Any:
    """An openvino.Model: (B, 3, SIDE, SIDE) in HU -> logits (B, classes, SIDE, SIDE).

    network: `fused`. reach: the largest value that each convolution but the last gives, in the
    order of `blocks`, as training saw it; empty, and nothing is done in eight bits.
    """
    return the_library().Model(*_Graph(window_hu, reach).of(network, batch))


class _Graph:
    """The layers of `UNet.forward`, as operations of OpenVINO."""

    def __init__(self, window_hu: tuple[float, float], reach: Sequence[float]) -> None:
        self._op = the_library().opset13
        self._window_hu = window_hu
        self._reach = list(reach)

    def of(self, network: UNet, batch: int) -> tuple[list[Any], list[Any]]:
        """Its outputs, and its inputs."""
        op = self._op
        shown = op.parameter([batch, SHOWN, SIDE, SIDE], np.float32)
        stem, *rest = blocks(network)
        down, up = rest[: len(network.down)], rest[len(network.down) :]
        x = self._block(stem, self._normalised(shown))
        across = [x]
        for block in down:
            x = self._block(block, op.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0))
            across.append(x)
        across.pop()
        for block in up:
            x = self._block(block, op.concat([across.pop(), self._doubled(x)], 1))
        return [op.result(self._convolved(network.head, x))], [shown]

    def _normalised(self, hu: Any) -> Any:
        op = self._op
        seen = []
        for low, high in looks(self._window_hu):
            span = op.constant(np.float32(2.0 / (high - low)))
            above = op.subtract(op.clamp(hu, low, high), op.constant(np.float32(low)))
            seen.append(op.subtract(op.multiply(above, span), op.constant(np.float32(1.0))))
        return op.concat(seen, 1)

    def _block(self, block: Block, x: Any) -> Any:
        return self._rectified(block.conv2, self._rectified(block.conv1, x))

    def _rectified(self, conv: nn.Conv2d, x: Any) -> Any:
        x = self._op.relu(self._convolved(conv, x))
        if not self._reach:
            return x
        return self._in_steps(x, 0.0, max(self._reach.pop(0), _LEAST), _ANSWERS)

    def _convolved(self, conv: nn.Conv2d, x: Any) -> Any:
        op = self._op
        weight = conv.weight.detach().float().numpy()
        kernel: Any = op.constant(weight)
        if self._reach:
            most = np.maximum(np.abs(weight).max(axis=(1, 2, 3), keepdims=True), _LEAST)
            kernel = self._in_steps(kernel, -most, most, _WEIGHTS)
        margin = [size // 2 for size in weight.shape[2:]]
        x = op.convolution(x, kernel, [1, 1], margin, margin, [1, 1])
        if conv.bias is None:
            return x
        return op.add(x, op.constant(conv.bias.detach().float().numpy().reshape(1, -1, 1, 1)))

    def _in_steps(self, x: Any, low: Any, high: Any, steps: int) -> Any:
        op = self._op
        ends = [op.constant(np.asarray(end, np.float32)) for end in (low, high)]
        return op.fake_quantize(x, *ends, *ends, steps)

    def _doubled(self, x: Any) -> Any:
        op = self._op
        return op.interpolate(
            x,
            op.constant(np.array([2.0, 2.0], np.float32)),
            "nearest",
            "scales",
            axes=op.constant(np.array([2, 3], np.int64)),
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
