"""Slices through the network: one by one or many at a time, with much memory and with little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (as its own examples do)
import torch
from torch import Tensor, nn

from dicom_node.domain.errors import ToolError, is_lost
from dicom_node.domain.tool import ToolContext
from dicom_node.domain.volume import Volume
from dicom_node.tools import engine as engines
from dicom_node.tools.engine import BATCHES, Engine, Placed, batch_in, engine_for, rungs
from dicom_node.tools.predictor import LungSegmenter, Predictor
from dicom_node.tools.registry import build_tool, load_models
from dicom_node.tools.side_by_side import Crew
from dicom_node.tools.slices import Shown
from dicom_node.tools.unet import UNet

WINDOW = (-1024.0, 150.0)
CPU = Engine(device="cpu", precision="fp32")
GPU = Engine(device="cuda:0", precision="fp16", batch=16)


def a_network() -> UNet:
    """Untrained, with an answer that is not the same everywhere."""
    torch.manual_seed(2)
    network = UNet((4, 8))
    network.head.bias.data = torch.tensor([0.0, 0.0, -10.0])
    network.head.weight.data[0] = -network.head.weight.data[1]
    return network


def some_slices(count: int = 5) -> Shown:
    hu = np.random.default_rng(1).normal(-400, 400, (count, 64, 64)).astype(np.int16)
    return Shown(
        voxels_zyx=hu,
        heights_mm=[4.0 * n for n in range(count)],
        spacing_yx_mm=(5.0, 5.0),
        keys=[f"slice {n}" for n in range(count)],
        memory={},
    )


class Short:
    """Places networks on the CPU, whatever the engine says; its memory holds so many slices."""

    def __init__(self, *, gpu: int, cpu: int = 16, error: RuntimeError | None = None) -> None:
        self.room = {"cuda": gpu, "cpu": cpu}
        self.error = error or torch.OutOfMemoryError("as the test has it")
        self.tried: list[tuple[str, int]] = []
        self.seen: list[int] = []

    def __call__(self, network: nn.Module, engine: Engine, window: tuple[float, float]) -> Placed:
        sort = engine.device.partition(":")[0]
        self.tried.append((sort, engine.batch))
        placed = Placed(network, replace(engine, device="cpu", precision="fp32"), window)
        placed.engine = engine
        whole = placed.logits

        def logits(hu: Tensor) -> Tensor:
            if len(hu) > self.room[sort]:
                raise self.error
            self.seen.append(len(hu))
            return whole(hu)

        placed.logits = logits  # type: ignore[method-assign]
        return placed


def test_slices_are_independent_of_their_batch() -> None:
    shown = some_slices()
    answers = [Predictor(a_network(), replace(CPU, batch=n), WINDOW).found(shown) for n in (1, 4)]
    for a, b in zip(*answers, strict=True):
        assert np.array_equal(a, b)
    assert len(np.unique(answers[0][0])) > 1


def test_several_batches_at_a_time_give_the_same_in_the_same_order(monkeypatch) -> None:
    shown = some_slices(11)
    one = Predictor(a_network(), CPU, WINDOW).found(shown)
    monkeypatch.setattr(Predictor, "crew", Crew(workers=3, threads_each=1))
    told: list[int] = []
    three = Predictor(a_network(), CPU, WINDOW).found(shown, lambda done, _: told.append(done))
    assert np.array_equal(one[0], three[0])
    assert np.array_equal(one[1], three[1])
    assert told == list(range(1, 12))


@pytest.mark.parametrize(
    ("room", "tried"),
    [
        (16, [16]),
        (8, [16, 8]),
        (7, [16, 8, 4]),
        (3, [16, 8, 4, 1]),
    ],
)
def test_where_memory_is_short_batches_become_smaller(room: int, tried: list[int]) -> None:
    short = Short(gpu=room)
    predictor = Predictor(a_network(), GPU, WINDOW, short)
    shown = some_slices()
    labels, _ = predictor.found(shown)
    assert short.tried == [("cuda", batch) for batch in tried]
    assert set(short.seen) == {tried[-1]}, "the network works on whole batches"
    assert predictor.engine == replace(GPU, batch=tried[-1])
    expected, _ = Predictor(a_network(), CPU, WINDOW).found(shown)
    assert np.array_equal(labels, expected)


def test_where_a_gpu_has_no_memory_at_all_the_cpu_works_and_the_result_says_so(
    a_chest: Volume,
) -> None:
    short = Short(gpu=0)
    segmenter = LungSegmenter(Predictor(a_network(), GPU, WINDOW, short))
    found = segmenter(a_chest, ToolContext())
    assert short.tried == [*(("cuda", batch) for batch in BATCHES), ("cpu", 1)]
    assert segmenter.label in ("cpu-bf16", "cpu-fp32")
    assert found.notes == (f"Memory was short on cuda:0: worked out by {segmenter.label}.",)
    short.room["cuda"] = 16
    assert segmenter(a_chest, ToolContext()).notes == (), "the next Series begins at the top again"
    assert segmenter.label == "cuda-fp16"


def test_where_memory_suffices_for_nothing_that_is_a_failure_of_the_tool(a_chest: Volume) -> None:
    segmenter = LungSegmenter(Predictor(a_network(), GPU, WINDOW, Short(gpu=0, cpu=0)))
    with pytest.raises(ToolError, match="memory of cuda:0 does not suffice"):
        segmenter(a_chest, ToolContext())


def test_all_slices_of_a_series_come_from_one_engine(monkeypatch) -> None:
    """Memory that gives out half way: what was found before is found anew."""
    short = Short(gpu=16)
    predictor = Predictor(a_network(), replace(GPU, batch=4), WINDOW, short)
    shown = some_slices(9)
    monkeypatch.setattr(Predictor, "crew", Crew())
    told: list[int] = []

    def progress(done: int, _total: int) -> None:
        told.append(done)
        if done == 8:
            short.room["cuda"] = 3

    labels, _ = predictor.found(shown, progress)
    assert told == [4, 8, *range(1, 10)]
    assert np.array_equal(labels, Predictor(a_network(), CPU, WINDOW).found(shown)[0])


def test_what_was_found_ahead_by_one_engine_is_not_mixed_with_another_one() -> None:
    short = Short(gpu=16)
    predictor = Predictor(a_network(), GPU, WINDOW, short)
    shown = some_slices()
    assert shown.memory is not None
    for triple, one in zip(shown.beside, predictor.slices(shown, shown.beside), strict=True):
        shown.memory[shown.key(triple)] = one
    short.seen.clear()
    known, _ = predictor.found(shown)
    assert short.seen == [], "all was known"
    del shown.memory[shown.key(shown.beside[2])]
    short.room["cuda"] = 4
    found, _ = predictor.found(shown)
    assert short.seen == [4, 4], "nothing of what the larger batch gave"
    assert np.array_equal(found, known)


SHORT = [
    "CUDA error: out of memory",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes.",
    "std::bad_alloc",
]


def with_keys(volume: Volume) -> Volume:
    return replace(volume, slice_keys=tuple(f"slice {n}" for n in range(len(volume.voxels_zyx))))


@pytest.mark.parametrize("words", SHORT)
def test_memory_is_short_in_whatever_words(words: str, a_chest: Volume) -> None:
    short = Short(gpu=8, error=RuntimeError(words))
    predictor = Predictor(a_network(), GPU, WINDOW, short)
    segmenter = LungSegmenter(predictor)
    predictor.warm()
    memory: dict[tuple[str, ...], object] = {}
    segmenter.ahead(with_keys(a_chest), ToolContext(memory=memory, all_there=True))
    assert not memory, "the step will see"
    assert segmenter(a_chest, ToolContext()).notes == (
        "Memory was short on cuda:0: worked out by cuda-fp16-b8.",
    )


def test_an_error_that_has_nothing_to_do_with_memory_is_not_tried_again() -> None:
    short = Short(gpu=8, error=RuntimeError("mat1 and mat2 cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        Predictor(a_network(), GPU, WINDOW, short).found(some_slices())
    assert short.tried == [("cuda", 16)]


@pytest.mark.parametrize("answers", [True, False])
def test_a_gpu_that_does_not_answer_any_more_is_lost_to_the_process(
    answers: bool, a_chest: Volume, monkeypatch
) -> None:
    def synchronize(_device: str) -> None:
        if not answers:
            raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    short = Short(gpu=0, error=RuntimeError("CUDA error: an illegal\nmemory access"))
    predictor = Predictor(a_network(), GPU, WINDOW, short)
    segmenter = LungSegmenter(predictor)
    context = ToolContext(memory={}, all_there=True)
    for work in (
        lambda: segmenter(a_chest, context),
        lambda: segmenter.ahead(with_keys(a_chest), context),
        predictor.warm,
    ):
        with pytest.raises((ToolError, RuntimeError), match=r"illegal\s+memory access") as raised:
            work()
        assert is_lost(raised.value) is not answers
        assert isinstance(raised.value, ToolError) is not answers
    assert {sort for sort, _ in short.tried} == {"cuda"}, "nothing is tried on another device"


def test_what_is_no_number_is_no_result() -> None:
    network = a_network()
    network.head.bias.data[1] = torch.nan
    with pytest.raises(ToolError, match="no numbers"):
        Predictor(network, CPU, WINDOW).found(some_slices())


def test_a_model_that_is_loaded_has_run_once(
    a_model: Callable[..., Path], a_chest: Volume, monkeypatch
) -> None:
    calls: list[tuple[int, ...]] = []
    forward = UNet.forward

    def counted(self: UNet, x: Tensor) -> Tensor:
        calls.append(tuple(x.shape))
        return forward(self, x)

    monkeypatch.setattr(UNet, "forward", counted)
    tool = build_tool(load_models(a_model())["small"], device="cpu", threads=1)
    assert calls == [(1, 6, 256, 256)]
    tool.process(a_chest, ToolContext())
    assert calls == [(1, 6, 256, 256)] * (1 + len(a_chest.voxels_zyx)), "nothing else is run"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_model_takes_no_more_threads_than_it_is_given(
    a_model: Callable[..., Path], threads: int
) -> None:
    build_tool(load_models(a_model())["small"], device="cpu", threads=threads)
    assert torch.get_num_threads() == threads
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads


def test_a_gpu_that_is_full_when_a_model_is_loaded_does_not_keep_it_from_loading() -> None:
    short = Short(gpu=0)
    predictor = Predictor(a_network(), GPU, WINDOW, short)
    predictor.warm()
    short.room["cuda"] = 16
    predictor.found(some_slices())
    assert predictor.engine == GPU


def test_the_cpu_is_taken_when_it_is_asked_for() -> None:
    engine = engine_for("cpu", 3)
    assert (engine.device, engine.threads) == ("cpu", 3)
    assert engine.label in {"cpu-bf16", "cpu-fp32"}


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "nonsense"])
def test_a_device_that_is_not_there_is_named(device: str, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ToolError, match=f"There is no device {device}; there are cpu."):
        engine_for(device, 1)


@pytest.mark.parametrize(
    ("device", "capability", "free_gib", "expected"),
    [
        ("auto", (9, 0), 70, "cuda-fp16"),
        ("cuda", (7, 5), 3, "cuda-fp16"),
        ("cuda:1", (8, 0), 1.2, "cuda-fp16-b8"),
        ("auto", (6, 1), 8, "cuda-fp32"),
        ("auto", (8, 6), 0.01, "cuda-fp16-b1"),
        ("cpu", (9, 0), 70, engines.on_cpu(1).label),
    ],
)
def test_a_gpu_is_used_as_it_can_be(monkeypatch, device, capability, free_gib, expected) -> None:
    free = int(free_gib * 2**30)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free, 2 * free))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    engine = engine_for(device, 1)
    assert engine.label == expected
    assert engine.device == {"auto": "cuda:0", "cuda": "cuda:0"}.get(device, device)


def test_the_ladder_has_ever_smaller_batches_and_the_cpu_at_its_end() -> None:
    assert [(e.device, e.batch) for e in rungs(replace(GPU, batch=8))] == [
        ("cuda:0", 8),
        ("cuda:0", 4),
        ("cuda:0", 1),
        ("cpu", 1),
    ]
    assert [(e.device, e.batch) for e in rungs(CPU)] == [("cpu", 1)]
    assert len({e.label for e in rungs(GPU)}) == 5, "each names its own arithmetic"
    through_openvino = replace(CPU, runtime="openvino", release="2026.1", precision="int8")
    assert [e.runtime for e in rungs(through_openvino)] == ["openvino", "torch"]
    assert through_openvino.label == "cpu-openvino2026.1-int8"


def test_a_batch_takes_no_more_than_half_of_the_free_memory() -> None:
    assert [batch_in(gib << 29) for gib in (0, 1, 2, 3, 4, 100)] == [1, 4, 8, 8, 16, 16]
