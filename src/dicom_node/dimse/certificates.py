"""The node's own certificate and those that it trusts: how long they are good for, and whether the
files have changed."""

from __future__ import annotations

import hashlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from dicom_node.decide.admission import subject_text
from dicom_node.dimse.tls import server_context, subject_in, trust, words
from dicom_node.domain.errors import ConfigurationError
from dicom_node.domain.security import TlsFiles

OWN = "this node's certificate"

_LOOK_S = 1.0  # at the files, at most so often
_SETTLE_S = 5.0  # certificate and key are two files, and do not change at once
_ANY_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, for which Python has no name
_TURNS = 4  # of a handshake; TLS 1.3 takes two

_Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """A certificate, and from when until when it is good (UTC seconds). whose: OWN, or a CA's
    subject. sha256: of its DER form. names: hosts and addresses that it is for."""

    whose: str
    begins_at: float = float("-inf")
    expires_at: float
    sha256: str = ""
    subject: str = ""
    issuer: str = ""
    names: tuple[str, ...] = ()

    def holds(self, now: float) -> bool:
        """Whether it is good at that time."""
        return self.begins_at <= now < self.expires_at


def validities(files: TlsFiles) -> list[Validity]:
    """Of the node's own certificate, if it has one, and of the CAs that it trusts.

    Raises ConfigurationError for files that cannot be used.
    """
    found = []
    if files.certificate:
        try:
            shown = _shown_to_itself(files, files.certificate, _ANY_TIME)
        except ssl.SSLCertVerificationError as error:
            raise _unusable(files, error.verify_message) from error
        found.append(_validity(OWN, shown.getpeercert() or {}, shown.getpeercert(True)))
    if files.ca:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trust(context, files.ca)
        ders = context.get_ca_certs(binary_form=True)
        for known, der in zip(context.get_ca_certs(), ders, strict=True):
            whose = f"the CA {subject_text(subject_in(known))} of tls.ca"
            found.append(_validity(whose, known, der))
    return found


def vouched(files: TlsFiles) -> str:
    """What who trusts the same CAs as this node would object to its certificate; "": nothing."""
    try:
        _shown_to_itself(files, files.ca, 0)
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    return ""


def _validity(whose: str, known: Mapping[str, object], der: bytes | None) -> Validity:
    return Validity(
        whose=whose,
        begins_at=float(ssl.cert_time_to_seconds(str(known["notBefore"]))),
        expires_at=float(ssl.cert_time_to_seconds(str(known["notAfter"]))),
        sha256=hashlib.sha256(der).hexdigest() if der else "",
        subject=subject_text(subject_in(known)),
        issuer=subject_text(subject_in({"subject": known.get("issuer", ())})),
        names=tuple(_names(known)),
    )


def _names(known: Mapping[str, object]) -> Iterator[str]:
    names = known.get("subjectAltName", ())
    for kind, value in names if isinstance(names, tuple) else ():
        if kind in ("DNS", "IP Address"):
            yield value


def _shown_to_itself(files: TlsFiles, trusted: str, flags: int) -> ssl.SSLObject:
    """A handshake in memory, in which the node calls itself: what it shows is looked at so.

    Raises ConfigurationError, and ssl.SSLCertVerificationError where it does not trust itself.
    """
    ours = server_context(replace(files, ca=""))
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.check_hostname = False
    trust(theirs, trusted)
    theirs.verify_flags |= ssl.VerifyFlags(flags)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = ours.wrap_bio(there, back, server_side=True)
    client = theirs.wrap_bio(back, there)
    try:
        for _ in range(_TURNS):
            for side in (client, server):
                with suppress(ssl.SSLWantReadError):
                    side.do_handshake()
    except ssl.SSLCertVerificationError:
        raise
    except ssl.SSLError as error:
        raise _unusable(files, words(error)) from error
    return client


def _unusable(files: TlsFiles, why: str) -> ConfigurationError:
    return ConfigurationError(
        [f"tls.certificate is {files.certificate}: no peer can take it: {why}"]
    )


def out_of_date(files: TlsFiles, own: Validity, now: float) -> ConfigurationError:
    """Why the node's own certificate cannot be used instead of one that is good."""
    why = "it is not good yet" if now < own.begins_at else "it has expired"
    return ConfigurationError([f"tls.certificate is {files.certificate}: {why}"])


class Reloading:
    """The context for who calls, made of the files as they are now; for many threads.

    told: hears of each change: the certificate that is used from now on, or None and why the files
    cannot be used. Then the ones known before are used on. A certificate that has expired, or is
    not good yet, cannot be used instead of one that is good.
    """

    def __init__(
        self,
        files: TlsFiles,
        now: Callable[[], float],
        told: Callable[[Validity | None, str], None] = lambda *_: None,
        settle_s: float = _SETTLE_S,
    ) -> None:
        """now: in UTC seconds. settle_s: how long they may be useless untold.

        Raises ConfigurationError if they are.
        """
        self._files = files
        self._now = now
        self._told = told
        self._settle_s = settle_s
        self._lock = threading.Lock()
        self._looked_at = time.monotonic()
        self._stamp = self._stamped()
        self._bad: tuple[_Stamp, float] | None = None  # since when the files are so, untold
        self._refused: _Stamp | None = None  # told of
        self._context = server_context(files)
        self._shown = validities(files)[0]

    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        if time.monotonic() - self._looked_at >= _LOOK_S:
            self.look()
        return self._context

    def look(self) -> None:
        """See whether the files have changed, and use them if they can be used."""
        news: list[tuple[Validity | None, str]] = []
        with self._lock:
            self._looked_at = now = time.monotonic()
            stamp = self._stamped()
            if stamp == self._stamp:
                self._bad = self._refused = None
                return
            try:
                context, shown = server_context(self._files), validities(self._files)[0]
                self._require_in_date(shown)
            except ConfigurationError as error:
                if self._bad is None or self._bad[0] != stamp:
                    self._bad = (stamp, now)
                if now - self._bad[1] >= self._settle_s and self._refused != stamp:
                    self._refused = stamp
                    news.append((None, "; ".join(error.mistakes)))
            else:
                self._context, self._stamp, self._shown = context, stamp, shown
                self._bad = self._refused = None
                news.append((shown, ""))
        for one in news:
            self._told(*one)

    def _require_in_date(self, new: Validity) -> None:
        now = self._now()
        if not new.holds(now) and self._shown.holds(now):
            raise out_of_date(self._files, new, now)

    def _stamped(self) -> _Stamp:
        return tuple(
            _stamp_of(path) if path else None
            for path in (self._files.certificate, self._files.key, self._files.ca)
        )


def _stamp_of(path: str) -> tuple[int, int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
