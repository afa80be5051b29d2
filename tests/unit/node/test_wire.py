"""What receiving processes and the node tell one another arrives as it was sent."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.dimse.contract import (
    AssociationRequest,
    CommitmentReport,
    CommitmentRequest,
    FailedReference,
    Reference,
    Refusal,
    Rejection,
    StoreAnswer,
    StoreRequest,
)
from dicom_node.domain.security import Certificate, Identity
from dicom_node.iod.checks import Problem
from dicom_node.iod.received import Received
from dicom_node.node.wire import Channel, Gone, packed, unpacked
from dicom_node.spool.store import Stored

CALLER = AssociationRequest(
    calling_ae="A",
    called_ae="B",
    address="127.0.0.1",
    port=104,
    over_tls=True,
    tls_version="TLS 1.3",
    certificate=Certificate(sha256="ab", subject=(("CN", "a, b"), ("O", "é"))),
    identity=Identity(kind=2, primary=b"\xff\0", secondary=b"", wants_answer=True),
)
KINDS = (
    CALLER,
    StoreRequest(
        association=1,
        sop_class_uid="1.2",
        sop_instance_uid="1.2.3",
        transfer_syntax_uid="1.2.840",
        message_id=7,
        calling_ae="A",
    ),
    StoreAnswer(status=0xA900, comment="é", offending=(0x00080018,), recorded=True),
    Refusal(
        association=1,
        caller=CALLER,
        request="C-STORE",
        sop_instance_uid="",
        answer=StoreAnswer(status=0),
    ),
    Rejection(result=1, source=2, reason=3),
    CommitmentRequest(transaction_uid="1.2", references=(Reference("1.2", "1.3"),)),
    CommitmentReport(
        transaction_uid="1.2",
        committed=(Reference("1.2", "1.3"),),
        failed=(FailedReference("1.2", "1.4", 0x0112),),
        sender_ae="A",
    ),
    Stored(path="objects/00", size=1, sha256="00", fresh=False),
    Received(
        attributes={"Rows": 2, "ImageType": ("A", "B"), "Spacing": [1.0, 2.5], "": None},
        warning=Problem(status=0xB007, comment="x", offending=(1,)),
    ),
)


@pytest.mark.parametrize("value", KINDS, ids=lambda value: type(value).__name__)
def test_every_record_arrives_as_it_was(value: object) -> None:
    again = unpacked(packed(value))
    assert again == value
    assert type(again) is type(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
        lambda inner: (
            st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner)
        ),
    )
)
def test_all_that_an_attribute_can_be_does(value: object) -> None:
    assert unpacked(packed(value)) == value


def test_what_is_no_record_does_not_go() -> None:
    with pytest.raises(TypeError, match="complex"):
        packed(1j)


def test_a_name_that_is_no_record_makes_nothing() -> None:
    with pytest.raises(KeyError):
        unpacked({"Popen": ["true"]})


def test_a_channel_answers_and_says_when_the_other_end_is_gone() -> None:
    here, there = (Channel(one) for one in socket.socketpair())
    large = "x" * 3_000_000
    thread = threading.Thread(target=lambda: there.send(there.receive()))
    thread.start()
    assert here.ask("echo", large) == ("echo", large)
    thread.join()
    there.close()
    with pytest.raises(Gone):
        here.ask("echo")
    here.close()
