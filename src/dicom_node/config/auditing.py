"""What ae_config.toml may say of the audit trail: see schema."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from dicom_node.config.kinds import Endpoint, File, Section


class Audit(Section):
    """The audit trail (PS3.15 A.5): who sent, got and asked for whose data. Without `file` and
    `syslog` there is none. It names patients: see who may read it."""

    file: File | None = Field(
        default=None, description="File that gets it, a message a line, for its owner's eyes alone."
    )
    file_mib: int = Field(
        default=100,
        ge=1,
        le=1_048_576,
        description="A file that is full becomes `FILE.1`, that one `FILE.2`, and so on.",
    )
    keep_files: int = Field(
        default=20, ge=1, le=10_000, description="So many full files are kept, then the oldest go."
    )
    syslog: Endpoint = Field(
        default="",
        description="Collector that gets it by syslog over TLS (PS3.15 A.6), such as "
        "`audit.example:6514`; its certificate must be for that name.",
    )
    ca: File | None = Field(
        default=None,
        description="Certificates in PEM that are trusted to vouch for the collector. Without it: "
        "those that the system trusts.",
    )
    certificate: File | None = Field(
        default=None, description="The node's certificate in PEM, for a collector that wants one."
    )
    key: File | None = Field(
        default=None,
        description="The key of it in PEM, without a passphrase, readable by its owner only.",
    )
    spool_mib: int = Field(
        default=64,
        ge=1,
        le=1_048_576,
        description="So much is kept for a collector, or a file, that cannot be reached. Beyond "
        "it the oldest messages go, and a message says how many.",
    )

    @property
    def is_on(self) -> bool:
        """Whether anybody gets it."""
        return self.file is not None or bool(self.syslog)

    @property
    def collector(self) -> tuple[str, int]:
        """Host and port of `syslog`."""
        host, _, port = self.syslog.rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port or 0)

    def below(self, base: Path) -> Audit:
        """With absolute paths: relative ones start at `base`."""
        paths = {"file": self.file, "ca": self.ca, "certificate": self.certificate, "key": self.key}
        return self.model_copy(
            update={key: base / path for key, path in paths.items() if path is not None}
        )


UNAUDITED = (
    "there is no audit trail: nobody can tell later whose data went where; configure [audit]"
)
"""What is unsafe where the node is heard by others and the audit trail is off."""
