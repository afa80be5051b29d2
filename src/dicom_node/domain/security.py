"""Who a peer proves to be, how this node does so itself, and what happens to either."""

from __future__ import annotations

from dataclasses import dataclass, field

Subject = tuple[tuple[str, str], ...]
"""The distinguished name of a certificate: attribute type, such as "CN", and value, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate by which a peer has proven itself. sha256: of its DER form, 64 hex digits.

    subject: empty where it was not verified by anybody.
    """

    sha256: str
    subject: Subject = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A user identity (PS3.7 §D.3.3.7), not verified. kind: 1 name, 2 name and passcode, ...

    wants_answer: whether the peer asks to be told that it was accepted.
    """

    kind: int
    primary: bytes
    secondary: bytes = field(default=b"", repr=False)
    wants_answer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Paths of this node's own certificate and key, and of those whom it trusts; "" for none.

    require_client: whether who calls by TLS must show a certificate.
    """

    certificate: str = ""
    key: str = ""
    ca: str = ""
    require_client: bool = True


def is_private(mode: int) -> bool:
    """Whether a file of that mode (POSIX st_mode) is for its owner alone, as a key must be."""
    return not mode & 0o077


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeFailed:
    """A connection to the TLS port came to no TLS. times: since this was last recorded of it."""

    at: float
    address: str
    reason: str
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateLoaded:
    """The node shows another certificate from now on: it starts, or its file has changed."""

    at: float
    sha256: str
    expires_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRefused:
    """The files of TLS have changed, and cannot be used: those known before are used on."""

    at: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateExpiring:
    """A certificate has expired, or soon will. whose: the node's own, or that of a CA by name."""

    at: float
    whose: str
    expires_at: float


Security = HandshakeFailed | CertificateLoaded | CertificateRefused | CertificateExpiring
