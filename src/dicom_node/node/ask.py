"""Stage 3b: ask the source how many instances of a Series it has, so that nobody need wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from dicom_node.config.secrets import reveal
from dicom_node.dimse.holdings import Learned, count_series
from dicom_node.dimse.scu import Timeouts
from dicom_node.domain import events as e
from dicom_node.domain.errors import ConfigurationError, PeerError
from dicom_node.domain.records import Peer, Series
from dicom_node.node.clock import Clock
from dicom_node.node.journal import Journal
from dicom_node.node.lanes import Lanes
from dicom_node.node.stage import AFTER_ERROR_S
from dicom_node.web.qido import Service, count_instances

Count = Callable[[Peer, Series], tuple[int | None, str]]
"""count(peer, series) -> how many the peer has (None: it cannot say), and how that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Asks for each Series that the assembler wants to know about; one thread a peer.

    source_of: the peer that sent a Series.
    """

    source_of: Callable[[str], Peer | None]
    count: Count
    journal: Journal
    clock: Clock
    lanes: Lanes

    def run_due(self, now: float) -> float | None:
        """Start a thread for each peer that is to be asked. Returns when to try again."""
        busy = self.lanes.busy()
        wanted: dict[str, tuple[Peer, list[Series]]] = {}
        for series in self.journal.catalog.views.series_to_ask():
            peer = self.source_of(series.series_uid)
            if peer is not None and peer.name not in busy:
                wanted.setdefault(peer.name, (peer, []))[1].append(series)
        started = [
            self.lanes.start(name, partial(self._ask, peer, some))
            for name, (peer, some) in wanted.items()
        ]
        return None if all(started) else now + AFTER_ERROR_S  # a lane rings

    def finish(self, seconds: float) -> None:
        """Wait for what is under way."""
        self.lanes.finish(seconds)

    def _ask(self, peer: Peer, some: Sequence[Series]) -> None:
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


def counter(ae_title: str, timeouts: Timeouts) -> Count:
    """Asks by QIDO-RS where the peer has DICOMweb, else by C-FIND as `ae_title`."""

    def count(peer: Peer, series: Series) -> tuple[int | None, str]:
        try:
            if peer.dicomweb:
                return _by_qido(peer, series, timeouts.answer_s)
            return _by_find(peer, series, ae_title, timeouts)
        except (PeerError, ConfigurationError) as error:
            return None, f"{peer.name} could not be asked: {error}"

    return count


def _by_qido(peer: Peer, series: Series, timeout_s: float) -> tuple[int | None, str]:
    service = Service(url=peer.dicomweb, token=reveal(peer.dicomweb_token), timeout_s=timeout_s)
    count = count_instances(service, study_uid=series.study_uid, series_uid=series.series_uid)
    if count is None:
        return None, f"{peer.name} does not know the Series (QIDO-RS)"
    return count, f"{peer.name} has {count} (QIDO-RS)"


def _by_find(
    peer: Peer, series: Series, ae_title: str, timeouts: Timeouts
) -> tuple[int | None, str]:
    counted = count_series(
        peer=peer,
        calling_ae=ae_title,
        study_uid=series.study_uid,
        series_uid=series.series_uid,
        timeouts=timeouts,
    )
    if counted.count is None and not counted.outcome.succeeded:
        return None, f"{peer.name} could not be asked: {counted.outcome.detail}"
    if counted.count is None:
        return None, f"{peer.name} does not say how many it has (C-FIND)"
    if counted.how is Learned.COUNTED:
        return counted.count, f"{peer.name} lists {counted.count} (C-FIND)"
    return counted.count, f"{peer.name} has {counted.count} (C-FIND)"
