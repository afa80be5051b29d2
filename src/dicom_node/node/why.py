"""The story of a Series in plain words, from its first association to the fate of its results."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from dicom_node.catalog import Catalog
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain import security as s
from dicom_node.domain.records import Conflict, Instance, Series
from dicom_node.domain.states import DeliveryState, SeriesState
from dicom_node.node.about import about
from dicom_node.node.digest import Line
from dicom_node.node.verdict import kept_apart, verdict
from dicom_node.node.words import (
    LISTED,
    Names,
    clock_text,
    counted,
    listed,
    opened,
    sentence,
    warned,
)

__all__ = ["Line", "Story", "clock_text", "stories"]

_OF_NO_SERIES = (
    e.AssociationRejected,
    e.AssociationBroken,
    e.RequestRefused,
    s.HandshakeFailed,
    s.CertificateLoaded,
    s.CertificateRefused,
    s.CertificateExpiring,
)
TLS = "tls"
"""What the node's own certificates are asked about by."""
_HANDSHAKES_MAX = 1000
_FLEETING_S = 5.0  # a wait that was over so soon is not worth a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """verdict: the whole in one sentence. about: what the UID is that was asked about, if it is not
    the Series itself. lines: what happened, in order, with all details (digest leaves them out).
    kept_apart: objects that are none of the instances. series: None if there are but such objects,
    or refused ones, or none at all."""

    series: Series | None
    verdict: str
    lines: tuple[Line, ...]
    about: tuple[str, ...] = ()
    kept_apart: tuple[Conflict, ...] = ()


def stories(catalog: Catalog, text: str) -> list[Story]:
    """A story for each Series that `text` leads to: a UID of any level, an accession number, a
    patient ID, of whichever of its instances, or of what was kept apart. Refused instances are
    found by their own UID, or by the AE title of the peer; rejections, refused requests and faults
    by its AE title or its address; TLS: the node's certificates, and failed handshakes."""
    known = {series.series_uid: series for series in catalog.views.find_series(text)}
    strange: dict[str, list[Conflict]] = {}
    for c in catalog.views.find_conflicts(text):
        series = known.get(c.own_series_uid) or catalog.views.series(c.own_series_uid)
        if series is None:
            strange.setdefault(c.own_series_uid, []).append(c)
        else:
            known[series.series_uid] = series
    found = [_story(catalog, series, text) for series in known.values()]
    found += [_strange(catalog, uid, some) for uid, some in strange.items()]
    told = [*catalog.views.events_about(text), *catalog.views.events_of(text)]
    events = [event for _, event in told]
    if _is_address(text):
        here = catalog.attention.turned_away_at(text)
        events = sorted([*events, *here], key=lambda one: one.at)
    if text == TLS:
        failed = catalog.attention.without_tls(_HANDSHAKES_MAX)
        events = sorted([*failed, *events], key=lambda one: one.at)
    if not known and not strange and not any(isinstance(one, e.InstanceRefused) for one in events):
        events = sorted([*events, *catalog.views.refused_also(text)], key=lambda one: one.at)
    alone = [
        event
        for event in events
        if isinstance(event, _OF_NO_SERIES)
        or (isinstance(event, e.InstanceRefused) and event.series_uid not in known)
    ]
    if alone:
        names = Names(views=catalog.views)
        lines = tuple(_line(event, names) for event in alone)
        own = [line for line in lines if line.kind != s.HandshakeFailed.__name__ or text != TLS]
        found.append(Story(series=None, verdict=(own or lines)[-1].text, lines=lines))
    return found


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _story(catalog: Catalog, series: Series, text: str) -> Story:
    names = Names(views=catalog.views)
    events = [event for _, event in catalog.views.events_of(series.series_uid)]
    instances = catalog.views.instances(series.series_uid)
    conflicts = catalog.views.conflicts(series.series_uid)
    lines = [
        *_associations(catalog, series, names),
        *_arrivals(events, {i.sop_instance_uid: i for i in instances}),
        *_warnings(events),
        *_refusals(events, names),
        *_conflicts(conflicts, series.series_uid),
        *_others(events, names),
        *_commitments(catalog, series, names),
        *_peers(catalog, series, names),
    ]
    ends = max((line.at for line in lines), default=series.last_at)
    lines.extend(
        _line(event, names)
        for _, event in catalog.views.events_about("node")
        if series.first_at <= event.at <= ends
    )
    return Story(
        series=series,
        verdict=verdict(catalog, series, events),
        lines=tuple(sorted(lines, key=lambda line: line.at)),
        about=tuple(about(catalog, series, instances, text)),
        kept_apart=tuple(conflicts),
    )


