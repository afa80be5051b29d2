"""The processes that receive beside the node's own: given connections, kept alive, ended.

The node accepts, judges and records; they read, check and write. A connection is handed over as it
was accepted, with a socket on which its association asks the node (see `node.desk`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO

from dicom_node.dimse.house import House
from dicom_node.node.desk import Desk
from dicom_node.node.receive import StorageReceiver
from dicom_node.node.supervise import how_ended
from dicom_node.node.wire import Channel

_log = logging.getLogger("dicom_node")
_LOOK_S = 0.5
_AGAIN_S = 5.0  # not faster: one that dies at once would burn a core
_END_S = 5.0


@dataclass(slots=True)
class _Hand:
    """One process. open: its connections."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    control: socket.socket | None = None
    started_at: float = float("-inf")
    open: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Handed:
    """A connection in another process; see dimse.house.Connection."""

    number: int
    address: str
    hand: _Hand

    def interrupt(self, reason: str = "") -> None:
        """End it soon. reason: what the peer did; "": nothing."""
        control = self.hand.control
        if control is not None:
            with contextlib.suppress(OSError):  # it is gone, and the connection with it
                control.send(json.dumps(["interrupt", self.number, reason]).encode())


@dataclass(slots=True, kw_only=True)
class Crew:
    """Starts `count` processes with `command`, and looks after them; safe for many threads.

    command: arguments of Python; each is told besides by which descriptor it is spoken to.
    """

    count: int
    command: Sequence[str]
    receiver: StorageReceiver
    log_to: IO[str] | None = None
    _hands: list[_Hand] = field(default_factory=list)
    _last: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, now: float) -> None:
        """Start all of them."""
        self._hands = [_Hand(number) for number in range(self.count)]
        self.run_due(now)

    def take(self, connection: socket.socket, address: tuple[str, int], house: House) -> bool:
        """Hand a connection over to the process that has fewest; False if there is none."""
        with self._lock:
            self._last += 1
            hands = sorted(self._hands, key=lambda hand: hand.open)
            number = self._last
        for hand in hands:
            handed = _Handed(number=number, address=address[0], hand=hand)
            if self._hand_over(handed, connection, address, house):
                return True
        return False

    def run_due(self, now: float) -> float:
        """Start again what has ended. Returns when to look again."""
        for hand in self._hands:
            if hand.process is not None and (code := hand.process.poll()) is not None:
                _log.error("receiving process %d ended: %s", hand.number, how_ended(code))
                self._let_go(hand)
            if hand.process is None and now - hand.started_at >= _AGAIN_S:
                hand.started_at = now
                self._start(hand)
        return now + _LOOK_S

    def end(self) -> None:
        """End all of them: what they still have is lost, to be sent again."""
        for hand in self._hands:
            control, process = hand.control, hand.process
            if control is not None:
                control.close()
            if process is not None:
                try:
                    process.wait(_END_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            hand.control = hand.process = None

    def _start(self, hand: _Hand) -> None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        here.setblocking(False)  # one that is stuck keeps nobody waiting
        with there:
            hand.process = subprocess.Popen(
                [sys.executable, *self.command, str(there.fileno())],
                stdin=subprocess.DEVNULL,
                stderr=self.log_to,
                pass_fds=[there.fileno()],
            )
        hand.control = here

    @staticmethod
    def _let_go(hand: _Hand) -> None:
        control, hand.control, hand.process = hand.control, None, None
        if control is not None:
            control.close()

    def _hand_over(
        self, handed: _Handed, connection: socket.socket, address: tuple[str, int], house: House
    ) -> bool:
        """The desk is there before the other process can ask: else two would serve one peer."""
        control = handed.hand.control
        if control is None:
            return False
        here, there = socket.socketpair()
        with there:
            house.gate.arrive(handed)
            desk = Desk(Channel(here), handed, house, self.receiver)
            try:
                threading.Thread(
                    target=self._attend, args=(desk, handed.hand), name="desk", daemon=True
                ).start()
            except RuntimeError:  # no more threads
                house.gate.leave(handed)
                here.close()
                return False
            message = json.dumps(
                ["serve", handed.number, *address, house.secure is not None]
            ).encode()
            try:
                socket.send_fds(control, [message], [connection.fileno(), there.fileno()])
            except OSError:  # it has died, or is stuck; the desk hears that `there` is closed
                return False
        return True

    def _attend(self, desk: Desk, hand: _Hand) -> None:
        with self._lock:
            hand.open += 1
        try:
            desk.run()
        finally:
            with self._lock:
                hand.open -= 1
