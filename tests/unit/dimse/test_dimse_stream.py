"""The parser: whatever the cut of the bytes, the same events; and malformed bytes named."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from contextlib import suppress
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_node.dimse import pdu, status
from dicom_node.dimse.contract import Limits
from dicom_node.dimse.message import Assembler, CommandSet, DataSetPart
from dicom_node.dimse.pdu import ProtocolError
from dicom_node.dimse.stream import (
    Aborted,
    Accepted,
    Associate,
    Fragment,
    Rejected,
    Release,
    Released,
    Stream,
)

RELEASE = bytes([5, 0, 0, 0, 0, 4, 0, 0, 0, 0])


def a_stream(*, established: bool = False) -> Stream:
    stream = Stream(associate_bytes=1 << 20, pdu_bytes=131072)
    stream.established = established
    return stream


def heard(pieces: Iterable[bytes]) -> list[object]:
    """What a sequence of received buffers says, data sets joined to one value each."""
    stream, assembler = a_stream(), Assembler(Limits())
    said: list[object] = []
    data = b""
    for piece in pieces:
        buffer = bytearray(piece)
        for event in stream.feed(memoryview(buffer)):
            if isinstance(event, Associate):
                said.append(pdu.decode_associate_rq(event.body))
                stream.established = True
            elif isinstance(event, Fragment):
                part = assembler.take(event)
                if isinstance(part, CommandSet):
                    said.append((part.context_id, part.command))
                elif isinstance(part, DataSetPart):
                    data += part.data
                    if part.last:
                        said.append(data)
                        data = b""
            else:
                said.append(event)
        buffer[:] = bytes(len(buffer))  # what was read in place must not be needed any more
    assert not stream.mid_pdu
    assert not assembler.mid_message
    return said


@pytest.fixture
def exchange(wire: SimpleNamespace) -> bytes:
    """A whole association: request, echo, store in several PDUs and values, release."""
    half = len(wire.c_store()) // 2
    return (
        wire.associate_rq(
            contexts=[(wire.CT, [wire.EXPLICIT]), (wire.VERIFICATION, [wire.EXPLICIT])]
        )
        + wire.p_data(wire.pdv(wire.c_echo(), 3, command=True))
        + wire.p_data(wire.pdv(wire.c_store()[:half], command=True, last=False))
        + wire.p_data(
            wire.pdv(wire.c_store()[half:], command=True),
            wire.pdv(b"first", command=False, last=False),
        )
        + wire.p_data(wire.pdv(b"second", command=False, last=False))
        + wire.p_data(wire.pdv(b"", command=False))
        + RELEASE
    )


def test_a_small_exchange_says_the_same_cut_at_every_byte(exchange: bytes) -> None:
    whole = heard([exchange])
    assert [type(x).__name__ for x in whole] == [
        "AssociateRequest",
        "tuple",
        "tuple",
        "bytes",
        "Release",
    ]
    assert whole[3] == b"firstsecond"
    for cut in range(1, len(exchange)):
        assert heard([exchange[:cut], exchange[cut:]]) == whole, cut


def test_a_small_exchange_says_the_same_byte_by_byte(exchange: bytes) -> None:
    assert heard(exchange[i : i + 1] for i in range(len(exchange))) == heard([exchange])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data_sets=st.lists(st.binary(min_size=1, max_size=400), min_size=1, max_size=4),
    value_bytes=st.integers(1, 150),
    values_a_pdu=st.integers(1, 4),
    cuts=st.lists(st.integers(1, 97), min_size=1, max_size=5),
)
def test_messages_come_out_as_they_went_in_however_they_are_fragmented(
    wire: SimpleNamespace,
    data_sets: list[bytes],
    value_bytes: int,
    values_a_pdu: int,
    cuts: list[int],
) -> None:
    raw = wire.associate_rq()
    for number, data in enumerate(data_sets):
        values = []
        for source, command in ((wire.c_store(message_id=number), True), (data, False)):
            pieces = [source[i : i + value_bytes] for i in range(0, len(source), value_bytes)]
            values += [wire.pdv(piece, command=command, last=False) for piece in pieces[:-1]]
            values.append(wire.pdv(pieces[-1], command=command, last=True))
        for i in range(0, len(values), values_a_pdu):
            raw += wire.p_data(*values[i : i + values_a_pdu])
    pieces, offset, turn = [], 0, 0
    while offset < len(raw):
        pieces.append(raw[offset : offset + cuts[turn % len(cuts)]])
        offset += len(pieces[-1])
        turn += 1
    said = heard(pieces)
    assert [x for x in said if isinstance(x, bytes)] == data_sets
    assert [x[1].message_id for x in said if isinstance(x, tuple)] == list(range(len(data_sets)))


def test_the_abort_of_the_peer_carries_its_source_and_reason() -> None:
    raw = pdu.encode_abort(status.UNEXPECTED_PDU)
    assert list(a_stream(established=True).feed(memoryview(raw))) == [
        Aborted(status.UNEXPECTED_PDU)
    ]


def test_a_release_is_heard_once_it_is_whole() -> None:
    stream = a_stream(established=True)
    assert list(stream.feed(memoryview(RELEASE[:9]))) == []
    assert stream.mid_pdu
    assert list(stream.feed(memoryview(RELEASE[9:]))) == [Release()]
    assert not stream.mid_pdu


@pytest.mark.parametrize("big", [2**31 + 10, 2**32 - 1])
def test_lengths_beyond_31_bits_are_lengths_and_not_memory(big: int) -> None:
    stream = Stream(associate_bytes=1 << 20, pdu_bytes=2**32)
    stream.established = True
    header = struct.pack(">BxI", 4, big) + struct.pack(">IBB", big - 4, 1, 2)
    assert list(stream.feed(memoryview(header))) == []
    (fragment,) = stream.feed(memoryview(b"abc"))
    assert isinstance(fragment, Fragment)
    assert (bytes(fragment.data), fragment.last) == (b"abc", False)


def value_of(length: int) -> bytes:
    return struct.pack(">IBB", length, 1, 2)


@pytest.mark.parametrize(
    ("raw", "established", "abort"),
    [
        (b"GET / HTTP/1.1\r\n", False, status.UNRECOGNISED_PDU),
        (bytes(6), False, status.UNRECOGNISED_PDU),
        (b"\x08" + bytes(5), True, status.UNRECOGNISED_PDU),
        (RELEASE, False, status.UNEXPECTED_PDU),
        (struct.pack(">BxI", 4, 20), False, status.UNEXPECTED_PDU),
        (struct.pack(">BxI", 2, 20), True, status.UNEXPECTED_PDU),
        (struct.pack(">BxI", 3, 4), False, status.UNEXPECTED_PDU),
        (struct.pack(">BxI", 6, 4), True, status.UNEXPECTED_PDU),
        (struct.pack(">BxI", 1, 200), True, status.UNEXPECTED_PDU),
        (struct.pack(">BxI", 1, 0xFFFFFFFF), False, status.INVALID_PARAMETER),
        (struct.pack(">BxI", 1, (1 << 20) + 1), False, status.INVALID_PARAMETER),
        (struct.pack(">BxI", 1, 0), False, status.INVALID_PARAMETER),
        (struct.pack(">BxI", 4, 131073), True, status.INVALID_PARAMETER),
        (struct.pack(">BxI", 4, 0xFFFFFFFF), True, status.INVALID_PARAMETER),
        (struct.pack(">BxI", 4, 5), True, status.INVALID_PARAMETER),
        (struct.pack(">BxI", 5, 5), True, status.INVALID_PARAMETER),
        (struct.pack(">BxI", 7, 3), True, status.INVALID_PARAMETER),
        (struct.pack(">BxI", 4, 20) + value_of(17), True, status.INVALID_PARAMETER),
        (struct.pack(">BxI", 4, 20) + value_of(1), True, status.INVALID_PARAMETER),
        (struct.pack(">BxI", 4, 20) + value_of(0xFFFFFFFF), True, status.INVALID_PARAMETER),
        (struct.pack(">BxI", 4, 20) + value_of(12), True, status.INVALID_PARAMETER),
    ],
)
def test_bytes_that_break_the_protocol_are_named(
    raw: bytes, established: bool, abort: status.Abort
) -> None:
    with pytest.raises(ProtocolError) as broken:
        list(a_stream(established=established).feed(memoryview(raw)))
    assert broken.value.abort == abort


@pytest.mark.parametrize(
    "fragments",
    [
        [(1, False, True)],  # a data set without a command
        [(1, True, True), (1, True, True)],  # a command inside a data set
        [(1, True, False), (1, False, True)],  # a data set inside a command
        [(1, True, True), (3, False, True)],  # another context inside a message
    ],
)
def test_fragments_out_of_order_are_refused(
    wire: SimpleNamespace, fragments: list[tuple[int, bool, bool]]
) -> None:
    assembler = Assembler(Limits())
    *first, final = [Fragment(c, k, e, memoryview(wire.c_store())) for c, k, e in fragments]
    for fragment in first:
        assembler.take(fragment)
    with pytest.raises(ProtocolError) as broken:
        assembler.take(final)
    assert broken.value.abort == status.UNEXPECTED_PARAMETER


def test_a_command_set_without_end_is_refused() -> None:
    assembler = Assembler(Limits(command_bytes=1000))
    assembler.take(Fragment(1, True, False, memoryview(bytes(1000))))
    with pytest.raises(ProtocolError):
        assembler.take(Fragment(1, True, False, memoryview(b"x")))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_events_or_a_protocol_error_and_nothing_else(
    raw: bytes, established: bool
) -> None:
    stream, assembler = a_stream(established=established), Assembler(Limits())
    with suppress(ProtocolError):
        for event in stream.feed(memoryview(raw)):
            if isinstance(event, Associate):
                pdu.decode_associate_rq(event.body)
            elif isinstance(event, Fragment):
                assembler.take(event)


PDUS = {
    pdu.ASSOCIATE_RQ: struct.pack(">BxI", 1, 4) + bytes(4),
    pdu.ASSOCIATE_AC: struct.pack(">BxI", 2, 4) + bytes(4),
    pdu.ASSOCIATE_RJ: struct.pack(">BxI", 3, 4) + bytes((0, 2, 3, 1)),
    pdu.P_DATA: struct.pack(">BxIIBB", 4, 6, 2, 1, 2),
    pdu.RELEASE_RQ: RELEASE,
    pdu.RELEASE_RP: pdu.encode_release_rp(),
    pdu.ABORT: pdu.encode_abort(status.INVALID_PARAMETER),
}


@pytest.mark.parametrize("requestor", [True, False])
@pytest.mark.parametrize("established", [True, False])
@pytest.mark.parametrize("kind", PDUS)
def test_each_side_hears_what_the_other_may_say_and_nothing_else(
    requestor: bool, established: bool, kind: int
) -> None:
    may = {
        (False, False): {pdu.ASSOCIATE_RQ: Associate(bytes(4))},
        (True, False): {
            pdu.ASSOCIATE_AC: Accepted(bytes(4)),
            pdu.ASSOCIATE_RJ: Rejected(status.TEMPORARY_CONGESTION),
        },
        (False, True): {
            pdu.P_DATA: Fragment(1, False, True, memoryview(b"")),
            pdu.RELEASE_RQ: Release(),
        },
        (True, True): {
            pdu.P_DATA: Fragment(1, False, True, memoryview(b"")),
            pdu.RELEASE_RQ: Release(),
            pdu.RELEASE_RP: Released(),
        },
    }[requestor, established] | {pdu.ABORT: Aborted(status.INVALID_PARAMETER)}
    stream = Stream(associate_bytes=4, pdu_bytes=6, requestor=requestor)
    stream.established = established
    if kind in may:
        assert list(stream.feed(memoryview(PDUS[kind]))) == [may[kind]]
        return
    with pytest.raises(ProtocolError) as refused:
        list(stream.feed(memoryview(PDUS[kind])))
    assert refused.value.abort == status.UNEXPECTED_PDU