def _strange(catalog: Catalog, series_uid: str, conflicts: Sequence[Conflict]) -> Story:
    """A Series of which everything was kept apart."""
    names = Names(views=catalog.views)
    opened_by = [
        _line(event, names)
        for number in dict.fromkeys(c.association for c in conflicts)
        for _, event in catalog.views.events_about(f"association {number}")
    ]
    lines = (*opened_by, *_conflicts(conflicts, series_uid))
    return Story(
        series=None,
        verdict=f"nothing of series {series_uid} is processed: {kept_apart(conflicts)}",
        lines=tuple(sorted(lines, key=lambda line: line.at)),
        kept_apart=tuple(conflicts),
    )


def _line(event: e.Event, names: Names) -> Line:  # noqa: C901, PLR0912  # a table
    """An event as a line, with what it is told together with."""
    thread, group, few, detail, fleeting_s = "", "", 1, False, 0.0
    match event:
        case e.SeriesJudged():
            thread = "judgment"
            if event.state is SeriesState.RECEIVING:
                group, fleeting_s = "waits", _FLEETING_S
        case e.SourceCounted():
            thread, group = "source", f"{event.revision} {event.source}"
        case e.AssociationRejected():
            thread = group = f"{event.calling_ae} {event.address} {event.reason}"
        case e.AssociationBroken():
            thread = group = f"{event.calling_ae} {event.address} {event.reason}"
        case s.HandshakeFailed():
            thread = group = f"{event.address} {event.reason}"
        case s.CertificateExpiring():
            thread = group = f"{type(event).__name__} {event.whose}"
        case e.RequestRefused():
            thread = group = f"{event.calling_ae} {event.request} {event.status} {event.reason}"
        case e.InstanceRefused():
            thread, group, few = "refused", f"{event.status} {event.reason}", 3
        case e.NodeStarted() | k.PressureChanged() | k.InstanceRestored():
            thread = group = type(event).__name__
        case e.StepClaimed() | e.DeliveryClaimed() | e.DeliveryQueued():
            detail = True
        case e.StepFailed() | e.StepReturned():
            thread, group = f"step {event.step_id}", type(event).__name__
        case e.DeliveryEnded() | k.DeliveryConfirmed():
            thread = f"delivery {event.delivery_id}"
            group = event.state if event.state is DeliveryState.DEFERRED else ""
        case k.ProofAwaited():
            thread, group = f"delivery {event.delivery_id}", "proof"
        case k.PeerUnreachable() | k.PeerReached():
            thread, group = f"peer {event.destination}", type(event).__name__
    return Line(
        at=event.at,
        text=sentence(event, names),
        kind=type(event).__name__,
        thread=thread,
        group=group,
        few=few,
        detail=detail,
        fleeting_s=fleeting_s,
    )


def _associations(catalog: Catalog, series: Series, names: Names) -> Iterator[Line]:
    associations = catalog.views.associations(series.series_uid)
    numbers = {a.number for a in associations}
    for title in dict.fromkeys(a.calling_ae for a in associations):
        for _, event in catalog.views.events_about(title):
            if isinstance(event, e.AssociationBroken) and event.number in numbers:
                yield _line(event, names)
    for a in associations:
        secured = _secured(catalog, a.number)
        yield Line(
            at=a.opened_at,
            text=opened(a.calling_ae, a.address, a.number, secured),
            kind="AssociationOpened",
            thread="opened",
            group=f"{a.calling_ae} {a.address} {secured}",
            few=3,
        )
        if a.ended_at is not None:
            yield Line(
                at=a.ended_at,
                text=f"association {a.number} was {a.ended}",
                kind="AssociationEnded",
                thread="ended",
                group=a.ended or "",
                few=3,
            )


def _secured(catalog: Catalog, number: int) -> str:
    """By which TLS an association came."""
    told = catalog.views.events_about(f"association {number}")
    return next((x.secured for _, x in told if isinstance(x, e.AssociationOpened)), "")


def _arrivals(events: Sequence[e.Event], known: dict[str, Instance]) -> Iterator[Line]:
    """One line an association, with what was new in it and what came again; the rest are details.

    What had other content is told by _conflicts.
    """
    new: dict[int, list[float]] = defaultdict(list)
    again: dict[int, list[float]] = defaultdict(list)
    for event in events:
        if not isinstance(event, e.InstanceArrived):
            continue
        arrived, first = event.instance, known.get(event.instance.sop_instance_uid)
        if first is None or first.sha256 != arrived.sha256:
            continue
        came_first = first.received_at == event.at
        (new if came_first else again)[arrived.association].append(event.at)
        verb = "was stored" if came_first else "came again, with the same content"
        text = f"instance {arrived.sop_instance_uid} {verb}{warned(event)}"
        yield Line(at=event.at, text=text, kind="InstanceArrived", detail=True)
    for number in dict.fromkeys((*new, *again)):
        stored = counted(len(new[number]), "instance") + " stored" if new[number] else ""
        repeated = f"{counted(len(again[number]), 'instance')} came again" if again[number] else ""
        what = ", ".join(part for part in (stored, repeated) if part)
        yield Line(
            at=max((*new[number], *again[number])),
            text=f"{what} over association {number}",
            thread="arrivals",
            group=f"{len(new[number])} {bool(again[number])}",
            few=3,
        )


