"""Compressed images are decoded by processes of their own: whatever a code stream does to one of
them, here it is a sentence.

Decoders are large programs in C, C++ and Rust that are fed with what anybody sent. So each runs in
a process with limits of memory and time (`node.decoder`), which knows neither catalog nor spool.
It inherits no secret. The code stream goes there in memory that both share and that it cannot take
back, the pixels come back in it, and a line of JSON each way says what to do and how it went.
"""

from __future__ import annotations

import fcntl
import json
import logging
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from dicom_node.config.environment import for_python
from dicom_node.domain.errors import DecoderEnded, PixelsUndecodable, ToolUnavailable
from dicom_node.domain.text import printable
from dicom_node.iod.code_stream import INTEGERS, CodeStream, Decoded
from dicom_node.node.supervise import how_ended

COMMAND = ("-W", "ignore", "-m", "dicom_node.node.decoder")  # a warning may quote what it read
_START_S = 60.0
_END_S = 10.0
_HAS_COMPUTED = 0.25  # of cpu_s: who was silent without it is not slow, but was kept waiting
_LINE_BYTES = 1 << 16
_STEP_BYTES = 1 << 20  # memory that is shared grows by this
# nobody shrinks it: who reads pages that are gone is killed
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_FROM_OUTSIDE = frozenset({-signal.SIGKILL, -signal.SIGTERM})
_SAID = tuple(field.name for field in fields(CodeStream) if field.name != "frame")
_ITEM_BYTES = {kind: int(kind[1]) for kind in INTEGERS.values()}

