"""A-ASSOCIATE, command sets, file meta: compared with what pynetdicom and pydicom make of them."""

from __future__ import annotations

import io
import struct
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.filewriter import write_file_meta_info
from pynetdicom import build_context
from pynetdicom.dimse_messages import C_ECHO_RSP, C_STORE_RSP, N_ACTION_RQ, N_EVENT_REPORT_RQ
from pynetdicom.pdu import (
    A_ABORT_RQ,
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RJ,
    A_ASSOCIATE_RQ,
    A_RELEASE_RP,
    A_RELEASE_RQ,
    P_DATA_TF,
)
from pynetdicom.presentation import negotiate_as_acceptor

from dicom_node.dimse import contexts, pdu, status
from dicom_node.dimse.command import (
    Response,
    decode_command,
    encode_action,
    encode_event_report,
    encode_message,
    encode_response,
)
from dicom_node.dimse.part10 import file_head
from dicom_node.dimse.pdu import ProtocolError
from dicom_node.domain.identifiers import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    is_uid,
)

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
TABLE = contexts.answerable(contexts.acceptor_contexts())
SYNTAXES = [*contexts.UNCOMPRESSED, contexts.DEFLATED, contexts.LOSSLESS[0], contexts.LOSSY[0]]

uids = st.from_regex(r"[1-9][0-9]{0,5}(\.[1-9][0-9]{0,5}){1,8}", fullmatch=True)
proposals = st.lists(
    st.tuples(
        st.sampled_from([CT, MR, contexts.VERIFICATION, "1.2.3.4.5"]),
        st.lists(st.sampled_from(SYNTAXES), min_size=1, max_size=4, unique=True),
    ),
    min_size=1,
    max_size=6,
)
role_items = st.dictionaries(
    st.sampled_from([CT, MR]), st.sampled_from([(True, False), (False, True), (True, True)])
)


def decoded(raw: bytes) -> pdu.AssociateRequest:
    return pdu.decode_associate_rq(raw[6:])


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(proposals=proposals, roles=role_items, max_pdu=st.sampled_from([0, 4096, 16384, 2**32 - 1]))
def test_what_pynetdicom_encodes_is_read_back(
    wire: SimpleNamespace,
    proposals: list[tuple[str, list[str]]],
    roles: dict[str, tuple[bool, bool]],
    max_pdu: int,
) -> None:
    request = decoded(wire.associate_rq(contexts=proposals, roles=roles, max_pdu=max_pdu))
    assert [(c.abstract_syntax, list(c.transfer_syntaxes)) for c in request.contexts] == proposals
    assert [c.context_id for c in request.contexts] == [2 * i + 1 for i in range(len(proposals))]
    assert {uid: (r.scu, r.scp) for uid, r in request.roles.items()} == roles
    assert (request.max_pdu, request.protocol_version & 1) == (max_pdu, 1)
    assert (request.calling_ae, request.called_ae) == ("SENDER", "DICOMNODE")
    assert request.application_context == pdu.APPLICATION_CONTEXT


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(proposals=proposals, roles=role_items)
def test_contexts_and_roles_are_answered_as_pynetdicom_answers_them(
    wire: SimpleNamespace,
    proposals: list[tuple[str, list[str]]],
    roles: dict[str, tuple[bool, bool]],
) -> None:
    ours, our_roles = contexts.answer(
        decoded(wire.associate_rq(contexts=proposals, roles=roles)),
        TABLE,
    )
    proposed = []
    for number, (abstract, transfer) in enumerate(proposals):
        context = build_context(abstract, transfer)
        context.context_id = 2 * number + 1
        proposed.append(context)
    acceptable = contexts.acceptor_contexts()
    for context in acceptable:
        context.scu_role, context.scp_role = True, False  # of the requestor
    theirs, their_roles = negotiate_as_acceptor(proposed, acceptable, roles)
    assert [(c.context_id, c.result) for c in ours] == [(c.context_id, c.result) for c in theirs]
    assert [c.transfer_syntax for c in ours if c.result == 0] == [
        c.transfer_syntax[0] for c in theirs if c.result == 0
    ]
    refused = {c.abstract_syntax for c in theirs if c.result}
    assert {uid: (r.scu, r.scp) for uid, r in our_roles.items() if uid not in refused} == {
        r.sop_class_uid: (r.scu_role, r.scp_role)
        for r in their_roles
        if r.sop_class_uid not in refused
    }


