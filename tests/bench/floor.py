"""What no program can be faster than: operations over the peak of the machine, and bytes read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its name everywhere)
from torch import Tensor, nn

from dicom_node.tools.openvino_network import the_library

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Floor:
    """gflops: the peak by precision, of convolutions and of products of matrices, GFLOP/s.

    read_gb_s: files of the page cache into memory that is in use already. write_gb_s: new files,
    not synced.
    """

    gflops: dict[str, float]
    read_gb_s: float
    write_gb_s: float

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def gflop(network: nn.Module, shape: tuple[int, ...]) -> float:
    """Multiplications and additions of the convolutions for one input of this shape, in 1e9."""
    counted = 0.0

    def count(layer: nn.Conv2d, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal counted
        rows, columns = layer.kernel_size
        counted += 2 * output.numel() * layer.in_channels / layer.groups * rows * columns

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.inference_mode():
            network(torch.zeros(shape, device=next(network.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return counted / 1e9


def peak_gflops(device: str, precision: str, *, channels: int = 256, side: int = 64) -> float:
    """The best of convolutions (3 x 3) and products of matrices, GFLOP/s."""
    dtype = PRECISIONS[precision]
    batch = 1 if device == "cpu" else 64
    n = 8 * channels if device == "cpu" else 32 * channels
    x = torch.rand((batch, channels, side, side), device=device).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    w = torch.rand((channels, channels, 3, 3), device=device).to(dtype)
    w = w.contiguous(memory_format=torch.channels_last)
    a, b = (torch.rand((n, n), device=device).to(dtype) for _ in range(2))
    work: list[tuple[float, Callable[[], Tensor]]] = [
        (2.0 * batch * side * side * channels * channels * 9, lambda: F.conv2d(x, w, padding=1)),
        (2.0 * n**3, lambda: a @ b),
    ]
    with torch.inference_mode():
        return max(operations / fastest_s(one, device) / 1e9 for operations, one in work)


def peak_of_eight_bits(*, channels: int = 256, side: int = 64, layers: int = 8) -> float:
    """Of convolutions (3 x 3) in eight bits, one after the other, through OpenVINO; GFLOP/s."""
    openvino = the_library()
    op = openvino.opset13
    kernel = np.random.default_rng(1).normal(size=(channels, channels, 3, 3)).astype(np.float32)

    def in_steps(x: object, low: float, high: float, steps: int) -> object:
        ends = [op.constant(np.float32(end)) for end in (low, high)]
        return op.fake_quantize(x, *ends, *ends, steps)

    shown = op.parameter([1, channels, side, side], np.float32)
    x = in_steps(shown, 0.0, 1.0, 256)
    for _ in range(layers):
        weights = in_steps(op.constant(kernel), -4.0, 4.0, 255)
        x = op.relu(op.convolution(x, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
        x = in_steps(x, 0.0, 100.0, 256)
    model = openvino.Model([op.result(x)], [shown])
    hint = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(model, "CPU", hint).create_infer_request()
    data = np.random.default_rng(2).random((1, channels, side, side), np.float32)
    operations = 2.0 * layers * side * side * channels * channels * 9
    return operations / fastest_s(lambda: request.infer({0: data})) / 1e9


def fastest_s(work: Callable[[], object], device: str = "cpu", times: int = 8) -> float:
    """The shortest of some runs, after two that are not counted."""
    took = []
    for _ in range(times + 2):
        began = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize(device)
        took.append(time.perf_counter() - began)
    return min(took[2:])


def read_gb_s(files: Sequence[Path]) -> float:
    """Reading files that were read before."""
    largest = max(file.stat().st_size for file in files)
    total = sum(file.stat().st_size for file in files)
    room = bytearray(largest)

    def read() -> None:
        for file in files:
            with file.open("rb", buffering=0) as opened:
                opened.readinto(room)

    return total / fastest_s(read, times=3) / 1e9


def write_gb_s(folder: Path, size: int = 16 << 20) -> float:
    """Writing a new file."""
    data = bytes(size)
    path = folder / "written"

    def write() -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(data)

    took = fastest_s(write, times=3)
    path.unlink()
    return size / took / 1e9


def floor_of(device: str, files: Sequence[Path], scratch: Path, **sizes: int) -> Floor:
    """Measured now, on this machine."""
    gflops = {name: peak_gflops(device, name, **sizes) for name in ("fp32", "bf16")}
    if device != "cpu":
        gflops["fp16"] = peak_gflops(device, "fp16", **sizes)
    elif find_spec("openvino"):
        gflops["int8"] = peak_of_eight_bits(**sizes)
    return Floor(gflops=gflops, read_gb_s=read_gb_s(files), write_gb_s=write_gb_s(scratch))
