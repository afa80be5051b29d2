"""The processes that receive beside the node's own: given connections, kept alive, ended.

The node accepts, judges and records; they read, check and write. A connection is handed over as it
was accepted, with a socket on which its association asks the node (see `node.desk`).
"""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO

from dicom_node.decide.retry import Policy, wait_s
from dicom_node.dimse.house import House
from dicom_node.domain.errors import SpoolError
from dicom_node.node.desk import Desk
from dicom_node.node.receive import StorageReceiver
from dicom_node.node.supervise import how_ended
from dicom_node.node.wire import READY, Channel

_log = logging.getLogger("dicom_node")
_LOOK_S = 0.5
_AGAIN = Policy(first_s=5.0, max_s=60.0)  # not faster: one that dies at once would burn a core
_END_S = 5.0


@dataclass(slots=True, eq=False)
class _Hand:
    """One process. is_ready: it has said so. failed: starts of which none came to that, in turn.

    open: its connections. unsaid: those of them that are to end, and why; told when it can hear.
    """

    number: int
    process: subprocess.Popen[bytes] | None = None
    control: socket.socket | None = None
    is_ready: bool = False
    started_at: float = float("-inf")
    failed: int = 0
    open: int = 0
    unsaid: dict[_Handed, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)  # of unsaid

    def look(self) -> None:
        """See whether it has said that it is ready."""
        control = self.control
        if control is None or self.is_ready:
            return
        try:
            said = control.recv(len(READY))
        except OSError:  # nothing yet, or it is gone
            return
        if said == READY:
            self.is_ready = True
            _log.info("receiving process %d is ready", self.number)

    def speak(self) -> None:
        """Say what is unsaid, as much of it as it has room to hear."""
        control = self.control
        with self.lock:
            for handed, reason in list(self.unsaid.items()):
                if not handed.is_there:
                    continue
                try:
                    if control is not None:
                        control.send(json.dumps(["interrupt", handed.number, reason]).encode())
                except BlockingIOError:
                    return
                except OSError:  # it is gone, and the connection with it
                    pass
                del self.unsaid[handed]

    def let_go(self) -> None:
        """It has ended."""
        self.failed = 0 if self.is_ready else self.failed + 1
        self.is_ready = False
        control, self.control, self.process = self.control, None, None
        if control is not None:
            control.close()
        with self.lock:
            self.unsaid.clear()


@dataclass(slots=True, kw_only=True, eq=False)
class _Handed:
    """A connection in another process; see dimse.house.Connection. is_there: it has been sent."""

    number: int
    address: str
    hand: _Hand
    is_there: bool = False

    def interrupt(self, reason: str = "") -> None:
        """End it soon. reason: what the peer did; "": nothing."""
        with self.hand.lock:
            self.hand.unsaid[self] = reason
        self.hand.speak()

    def arrived(self) -> None:
        """The process is told of it before it hears that it is to end."""
        self.is_there = True
        self.hand.speak()

    def left(self) -> None:
        """It has ended."""
        with self.hand.lock:
            self.hand.unsaid.pop(self, None)


@dataclass(slots=True, kw_only=True)
class Crew:
    """Starts `count` processes with `command`, and looks after them; safe for many threads.

    command: arguments of Python; each is told besides by which descriptor it is spoken to, and says
    READY there when it can serve. sweep: takes away what a process that has ended, by its id, left
    unfinished; SpoolError.
    """

    count: int
    command: Sequence[str]
    receiver: StorageReceiver
    sweep: Callable[[int], object]
    log_to: IO[str] | None = None
    _hands: list[_Hand] = field(default_factory=list)
    _last: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, now: float) -> None:
        """Start all of them. Each is handed nothing before it is ready."""
        self._hands = [_Hand(number) for number in range(self.count)]
        self.run_due(now)

    def ready(self) -> int:
        """How many of them can serve."""
        return sum(hand.is_ready for hand in self._hands)

    def take(self, connection: socket.socket, address: tuple[str, int], house: House) -> bool:
        """Hand a connection over to the process that has fewest; False if there is none."""
        with self._lock:
            self._last += 1
            hands = sorted(self._hands, key=lambda hand: hand.open)
            number = self._last
        for hand in hands:
            hand.look()
            if not hand.is_ready:
                continue
            handed = _Handed(number=number, address=address[0], hand=hand)
            if self._hand_over(handed, connection, address, house):
                return True
        return False

    def run_due(self, now: float) -> float:
        """Start again what has ended, say what could not be said. Returns when to look again."""
        for hand in self._hands:
            hand.look()
            process = hand.process
            if process is not None and (code := process.poll()) is not None:
                _log.error("receiving process %d ended: %s", hand.number, how_ended(code))
                hand.let_go()
                self._clear_away(process.pid)
            hand.speak()
            pause_s = wait_s(max(hand.failed, 1), _AGAIN, 0.0)
            if hand.process is None and now - hand.started_at >= pause_s:
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

    def _clear_away(self, writer: int) -> None:
        try:
            self.sweep(writer)
        except SpoolError as error:  # the node's next start tries again
            _log.error("what receiving process %d left is not cleared away: %s", writer, error)

    def _start(self, hand: _Hand) -> None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        here.setblocking(False)  # one that is stuck keeps nobody waiting
        try:
            with there:
                hand.process = subprocess.Popen(
                    [sys.executable, *self.command, str(there.fileno())],
                    stdin=subprocess.DEVNULL,
                    stderr=self.log_to,
                    pass_fds=[there.fileno()],
                )
        except OSError as error:  # no memory for it, or no process more
            here.close()
            hand.failed += 1
            _log.error("receiving process %d is not started: %s", hand.number, error.strerror)
            return
        hand.is_ready, hand.control = False, here
        _log.info("receiving process %d is started", hand.number)

    def _hand_over(
        self, handed: _Handed, connection: socket.socket, address: tuple[str, int], house: House
    ) -> bool:
        """The desk is there before the other process can ask: else two would serve one peer."""
        control = handed.hand.control
        if control is None:
            return False
        try:
            here, there = socket.socketpair()
        except OSError:  # no more descriptors
            return False
        with there:
            house.gate.arrive(handed)
            desk = Desk(Channel(here), handed, house, self.receiver)
            try:
                threading.Thread(
                    target=self._attend, args=(desk, handed), name="desk", daemon=True
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
        handed.arrived()
        return True

    def _attend(self, desk: Desk, handed: _Handed) -> None:
        with self._lock:
            handed.hand.open += 1
        try:
            desk.run()
        finally:
            handed.left()
            with self._lock:
                handed.hand.open -= 1
