"""What a command does to whose data, for the audit trail, with who typed it.

The node takes it from its folder, now or when it runs again.
"""

from __future__ import annotations

import os
import pwd
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from dicom_node.audit.message import (
    Message,
    Participant,
    Transfer,
    export,
    instances_transferred,
)
from dicom_node.cli.common import complain
from dicom_node.config.load import Config
from dicom_node.dimse.query import Keys, Level
from dicom_node.domain.errors import AuditError, NotDicom, PeerError
from dicom_node.domain.records import Peer
from dicom_node.iod.header import read_attributes
from dicom_node.node.asked import Query, query_message
from dicom_node.node.audited import node_itself, of_peer
from dicom_node.node.auditing import post
from dicom_node.node.clock import SystemClock


def asked(config: Config, peer: Peer, service: str, level: Level, keys: Keys) -> None:
    """A peer is about to be asked for what it has, or to send it. service: find, move or get."""
    if not config.audit.is_on:
        return
    try:
        what = Query(level=level, keys=keys, service=service).asked(_person())
    except PeerError:
        return  # it cannot be asked for: nobody will be
    now = SystemClock().now()
    _post(config, [query_message(now, config.node.ae_title, peer, what)])


def fetched(config: Config, files: Sequence[Path], folder: Path) -> None:
    """Objects were written to a folder that is not the node's."""
    if config.audit.is_on:
        node, now = _node(config), SystemClock().now()
        uri = folder.absolute().as_uri()
        _post(
            config,
            [
                export(at=now, user=_person(), source=node, to_uri=uri, what=what)
                for what in _transfers(files)
            ],
        )


def sent(config: Config, peer: Peer, files: Sequence[Path]) -> None:
    """Files were stored by a peer."""
    if config.audit.is_on:
        node, now = _node(config), SystemClock().now()
        _post(
            config,
            [
                instances_transferred(
                    at=now, source=node, destination=of_peer(peer), what=what, by=_person()
                )
                for what in _transfers(files)
            ],
        )


def _node(config: Config) -> Participant:
    return node_itself(config.node.ae_title, socket.gethostname())


def _person() -> Participant:
    """Who runs this command, as the system knows him (PS3.15 §A.5.2.1)."""
    try:
        login = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        login = str(os.getuid())
    return Participant(user_id=f"{login}@{socket.gethostname()}")


def _transfers(files: Iterable[Path]) -> list[Transfer]:
    """Whose data are in the files: one for each patient and study."""
    found: dict[tuple[str, ...], Counter[str]] = {}
    for file in files:
        try:
            known = read_attributes(file)
        except (NotDicom, OSError):
            continue
        whose = tuple(
            str(known.get(name, ""))
            for name in ("StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber")
        )
        found.setdefault(whose, Counter())[str(known.get("SOPClassUID", ""))] += 1
    return [
        Transfer(
            study_uid=study_uid,
            patient_id=patient_id,
            patient_name=patient_name,
            accession_number=accession_number,
            classes=classes,
        )
        for (study_uid, patient_id, patient_name, accession_number), classes in found.items()
    ]


def _post(config: Config, messages: Sequence[Message]) -> None:
    try:
        post(config, SystemClock(), messages)
    except AuditError as error:
        complain(f"warning: the audit trail does not know of this: {error}")
