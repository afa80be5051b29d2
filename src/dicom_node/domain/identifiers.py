"""UIDs and AE titles: what may be called one, and how the node derives its own."""

from __future__ import annotations

import hashlib
import re

MAX_UID = 64  # PS3.5 §9.1
MAX_AE_TITLE = 16  # PS3.5 §6.2

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


def is_uid(value: str) -> bool:
    """Digits and dots, at most 64 (PS3.5 §9.1).

    Components with leading zeros are forbidden there but met in the field: they are accepted here.
    """
    return len(value) <= MAX_UID and _UID.fullmatch(value) is not None


def is_ae_title(value: str) -> bool:
    """1 to 16 printable ASCII characters without backslash, not only spaces (PS3.5 §6.2)."""
    return (
        0 < len(value.strip()) <= MAX_AE_TITLE
        and len(value) <= MAX_AE_TITLE
        and all(" " <= c <= "~" and c != "\\" for c in value)
    )


def derived_uid(*parts: str) -> str:
    """A UID of the root 2.25 that depends on nothing but the parts (PS3.5 §B.2).

    The same parts give the same UID on every machine: so a repeated run makes the same object.
    """
    digest = hashlib.sha256("\x00".join(parts).encode()).digest()[:16]
    number = int.from_bytes(digest, "big")
    number = (number & ~(0xF << 76)) | (0x8 << 76)  # version 8: custom (RFC 9562 §5.8)
    number = (number & ~(0x3 << 62)) | (0x2 << 62)  # variant
    return f"2.25.{number}"


IMPLEMENTATION_CLASS_UID = derived_uid("dicom-node", "implementation class")
"""Who the node says it is (PS3.7 §D.3.3.2). This and the name are in the file meta of every object
that is stored, so they never change with a release: the same data set makes the same file."""

IMPLEMENTATION_VERSION_NAME = "DICOM-NODE"
