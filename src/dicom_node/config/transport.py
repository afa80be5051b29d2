"""What ae_config.toml may say of TLS: see schema."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from dicom_node.config.kinds import File, Section
from dicom_node.domain.security import TlsFiles


class Tls(Section):
    """Associations by TLS (PS3.15 B.12), on a port of their own. Without a certificate there is
    none; the files are looked at again when they change."""

    certificate: File | None = Field(
        default=None,
        description="The node's certificate in PEM, then those of its issuers, if any.",
    )
    key: File | None = Field(
        default=None,
        description="The key of it in PEM, without a passphrase, readable by its owner only.",
    )
    ca: File | None = Field(
        default=None,
        description="Certificates in PEM that are trusted: of those who issue the peers' "
        "certificates, or of peers themselves.",
    )
    require_client_certificate: bool = Field(
        default=True, description="Who calls by TLS must show a certificate that `ca` vouches for."
    )
    port: int = Field(
        default=2762, ge=0, le=65535, description="TCP port for TLS. 0: any that is free."
    )
    plain: bool = Field(
        default=True, description="`false`: nobody is heard on `node.port`, but by TLS alone."
    )
    warn_days: float = Field(
        default=30.0,
        ge=0,
        le=3650,
        allow_inf_nan=False,
        description="So long before a certificate expires the log, `status` and `doctor` say so.",
    )

    def files(self) -> TlsFiles:
        """The paths, for those who use them."""
        return TlsFiles(
            certificate=_text(self.certificate),
            key=_text(self.key),
            ca=_text(self.ca),
            require_client=self.require_client_certificate,
        )


def _text(path: Path | None) -> str:
    return "" if path is None else str(path)
