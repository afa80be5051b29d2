"""When the node was started, and how far its events go."""

from __future__ import annotations

import json

from dicom_node.catalog import codec
from dicom_node.catalog.views import Rows
from dicom_node.decide.doubt import Start
from dicom_node.domain.security import CertificateLoaded


class History:
    """Shares its catalog's connection and lock."""

    def __init__(self, rows: Rows) -> None:
        self._rows: Rows = rows

    def newest_at(self) -> float | None:
        """The time of the event that was recorded last."""
        rows = self._rows("SELECT at FROM event ORDER BY number DESC LIMIT 1")
        return float(rows[0]["at"]) if rows else None

    def last_start(self) -> Start | None:
        """The node's last start, and whether its clock was believed."""
        rows = self._rows(
            "SELECT at, body FROM event WHERE subject = 'node' AND kind = 'NodeStarted' "
            "ORDER BY number DESC LIMIT 1"
        )
        if not rows:
            return None
        at, body = float(rows[0]["at"]), json.loads(rows[0]["body"])
        believed_at = body.get("believed_at")
        return Start(
            at=at,
            believed_at=at if believed_at is None else float(believed_at),
            doubt_s=float(body.get("doubt_s", 0.0)),
        )

    def last_certificate(self) -> CertificateLoaded | None:
        """The node's own certificate that it shows, or that it showed when it ran."""
        rows = self._rows(
            "SELECT kind, body FROM event WHERE subject = 'tls' AND kind = 'CertificateLoaded' "
            "ORDER BY number DESC LIMIT 1"
        )
        found = codec.from_json(rows[0]["kind"], rows[0]["body"]) if rows else None
        return found if isinstance(found, CertificateLoaded) else None
