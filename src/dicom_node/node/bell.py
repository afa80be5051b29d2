"""How one stage wakes another, within a process and across processes.

Each stage listens on a datagram socket of its own; whoever commits work for it rings. A ring that
finds nobody is lost, which costs at most the wait until the stage looks again by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import sys
from pathlib import Path

RECEIVE = "receive"
ASSEMBLE = "assemble"
ASK = "ask"
PERFORM = "perform"
DELIVER = "deliver"
CONFIRM = "confirm"
PROMISE = "promise"
RETAIN = "retain"
SUPERVISE = "supervise"
RECEIVERS = "receivers"
RECONCILE = "reconcile"
AUDIT = "audit"
AUDIT_SEND = "audit-send"
CERTIFICATES = "certificates"

PERFORMERS_MAX = 64
"""So many performers are rung where it is not known how many there are."""
MAX_WAIT_S = 30.0  # a stage looks for itself at least so often
_MAX_WAIT_UNHEARD_S = 1.0  # where there are no such sockets


class Bell:
    """Rings the stages of one node, known by its data folder."""

    def __init__(self, data_dir: Path) -> None:
        digest = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:24]
        self._prefix = f"\0dicom-node.{digest}."  # abstract: no file, gone with its process
        self._able = sys.platform == "linux"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if self._able else None
        if self._socket is not None:
            self._socket.setblocking(False)

    def ring(self, stage: str, number: int = 0) -> None:
        """Wake a stage; never blocks, never fails."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(b"1", f"{self._prefix}{stage}.{number}")

    def is_heard(self, stage: str, number: int = 0) -> bool:
        """Whether somebody listens, who is woken by the way; True where it cannot be told."""
        if self._socket is None:
            return True
        try:
            self._socket.sendto(b"1", f"{self._prefix}{stage}.{number}")
        except BlockingIOError:
            return True  # so many rings wait for him
        except OSError:
            return False
        return True

    def listen(self, stage: str, number: int = 0) -> Listener:
        """Be the one that a stage's bell wakes. OSError if somebody is already."""
        return Listener(f"{self._prefix}{stage}.{number}" if self._able else None)

    def close(self) -> None:
        """Ring no more."""
        if self._socket is not None:
            self._socket.close()


class Listener:
    """The ear of one stage."""

    def __init__(self, address: str | None) -> None:
        self._socket: socket.socket | None = None
        if address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.bind(address)

    def wait(self, seconds: float) -> None:
        """Return at a ring, or after so many seconds, whichever is first."""
        seconds = min(max(seconds, 0.0), MAX_WAIT_S)
        if self._socket is None:
            select.poll().poll(min(seconds, _MAX_WAIT_UNHEARD_S) * 1000)
            return
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if poll.poll(seconds * 1000):
            with contextlib.suppress(BlockingIOError):
                while True:  # several rings are one
                    self._socket.recv(16)

    def close(self) -> None:
        """Listen no more."""
        if self._socket is not None:
            self._socket.close()
