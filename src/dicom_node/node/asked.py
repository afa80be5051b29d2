"""Queries that this node makes, for the audit trail (PS3.15 §A.5.3.10): they are no events."""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlencode

from dicom_node.audit.message import Asked, Message, Participant, query
from dicom_node.dimse.holdings import CHUNK
from dicom_node.dimse.query import MODELS, Keys, Level, identifier_bytes
from dicom_node.domain.records import Peer, Series
from dicom_node.node.ask import Count
from dicom_node.node.audit import Tell, nobody
from dicom_node.node.audited import node_itself, of_peer
from dicom_node.node.clock import Clock
from dicom_node.node.confirm import Listing

_IMPLICIT = "1.2.840.10008.1.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a peer is asked. service: "find", "move" or "get"."""

    level: Level
    keys: Keys
    service: str = "find"

    def asked(self, by: Participant | None = None) -> Asked:
        """As it goes out; by: the person who wanted it. Raises PeerError for keys that cannot."""
        return Asked(
            identifier=identifier_bytes(self.level, self.keys),
            class_uid=MODELS["STUDY", self.service],
            transfer_syntax=_IMPLICIT,
            by=by,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """Wraps whoever asks a peer, so that the trail knows before the peer does."""

    tell: Tell
    ae_title: str
    clock: Clock

    def counting(self, count: Count) -> Count:
        """For the queries of how many instances a Series has."""
        if self.tell is nobody:
            return count

        def counted(peer: Peer, series: Series) -> tuple[int | None, str]:
            of = {"StudyInstanceUID": series.study_uid, "SeriesInstanceUID": series.series_uid}
            if peer.dicomweb:
                self._told(peer, Asked(identifier=urlencode(of).encode(), url=peer.dicomweb))
            else:
                keys: Keys = {**of, "NumberOfSeriesRelatedInstances": ""}
                self._told(peer, Query(level="SERIES", keys=keys).asked())
            return count(peer, series)

        return counted

    def listing(self, listing: Listing) -> Listing:
        """For the queries of which instances a peer has."""
        if self.tell is nobody:
            return listing

        def listed(
            peer: Peer, study_uid: str, series_uid: str, uids: Collection[str]
        ) -> tuple[frozenset[str], str | None]:
            wanted = sorted(uids)
            for start in range(0, len(wanted), CHUNK):  # as they are asked for
                keys: Keys = {
                    "StudyInstanceUID": study_uid,
                    "SeriesInstanceUID": series_uid,
                    "SOPInstanceUID": wanted[start : start + CHUNK],
                }
                self._told(peer, Query(level="IMAGE", keys=keys).asked())
            return listing(peer, study_uid, series_uid, uids)

        return listed

    def _told(self, peer: Peer, asked: Asked) -> None:
        self.tell(query_message(self.clock.now(), self.ae_title, peer, asked))


def query_message(at: float, ae_title: str, peer: Peer, asked: Asked) -> Message:
    """That the node of that AE title asked the peer."""
    node = node_itself(ae_title, socket.gethostname())
    return query(at=at, source=node, destination=of_peer(peer), asked=asked)
