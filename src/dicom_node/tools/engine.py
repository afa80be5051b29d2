"""Where a network runs, in which precision, and on how many slices at a time."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor, nn

from dicom_node.domain.errors import ToolError
from dicom_node.tools.mishaps import is_shortage
from dicom_node.tools.unet import SIDE, normalised

BATCHES = (16, 8, 4, 1)
"""Slices at a time on a GPU, as its memory allows."""
SLICE_BYTES = 64 << 20  # of GPU memory for each slice of a batch, with room to spare
_TENSOR_CORES = (7, 0)  # compute capability from which half precision is the quicker one
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Where and how the network runs.

    precision: "fp32", "bf16", "fp16" or "int8"; batch: slices at a time, of which a core wants one:
    the activations of more leave its cache; threads: on the CPU, 0 = as many as torch takes;
    runtime: "torch", or "openvino" on the CPU; release: of a runtime that is not torch.
    """

    device: str
    precision: str
    batch: int = 1
    threads: int = 0
    runtime: str = "torch"
    release: str = ""

    @property
    def label(self) -> str:
        """Sort of device, runtime and its release, precision, size of a batch.

        Each may move a result by a rounding; so may what is not named, the model of the processor
        and the release of torch.
        """
        sort = self.device.partition(":")[0]
        usual = 1 if sort == "cpu" else BATCHES[0]
        runtime = [] if self.runtime == "torch" else [self.runtime + self.release]
        parts = [sort, *runtime, self.precision]
        return "-".join(parts if self.batch == usual else [*parts, f"b{self.batch}"])


class OnEngine(Protocol):
    """A network that is ready on an engine, for batches of one size.

    device: where `logits` wants its input. turn: to be held from the input of a batch to the use of
    its output. air_hu: what the network takes for air.
    """

    engine: Engine
    device: torch.device
    turn: contextlib.AbstractContextManager[object]
    air_hu: float

    def logits(self, hu: Tensor) -> Tensor:
        """(B, 3, SIDE, SIDE) in HU -> float32 logits (B, classes, SIDE, SIDE)."""

    def warm(self) -> None:
        """Run it once, so that no Series pays for what the first run costs."""


def engine_for(
    device: str, threads: int, runtime: str = "torch", *, eight_bits: bool = False
) -> Engine:
    """`device` is "auto", "cpu", "cuda" or "cuda:N"; auto takes the first GPU, else the CPU.

    runtime: on a CPU, "torch", "openvino", or "auto": OpenVINO where it is installed. eight_bits:
    the network may be run in them.
    Raises ToolError for a device, or a runtime, that is not there.
    """
    devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if device in ("auto", "cuda") and devices:
        device = devices[0]
    elif device == "auto":
        device = "cpu"
    if device not in (*devices, "cpu"):
        raise ToolError(f"There is no device {device}; there are {', '.join((*devices, 'cpu'))}.")
    if device == "cpu":
        return _with_openvino(on_cpu(threads), runtime, eight_bits=eight_bits)
    free, _ = torch.cuda.mem_get_info(device)
    half = torch.cuda.get_device_capability(device) >= _TENSOR_CORES
    precision = "fp16" if half else "fp32"
    return Engine(device=device, precision=precision, batch=batch_in(free), threads=threads)


def on_cpu(threads: int) -> Engine:
    """The CPU: bf16 where it has instructions for that."""
    precision = "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"  # noqa: SLF001
    return Engine(device="cpu", precision=precision, threads=threads)


def _with_openvino(engine: Engine, runtime: str, *, eight_bits: bool) -> Engine:
    if runtime == "torch" or (runtime == "auto" and not find_spec("openvino")):
        return engine
    if not find_spec("openvino"):
        raise ToolError(
            "OpenVINO is not installed: pip install 'dicom-node[openvino]', "
            'or set runtime = "auto" in the section [engine].'
        )
    # without these instructions sums of eight bits may overflow
    exact = torch.cpu._is_vnni_supported()  # noqa: SLF001
    precision = "int8" if eight_bits and exact else engine.precision
    return replace(engine, runtime="openvino", release=_release(), precision=precision)


def _release() -> str:
    """Of OpenVINO, as far as the installation tells."""
    with contextlib.suppress(PackageNotFoundError):
        return version("openvino")
    return ""


def batch_in(free_bytes: int) -> int:
    """The largest batch that takes half of that memory, or the smallest there is."""
    return next((n for n in BATCHES if n * SLICE_BYTES <= free_bytes // 2), BATCHES[-1])


def rungs(top: Engine) -> Iterator[Engine]:
    """What is tried when memory does not suffice, or the runtime fails: smaller batches, then torch
    on the CPU.
    """
    yield top
    for batch in BATCHES:
        if batch < top.batch:
            yield replace(top, batch=batch)
    if top.device != "cpu" or top.runtime != "torch":
        yield on_cpu(top.threads)


class Placed:
    """A network on the device of an engine, ready for batches of one size.

    On a GPU such a batch is one CUDA graph: its kernels are started by one call, not one by one.
    turn: to be held from the input of a batch to the use of its output.
    """

    def __init__(self, network: nn.Module, engine: Engine, window_hu: tuple[float, float]) -> None:
        self.engine = engine
        self.device = torch.device(engine.device)
        self.turn: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        self.air_hu = window_hu[0]
        self._window_hu = window_hu
        self._type = _TYPES[engine.precision]
        self._network = copy.deepcopy(network).to(self.device, self._type)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._graph: _Graph | None = None
        if self.device.type == "cuda":
            self.turn = threading.Lock()
            self._graph = self._captured()

    @torch.inference_mode()
    def logits(self, hu: Tensor) -> Tensor:
        """(B, 3, SIDE, SIDE) in HU -> float32 logits (B, classes, SIDE, SIDE).

        On a GPU the next call may overwrite them.
        """
        if self._graph is not None and len(hu) == self.engine.batch:
            return self._graph(hu)
        return self._run(hu)

    @torch.inference_mode()
    def warm(self) -> None:
        """Run it once, so that no Series pays for what the first run costs."""
        with self.turn:
            shape = (self.engine.batch, 3, SIDE, SIDE)
            self.logits(torch.zeros(shape, device=self.device)).cpu()

    def _run(self, hu: Tensor) -> Tensor:
        x = normalised(hu, self._window_hu).to(self._type, memory_format=torch.channels_last)
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            logits: Tensor = self._network(x)
        return logits.float()

    @torch.inference_mode()
    def _captured(self) -> _Graph | None:
        """None where the driver cannot: then kernels are started one by one."""
        try:
            return _Graph(self._run, (self.engine.batch, 3, SIDE, SIDE), self.device)
        except RuntimeError as error:
            if is_shortage(error):
                raise
            return None


class _Graph:
    """What a function does on a GPU to inputs of one shape, recorded once."""

    def __init__(
        self, run: Callable[[Tensor], Tensor], shape: tuple[int, ...], device: torch.device
    ) -> None:
        with torch.cuda.device(device):
            self._input = torch.zeros(shape, device=device)
            current = torch.cuda.current_stream()
            beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            beside.wait_stream(current)
            with torch.cuda.stream(beside):  # what is chosen and allocated once is not recorded
                for _ in range(3):
                    run(self._input)
            current.wait_stream(beside)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._output = run(self._input)

    def __call__(self, x: Tensor) -> Tensor:
        """The output stays what it is until the next call."""
        self._input.copy_(x, non_blocking=True)
        self._graph.replay()
        return self._output
