"""The audit trail: from the catalog's events to its spool, and on to a file and a collector.

Nobody waits for it. The events are read behind a cursor that is written together with the messages
that they lead to: a crash loses none of them. What is no event goes through a queue in memory.
Towards the file and the collector a message may come twice, the same to the byte; never less than
once, unless the spool was full, and then a message says so.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_node.audit import codes
from dicom_node.audit.box import Posted, posted, take_away
from dicom_node.audit.file import AuditFile
from dicom_node.audit.message import (
    Message,
    Outcome,
    Participant,
    application_activity,
    security_alert,
)
from dicom_node.audit.segment import Seen
from dicom_node.audit.spool import AuditSpool, Cursor
from dicom_node.audit.syslog import Collector, Origin, frame, line, pause_s
from dicom_node.audit.xml import to_xml
from dicom_node.catalog.trail import AT_ONCE, Trail
from dicom_node.domain.errors import AuditError, NodeError
from dicom_node.node import bell as bells
from dicom_node.node.audited import Begun, Teller
from dicom_node.node.clock import Clock

FILE, SYSLOG = "file", "syslog"
"""Who reads the spool."""

GATHER_S = 1.0  # what happens within it is written together
MORE_S = 0.1  # where there is more than is looked at together
AGAIN_S = 10.0  # after the disk refused
SETTLE_S = 5.0  # a connection that stands so long has brought what was sent
_QUEUE_MAX = 1000
_POSTED_MAX = 200  # at a time
_BATCH_BYTES = 128 * 1024

_log = logging.getLogger("dicom_node")

Tell = Callable[[Message], None]
"""Takes an audit message; returns at once, and never fails."""


def nobody(message: Message) -> None:
    """There is no audit trail."""
    del message


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Who tells. source_id: as collectors are to know this node. origin: of the syslog lines."""

    node: Participant
    source_id: str
    origin: Origin

    def posted(self, message: Message) -> Posted:
        """The message in its final words, but without a number."""
        well = message.outcome is Outcome.SUCCESS
        return Posted(at=message.at, well=well, xml=to_xml(message, self.source_id))

    def lines(self, messages: Sequence[Posted], first: int) -> list[bytes]:
        """As they are spooled, written and sent; numbered from `first` on."""
        return [
            line(one.xml, at=one.at, well=one.well, number=number, origin=self.origin)
            for number, one in enumerate(messages, first)
        ]


