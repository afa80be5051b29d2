"""Statuses, rejections and aborts: what each means, and where the standard says so."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.dimse.contract import Rejection

COMMENT_MAX = 64  # Error Comment is LO (PS3.5 §6.2)

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
DUPLICATE_INSTANCE = 0x0111
NO_SUCH_INSTANCE = 0x0112
NO_SUCH_EVENT = 0x0113
INVALID_ARGUMENT = 0x0115
INVALID_INSTANCE = 0x0117
NO_SUCH_CLASS = 0x0118
CLASS_CONFLICT = 0x0119
CLASS_NOT_SUPPORTED = 0x0122
NO_SUCH_ACTION = 0x0123
NOT_AUTHORISED = 0x0124
UNRECOGNISED_OPERATION = 0x0211
MISTYPED_ARGUMENT = 0x0212
RESOURCE_LIMITATION = 0x0213
OUT_OF_RESOURCES = 0xA700
CLASS_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
COERCED = 0xB000
ELEMENTS_DISCARDED = 0xB006
CLASS_WARNING = 0xB007
CANCELLED = 0xFE00

MEANINGS: dict[int, tuple[str, str]] = {
    SUCCESS: ("success", "PS3.7 §C.1.1"),
    PROCESSING_FAILURE: ("processing failure", "PS3.7 §C.5"),
    DUPLICATE_INSTANCE: ("duplicate SOP Instance", "PS3.7 §C.5"),
    INVALID_INSTANCE: ("invalid SOP Instance UID", "PS3.7 §C.5"),
    0x0105: ("no such attribute", "PS3.7 §C.5"),
    0x0106: ("invalid attribute value", "PS3.7 §C.5"),
    NO_SUCH_INSTANCE: ("no such SOP Instance", "PS3.7 §C.5"),
    NO_SUCH_EVENT: ("no such event type", "PS3.7 §C.5"),
    0x0114: ("no such argument", "PS3.7 §C.5"),
    INVALID_ARGUMENT: ("invalid argument value", "PS3.7 §C.5"),
    NO_SUCH_CLASS: ("no such SOP Class", "PS3.7 §C.5"),
    CLASS_CONFLICT: ("class and instance do not fit", "PS3.7 §C.5"),
    NO_SUCH_ACTION: ("no such action", "PS3.7 §C.5"),
    0x0131: ("duplicate Transaction UID", "PS3.3 §C.14.1.1"),
    CLASS_NOT_SUPPORTED: ("SOP Class not supported", "PS3.7 §C.5"),
    NOT_AUTHORISED: ("not authorised", "PS3.7 §C.5"),
    0x0210: ("duplicate invocation", "PS3.7 §C.5"),
    UNRECOGNISED_OPERATION: ("unrecognised operation", "PS3.7 §C.5"),
    MISTYPED_ARGUMENT: ("mistyped argument", "PS3.7 §C.5"),
    RESOURCE_LIMITATION: ("resource limitation", "PS3.7 §C.5"),
    OUT_OF_RESOURCES: ("out of resources", "PS3.4 §B.2.3, §C.4.1.1.4"),
    0xA701: ("out of resources: matches cannot be counted", "PS3.4 §C.4.2.1.5"),
    0xA702: ("out of resources: sub-operations cannot be performed", "PS3.4 §C.4.2.1.5"),
    0xA801: ("move destination unknown", "PS3.4 §C.4.2.1.5"),
    CLASS_MISMATCH: ("data set does not match the SOP Class or identifier", "PS3.4 §B.2.3"),
    CANNOT_UNDERSTAND: ("cannot understand", "PS3.4 §B.2.3"),
    COERCED: ("coercion of data elements, or sub-operations failed", "PS3.4 §B.2.3, §C.4.2.1.5"),
    ELEMENTS_DISCARDED: ("elements discarded", "PS3.4 §B.2.3"),
    CLASS_WARNING: ("data set does not match the SOP Class: stored", "PS3.4 §B.2.3"),
    CANCELLED: ("cancelled", "PS3.4 §C.4.1.1.4"),
    0xFF00: ("pending", "PS3.4 §C.4.1.1.4"),
    0xFF01: ("pending: an optional key is not supported", "PS3.4 §C.4.1.1.4"),
}

# Rejections (PS3.8 Table 9-21): result 1 permanent, 2 transient
APPLICATION_CONTEXT_NOT_SUPPORTED = Rejection(result=1, source=1, reason=2)
CALLING_AE_UNKNOWN = Rejection(result=1, source=1, reason=3)
CALLED_AE_UNKNOWN = Rejection(result=1, source=1, reason=7)
PROTOCOL_VERSION_NOT_SUPPORTED = Rejection(result=1, source=2, reason=2)
TEMPORARY_CONGESTION = Rejection(result=2, source=3, reason=1)
IDENTITY_REFUSED = Rejection(result=1, source=1, reason=1)  # there is no reason of its own
LOCAL_LIMIT_EXCEEDED = Rejection(result=2, source=3, reason=2)

_REJECTION_WORDS: dict[tuple[int, int], str] = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognised",
    (1, 7): "called AE title not recognised",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """An A-ABORT (PS3.8 Table 9-26): source 0 service-user, 2 service-provider."""

    source: int
    reason: int


BY_US = Abort(source=0, reason=0)
NO_REASON_GIVEN = Abort(source=2, reason=0)
UNRECOGNISED_PDU = Abort(source=2, reason=1)
UNEXPECTED_PDU = Abort(source=2, reason=2)
UNEXPECTED_PARAMETER = Abort(source=2, reason=5)
INVALID_PARAMETER = Abort(source=2, reason=6)


def meaning(status: int) -> str:
    """A status in words; a status of a range that is nowhere defined gets its range's."""
    if status in MEANINGS:
        return MEANINGS[status][0]
    for mask, general in ((0xFF00, 0xA700), (0xFF00, 0xA900), (0xF000, 0xC000)):
        if status & mask == general:
            return MEANINGS[general][0]
    return "warning" if status & 0xF000 == 0xB000 else "failure"


def rejection_words(rejection: Rejection) -> str:
    """A rejection in words (PS3.8 Table 9-21)."""
    kind = "for now" if rejection.result == 2 else "for good"
    words = _REJECTION_WORDS.get((rejection.source, rejection.reason), "no reason known")
    return f"rejected {kind}: {words}"


def comment(text: str) -> str:
    """The text as an Error Comment: printable ASCII, at most 64 characters."""
    return "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in text)[:COMMENT_MAX]
