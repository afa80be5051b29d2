"""What a RuntimeError of a network means: little memory, a lost device, or something else."""

from __future__ import annotations

import torch

_SHORT = (  # of torch, CUDA, cuDNN, cuBLAS, the C++ library and OpenVINO
    "out of memory",
    "outofmemory",
    "alloc_failed",
    "allocation_failed",
    "allocate memory",
    "memory allocation",
    "not enough memory",
    "bad_alloc",
    "bad allocation",
    "cudahostalloc",
)
_MOST = 300  # characters of what a library says


def is_shortage(error: RuntimeError) -> bool:
    """Whether less work at a time, or another device, may do."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(words in text for words in _SHORT)


def in_short(error: BaseException) -> str:
    """What an error says, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MOST else f"{text[:_MOST]} ..."


def is_device_lost(device: str) -> bool:
    """Whether a CUDA device takes no more orders of this process, as after an illegal access.

    device: "cuda:N"; any other name is none that can be lost. To be asked after an error.
    """
    if not device.startswith("cuda:") or not _in_use():
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        return not is_shortage(error)
    return False


def _in_use() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
