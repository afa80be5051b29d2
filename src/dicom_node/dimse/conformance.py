"""What the node negotiates and answers, as values for its Conformance Statement (PS3.2).

The contexts come from the functions that negotiate. The answers are tables of their own: tests hold
them against every status, rejection and abort that the code can give.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import _STORAGE_CLASSES

from dicom_node.dimse import status
from dicom_node.dimse.contexts import (
    EXPLICIT_LITTLE,
    STORAGE_COMMITMENT,
    UNCOMPRESSED,
    VERIFICATION,
    acceptor_contexts,
    storage_classes,
)
from dicom_node.dimse.contract import Rejection
from dicom_node.dimse.query import GET_CLASSES, GET_SYNTAXES, MODELS
from dicom_node.dimse.sending import StoreItem, proposals
from dicom_node.dimse.status import Abort


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A presentation context: proposed, or accepted. service: what it is for.

    role: of the node, in it. standard: whether DICOM defines the abstract syntax.
    """

    service: str
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    role: str
    standard: bool = True


ECHO, STORE, COMMIT, REPORT = "echo", "store", "commit", "report"

ECHO_ANSWERS: Mapping[int, str] = MappingProxyType(
    {
        status.SUCCESS: "Always, to whom an association was granted.",
        status.CLASS_NOT_SUPPORTED: "The SOP Class of the command is not Verification.",
    }
)

STORE_ANSWERS: Mapping[int, str] = MappingProxyType(
    {
        status.SUCCESS: "The object is durable: bytes, folder and catalog are synced. Also for one "
        "that comes again with the same bytes.",
        status.PROCESSING_FAILURE: "The disk or the catalog failed, or the node itself. Try again.",
        status.DUPLICATE_INSTANCE: "The SOP Instance UID is here already, with other bytes. The "
        "first stays; the other is kept apart.",
        status.INVALID_INSTANCE: "The Affected SOP Instance UID is no UID.",
        status.CLASS_NOT_SUPPORTED: "The SOP Class of the command is not that of the presentation "
        "context.",
        status.NOT_AUTHORISED: "The peer's `may` does not hold `store`.",
        status.MISTYPED_ARGUMENT: "The command lacks the Affected SOP Class or Instance UID, or "
        "its data set.",
        status.OUT_OF_RESOURCES: "Disk space is below `min_free_gib`, or the disk is full: try "
        "again later. Or the peer sends more than its `objects_per_minute` or `in_flight_mib`. Or "
        "the object is larger than `max_object_gib`.",
        status.CLASS_MISMATCH: "A UID is missing or no UID, or class or instance differ from the "
        "command.",
        status.CANNOT_UNDERSTAND: "No data set, one that ends early, holds an element twice, nests "
        "too deep, has too many elements or items, is deflated or otherwise not what its transfer "
        "syntax says, gives UIDs or pixels a VR that is not theirs, or an image with too few "
        "pixels or none.",
        status.CLASS_WARNING: "The object is stored, but has more pixels than its header says, or "
        "lacks Modality, Patient ID, or a description of its pixels.",
    }
)

COMMITMENT_ANSWERS: Mapping[int, str] = MappingProxyType(
    {
        status.SUCCESS: "The request, or the report, is recorded.",
        status.PROCESSING_FAILURE: "The catalog failed, or the node itself. Try again.",
        status.NO_SUCH_INSTANCE: "Not the well-known SOP Instance.",
        status.NO_SUCH_EVENT: "An Event Type ID other than 1 and 2.",
        status.INVALID_ARGUMENT: "Content that is none, a report on something that was not asked, "
        "or a Transaction UID that was used for another request.",
        status.INVALID_INSTANCE: "An identifier that is no UID.",
        status.NO_SUCH_CLASS: "A SOP Class that is not that of the presentation context.",
        status.NO_SUCH_ACTION: "An Action Type ID other than 1.",
        status.NOT_AUTHORISED: "The peer's `may` does not hold `commit`.",
        status.UNRECOGNISED_OPERATION: "N-ACTION from a peer that negotiated the SCP role alone.",
        status.MISTYPED_ARGUMENT: "An element that the command must have is missing.",
        status.RESOURCE_LIMITATION: "Too many references, or too long a data set; or no room.",
    }
)
"""To N-ACTION as SCP, and to N-EVENT-REPORT as SCU."""

FAILURE_REASONS: Mapping[int, str] = MappingProxyType(
    {
        status.PROCESSING_FAILURE: "The file cannot be read, or is not what was received; or "
        "several objects have this UID.",
        status.NO_SUCH_INSTANCE: "The object is not here, or not any more.",
        status.CLASS_CONFLICT: "It is here, with another SOP Class.",
    }
)
"""In the Failed SOP Sequence of the node's reports (PS3.3 §C.14.1.1)."""

OTHER_ANSWERS: Mapping[int, str] = MappingProxyType(
    {status.UNRECOGNISED_OPERATION: "Any other operation, or one of another service's context."}
)