_log = logging.getLogger("dicom_node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one image may take of a decoder that runs.

    memory_bytes: beyond what a decoder has when it starts. cpu_s: of computing, and so no matter
    how busy the machine is. wall_s: of waiting, for what computes nothing and does not end either;
    two such waits are shorter than a performer may be silent.
    """

    memory_bytes: int = 1 << 30
    cpu_s: int = 30
    wall_s: float = 40.0


class _Lost(Exception):
    """A decoder is of no use any more; in words, why."""


class _Died(_Lost):
    """It ended instead of an answer; code: as `subprocess` returns it."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(how_ended(code))


class _Silent(_Lost):
    """There is no answer yet; computed_s: for how long it has had a core since it was asked."""

    def __init__(self, computed_s: float = 0.0) -> None:
        self.computed_s = computed_s
        super().__init__("no answer")


class _Strange(_Lost):
    """It lives, and does not talk as a decoder does."""


class _Process:
    """One decoder: used by one thread at a time, for one image after the other."""

    def __init__(self, command: Sequence[str], bounds: Bounds) -> None:
        self._channel, theirs = socket.socketpair()
        descriptor = os.memfd_create("dicom-node image", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with theirs, os.fdopen(descriptor, "rb+", buffering=0):
            os.ftruncate(descriptor, _STEP_BYTES)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            self._memory = mmap.mmap(descriptor, _STEP_BYTES)
            given = theirs.fileno(), descriptor
            limits = bounds.memory_bytes, bounds.cpu_s
            try:
                self._process = subprocess.Popen(
                    [sys.executable, *command, *map(str, (*given, *limits))],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=given,
                    env=for_python(),
                )
            except OSError:
                self._channel.close()
                self._memory.close()
                raise
        self.ready = False

    def wait_until_ready(self) -> None:
        """Raises _Lost."""
        try:
            self._line(time.monotonic() + _START_S)
        except TimeoutError:
            raise _Silent from None
        self.ready = True

    def decode(self, stream: CodeStream, wall_s: float) -> tuple[Decoded | str, bool]:
        """The pixels, or what is wrong; and whether it may be asked again. Raises _Lost."""
        pixels = stream.rows * stream.columns
        self._make_room(max(len(stream.frame), pixels * stream.bits_allocated // 8))
        self._memory[: len(stream.frame)] = stream.frame
        request = {name: getattr(stream, name) for name in _SAID}
        request.update(frame_bytes=len(stream.frame), memory_bytes=len(self._memory))
        had_s, until = self._computed_s(), time.monotonic() + wall_s
        self._channel.settimeout(wall_s)
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # it has died: how, is found next
                self._channel.sendall(json.dumps(request).encode() + b"\n")
            answer = self._line(until)
        except TimeoutError:
            raise _Silent(self._computed_s() - had_s) from None
        kind, again = str(answer.get("dtype")), answer.get("again") is True
        size = pixels * _ITEM_BYTES.get(kind, 0)
        if not 0 < size <= len(self._memory):
            return printable(str(answer.get("problem", "it gave no answer"))[:500]), again
        with memoryview(self._memory) as shared:
            return Decoded(dtype=kind, data=bytearray(shared[:size])), again

    def close(self) -> None:
        """End it."""
        self._channel.close()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self._memory.close()

    def _end(self) -> _Lost:
        """How it ended: it does not talk any more."""
        try:
            return _Died(self._process.wait(_END_S))
        except subprocess.TimeoutExpired:
            return _Strange("it fell silent, and went on")

    def _computed_s(self) -> float:
        """For how long it has had a core, as far as the system tells."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text("ascii", "replace")
        except OSError:
            return 0.0
        user, system = stat.rpartition(")")[2].split()[11:13]  # what is before ")" is its name
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def _make_room(self, size: int) -> None:
        if size > len(self._memory):
            self._memory.resize(-(-size // _STEP_BYTES) * _STEP_BYTES)

    def _line(self, until: float) -> dict[str, Any]:
        """The next line it says. Raises _Lost, or TimeoutError."""
        said = b""
        while not said.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._channel.settimeout(left)
            try:
                more = self._channel.recv(_LINE_BYTES)
            except ConnectionResetError:
                more = b""
            if not more:
                raise self._end()
            said += more
            if len(said) > _LINE_BYTES:
                raise _Strange("it says too much")
        try:
            answer = json.loads(said)
        except (ValueError, RecursionError):
            raise _Strange("what it says makes no sense") from None
        return answer if isinstance(answer, dict) else {}


class Decoders:
    """Decodes code streams, in as many processes as there are threads that ask at the same time.

    A process is started when there is none left to ask, and kept for the next image.
    """

    def __init__(self, bounds: Bounds | None = None, command: Sequence[str] = COMMAND) -> None:
        self._bounds = bounds or Bounds()
        self._command = command
        self._idle: deque[_Process] = deque()

    def __call__(self, stream: CodeStream) -> Decoded:
        """Decode an image, in a fresh process once more where one was lost, unless it had enough.

        Raises PixelsUndecodable, DecoderEnded where its decoder had to be ended, or died, and
        ToolUnavailable where that was not for the image.
        """
        try:
            found = self._tried(stream, self._taken())
        except _Lost as first:
            if _has_had_enough(first, self._bounds):
                raise _verdict(stream, first, self._bounds) from first
            _log.info("a decoder is lost, and another one is asked: %s", first)
            try:
                found = self._tried(stream, self._started())
            except _Lost as second:
                raise _verdict(stream, second, self._bounds) from second
        if isinstance(found, str):
            raise PixelsUndecodable(found)
        return found

    def close(self) -> None:
        """End the processes; nobody asks them any more."""
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tried(self, stream: CodeStream, process: _Process) -> Decoded | str:
        again = False
        try:
            found, again = process.decode(stream, self._bounds.wall_s)
        except (OSError, ValueError) as error:
            raise ToolUnavailable(f"a decoder cannot be used: {error}") from error
        finally:
            if again:
                self._idle.append(process)
            else:
                process.close()
        return found

    def _taken(self) -> _Process:
        with suppress(IndexError):
            return self._idle.pop()
        return self._started()

    def _started(self) -> _Process:
        try:
            process = _Process(self._command, self._bounds)
        except OSError as error:
            raise ToolUnavailable(f"a decoder cannot be started: {error.strerror}") from error
        try:
            process.wait_until_ready()
        except _Lost as error:
            raise ToolUnavailable(f"a decoder does not start: {error}") from error
        finally:
            if not process.ready:
                process.close()
        return process


def _has_had_enough(lost: _Lost, bounds: Bounds) -> bool:
    """Whether it computed too long: another one would, too."""
    if isinstance(lost, _Silent):
        return lost.computed_s >= bounds.cpu_s * _HAS_COMPUTED
    return isinstance(lost, _Died) and lost.code == -signal.SIGXCPU


def _verdict(
    stream: CodeStream, lost: _Lost, bounds: Bounds
) -> PixelsUndecodable | ToolUnavailable:
    """Of a decoder that had enough, or of the second one."""
    if _has_had_enough(lost, bounds):
        limit_s = bounds.wall_s if isinstance(lost, _Silent) else bounds.cpu_s
        return DecoderEnded(_said(stream, f"took longer than {limit_s:g} s to decode"))
    if isinstance(lost, _Silent):
        what = f"got next to no time to compute in {bounds.wall_s:g} s"
        return ToolUnavailable(f"the decoder of {stream.name} {what}")
    if isinstance(lost, _Died) and lost.code in _FROM_OUTSIDE:
        what = "was ended from outside, perhaps for want of memory"
        return ToolUnavailable(f"the decoder of {stream.name} {what}: {lost}")
    return DecoderEnded(_said(stream, f"ended its decoder: {lost}"))


def _said(stream: CodeStream, what: str) -> str:
    return f"{stream.name}: its {stream.codec.name} code stream {what}"
