"""Stage 3b: ask the source how many instances of a Series it has, so that nobody need wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dicom_node.dimse.scu import Timeouts, find
from dicom_node.domain import events as e
from dicom_node.domain.errors import PeerError
from dicom_node.domain.records import Association, Peer, Series
from dicom_node.node.clock import Clock
from dicom_node.node.journal import Journal

Count = Callable[[Peer, Series], tuple[int | None, str]]
"""count(peer, series) -> how many the peer has (None: it cannot say), and how that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Asks for each Series that the assembler wants to know about; one thread a peer."""

    source_of: Callable[[Sequence[Association]], Peer | None]
    count: Count
    journal: Journal
    clock: Clock
    busy: dict[str, threading.Thread]
    wake: Callable[[], None]

    def run_due(self, now: float) -> float | None:
        """Start a thread for each peer that is to be asked. The bell says when there is more."""
        del now
        views = self.journal.catalog.views
        wanted: dict[str, tuple[Peer, list[Series]]] = {}
        for series in views.series_to_ask():
            peer = self.source_of(views.associations(series.series_uid))
            if peer is not None and peer.name not in self.busy:
                wanted.setdefault(peer.name, (peer, []))[1].append(series)
        for name, (peer, some) in wanted.items():
            thread = threading.Thread(
                target=self._ask, args=(peer, some), name=f"ask {name}", daemon=True
            )
            self.busy[name] = thread
            thread.start()
        return None

    def finish(self, seconds: float) -> None:
        """Wait for what is under way."""
        for thread in list(self.busy.values()):
            thread.join(seconds)

    def _ask(self, peer: Peer, some: Sequence[Series]) -> None:
        try:
            for series in some:
                asked_at = self.clock.now()
                count, source = self.count(peer, series)
                self.journal.commit(
                    e.SourceCounted(
                        at=asked_at,
                        series_uid=series.series_uid,
                        revision=series.revision,
                        count=count,
                        source=source,
                    )
                )
        finally:
            del self.busy[peer.name]  # before the bell: who wakes must find the peer free
            self.wake()


def counter(ae_title: str, timeouts: Timeouts) -> Count:
    """C-FIND as `ae_title`: Number of Series Related Instances (0020,1209), else the instances."""

    def count(peer: Peer, series: Series) -> tuple[int | None, str]:
        keys = {"StudyInstanceUID": series.study_uid, "SeriesInstanceUID": series.series_uid}
        asked = {**keys, "NumberOfSeriesRelatedInstances": ""}
        try:
            found = find(
                peer=peer, calling_ae=ae_title, level="SERIES", keys=asked, timeouts=timeouts
            )
            if not found.outcome.succeeded:
                return None, f"{peer.name} could not be asked: {found.outcome.detail}"
            if not found.matches:
                return None, f"{peer.name} does not know the Series"
            said = found.matches[0].get("NumberOfSeriesRelatedInstances")
            if isinstance(said, int):
                return said, f"{peer.name} has {said} (C-FIND)"
            images = find(
                peer=peer,
                calling_ae=ae_title,
                level="IMAGE",
                keys={**keys, "SOPInstanceUID": ""},
                timeouts=timeouts,
            )
        except PeerError as error:
            return None, f"{peer.name} could not be asked: {error}"
        if not images.outcome.succeeded or images.cut:
            return None, f"{peer.name} does not say how many it has"
        uids = {match.get("SOPInstanceUID") for match in images.matches}
        return len(uids), f"{peer.name} lists {len(uids)} (C-FIND)"

    return count