REJECTIONS: Mapping[Rejection, str] = MappingProxyType(
    {
        status.CALLED_AE_UNKNOWN: "The called AE title is not that of the node, or is none.",
        status.CALLING_AE_UNKNOWN: "Calling AE title and address are not those of a configured "
        "peer, or it shows none of its `certificates`; or the title is none.",
        status.IDENTITY_REFUSED: "The peer's `user` and `passcode` are demanded, and its user "
        "identity is missing, of another type, or wrong; or a passcode came without TLS.",
        status.APPLICATION_CONTEXT_NOT_SUPPORTED: "An application context other than DICOM's.",
        status.PROTOCOL_VERSION_NOT_SUPPORTED: "Bit 0 of the protocol version is not set.",
        status.TEMPORARY_CONGESTION: "Storage is proposed, and the node takes nothing in for now: "
        "the disk is nearly full, or too much waits for a model. Or it failed.",
        status.LOCAL_LIMIT_EXCEEDED: "As many associations as there may be in all, or of one peer.",
    }
)

ABORTS: Mapping[Abort, str] = MappingProxyType(
    {
        status.BY_US: "The node stops, a data set does not end, or 100 objects were not of the "
        "class of their context.",
        status.NO_REASON_GIVEN: "Nothing, or too little, was received for too long.",
        status.UNRECOGNISED_PDU: "A PDU of an unknown type.",
        status.UNEXPECTED_PDU: "A PDU that may not come now.",
        status.UNEXPECTED_PARAMETER: "An item stands twice, or a message is not where it may be.",
        status.INVALID_PARAMETER: "A length or a value that cannot be, or a message on a context "
        "that was not accepted.",
    }
)


OTHERS = "other objects"
_CATEGORIES: Mapping[str, str] = MappingProxyType(
    {  # the first word that is in the name counts
        "Presentation State": "presentation states",
        " SR ": "structured reports",
        "Key Object": "structured reports",
        "Waveform": "waveforms",
        "Encapsulated": "encapsulated documents",
        "RT ": "radiotherapy",
        "Radiation": "radiotherapy",
        "Segmentation": "segmentations and registrations",
        "Registration": "segmentations and registrations",
        "Image": "images",
    }
)


def name_of(uid: str) -> str:
    """What DICOM calls it; the UID itself where it is none of DICOM's."""
    name = UID(uid).name
    if name != uid:
        return str(name)
    keyword = next((word for word, known in _STORAGE_CLASSES.items() if known == uid), "")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", keyword) or uid


def category_of(uid: str) -> str:
    """What kind of objects a Storage SOP Class is for, by its name."""
    name = name_of(uid)
    return next((kind for word, kind in _CATEGORIES.items() if word in name), OTHERS)


def accepted(extra_classes: Sequence[str], extra_syntaxes: Sequence[str]) -> tuple[Context, ...]:
    """The contexts that the SCP of a node takes; storage by name."""
    standard = {VERIFICATION, STORAGE_COMMITMENT, *storage_classes()}
    found = [
        _accepted(context, standard)
        for context in acceptor_contexts(extra_classes, extra_syntaxes, commitment=True)
    ]
    return tuple(
        sorted(found, key=lambda c: (c.service == STORE, name_of(c.abstract_syntax).lower()))
    )


def _accepted(context: PresentationContext, standard: set[str]) -> Context:
    uid = str(context.abstract_syntax)
    service = {VERIFICATION: ECHO, STORAGE_COMMITMENT: COMMIT}.get(uid, STORE)
    return Context(
        service=service,
        abstract_syntax=uid,
        transfer_syntaxes=tuple(str(one) for one in context.transfer_syntax),
        role="SCP, SCU" if service == COMMIT else "SCP",
        standard=uid in standard,
    )


def proposed_for_results(sop_classes: Sequence[str]) -> tuple[Context, ...]:
    """The contexts in which objects of the node's own making are sent."""
    items = [
        StoreItem(
            sop_class_uid=uid,
            sop_instance_uid="",
            transfer_syntax_uid=EXPLICIT_LITTLE,
            path=Path(),
        )
        for uid in sop_classes
    ]
    return tuple(
        Context(service=STORE, abstract_syntax=uid, transfer_syntaxes=syntaxes, role="SCU")
        for item in items
        for uid, syntaxes in proposals(item)
    )


def proposed_besides() -> tuple[Context, ...]:
    """The contexts of all that the node asks of peers, but for storing and what C-GET brings."""
    echo = (ECHO, VERIFICATION, "SCU")
    models = [(service, uid, "SCU") for (_, service), uid in MODELS.items()]
    commitment = ((COMMIT, STORAGE_COMMITMENT, "SCU"), (REPORT, STORAGE_COMMITMENT, "SCP"))
    return tuple(
        Context(service=service, abstract_syntax=uid, transfer_syntaxes=UNCOMPRESSED, role=role)
        for service, uid, role in (echo, *models, *commitment)
    )


def proposed_to_get() -> tuple[Context, ...]:
    """What the node proposes to take in a C-GET, in the role of SCP."""
    return tuple(
        Context(service="get", abstract_syntax=uid, transfer_syntaxes=GET_SYNTAXES, role="SCP")
        for uid in GET_CLASSES
    )
