"""The bytes of a connection, cut in place into PDUs and data values (PS3.8 §9.3). Pure.

Lengths are counters that survive the end of a buffer, so neither a PDU nor a data value need fit
into one: memory stays the same for any size of either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dicom_node.dimse import pdu
from dicom_node.dimse.contract import Rejection
from dicom_node.dimse.pdu import ProtocolError
from dicom_node.dimse.status import UNEXPECTED_PDU, UNRECOGNISED_PDU, Abort

_HEADER_BYTES = 6  # both of a PDU and of a data value


@dataclass(slots=True)
class Associate:
    """A whole A-ASSOCIATE-RQ, without its header."""

    body: bytes


@dataclass(slots=True)
class Accepted:
    """A whole A-ASSOCIATE-AC, without its header."""

    body: bytes


@dataclass(slots=True)
class Rejected:
    """An A-ASSOCIATE-RJ."""

    rejection: Rejection


@dataclass(slots=True)
class Fragment:
    """A piece of a message; data is valid until the next feed(). last: the message part ends."""

    context_id: int
    command: bool
    last: bool
    data: memoryview


@dataclass(slots=True)
class Release:
    """An A-RELEASE-RQ."""


@dataclass(slots=True)
class Released:
    """An A-RELEASE-RP."""


@dataclass(slots=True)
class Aborted:
    """An A-ABORT of the peer."""

    abort: Abort


Event = Associate | Accepted | Rejected | Fragment | Release | Released | Aborted

_AWAITED = {  # as acceptor or requestor, before and after establishment (PS3.8 Table 9-10)
    (False, False): {pdu.ASSOCIATE_RQ, pdu.ABORT},
    (False, True): {pdu.P_DATA, pdu.RELEASE_RQ, pdu.ABORT},
    (True, False): {pdu.ASSOCIATE_AC, pdu.ASSOCIATE_RJ, pdu.ABORT},
    (True, True): {pdu.P_DATA, pdu.RELEASE_RQ, pdu.RELEASE_RP, pdu.ABORT},
}


class Stream:
    """What one side hears. established: set it when the association is accepted.

    requestor: whether that side asked for it. pdus: headers read so far. mid_pdu: whether the last
    of these PDUs lacks bytes.
    """

    def __init__(self, *, associate_bytes: int, pdu_bytes: int, requestor: bool = False) -> None:
        self.established = False
        self._requestor = requestor
        self.pdus = 0
        self._associate_bytes = associate_bytes
        self._pdu_bytes = pdu_bytes
        self._kind = 0
        self._pdu_left = 0
        self._value_left = 0
        self._context_id = 0
        self._control = 0
        self._pending = bytearray()  # of a header, or of the body of a PDU that is not P-DATA

    @property
    def mid_pdu(self) -> bool:
        """Whether a PDU has begun and not ended."""
        return self._pdu_left > 0 or len(self._pending) > 0

    def feed(self, data: memoryview) -> Iterator[Event]:
        """Cut the next bytes into events, lazily; exhaust it. Raises ProtocolError."""
        position, end = 0, len(data)
        while position < end:
            if self._value_left:
                position, fragment = self._data(data, position)
                yield fragment
            elif self._pdu_left and self._kind != pdu.P_DATA:
                taken = min(self._pdu_left, end - position)
                self._pending += data[position : position + taken]
                self._pdu_left -= taken
                position += taken
                if not self._pdu_left:
                    yield self._control_pdu()
            else:
                taken = min(_HEADER_BYTES - len(self._pending), end - position)
                self._pending += data[position : position + taken]
                position += taken
                if len(self._pending) == _HEADER_BYTES:
                    if self._pdu_left:
                        empty = self._open_value()
                        if empty is not None:
                            yield empty
                    else:
                        self._open_pdu()

    def _data(self, data: memoryview, position: int) -> tuple[int, Fragment]:
        taken = min(self._value_left, len(data) - position)
        self._value_left -= taken
        self._pdu_left -= taken
        return position + taken, Fragment(
            self._context_id,
            bool(self._control & 1),
            self._value_left == 0 and bool(self._control & 2),
            data[position : position + taken],
        )

    def _open_pdu(self) -> None:
        self._kind, length = self._pending[0], int.from_bytes(self._pending[2:], "big")
        self._pending.clear()
        self.pdus += 1
        if not pdu.ASSOCIATE_RQ <= self._kind <= pdu.ABORT:
            raise ProtocolError("the PDU is of no known type", UNRECOGNISED_PDU)
        if self._kind not in _AWAITED[self._requestor, self.established]:
            raise ProtocolError("the PDU does not belong here", UNEXPECTED_PDU)
        if self._kind == pdu.P_DATA:
            if not _HEADER_BYTES <= length <= self._pdu_bytes:
                raise ProtocolError("the P-DATA PDU is longer than announced, or holds nothing")
        elif self._kind in (pdu.ASSOCIATE_RQ, pdu.ASSOCIATE_AC):
            if not 0 < length <= self._associate_bytes:
                raise ProtocolError("the A-ASSOCIATE PDU is longer than anything it may hold")
        elif length != 4:
            raise ProtocolError("the PDU does not have the length of its type")
        self._pdu_left = length

    def _open_value(self) -> Fragment | None:
        length = int.from_bytes(self._pending[:4], "big")
        self._context_id, self._control = self._pending[4], self._pending[5]
        self._pending.clear()
        if not 2 <= length <= self._pdu_left - 4:
            raise ProtocolError("a data value does not fit its PDU")
        self._pdu_left -= _HEADER_BYTES
        self._value_left = length - 2  # the two are context and control, read already
        if 0 < self._pdu_left - self._value_left < _HEADER_BYTES:
            raise ProtocolError("the PDU ends inside the header of a data value")
        if self._value_left:
            return None
        last = bool(self._control & 2)
        return Fragment(self._context_id, bool(self._control & 1), last, memoryview(b""))

    def _control_pdu(self) -> Event:
        body = bytes(self._pending)
        self._pending.clear()
        if self._kind == pdu.ASSOCIATE_RQ:
            return Associate(body)
        if self._kind == pdu.ASSOCIATE_AC:
            return Accepted(body)
        if self._kind == pdu.ASSOCIATE_RJ:
            return Rejected(Rejection(result=body[1], source=body[2], reason=body[3]))
        if self._kind == pdu.RELEASE_RQ:
            return Release()
        if self._kind == pdu.RELEASE_RP:
            return Released()
        return Aborted(Abort(source=body[2], reason=body[3]))
