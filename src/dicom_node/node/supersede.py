"""What was replaced is withdrawn where it was not sent; who has it is told by a rejection note."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

from dicom_node.decide.supersede import SUPERSEDED, NoteDue, settle
from dicom_node.domain import events as e
from dicom_node.domain.errors import CatalogDamaged, CatalogError, NodeError, SpoolError
from dicom_node.domain.records import Delivery, Result
from dicom_node.domain.states import DeliveryState
from dicom_node.domain.tool import AlgorithmIdentity
from dicom_node.iod.rejection import SOP_CLASS_UID, Rejection, encode_rejection, rejection_uids
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.node.journal import Journal
from dicom_node.spool.store import Spool

_log = logging.getLogger("dicom_node")

KIND = "rejection"
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_AGAIN_S = 60.0


class _NothingLeft(SpoolError):
    """No note can be made any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Superseder:
    """Settles what newer results leave open. told: the peers that honour rejection notes.

    From the moment that a newer result is in the catalog nobody claims the older one for sending:
    so it does not matter when this runs, and it may run again. given_up: Series of which no note
    can be made, for the files of their Study are gone. later: until when others wait, of which
    none could be made.
    """

    told: frozenset[str]
    settings: SegSettings
    spool: Spool
    journal: Journal
    given_up: set[str] = field(default_factory=set)
    later: dict[str, float] = field(default_factory=dict)

    def run_due(self, now: float) -> None:
        """Withdraw and tell what is due; what fails is tried again when this runs again."""
        due = settle(self.journal.catalog.supersession.open(self.told), self.told)
        withdrawn = [
            e.DeliveryWithdrawn(at=now, delivery_id=number, reason=SUPERSEDED)
            for number in due.withdrawn
        ]
        try:
            if withdrawn:
                self.journal.commit(*withdrawn)
        except CatalogDamaged:
            raise
        except CatalogError as error:  # one of them changed meanwhile
            _log.debug("what was replaced is withdrawn later: %s", error)
        for note in due.notes:
            if note.series_uid not in self.given_up and now >= self.later.get(note.series_uid, now):
                self._tell(note, now)

    def _tell(self, note: NoteDue, now: float) -> None:
        try:
            self.journal.commit(*self._told(note, now))
        except CatalogDamaged:
            raise
        except _NothingLeft as error:
            self.given_up.add(note.series_uid)
            _log.error("no rejection note for series %s: %s", note.series_uid, error)
        except (NodeError, OSError) as error:
            self.later[note.series_uid] = now + _AGAIN_S
            _log.error("no rejection note for series %s yet: %s", note.series_uid, error)

    def _told(self, note: NoteDue, now: float) -> list[e.Event]:
        """The note, made once; its deliveries; and that each of what it is about has its note."""
        views = self.journal.catalog.views
        step = views.step(note.step_id)
        rejected = self.journal.catalog.supersession.series(note.series_uid)
        if step is None or not rejected:
            raise _NothingLeft("what it was about is not known any more")
        first = rejected[0]
        newer = [
            r
            for r in views.results(step.series_uid)
            if r.step_id == step.step_id and r.kind == first.kind
        ]
        rejection = Rejection(
            series_uid=first.series_uid,
            rejected=tuple((r.sop_class_uid, r.sop_instance_uid) for r in rejected),
            replaced_by=newer[0].series_uid if newer else "",
        )
        uids = rejection_uids(rejection, _tool(first), self.settings)
        uid = uids[1]
        events: list[e.Event] = []
        if views.result(uid) is None:
            of_study = self._file([*newer, *rejected], step.series_uid)
            made = self._note(rejection, first, of_study, uids, now)
            events.append(e.ResultStored(at=now, result=replace(made, step_id=step.step_id)))
        events += [
            e.DeliveryQueued(at=now, delivery=owed(uid, to, now)) for to in note.destinations
        ]
        events += [
            e.RejectionOwed(at=now, delivery_id=number, note_uid=uid)
            for number in note.delivery_ids
        ]
        return events

    def _note(
        self,
        rejection: Rejection,
        first: Result,
        of_study: Path,
        uids: tuple[str, str],
        now: float,
    ) -> Result:
        """Make the note and keep it; first: of what it rejects. Raises NodeError, OSError."""
        data = encode_rejection(
            rejection, of_study=of_study, tool=_tool(first), settings=self.settings
        )
        stored = self.spool.put(data)
        return Result(
            sop_instance_uid=uids[1],
            sop_class_uid=SOP_CLASS_UID,
            transfer_syntax_uid=_EXPLICIT_LITTLE,
            series_uid=uids[0],
            study_uid=first.study_uid,
            step_id=first.step_id,
            source_series_uid=first.source_series_uid,
            tool_id=first.tool_id,
            tool_version=first.tool_version,
            kind=KIND,
            path=stored.path,
            size=stored.size,
            sha256=stored.sha256,
            created_at=now,
        )

    def _file(self, results: list[Result], source_series_uid: str) -> Path:
        """A file of the Study that is still there: of a result, or of the source."""
        views = self.journal.catalog.views
        relative = [r.path for r in results]
        relative += [i.path for i in views.instances(source_series_uid)]
        for path in relative:
            if path and self.spool.path(path).is_file():
                return self.spool.path(path)
        raise _NothingLeft("no file of its Study is left")


def _tool(result: Result) -> AlgorithmIdentity:
    """Who made a result, as the catalog knows it: version and digest are one there."""
    return AlgorithmIdentity(
        tool_id=result.tool_id, name=result.tool_id, version=result.tool_version, digest=""
    )


def owed(uid: str, destination: str, now: float) -> Delivery:
    """A result, to be sent to a peer."""
    return Delivery(
        delivery_id=0,  # the catalog numbers it
        result_uid=uid,
        destination=destination,
        state=DeliveryState.QUEUED,
        attempt=0,
        created_at=now,
        due_at=now,
    )