def test_the_answer_is_read_by_pynetdicom(wire: SimpleNamespace) -> None:
    request = decoded(
        wire.associate_rq(
            contexts=[(CT, [contexts.EXPLICIT_LITTLE]), ("1.2.3", [contexts.IMPLICIT_LITTLE])],
            roles={CT: (True, True)},
        )
    )
    answered, roles = contexts.answer(request, contexts.answerable(contexts.acceptor_contexts()))
    raw = pdu.encode_associate_ac(
        echoed=request.echoed,
        contexts=answered,
        roles=roles,
        max_pdu=131072,
        implementation=(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME),
    )
    answer = A_ASSOCIATE_AC()
    answer.decode(raw)
    primitive = answer.to_primitive()
    results = primitive.presentation_context_definition_results_list
    assert [(c.context_id, c.result) for c in results] == [(1, 0), (3, 3)]
    assert primitive.maximum_length_received == 131072
    assert primitive.implementation_class_uid == IMPLEMENTATION_CLASS_UID
    assert answer.user_information.implementation_version_name == IMPLEMENTATION_VERSION_NAME
    role = answer.user_information.role_selection[CT]
    assert (role.scu_role, role.scp_role) == (1, 0)
    assert answer.reserved_aet.strip() == "DICOMNODE"


def test_rejections_aborts_and_releases_are_read_by_pynetdicom() -> None:
    rejection = A_ASSOCIATE_RJ()
    rejection.decode(pdu.encode_associate_rj(status.LOCAL_LIMIT_EXCEEDED))
    assert (rejection.result, rejection.source, rejection.reason_diagnostic) == (2, 3, 2)
    abort = A_ABORT_RQ()
    abort.decode(pdu.encode_abort(status.INVALID_PARAMETER))
    assert (abort.source, abort.reason_diagnostic) == (2, 6)
    release = A_RELEASE_RP()
    release.decode(pdu.encode_release_rp())
    assert release.encode() == pdu.encode_release_rp()
    asked = A_RELEASE_RQ()
    asked.decode(pdu.encode_release_rq())
    assert asked.encode() == pdu.encode_release_rq()


def test_unknown_items_are_ignored(wire: SimpleNamespace) -> None:
    raw = wire.associate_rq()
    unknown = struct.pack(">BxH", 0x7E, 3) + b"abc"
    at = raw.rindex(b"\x50\x00")  # the user information item is the last
    length = struct.unpack_from(">H", raw, at + 2)[0]
    longer = raw[:at] + struct.pack(">BxH", 0x50, length + len(unknown)) + raw[at + 4 :] + unknown
    assert decoded(longer + unknown) == decoded(raw)


def cut_inside(raw: bytes) -> list[bytes]:
    """Every way to lose the end of a request's body, and some lies about its items' lengths."""
    return [raw[:end] for end in range(6, len(raw))]


def test_a_request_that_lost_its_end_is_refused_at_every_byte(wire: SimpleNamespace) -> None:
    for raw in cut_inside(wire.associate_rq()):
        with pytest.raises(ProtocolError):
            decoded(raw)


@pytest.mark.parametrize(
    ("item", "other"),
    [
        (b"\x20\x00", b"\x21\x00"),  # no context is left
        (b"\x10\x00", b"\x11\x00"),  # no application context
        (b"\x50\x00", b"\x5f\x00"),  # no user information
        (b"\x40\x00", b"\x41\x00"),  # no transfer syntax
        (b"\x30\x00", b"\x31\x00"),  # no abstract syntax
        (b"\x51\x00\x00\x04", b"\x51\x00\x00\x03"),  # lengths that lie
    ],
)
def test_a_request_without_what_it_must_have_is_refused(
    wire: SimpleNamespace, item: bytes, other: bytes
) -> None:
    raw = wire.associate_rq()
    spoilt = raw[:74] + raw[74:].replace(item, other, 1)
    assert spoilt != raw
    with pytest.raises(ProtocolError):
        decoded(spoilt)


def test_even_or_equal_context_identifiers_are_refused(wire: SimpleNamespace) -> None:
    raw = wire.associate_rq(contexts=[(CT, [contexts.EXPLICIT_LITTLE])] * 2)
    second = raw.rindex(b"\x20\x00")
    for identifier in (1, 2):
        with pytest.raises(ProtocolError):
            decoded(raw[: second + 4] + bytes([identifier]) + raw[second + 5 :])


@pytest.mark.parametrize("max_pdu", [1, 6])
def test_a_maximum_length_that_fits_no_message_is_refused(
    wire: SimpleNamespace, max_pdu: int
) -> None:
    with pytest.raises(ProtocolError):
        decoded(wire.associate_rq(max_pdu=max_pdu))


