"""TLS as PS3.15 §B.12 asks for it (BCP 195: RFC 8996, 9325): contexts, certificates, words.

TLS 1.2 and 1.3 with forward secrecy and AEAD cipher suites; nothing is resumed or renegotiated.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

from dicom_node.decide.admission import certificate_text, is_named, is_pinned
from dicom_node.domain.errors import ConfigurationError, PeerError
from dicom_node.domain.records import Peer
from dicom_node.domain.security import Certificate, TlsFiles, is_private

PROFILE = "BCP 195 RFC 8996, 9325 TLS (B.12)"
VERSIONS = "TLS 1.2 and 1.3, AEAD cipher suites"
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"  # of TLS 1.2; those of 1.3 are all AEAD

Contexts = Callable[[], ssl.SSLContext]
"""Gives the context for the next connection: certificates change while the node runs."""

_CERTIFICATE = (b"-----BEGIN CERTIFICATE-----", "certificate")
_KEY = (b"PRIVATE KEY-----", "private key")

_SHORT = {  # OpenSSL's names of attribute types, as RFC 4514 writes them
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "domainComponent": "DC",
    "userId": "UID",
    "serialNumber": "SERIALNUMBER",
    "emailAddress": "EMAILADDRESS",
}

_CLOSED = "it closed the connection"
_NO_TLS = "it does not speak TLS"
_SILENT = "it does not answer as TLS does"
UNEXPLAINED = (_CLOSED, _NO_TLS, _SILENT)
"""Ends of sentences that leave open what is wrong; all others say it."""

_WORDS = {  # OpenSSL's reasons, where they are not plain
    "UNEXPECTED_EOF_WHILE_READING": _CLOSED,
    "HTTP_REQUEST": _NO_TLS,
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "UNEXPECTED_MESSAGE": "it does not speak TLS as it should",
    "UNSUPPORTED_PROTOCOL": "it wants an older TLS than 1.2",
    "VERSION_TOO_LOW": "it wants an older TLS than 1.2",
    "NO_SHARED_CIPHER": "it has no cipher suite in common",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know who issued the certificate shown to it",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it wants another version of TLS",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refused what was offered: cipher suite or certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants to be shown a certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refused the certificate shown to it",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the certificate shown to it has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it refused the certificate shown to it",
}


class NoTls(PeerError):
    """The peer is there, and TLS did not come about."""


class Unexpected(ssl.SSLError):
    """Somebody else's certificate was shown."""


def words(error: OSError) -> str:
    """What went wrong, from this side, without what the other has sent."""
    if isinstance(error, TimeoutError):
        return _SILENT
    if isinstance(error, Unexpected):
        return str(error.args[-1])
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    reason = getattr(error, "reason", None) or ""
    return _WORDS.get(reason) or reason.replace("_", " ").lower() or _CLOSED


def is_gone(error: ssl.SSLError) -> bool:
    """Whether the peer has only closed the connection."""
    return isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def version_of(connection: ssl.SSLSocket) -> str:
    """As people write it: "TLS 1.3"."""
    return (connection.version() or "TLS").replace("TLSv", "TLS ")


def certificate_of(connection: ssl.SSLSocket) -> Certificate | None:
    """What the other side has proven itself by; None if it showed nothing."""
    der = connection.getpeercert(binary_form=True)
    if der is None:
        return None
    return Certificate(
        sha256=hashlib.sha256(der).hexdigest(), subject=subject_in(connection.getpeercert() or {})
    )


