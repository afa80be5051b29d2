"""A new catalog: from the events of the old one, or from what lies in the spool."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dicom_node.catalog import Catalog
from dicom_node.catalog import replace as replacing
from dicom_node.catalog.integrity import examine, is_absent
from dicom_node.catalog.refold import refold
from dicom_node.config.load import Config
from dicom_node.domain.errors import CatalogError, NodeError
from dicom_node.domain.records import Peer
from dicom_node.node import bell as bells
from dicom_node.node.clock import Clock
from dicom_node.node.journal import Journal
from dicom_node.node.layout import catalog_path, spool_path
from dicom_node.node.reasons import NOBODY
from dicom_node.node.reconcile import reconcile
from dicom_node.node.respool import FromSpool, Rested, sender_of
from dicom_node.spool.store import Spool

Progress = Callable[[str, int, int], None]
"""progress(what is counted, done, total)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """since_s: a Series that received nothing for so long is not processed again. sender: who is
    taken to have sent what has no known sender. events: whether those of the old catalog are used.
    """

    since_s: float
    sender: Peer | None = None
    events: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What came of it. source: "events", "spool", or "interrupted" (an earlier one was finished).

    kept_as: the old catalog's new name, "" if there was none. entered: files that the events did
    not know. lost: Series that lack files. rested: see respool, for source "spool" alone.
    """

    source: str
    kept_as: str
    counts: dict[str, int]
    entered: int = 0
    lost: int = 0
    unreadable: int = 0
    rested: Rested | None = None


def rebuild(config: Config, wish: Wish, clock: Clock, progress: Progress) -> Rebuilt:
    """Make the catalog anew, and keep the old one beside it.

    To be called by who holds the data folder. Interrupted at any moment, it is called again; until
    the very end the old catalog stays where it is. Raises CatalogError, SpoolError.
    """
    path = catalog_path(config)
    label = datetime.fromtimestamp(clock.now(), UTC).strftime("%Y%m%dT%H%M%SZ")
    if replacing.pending_of(path).exists():
        done = Rebuilt(source="interrupted", kept_as="", counts={})
    else:
        try:
            done = _made(config, wish, clock, progress)
        except NodeError:
            replacing.discard_draft(path)  # the disk may be full of it
            raise
        replacing.finish_draft(path)
    aside = replacing.put_in_place(path, label)
    catalog = Catalog(path)
    try:
        counts = catalog.views.counts()
    finally:
        catalog.close()
    return replace(done, kept_as=aside.name if aside else "", counts=counts)


def _made(config: Config, wish: Wish, clock: Clock, progress: Progress) -> Rebuilt:
    """A finished draft."""
    path = catalog_path(config)
    draft = replacing.draft_of(path)
    replacing.discard_draft(path)
    spool = Spool(spool_path(config))
    there = not is_absent(path)
    if wish.events and there and refold(path, draft, lambda n, m: progress("events", n, m)):
        done = _completed(config, spool, clock)
    else:
        replacing.discard_draft(path)
        done = _from_spool(config, wish, spool, clock, progress)
    examination = examine(draft)
    if examination.problems:
        raise CatalogError(
            f"the new catalog is damaged, too ({examination.problems[0]}): is the disk failing?"
        )
    return done


def _completed(config: Config, spool: Spool, clock: Clock) -> Rebuilt:
    """With what the spool holds beyond the events."""
    catalog, bell = Catalog(replacing.draft_of(catalog_path(config))), bells.Bell(config.data_dir)
    try:
        compared = reconcile(spool, Journal(catalog, bell), clock, seconds=math.inf)
    finally:
        catalog.close()
        bell.close()
    return Rebuilt(
        source="events",
        kept_as="",
        counts={},
        entered=compared.entered,
        lost=len(compared.lost),
        unreadable=compared.unreadable,
    )


def _from_spool(
    config: Config, wish: Wish, spool: Spool, clock: Clock, progress: Progress
) -> Rebuilt:
    path = catalog_path(config)
    known = sender_of(wish.sender or only_sender(config))
    catalog = Catalog(replacing.draft_of(path))
    try:
        rested = FromSpool(
            spool=spool,
            catalog=catalog,
            now=clock.now(),
            since_s=wish.since_s,
            sender=known or (NOBODY, ""),
            progress=progress,
        ).run(None if is_absent(path) or not wish.events else path)
    finally:
        catalog.close()
    return Rebuilt(
        source="spool", kept_as="", counts={}, unreadable=len(rested.unreadable), rested=rested
    )


def only_sender(config: Config) -> Peer | None:
    """The one peer that may send here, where nobody else can have sent anything."""
    senders = [peer for peer in config.peers if "store" in peer.may]
    alone = len(senders) == 1 and config.receive.unknown_peers != "accept"
    return senders[0] if alone else None