def read_by_pynetdicom(raw: bytes, message: object) -> object:
    offset = 0
    done = False
    while offset < len(raw):
        length = struct.unpack_from(">I", raw, offset + 2)[0]
        data = P_DATA_TF()
        data.decode(raw[offset : offset + 6 + length])
        done = message.decode_msg(data.to_primitive())
        offset += 6 + length
    assert done
    return message.message_to_primitive()


@settings(max_examples=60, deadline=None)
@given(
    uid=uids.filter(is_uid),
    message_id=st.integers(0, 65535),
    code=st.sampled_from([0, 0xA700, 0xC000, 0x0122]),
    max_pdu=st.sampled_from([0, 7, 12, 64, 16384]),
    comment=st.sampled_from(["", "odd", "even"]),
)
def test_responses_are_read_by_pynetdicom_in_pdus_of_any_size(
    uid: str, message_id: int, code: int, max_pdu: int, comment: str
) -> None:
    command = encode_response(
        Response(
            field=0x8001,
            responded_to=message_id,
            status=code,
            affected_class=CT,
            affected_instance=uid,
            comment=comment,
        )
    )
    raw = encode_message(command, 5, max_pdu)
    primitive = read_by_pynetdicom(raw, C_STORE_RSP())
    assert primitive.Status == code
    assert primitive.MessageIDBeingRespondedTo == message_id
    assert primitive.AffectedSOPInstanceUID == uid
    assert primitive.AffectedSOPClassUID == CT
    assert (primitive.ErrorComment or "") == comment
    if max_pdu:
        assert struct.unpack_from(">I", raw, 2)[0] <= max_pdu


def test_an_echo_response_is_read_by_pynetdicom() -> None:
    command = encode_response(
        Response(field=0x8030, responded_to=3, status=0, affected_class=contexts.VERIFICATION)
    )
    assert read_by_pynetdicom(encode_message(command, 1, 0), C_ECHO_RSP()).Status == 0


def test_a_command_set_is_read(wire: SimpleNamespace) -> None:
    command = decode_command(wire.c_store(message_id=513))
    assert (command.field, command.message_id, command.has_data_set) == (1, 513, True)
    assert (command.sop_class, command.sop_instance) == (CT, wire.INSTANCE)
    assert not decode_command(wire.c_echo()).has_data_set


@pytest.mark.parametrize("spoilt", ["cut", "foreign group", "no field", "no type", "long number"])
def test_a_malformed_command_set_is_refused(wire: SimpleNamespace, spoilt: str) -> None:
    raw = {
        "cut": wire.c_store()[:-1],
        "foreign group": wire.c_store() + struct.pack("<HHI", 8, 0x16, 0),
        "no field": wire.command_set({0x0110: 1, 0x0800: 0x101}),
        "no type": wire.command_set({0x0100: 0x30, 0x0110: 1}),
        "long number": wire.command_set({0x0100: "1.22", 0x0110: 1, 0x0800: 0x101}),
    }[spoilt]
    with pytest.raises(ProtocolError):
        decode_command(raw)


@settings(max_examples=60, deadline=None)
@given(uid=uids.filter(is_uid), syntax=st.sampled_from(contexts.STORED_AS_RECEIVED))
def test_the_file_head_is_what_pydicom_would_write(uid: str, syntax: str) -> None:
    head = file_head(sop_class_uid=CT, sop_instance_uid=uid, transfer_syntax_uid=syntax)
    assert head[:132] == bytes(128) + b"DICM"
    meta = dcmread(io.BytesIO(head)).file_meta
    assert meta.MediaStorageSOPInstanceUID == uid
    assert meta.TransferSyntaxUID == syntax
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    again = io.BytesIO()
    write_file_meta_info(again, meta, enforce_standard=True)
    assert again.getvalue() == head[132:]


def test_the_nodes_own_identity_is_fit_for_the_wire() -> None:
    assert is_uid(IMPLEMENTATION_CLASS_UID)
    assert IMPLEMENTATION_CLASS_UID.startswith("2.25.")
    assert 1 <= len(IMPLEMENTATION_VERSION_NAME) <= 16


def test_deflated_and_big_endian_are_taken_only_if_configured() -> None:
    plain = contexts.answerable(contexts.acceptor_contexts())
    asked = contexts.answerable(
        contexts.acceptor_contexts(["1.2.3.4"], [contexts.DEFLATED, "1.2.3.5"])
    )
    assert contexts.DEFLATED not in plain[CT]
    assert contexts.EXPLICIT_BIG not in plain[CT]
    assert contexts.DEFLATED in asked[CT]
    assert "1.2.3.5" in asked["1.2.3.4"]
    assert "1.2.3.4" not in plain
    assert len(plain) > 170


def test_an_error_comment_is_short_and_printable() -> None:
    assert len(status.comment("x" * 100)) == 64
    assert status.comment("tab\there \u00e4 \\") == "tab?here ? ?"


