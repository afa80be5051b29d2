"""The process of one decoder: `... decoder CHANNEL MEMORY MEMORY_BYTES CPU_S` (see node.decode).

CHANNEL and MEMORY are descriptors that it inherits. A line of JSON on the channel asks for an image
whose code stream lies at the beginning of the memory; the stored values are put there, and a line
says so, or what is wrong. The end of the channel is the end of the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import mmap
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from dicom_node.domain.errors import PixelsUndecodable
from dicom_node.iod.code_stream import CodeStream, decoded

_KEPT_PART = 4  # of the memory that it may take: who has kept more of it is replaced
_HEAP = {-1: 64 << 20, -3: 16 << 20}  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of glibc
_FIRST_TO_GO = "900"  # where the machine has no memory left: sooner than the node


def main(arguments: list[str]) -> int:
    """Decode until nobody asks any more."""
    channel_number, memory_number, memory_bytes, cpu_s = map(int, arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # whoever asks decides
    _keep_memory()
    with socket.socket(fileno=channel_number) as channel:
        decoder = _Decoder(memory_number, _Limits(memory_bytes, cpu_s))
        channel.sendall(b"{}\n")
        for line in channel.makefile("rb"):
            channel.sendall(json.dumps(decoder.answer(json.loads(line))).encode() + b"\n")
    return 0


class _Limits:
    """What the operating system lets this process have."""

    def __init__(self, memory_bytes: int, cpu_s: int) -> None:
        self._cpu_s, self._renew_at_s = cpu_s, 0.0
        self._most = _resident_most() + memory_bytes // _KEPT_PART
        self._had, self._kept = _address_space(), memory_bytes // _KEPT_PART
        _limit(resource.RLIMIT_CORE, 0)  # it would be full of pixels
        if self._had:
            _limit(resource.RLIMIT_AS, self._had + memory_bytes)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO, "ascii")

    def begin(self) -> None:
        """The next image has at least cpu_s, and at most twice that."""
        used_s = time.process_time()
        if used_s >= self._renew_at_s:
            self._renew_at_s = used_s + self._cpu_s
            _limit(resource.RLIMIT_CPU, math.ceil(used_s) + 2 * self._cpu_s)

    def are_near(self) -> bool:
        """Whether much of the memory was kept by decoders that have ended."""
        return _resident_most() > self._most and _address_space() > self._had + self._kept


class _Decoder:
    def __init__(self, memory_number: int, limits: _Limits) -> None:
        self._number, self._limits = memory_number, limits
        self._memory = mmap.mmap(-1, 1)  # until an image says how large it is

    def answer(self, request: dict[str, Any]) -> dict[str, object]:
        """The stored values are in the memory, or a problem says why not."""
        self._limits.begin()
        frame_bytes, memory_bytes = request.pop("frame_bytes"), request.pop("memory_bytes")
        if len(self._memory) != memory_bytes:  # another mapping for each image would be dear
            self._memory.close()
            self._memory = mmap.mmap(self._number, memory_bytes)
        answer = self._decoded(CodeStream(**request, frame=self._memory[:frame_bytes]))
        return {**answer, "again": not self._limits.are_near()}

    def _decoded(self, stream: CodeStream) -> dict[str, object]:
        try:
            found = decoded(stream)
        except PixelsUndecodable as error:
            return {"problem": str(error)}
        if len(found.data) > len(self._memory):
            return {"problem": f"{stream.name}: its samples are wider than its header says"}
        self._memory[: len(found.data)] = found.data
        return {"dtype": found.dtype}


def _keep_memory() -> None:
    """What one image needed is there for the next: fresh pages cost more than some decoders."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # only glibc has it
    if mallopt is not None:
        for what, size in _HEAP.items():
            mallopt(what, size)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _resident_most() -> int:
    """Bytes that it had in memory at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _address_space() -> int:
    """What it has of it, in bytes; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    except (OSError, ValueError):
        return 0
    return pages * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
