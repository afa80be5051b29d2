"""The node's certificates while it runs: used anew when their files change, and watched as they
come to their end."""

from __future__ import annotations

import contextlib

from dicom_node.config.load import Config
from dicom_node.decide import expiry
from dicom_node.dimse.certificates import Reloading, Validity, validities
from dicom_node.dimse.scp import SecurePort
from dicom_node.domain import security as s
from dicom_node.domain.errors import CatalogError, ConfigurationError
from dicom_node.node.clock import Clock
from dicom_node.node.journal import Journal

_LOOK_S = 30.0  # at the files, whether somebody calls or not


class Certificates:
    """Of a node that is called, or calls, by TLS."""

    def __init__(self, config: Config, journal: Journal, clock: Clock) -> None:
        """Raises ConfigurationError for files that cannot be used."""
        self._files = config.tls.files()
        self._warn_days = config.tls.warn_days
        self._port = config.tls.port
        self._journal = journal
        self._clock = clock
        self._told_at: dict[str, float] = {}
        known = validities(self._files)  # whatever is wrong is said now, and not to a peer
        self._reloading = None
        if config.tls.certificate is not None:
            self._reloading = Reloading(self._files, clock.now, self._changed)
            self._begin(known[0])

    def _begin(self, shown: Validity) -> None:
        """Record what is shown, unless it is what was shown before."""
        before = self._journal.catalog.history.last_certificate()
        if before is None or before.sha256 != shown.sha256:
            self._changed(shown, "")

    @property
    def port(self) -> SecurePort | None:
        """Where the node listens by TLS, if it does."""
        if self._reloading is None:
            return None
        return SecurePort(number=self._port, contexts=self._reloading.context)

    def run_due(self, now: float) -> float | None:
        """Look at the files, and say what expires, each once a day. Raises CatalogError."""
        if self._reloading is not None:
            self._reloading.look()
        with contextlib.suppress(ConfigurationError):  # told of by _changed
            for one in validities(self._files):
                if expiry.is_due(
                    one.expires_at, now, self._warn_days, self._told_at.get(one.whose)
                ):
                    self._told_at[one.whose] = now
                    self._journal.commit(
                        s.CertificateExpiring(at=now, whose=one.whose, expires_at=one.expires_at)
                    )
        return now + _LOOK_S

    def _changed(self, shown: Validity | None, reason: str) -> None:
        now = self._clock.now()
        self._told_at.clear()
        event: s.Security = s.CertificateRefused(at=now, reason=reason)
        if shown is not None:
            event = s.CertificateLoaded(at=now, sha256=shown.sha256, expires_at=shown.expires_at)
        with contextlib.suppress(CatalogError):  # it is so, recorded or not
            self._journal.commit(event)


def needs_tls(config: Config) -> bool:
    """Whether any file of [tls] is used."""
    return config.tls.certificate is not None or config.tls.ca is not None