def test_statuses_and_rejections_have_words() -> None:
    assert status.meaning(0xA7FE) == "out of resources"
    assert status.meaning(0xC123) == "cannot understand"
    assert status.meaning(0xB123) == "warning"
    assert status.meaning(0x0999) == "failure"
    assert all(words and place.startswith("PS3.") for words, place in status.MEANINGS.values())
    assert status.rejection_words(status.CALLED_AE_UNKNOWN).startswith("rejected for good: called")
    assert status.rejection_words(status.LOCAL_LIMIT_EXCEEDED).startswith("rejected for now")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(proposals=proposals, roles=role_items, max_pdu=st.sampled_from([0, 4096, 2**32 - 1]))
def test_our_request_is_read_by_pynetdicom_and_its_answer_by_us(
    proposals: list[tuple[str, list[str]]], roles: dict[str, tuple[bool, bool]], max_pdu: int
) -> None:
    raw = pdu.encode_associate_rq(
        called_ae="PACS",
        calling_ae="DICOMNODE",
        contexts=[
            pdu.ProposedContext(
                context_id=2 * number + 1,
                abstract_syntax=abstract,
                transfer_syntaxes=tuple(transfer),
            )
            for number, (abstract, transfer) in enumerate(proposals)
        ],
        roles={uid: pdu.Roles(scu=scu, scp=scp) for uid, (scu, scp) in roles.items()},
        max_pdu=max_pdu,
        implementation=(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME),
    )
    theirs = A_ASSOCIATE_RQ()
    theirs.decode(raw)
    primitive = theirs.to_primitive()
    assert (primitive.called_ae_title, primitive.calling_ae_title) == ("PACS", "DICOMNODE")
    read = primitive.presentation_context_definition_list
    assert [(c.abstract_syntax, c.transfer_syntax) for c in read] == proposals
    assert primitive.maximum_length_received == max_pdu
    assert {
        uid: (bool(item.scu_role), bool(item.scp_role))
        for uid, item in theirs.user_information.role_selection.items()
    } == roles
    request = decoded(raw)
    answered, our_roles = contexts.answer(request, TABLE)
    answer = A_ASSOCIATE_AC()
    answer.decode(
        pdu.encode_associate_ac(
            echoed=request.echoed,
            contexts=answered,
            roles=our_roles,
            max_pdu=max_pdu,
            implementation=("1.2.3", "OTHER"),
        )
    )
    again = pdu.decode_associate_ac(answer.encode()[6:])
    assert again.contexts == {c.context_id: (c.result, c.transfer_syntax) for c in answered}
    assert (again.max_pdu, again.roles) == (max_pdu, our_roles)


def test_an_answer_that_lost_its_end_is_refused_or_lacks_items() -> None:
    context = pdu.AnsweredContext(
        context_id=1, result=0, abstract_syntax=CT, transfer_syntax=contexts.EXPLICIT_LITTLE
    )
    body = pdu.encode_associate_ac(
        echoed=bytes(64), contexts=[context], roles={}, max_pdu=0, implementation=("1.2", "X")
    )[6:]
    whole = pdu.decode_associate_ac(body)
    assert whole.contexts == {1: (0, contexts.EXPLICIT_LITTLE)}
    for end in range(len(body)):
        try:
            cut = pdu.decode_associate_ac(body[:end])
        except ProtocolError:
            continue
        assert cut != whole  # it ends between two items


@pytest.mark.parametrize("max_pdu", [0, 7, 64, 16384])
def test_requests_of_storage_commitment_are_read_by_pynetdicom(max_pdu: int) -> None:
    named = {"message_id": 7, "sop_class": contexts.STORAGE_COMMITMENT, "sop_instance": "1.2.3"}
    data = bytes(range(256)) * 3
    action = read_by_pynetdicom(
        encode_message(encode_action(action_type=1, **named), 1, max_pdu, data), N_ACTION_RQ()
    )
    assert (action.MessageID, action.ActionTypeID) == (7, 1)
    assert action.RequestedSOPClassUID == contexts.STORAGE_COMMITMENT
    assert action.RequestedSOPInstanceUID == "1.2.3"
    assert action.ActionInformation.getvalue() == data
    event = read_by_pynetdicom(
        encode_message(encode_event_report(event_type=2, **named), 1, max_pdu, data),
        N_EVENT_REPORT_RQ(),
    )
    assert (event.MessageID, event.EventTypeID) == (7, 2)
    assert event.AffectedSOPClassUID == contexts.STORAGE_COMMITMENT
    assert event.EventInformation.getvalue() == data