def subject_in(known: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    names = known.get("subject", ())
    return tuple(
        (_SHORT.get(kind, kind.upper()), value)
        for name in (names if isinstance(names, tuple) else ())
        for kind, value in name
    )


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """For those who call. Raises ConfigurationError for files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    _show(context, files)
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    # An end without close_notify is like one with it: each message says itself whether it is whole.
    # Otherwise it were an error after which nothing can be sent, not even an A-ABORT: see deafen().
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    if files.ca:
        trust(context, files.ca)
        context.verify_mode = ssl.CERT_REQUIRED if files.require_client else ssl.CERT_OPTIONAL
    return context


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _show(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Have it show the node's own certificate. Raises ConfigurationError."""
    _require(files.certificate, "tls.certificate", _CERTIFICATE)
    _require(files.key, "tls.key", _KEY)
    try:
        if not is_private(Path(files.key).stat().st_mode):
            raise _refused("tls.key", files.key, "others may read it (chmod 600)")
        context.load_cert_chain(files.certificate, files.key, password=_nobody_is_asked)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            why = "the key does not belong to the certificate"
            raise _refused("tls.key", files.key, why) from error
        why = f"it cannot be used ({words(error)})"
        raise _refused("tls.certificate", files.certificate, why) from error
    except OSError as error:
        raise _refused("tls.key", files.key, f"it cannot be read: {error.strerror}") from error


def _nobody_is_asked() -> str:
    """For the passphrase of a key: a node that starts by itself has nobody to ask."""
    raise ConfigurationError(["tls.key is encrypted: a key without a passphrase is wanted"])


def trust(context: ssl.SSLContext, ca: str) -> None:
    """Have it believe whom the certificates of a file have issued, or are. ConfigurationError."""
    _require(ca, "tls.ca", _CERTIFICATE)
    try:
        context.load_verify_locations(ca)
    except (ssl.SSLError, OSError) as error:
        raise _refused("tls.ca", ca, "it cannot be used as certificates in PEM") from error
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a peer's own certificate is enough


def _require(path: str, key: str, what: tuple[bytes, str]) -> None:
    mark, name = what
    try:
        if mark in Path(path).read_bytes():
            return
    except OSError as error:
        raise _refused(key, path, f"it cannot be read: {error.strerror}") from error
    raise _refused(key, path, f"it holds no {name} in PEM")


def _refused(key: str, path: str, why: str) -> ConfigurationError:
    return ConfigurationError([f"{key} is {path}: {why}"])


# --- as requestor -----------------------------------------------------------------------------


class ClientContext(ssl.SSLContext):
    """For calling one peer. certificates: see Peer. trouble: why no TLS came about, or broke."""

    certificates: tuple[str, ...] = ()
    server_name: str | None = None
    trouble: str = ""


class ClientSocket(ssl.SSLSocket):
    """Goes on only with who shows the certificate that is expected, and notes what went wrong."""

    _ahead: bytes = b""

    def do_handshake(self, block: bool = False) -> None:
        """As that of SSLSocket; then the certificate is compared."""
        try:
            super().do_handshake(block)
            self._compare()
        except OSError as error:
            self._note(error)
            raise

    def _compare(self) -> None:
        expected = self.context.certificates if isinstance(self.context, ClientContext) else ()
        shown = certificate_of(self)
        if expected and not any(shown and is_named(name, shown) for name in expected):
            this = certificate_text(shown) if shown else "none"
            raise Unexpected(
                "its certificate is not the one that is expected: it is "
                f"{this}, and not {' or '.join(expected)}"
            )

    def _note(self, error: OSError) -> None:
        if isinstance(self.context, ClientContext) and not isinstance(error, ssl.SSLWantReadError):
            self.context.trouble = words(error)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As that of SSLSocket."""
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            return ahead
        try:
            return super().recv(buflen, flags)
        except ssl.SSLError as error:
            self._note(error)
            raise

    def has_come(self) -> bool:
        """Whether recv() would not wait: what TLS says to itself is no data (RFC 8446 §4.6.1).

        The socket must be a blocking one, as pynetdicom's is.
        """
        if self._ahead:
            return True
        self.settimeout(0)
        try:
            self._ahead = self.recv(1)
        except ssl.SSLWantReadError:
            return False
        except OSError:
            return True  # the next recv() says what
        finally:
            self.settimeout(None)
        return True  # also at its end


def client_context(peer: Peer) -> ClientContext:
    """For calling a peer by TLS. Raises ConfigurationError for files that cannot be used.

    A peer that is known by fingerprints shows one of these. Any other has a certificate issued by
    whom the node trusts, for the host name or the subject that is configured.
    """
    files = peer.tls_files or TlsFiles()
    context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    if files.certificate:
        _show(context, files)
    context.sslsocket_class = ClientSocket
    context.certificates = peer.certificates
    context.server_name = peer.tls_name or peer.host
    context.check_hostname = not peer.certificates
    if is_pinned(peer):
        context.verify_mode = ssl.CERT_NONE  # the fingerprint says more
    else:
        trust(context, files.ca)
    return context