class _Troubles:
    """Says once that something does not work, and once that it works again. what: that does."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._known = ""

    def are(self, trouble: str) -> None:
        """What does not work; "" if all does."""
        if trouble and not self._known:
            _log.error("audit trail: %s", trouble)
        elif self._known and not trouble:
            _log.info("audit trail: %s works again", self._what)
        self._known = trouble


class Recorder:
    """The stage that writes. tell() is called from any thread, the rest from one."""

    def __init__(
        self,
        *,
        spool: AuditSpool,
        trail: Trail,
        teller: Teller,
        reporter: Reporter,
        file: AuditFile | None,
        box: Path,
        wake: Callable[[str], None],
    ) -> None:
        """box: where commands post. wake: called with the bell of the stage that has something to
        do."""
        self._spool = spool
        self._trail = trail
        self._teller = teller
        self._reporter = reporter
        self._file = file
        self._box = box
        self._wake = wake
        self._lock = threading.Lock()
        self._queue: deque[Message] = deque()
        self._dropped = 0
        self._begun: Begun = frozenset()
        self._seen: Seen | None = None
        self._next_at = float("-inf")
        self._file_at = float("-inf")
        self._troubles = _Troubles("its spool")
        self._file_troubles = _Troubles(f"the file {file.path}" if file is not None else "")

    def tell(self, message: Message) -> None:
        """Remember a message that no event leads to; if there are too many, the oldest go."""
        with self._lock:
            self._queue.append(message)
            if len(self._queue) > _QUEUE_MAX:
                self._queue.popleft()
                self._dropped += 1
        self._wake(bells.AUDIT)

    def run_due(self, now: float) -> float | None:
        """Write what there is to tell, and say when to come again. Raises CatalogError."""
        if now < self._next_at:
            return self._next_at
        self._next_at = now + GATHER_S
        try:
            more = self._record(now)
        except AuditError as error:
            self._troubles.are(str(error))
            self._next_at = now + AGAIN_S
            return self._next_at
        self._troubles.are("")
        file_at = self._write_file(now)
        if more:
            self._next_at = now + MORE_S
        return self._next_at if more else file_at

    def finish(self, now: float) -> None:
        """The node is about to stop: that is told, too."""
        stopped = application_activity(at=now, node=self._reporter.node, started=False)
        self.tell(stopped)
        try:
            while self._record(now):
                pass
            self._write_file(float("inf"))
        except NodeError as error:  # the next start tells the events, and that it started
            self._troubles.are(str(error))

    def _record(self, now: float) -> bool:
        """Spool what is new; whether there is more."""
        seen = self._where()
        until = Seen(*(self._trail.next_position(seen.number) or seen))
        story = self._teller.story(seen.number, until.number, self._begun)
        queued, dropped = self._take_queue()
        try:
            commands = posted(self._box, _POSTED_MAX)
            losses = {name: self._spool.cursor(name) for name in self._spool.readers}
            messages = [
                *(self._reporter.posted(one) for one in self._losses(losses, dropped, now)),
                *(self._reporter.posted(one) for one in (*story.messages, *queued)),
                *commands,
            ]
            if messages or until != seen:
                self._spool.append(self._reporter.lines(messages, self._spool.next_number), until)
        except AuditError:
            self._give_back(queued, dropped)
            raise
        self._seen, self._begun = until, story.begun
        for name, cursor in losses.items():
            if cursor.untold:
                self._spool.told(name, cursor.untold)
        take_away(commands)
        if messages:
            self._wake(bells.AUDIT_SEND)
        return until.number - seen.number >= AT_ONCE or len(commands) >= _POSTED_MAX

    def _where(self) -> Seen:
        """Up to where the events are told; from the node's last start on, where it is not known.

        After the catalog was made anew, the numbers are those of other events.
        """
        if self._seen is None:
            seen = self._spool.seen
            if seen is None or self._trail.position(seen.number) != seen:
                before = max(self._trail.last_start() - 1, 0)
                seen = Seen(*(self._trail.position(before) or (before, 0.0)))
            self._seen = seen
        return self._seen

    def _take_queue(self) -> tuple[list[Message], int]:
        with self._lock:
            queued, self._queue = list(self._queue), deque()
            dropped, self._dropped = self._dropped, 0
        return queued, dropped

    def _give_back(self, queued: Sequence[Message], dropped: int) -> None:
        with self._lock:
            self._queue.extendleft(reversed(queued))
            self._dropped += dropped
            while len(self._queue) > _QUEUE_MAX:
                self._queue.popleft()
                self._dropped += 1

    def _losses(self, cursors: dict[str, Cursor], dropped: int, now: float) -> list[Message]:
        """That messages were lost is told; and how many in all, for this may be lost, too."""
        told = [
            f"{cursor.untold} audit messages were lost before they reached the {name}: the spool "
            f"was full, or damaged ({cursor.lost} in all)"
            for name, cursor in cursors.items()
            if cursor.untold
        ]
        if dropped:
            told.append(f"{dropped} audit messages were lost: too many at once")
        return [
            security_alert(
                at=now,
                node=self._reporter.node,
                kind=codes.RECORDING_STOPPED,
                what=what,
                outcome=Outcome.MAJOR,
            )
            for what in told
        ]

    def _write_file(self, now: float) -> float | None:
        """Write what is spooled, and say when to try again if the file cannot be written."""
        if self._file is None:
            return None
        if now < self._file_at:
            return self._file_at
        try:
            while some := self._spool.read(self._spool.cursor(FILE).next, _BATCH_BYTES):
                self._file.append([message for _, message in some])
                self._spool.advance(FILE, some[-1][0] + 1)
        except AuditError as error:
            self._file_troubles.are(str(error))
            self._file_at = now + AGAIN_S
            return self._file_at
        self._file_troubles.are("")
        return None


class Sender:
    """The stage that sends to a collector; for one thread.

    The collector says nothing, and what it had not read when it died is lost with it. So the
    cursor follows some seconds behind what was sent: after a connection has broken, what may not
    have been read is sent again.
    """

    def __init__(self, *, spool: AuditSpool, collector: Collector, clock: Clock) -> None:
        self._spool = spool
        self._collector = collector
        self._clock = clock
        self._next = 0  # to be sent
        self._sent: deque[tuple[float, int]] = deque()  # when, and up to which
        self._failures = 0
        self._not_before = float("-inf")
        self._troubles = _Troubles(f"the collector {collector.endpoint.name}")

    def run_due(self, now: float) -> float | None:
        """Send what there is, and say when to come again.

        A handshake proves nothing: by TLS 1.3 a collector that refuses this node says so later, or
        only closes the connection. What it has borne for SETTLE_S counts.
        """
        if now < self._not_before:
            return self._not_before
        try:
            self._go_on()
        except AuditError as error:
            self._collector.drop()
            self._failures += 1
            self._not_before = self._clock.now() + pause_s(self._failures, self._clock.luck())
            self._troubles.are(str(error))
            return self._not_before
        return self._sent[0][0] + SETTLE_S if self._sent else None

    def finish(self, seconds: float) -> None:
        """Send what there is, if that is possible in so long, and say goodbye."""
        deadline = self._clock.now() + seconds
        if self._failures and not self._collector.is_open():
            return  # the next start sends it
        with contextlib.suppress(AuditError):
            self._collector.hurry(seconds)
            self._go_on(deadline)
            if self._sent and self._collector.goodbye(max(deadline - self._clock.now(), 0.1)):
                self._spool.advance(SYSLOG, self._next)
        self._collector.drop()

    def _go_on(self, until: float = float("inf")) -> None:
        """Settle what has arrived, and send batch after batch, beginning none after `until`."""
        if self._collector.is_open() and self._collector.is_gone() and self._sent:
            raise AuditError(f"{self._collector.farewell}: what it may not have read is sent again")
        if not self._collector.is_open():
            self._next = 0
            self._sent.clear()
        self._settle()
        while self._clock.now() < until and (
            some := self._spool.read(self._position(), _BATCH_BYTES)
        ):
            self._collector.send(b"".join(frame(message) for _, message in some))
            self._next = some[-1][0] + 1
            self._sent.append((self._clock.now(), self._next))

    def _position(self) -> int:
        """What is next; what went for want of room cannot be sent."""
        return max(self._next, self._spool.cursor(SYSLOG).next)

    def _settle(self) -> None:
        until = self._clock.now() - SETTLE_S
        number = 0
        while self._sent and self._sent[0][0] <= until:
            _, number = self._sent.popleft()
        if number:
            self._spool.advance(SYSLOG, number)
            self._failures = 0
            self._troubles.are("")
