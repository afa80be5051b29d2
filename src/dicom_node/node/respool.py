"""The catalog from the spool: every file an arrival again, every result of ours a result again."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.catalog import Catalog
from dicom_node.catalog.refold import salvage
from dicom_node.decide.routing import Sender, resolve_sender
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain.records import Peer, Result, Series
from dicom_node.domain.states import SeriesState
from dicom_node.node.adopt import Found, look
from dicom_node.node.made import Made
from dicom_node.node.reasons import REBUILT
from dicom_node.spool.store import Spool

_BATCH = 200  # events in one transaction
_NOBODYS = 0  # the association of what has no known one: below all that are given
_DAY_S = 86400.0


@dataclass(slots=True, kw_only=True)
class Rested:
    """due: Series that are judged again at the next start. resting: those that are not. held: those
    that wait for an operator, as they did before.

    strangers: instances without a known sender. unreadable: paths of files that hold no object.
    """

    instances: int = 0
    conflicts: int = 0
    results: int = 0
    due: int = 0
    resting: int = 0
    held: int = 0
    strangers: int = 0
    unreadable: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _Remains:
    """What a damaged catalog still tells: by SHA-256 of the file, by number, and by Series.

    asked: for what promise, by Transaction UID and peer. reported: those that were answered.
    """

    arrivals: dict[str, tuple[int, float]] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    opened: dict[int, e.AssociationOpened] = field(default_factory=dict)
    held: dict[str, e.SeriesHeld] = field(default_factory=dict)
    promised: dict[str, k.SeriesPromised] = field(default_factory=dict)
    asked: dict[tuple[str, str], k.CommitmentAsked] = field(default_factory=dict)
    reported: set[tuple[str, str]] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class FromSpool:
    """Fills an empty catalog. sender: AE title and address for what has no known sender."""

    spool: Spool
    catalog: Catalog
    now: float
    since_s: float
    sender: tuple[str, str]
    progress: Callable[[str, int, int], None]
    rested: Rested = field(default_factory=Rested)
    last_at: dict[int, float] = field(default_factory=dict)

    def run(self, old: Path | None) -> Rested:
        """old: a damaged catalog whose readable events help; None if there is none."""
        remains = _remains(old)
        files = self._listed(remains)
        ours: list[Found] = []
        for batch in self._batches(files, remains, ours):
            self._commit(batch)
        entered = Made(spool=self.spool, catalog=self.catalog, results=remains.results)
        for found in entered.enter(ours, lambda n, m: self.progress("results", n, m)):
            self._commit(self._arrival(found, remains))
        self.rested.results = entered.count
        for association, at in sorted(self.last_at.items()):
            self.catalog.commit(e.AssociationEnded(at=at, number=association, how=REBUILT))
        self._judge(remains)
        self._keep_word(remains)
        return self.rested

    def _listed(self, remains: _Remains) -> list[tuple[float, str]]:
        """Every file, the first first: of two with one UID that one becomes the instance.

        When it came is known best to an old catalog; else the time of the file tells.
        """
        files: list[tuple[float, str]] = []
        shards = self.spool.shards()
        for number, shard in enumerate(shards, 1):
            for path in self.spool.shard(shard):
                state = self.spool.look(path)
                if state is not None:
                    _, at = remains.arrivals.get(self.spool.sha256(path), (0, state[1]))
                    files.append((at, path))
            self.progress("folders", number, len(shards))
        files.sort()
        return files

    def _batches(
        self, files: Sequence[tuple[float, str]], remains: _Remains, ours: list[Found]
    ) -> Iterator[list[e.Event]]:
        batch: list[e.Event] = []
        for number, (_, path) in enumerate(files, 1):
            digest = self.spool.sha256(path)
            recorded = digest in remains.arrivals or digest in remains.results
            found = look(self.spool, path, recorded=recorded)
            if isinstance(found, str):
                self.rested.unreadable.append(path)
            elif found.ours:
                ours.append(found)
            else:
                batch += self._arrival(found, remains)
            if len(batch) >= _BATCH:
                yield batch
                batch = []
                self.progress("files", number, len(files))
        self.progress("files", len(files), len(files))
        yield batch

    def _arrival(self, found: Found, remains: _Remains) -> list[e.Event]:
        number, received_at = remains.arrivals.get(found.sha256, (_NOBODYS, found.stored_at))
        if number not in remains.opened:
            number = _NOBODYS
            self.rested.strangers += 1
        arrived = e.InstanceArrived(
            at=received_at, instance=found.instance(number, received_at), judge_at=self.now
        )
        return [*self._opening(number, received_at, remains), arrived]

    def _opening(self, number: int, at: float, remains: _Remains) -> list[e.Event]:
        """With the first object of an association its own record."""
        known = number in self.last_at
        self.last_at[number] = max(at, self.last_at.get(number, at))
        if known:
            return []
        title, address = self.sender
        nobodys = e.AssociationOpened(
            at=at, number=number, calling_ae=title, called_ae="", address=address
        )
        return [remains.opened.get(number, nobodys)]

    def _commit(self, events: Sequence[e.Event]) -> None:
        outcomes = self.catalog.commit(*events)
        self.rested.instances += outcomes.count("new")
        self.rested.conflicts += outcomes.count("conflict")

    def _is_due(self, series: Series) -> bool:
        return series.last_at >= self.now - self.since_s

    def _judge(self, remains: _Remains) -> None:
        """Recent Series are left to the next start; of the others nothing is scheduled."""
        uids = self.catalog.files.series_uids()
        batch: list[e.Event] = []
        for number, uid in enumerate(uids, 1):
            series = self.catalog.views.series(uid)
            if series is None:
                continue
            if self._is_due(series):
                self.rested.due += uid not in remains.held
            else:
                self.rested.resting += 1
                batch += self._resting(series)
            if len(batch) >= _BATCH:
                self.catalog.commit(*batch)
                batch = []
            self.progress("series", number, len(uids))
        self.catalog.commit(*batch)

    def _keep_word(self, remains: _Remains) -> None:
        """What was held stays held, what was promised is kept, and what was asked is answered."""
        known = self.catalog.files.series_uids()
        held = [remains.held[uid] for uid in known if uid in remains.held]
        self.rested.held = len(held)
        promised = [remains.promised[uid] for uid in known if uid in remains.promised]
        asked = [event for key, event in remains.asked.items() if key not in remains.reported]
        events: list[e.Event] = [*held, *promised, *asked]
        for start in range(0, len(events), _BATCH):
            self.catalog.commit(*events[start : start + _BATCH])

    def _resting(self, series: Series) -> list[e.Event]:
        reason = (
            f"{REBUILT}: nothing was scheduled, for its last instance came more than "
            f"{self.since_s / _DAY_S:g} days before; dicom-node retry --judge {series.series_uid} "
            "does it"
        )
        at, uid, revision = self.now, series.series_uid, series.revision
        return [
            e.SeriesJudged(
                at=at,
                series_uid=uid,
                revision=revision,
                state=SeriesState.COMPLETE,
                reasons=(f"{REBUILT}, and not judged again",),
            ),
            e.SeriesUnrouted(at=at, series_uid=uid, revision=revision, reasons=(reason,)),
        ]


def sender_of(peer: Peer | None) -> tuple[str, str] | None:
    """AE title and an address by which the routes know the peer as the sender."""
    if peer is None:
        return None
    addresses = [str(ipaddress.ip_network(n, strict=False)[0]) for n in peer.networks]
    for address in (*addresses, peer.host, "127.0.0.1"):
        if resolve_sender(Sender(ae_title=peer.ae_title, address=address), [peer]):
            return peer.ae_title, address
    return None


def _remains(old: Path | None) -> _Remains:
    found = _Remains()
    for event in salvage(old) if old is not None else ():
        match event:
            case e.AssociationOpened():
                found.opened[event.number] = event
            case e.InstanceArrived(instance=i):
                found.arrivals.setdefault(i.sha256, (i.association, i.received_at))
            case e.ResultStored(result=result):
                found.results.setdefault(result.sha256, result)
            case e.SeriesHeld() | e.SeriesReleased() | k.SeriesPromised():
                _remember_word(found, event)
            case k.CommitmentAsked() | k.CommitmentReportEnded():
                _remember_asked(found, event)
    return found


def _remember_word(
    found: _Remains, event: e.SeriesHeld | e.SeriesReleased | k.SeriesPromised
) -> None:
    match event:
        case e.SeriesHeld():
            found.held.setdefault(event.series_uid, event)
        case e.SeriesReleased():
            found.held.pop(event.series_uid, None)
        case k.SeriesPromised():
            found.promised[event.series_uid] = event


def _remember_asked(found: _Remains, event: k.CommitmentAsked | k.CommitmentReportEnded) -> None:
    key = event.transaction_uid, event.peer
    if isinstance(event, k.CommitmentAsked):
        found.asked[key] = event
    elif event.due_at is None:
        found.reported.add(key)
    else:  # asked for it again
        found.reported.discard(key)
