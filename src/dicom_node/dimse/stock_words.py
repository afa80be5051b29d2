"""What pynetdicom's own server was asked, in the words of the front."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from pynetdicom import evt
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from dicom_node.dimse import command as dimse
from dicom_node.dimse.pdu import AnsweredContext
from dicom_node.domain.security import Identity


def identity(item: UserIdentityNegotiation | None) -> Identity | None:
    """The user identity of an A-ASSOCIATE-RQ, whatever its type (PS3.7 Table D.3-14)."""
    if item is None:
        return None
    return Identity(
        kind=item.user_identity_type or 0,
        primary=item.primary_field or b"",
        secondary=item.secondary_field or b"",
        wants_answer=bool(item.positive_response_requested),
    )


def command(event: Any, field_number: int) -> dimse.Command:
    """The command set of a request, as the front would have read it."""
    request = event.request
    named = "Requested" if field_number == dimse.N_ACTION_RQ else "Affected"
    return dimse.Command(
        field=field_number,
        message_id=request.MessageID,
        sop_class=str(getattr(request, f"{named}SOPClassUID", None) or ""),
        sop_instance=str(getattr(request, f"{named}SOPInstanceUID", None) or ""),
        has_data_set=True,  # what has none is not empty, and refused for that
        event_type=getattr(request, "EventTypeID", None),
        action_type=getattr(request, "ActionTypeID", None),
    )


def context(event: Any) -> AnsweredContext:
    """The presentation context that a request came in."""
    return AnsweredContext(
        context_id=event.context.context_id,
        result=0,
        abstract_syntax=str(event.context.abstract_syntax),
        transfer_syntax=str(event.context.transfer_syntax),
    )


def information(event: Any) -> BytesIO | None:
    """The data set of an N-ACTION or N-EVENT-REPORT."""
    name = "ActionInformation" if event.event is evt.EVT_N_ACTION else "EventInformation"
    found: BytesIO | None = getattr(event.request, name)
    return found
