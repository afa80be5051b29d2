"""Who a caller is: AE title, address, certificate and user identity, as far as configured. Pure."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dicom_node.decide.routing import Sender, resolve_sender
from dicom_node.domain.records import Peer
from dicom_node.domain.security import Certificate, Identity, Subject
from dicom_node.domain.text import printable

FINGERPRINT, SUBJECT = "sha256:", "subject:"
_SUBJECT_MAX = 300  # characters; it is the peer's
NAME, NAME_AND_PASSCODE = 1, 2  # types of user identity (PS3.7 Table D.3-14)

_ATTRIBUTE = re.compile(r"\s*([A-Za-z][A-Za-z0-9.-]*)\s*=\s*((?:[^,\\]|\\.)*)(,|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks for an association, and how. certificate: by which it has proven itself, if any."""

    ae_title: str
    address: str
    over_tls: bool = False
    certificate: Certificate | None = None
    identity: Identity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """Why a caller is not let in: for the record; the caller itself is not told which it was."""

    reason: str


def whom(caller: Caller, peers: Sequence[Peer], *, accept_unknown: bool) -> Peer | Stranger | None:
    """The peer that calls; None for somebody unknown, where such are let in.

    All that is configured of a peer must match; its user identity is judged by `identified`.
    Whoever calls by the title and from the address of a peer is that peer or nobody.
    """
    peer = resolve_sender(Sender(ae_title=caller.ae_title, address=caller.address), peers)
    if peer is None:
        if accept_unknown:
            return None
        return Stranger(reason="no [[peer]] in the configuration has this AE title at this address")
    if not peer.certificates:
        return peer
    if not caller.over_tls:
        return Stranger(reason=f"the peer {peer.name} has a certificate, and this is not TLS")
    if caller.certificate is None:
        return Stranger(reason=f"the peer {peer.name} has a certificate, and this one showed none")
    if not any(is_named(name, caller.certificate) for name in peer.certificates):
        return Stranger(
            reason=f"its certificate is not that of the peer {peer.name}: it is "
            f"{certificate_text(caller.certificate)}, and not {' or '.join(peer.certificates)}"
        )
    return peer


def identified(peer: Peer, caller: Caller, passcode: str) -> Stranger | None:
    """Whether the caller is the user that the peer must be; None if so (PS3.7 §D.3.3.7).

    passcode: of the peer, "" if it needs none. Takes as long for a wrong one as for the right one.
    """
    identity = caller.identity
    if not peer.user:
        return None
    wanted = NAME_AND_PASSCODE if peer.passcode else NAME
    if identity is None:
        return Stranger(reason="it gives no user identity")
    if identity.kind != wanted:
        return Stranger(reason=f"its user identity is of type {identity.kind}, not {wanted}")
    if peer.passcode and not caller.over_tls:
        return Stranger(reason="a passcode counts only over TLS")
    known = hmac.compare_digest(identity.primary, peer.user.encode())
    proven = not peer.passcode or (
        hmac.compare_digest(identity.secondary, passcode.encode()) and bool(passcode)
    )
    if known and proven:
        return None
    return Stranger(reason="its user identity is not that of the peer")


def is_named(name: str, certificate: Certificate) -> bool:
    """Whether a certificate is the one of that name; see Peer.certificates.

    A subject matches if of each attribute that it names the certificate has these values, and no
    other; further attributes do not matter.
    """
    if name.startswith(FINGERPRINT):
        return hmac.compare_digest(name.removeprefix(FINGERPRINT), certificate.sha256)
    wanted = subject_of(name.removeprefix(SUBJECT))
    return bool(wanted) and all(
        _values(wanted, attribute) == _values(certificate.subject, attribute)
        for attribute, _ in wanted
    )


def _values(subject: Subject, attribute: str) -> list[str]:
    return [value for known, value in subject if known == attribute]


def subject_of(text: str) -> Subject:
    """`CN=ct1,O=Hospital` as attributes and values; a comma in a value is written `\\,`.

    Raises ValueError where it is none.
    """
    found: list[tuple[str, str]] = []
    at = 0
    while True:
        match = _ATTRIBUTE.match(text, at)
        if match is None or not match[2].strip():
            raise ValueError("a subject is written as CN=name, or CN=name,O=organisation")
        found.append((match[1].upper(), re.sub(r"\\(.)", r"\1", match[2].strip())))
        if not match[3]:
            return tuple(found)
        at = match.end()


def subject_text(subject: Subject) -> str:
    """As subject_of takes it."""
    return ",".join(f"{kind}=" + re.sub(r"([,\\])", r"\\\1", value) for kind, value in subject)


def certificate_text(certificate: Certificate) -> str:
    """What it is known by: its fingerprint, and its subject where somebody has verified that."""
    digest = f"{FINGERPRINT}{certificate.sha256}"
    if not certificate.subject:
        return digest
    return f"{digest} ({SUBJECT}{printable(subject_text(certificate.subject))[:_SUBJECT_MAX]})"


def is_pinned(peer: Peer) -> bool:
    """Whether the peer is known by fingerprints alone, whoever has issued its certificate."""
    return bool(peer.certificates) and all(
        name.startswith(FINGERPRINT) for name in peer.certificates
    )
