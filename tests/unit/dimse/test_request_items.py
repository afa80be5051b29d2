"""How many items an A-ASSOCIATE-RQ may hold: before they are read, nobody has been judged."""

from __future__ import annotations

import pytest

from dicom_node.dimse import contexts, pdu, status
from dicom_node.dimse.contexts import EXPLICIT_LITTLE
from dicom_node.dimse.pdu import ProtocolError
from faults.attack import context, item, made, user
from raw.wire import CT

CROWDED = {
    "a transfer syntax too many": made(contexts=context(syntaxes=(EXPLICIT_LITTLE,) * 129)),
    "transfer syntaxes of no letter": made(contexts=context(syntaxes=("",) * 16_000) * 15),
    "items that nobody knows": made(tail=item(0x99, b"") * 260_000),
    "in a context": made(contexts=context(more=item(0x99, b"") * 16_000)),
    "of the user information": made(users=user(item(0x99, b"") * 16_000)),
    "of roles": made(users=user(item(0x54, b"\0\0\1\0") * 8000)),
}


@pytest.mark.parametrize("request_pdu", CROWDED.values(), ids=CROWDED)
def test_a_request_of_more_items_than_anything_needs_is_refused(request_pdu: bytes) -> None:
    with pytest.raises(ProtocolError, match="more items than anything needs") as refused:
        pdu.decode_associate_rq(request_pdu[6:])
    assert refused.value.abort == status.INVALID_PARAMETER


def test_as_many_contexts_and_transfer_syntaxes_as_there_can_be_are_judged() -> None:
    syntaxes = (*(f"1.2.3.{n}" for n in range(127)), EXPLICIT_LITTLE)
    proposed = b"".join(context(n, CT, syntaxes) for n in range(1, 256, 2))
    roles = item(0x54, b"\0\1" + b"1" + b"\1\0") * 128
    request = pdu.decode_associate_rq(made(contexts=proposed, users=user(roles))[6:])
    answered, _ = contexts.answer(request, {CT: (EXPLICIT_LITTLE,)})
    assert [(one.result, one.transfer_syntax) for one in answered] == [(0, EXPLICIT_LITTLE)] * 128