def _warnings(events: Sequence[e.Event]) -> Iterator[Line]:
    """One line for each thing that is wrong with what was stored all the same."""
    warned_of: dict[tuple[int, str], list[e.InstanceArrived]] = defaultdict(list)
    for event in events:
        if isinstance(event, e.InstanceArrived) and event.warning:
            warned_of[event.instance.association, event.warning].append(event)
    for (number, warning), some in warned_of.items():
        uids = listed(event.instance.sop_instance_uid for event in some)
        what = f"{counted(len(some), 'instance')} came over association {number}"
        yield Line(
            at=some[-1].at,
            text=f"{what} with a warning: {warning}: {uids}",
            thread="warnings",
            group=warning,
            few=3,
        )


def _others(events: Sequence[e.Event], names: Names) -> Iterator[Line]:
    """All other events, in order; of a result that consists of many objects they are told once."""
    made: dict[tuple[int, str], dict[str, e.Event]] = defaultdict(dict)
    for event in events:
        if isinstance(event, e.ResultStored):
            made[event.result.step_id, event.result.kind][event.result.sop_instance_uid] = event
    many = {uid: some for some in made.values() if len(some) > LISTED for uid in some}
    for event in events:
        if isinstance(event, (e.InstanceArrived, e.InstanceRefused)):
            continue
        line = _line(event, names)
        if isinstance(event, e.ResultStored):
            uid, kind = event.result.sop_instance_uid, event.result.kind
            if uid in many:
                line = replace(line, detail=True)
                if event is list(many[uid].values())[-1]:
                    text = f"{len(many[uid])} results ({kind}) were made: {listed(many[uid])}"
                    yield Line(at=event.at, text=text)
        elif isinstance(
            event, (e.DeliveryEnded, e.DeliveryWithdrawn, k.DeliveryConfirmed, k.ProofAwaited)
        ):
            some = many.get(names.result(event.delivery_id))
            if some:
                thread = f"{next(iter(some))} to {names.destination(event.delivery_id)}"
                line = replace(line, thread=thread, group=line.text)
        yield line


def _refusals(events: Sequence[e.Event], names: Names) -> Iterator[Line]:
    """One line for each reason in an association, and each of several as a detail."""
    refused: dict[tuple[int, int, str], list[e.InstanceRefused]] = defaultdict(list)
    for event in events:
        if isinstance(event, e.InstanceRefused):
            refused[event.association, event.status, event.reason].append(event)
    for (number, status, reason), some in refused.items():
        if len(some) == 1:
            yield _line(some[0], names)
            continue
        yield from (replace(_line(event, names), detail=True) for event in some)
        every = [uid for event in some for uid in (event.sop_instance_uid, *event.others)]
        uids, times = listed(every), sum(event.times for event in some)
        yield Line(
            at=some[-1].at,
            text=f"{times} instances over association {number} were refused with "
            f"0x{status:04X}: {reason}: {uids}",
            thread="refusals",
            group=f"{status} {reason}",
            few=3,
        )


def _conflicts(conflicts: Sequence[Conflict], series_uid: str) -> Iterator[Line]:
    """What was kept apart, as it concerns this Series: the one of the first, or its own."""
    for c in conflicts:
        where = f"kept apart as {c.path}" if c.path else "kept apart, and removed since"
        what = f"instance {c.sop_instance_uid} came over association {c.association}"
        if c.series_uid != series_uid:
            how = f", but another with its UID is in series {c.series_uid}"
        elif c.own_series_uid in ("", series_uid):
            how = " with other content"
        else:
            how = f" with other content, in series {c.own_series_uid}"
        yield Line(
            at=c.received_at,
            text=f"{what}{how}: {where}",
            thread="conflicts",
            group="conflict",
            few=3,
        )


def _commitments(catalog: Catalog, series: Series, names: Names) -> Iterator[Line]:
    """What was asked and answered about keeping the results, by their last transactions."""
    transactions = {
        delivery.transaction_uid
        for result in catalog.views.results(series.series_uid)
        for delivery in catalog.views.deliveries(result.sop_instance_uid)
        if delivery.transaction_uid
    }
    for uid in sorted(transactions):
        for _, event in catalog.views.events_about(uid):
            yield _line(event, names)


def _peers(catalog: Catalog, series: Series, names: Names) -> Iterator[Line]:
    """That a peer could not be reached while a result waited for it."""
    waits: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for result in catalog.views.results(series.series_uid):
        for d in catalog.views.deliveries(result.sop_instance_uid):
            until = float("inf") if d.sent_at is None else d.sent_at
            waits[d.destination].append((result.created_at, until))
    for name, spans in waits.items():
        for _, event in catalog.views.events_about(f"peer {name}"):
            if any(begin <= event.at <= end for begin, end in spans):
                yield _line(event, names)
