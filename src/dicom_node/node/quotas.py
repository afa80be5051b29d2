"""What a peer may send at a time, over all of its associations, counted as it comes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from dicom_node.decide.quota import Allowance, Quota, is_crowded, one_more
from dicom_node.dimse.contract import Sink, StoreAnswer
from dicom_node.domain.records import Peer
from dicom_node.node.clock import Clock

_MIB = 1024 * 1024
CROWDED = "too much of this peer's is in flight: try again later"


def quota_of(peer: Peer) -> Quota | None:
    """As configured; None where nothing is."""
    if peer.objects_per_minute is None and peer.in_flight_mib is None:
        return None
    return Quota(
        per_minute=peer.objects_per_minute,
        in_flight_bytes=None if peer.in_flight_mib is None else peer.in_flight_mib * _MIB,
    )


class Meter:
    """Counts the objects of one peer; for many threads."""

    def __init__(self, quota: Quota, clock: Clock) -> None:
        self._quota = quota
        self._clock = clock
        self._allowance = Allowance()
        self._objects = 0
        self._bytes = 0
        self._lock = threading.Lock()

    def refusal(self) -> str:
        """Why an object may not begin now, "" if it may: then it counts as one of the minute."""
        with self._lock:
            if is_crowded(self._quota, self._objects + 1, self._bytes):
                return CROWDED
            self._allowance, may = one_more(self._allowance, self._quota, self._clock.now())
            if may:
                return ""
            return f"more than {self._quota.per_minute} objects a minute: try again later"

    def began(self) -> None:
        """One more is in flight."""
        with self._lock:
            self._objects += 1

    def came(self, count: int) -> bool:
        """So many bytes more of one of them; whether it may go on."""
        with self._lock:
            if is_crowded(self._quota, self._objects, self._bytes + count):
                return False
            self._bytes += count
            return True

    def ended(self, count: int) -> None:
        """One of them, of which so many bytes had come, is in flight no more."""
        with self._lock:
            self._objects -= 1
            self._bytes -= count


class Flight(Protocol):
    """The object of one association that is on its way, if one is; used by its thread."""

    def began(self) -> None:
        """One is in flight."""

    def came(self, count: int) -> bool:
        """So many bytes more of it; whether it may go on."""

    def ended(self) -> None:
        """It is in flight no more; nothing, if none is."""


class Counted:
    """A Flight that counts for the meter of its peer."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self._bytes: int | None = None  # of one in flight

    def began(self) -> None:
        """One is in flight."""
        self.ended()
        self._bytes = 0
        self.meter.began()

    def came(self, count: int) -> bool:
        """So many bytes more of it; whether it may go on."""
        may = self._bytes is not None and self.meter.came(count)
        if may and self._bytes is not None:
            self._bytes += count
        return may

    def ended(self) -> None:
        """It is in flight no more; nothing, if none is."""
        if self._bytes is not None:
            self.meter.ended(self._bytes)
            self._bytes = None


class Metered:
    """A sink whose bytes count. refuse: records why the object was not taken after all."""

    def __init__(self, sink: Sink, flight: Flight, refuse: Callable[[str], StoreAnswer]) -> None:
        self._sink = sink
        self._flight = flight
        self._refuse = refuse
        self._is_crowded = False
        flight.began()

    def write(self, chunks: Sequence[memoryview | bytes]) -> None:
        """Pass the bytes on; beyond the quota the rest is let pass, and finish() answers for it."""
        if self._is_crowded:
            return
        if self._flight.came(sum(len(chunk) for chunk in chunks)):
            self._sink.write(chunks)
            return
        self._is_crowded = True
        self._flight.ended()
        self._sink.abort()

    def finish(self) -> StoreAnswer:
        """As that of the sink."""
        if self._is_crowded:
            return self._refuse(CROWDED)
        try:
            return self._sink.finish()
        finally:
            self._flight.ended()

    def abort(self) -> None:
        """As that of the sink."""
        if not self._is_crowded:
            self._flight.ended()
            self._sink.abort()
