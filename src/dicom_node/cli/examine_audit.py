"""What `doctor` looks at of the audit trail: can it be written, does the collector answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dicom_node.audit.syslog import Collector, Endpoint
from dicom_node.cli.examine import Finding, doubtful, failed, well
from dicom_node.config.load import Config
from dicom_node.domain.errors import AuditError
from dicom_node.domain.security import is_private
from dicom_node.node.auditing import endpoint_of

_CONNECT_S = 3.0
_STAY_S = 1.5  # in which a collector says that it does not want this node


def audit(config: Config) -> Iterator[Finding]:
    """Nothing, where there is none: whether that is safe is said elsewhere."""
    if config.audit.file is not None:
        yield _file(config.audit.file)
    endpoint = endpoint_of(config)
    if endpoint is not None:
        yield _collector(endpoint)


def _file(path: Path) -> Finding:
    there = next(p for p in (path, *path.parents) if p.exists())
    if there == path:
        if not path.is_file() or not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
            return failed("audit", f"{path} cannot be written", "change its owner, or audit.file")
        if not is_private(path.stat().st_mode):
            return doubtful("audit", f"others may read {path}, which names patients", "chmod 600")
        return well("audit", f"{path} is written")
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        return failed("audit", f"{path} cannot be made in {there}", "change audit.file")
    return well("audit", f"{path} will be made")


def _collector(endpoint: Endpoint) -> Finding:
    collector = Collector(endpoint, connect_s=_CONNECT_S)
    try:
        version = collector.connect()
        collector.stay(_STAY_S)
    except AuditError as error:
        return failed("audit", str(error), "messages are kept, and sent when it answers")
    finally:
        collector.drop()
    return well("audit", f"the collector {endpoint.name} answers ({version})")
