"""Wiring of the audit trail, and what it looks like to a command."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_node import __version__
from dicom_node.audit import box
from dicom_node.audit.file import AuditFile
from dicom_node.audit.message import Message
from dicom_node.audit.spool import AuditSpool, backlog
from dicom_node.audit.syslog import Collector, Endpoint, Origin, time_of
from dicom_node.audit.xml import time_text
from dicom_node.catalog import Catalog
from dicom_node.config.load import Config
from dicom_node.domain.errors import AuditError, ConfigurationError
from dicom_node.node import bell as bells
from dicom_node.node.audit import FILE, SYSLOG, Recorder, Reporter, Sender, Tell, nobody
from dicom_node.node.audited import Teller, node_itself
from dicom_node.node.clock import Clock
from dicom_node.node.journal import Journal
from dicom_node.node.stage import RunDue

_MIB = 1024 * 1024
FINISH_S = 5.0
LAG_S = 120.0  # a collector that is away for less is nobody's concern
_REMEMBERED_S = 7 * 86400.0  # that messages were lost


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditing:
    """tell: takes what is no event. stages: run_due by its bell. finish: when all else has ended;
    close: at last, whether or not it was ever begun."""

    tell: Tell = nobody
    stages: Sequence[tuple[str, RunDue]] = ()
    finish: Callable[[], None] = _nothing
    close: Callable[[], None] = _nothing


def auditing(config: Config, journal: Journal, clock: Clock, bell: bells.Bell) -> Auditing:
    """The audit trail of this configuration, which may be none.

    Raises ConfigurationError where its spool cannot be used.
    """
    readers = readers_of(config)
    if not readers:
        return Auditing()
    try:
        spool = AuditSpool(spool_of(config), readers, limit_bytes=config.audit.spool_mib * _MIB)
    except AuditError as error:
        raise ConfigurationError([str(error)], config.source) from error
    trail, reporter = journal.catalog.trail, reporter_of(config)
    recorder = Recorder(
        spool=spool,
        trail=trail,
        teller=Teller(trail, reporter.node, {peer.name: peer for peer in config.peers}),
        reporter=reporter,
        file=file_of(config),
        box=box_of(config),
        wake=bell.ring,
    )
    stages: list[tuple[str, RunDue]] = [(bells.AUDIT, recorder.run_due)]
    endpoint = endpoint_of(config)
    sender = None
    if endpoint is not None:
        sender = Sender(spool=spool, collector=Collector(endpoint), clock=clock)
        stages.append((bells.AUDIT_SEND, sender.run_due))

    def finish() -> None:
        recorder.finish(clock.now())
        if sender is not None:
            sender.finish(FINISH_S)

    return Auditing(tell=recorder.tell, stages=tuple(stages), finish=finish, close=spool.close)


def readers_of(config: Config) -> Collection[str]:
    """Who gets the messages."""
    audit = config.audit
    return [*([FILE] if audit.file else []), *([SYSLOG] if audit.syslog else [])]


def spool_of(config: Config) -> Path:
    """The folder of the spool."""
    return config.data_dir / "audit"


def box_of(config: Config) -> Path:
    """The folder where commands post their messages."""
    return spool_of(config) / "box"


def file_of(config: Config) -> AuditFile | None:
    """The file that gets the messages."""
    audit = config.audit
    if audit.file is None:
        return None
    return AuditFile(path=audit.file, limit_bytes=audit.file_mib * _MIB, keep=audit.keep_files)


def endpoint_of(config: Config) -> Endpoint | None:
    """The collector that gets the messages."""
    audit = config.audit
    if not audit.syslog:
        return None
    host, port = audit.collector
    return Endpoint(host=host, port=port, ca=audit.ca, certificate=audit.certificate, key=audit.key)


def reporter_of(config: Config) -> Reporter:
    """This process, as it calls itself in its messages."""
    host = socket.gethostname()
    title = config.node.ae_title
    return Reporter(
        node=node_itself(title, host),
        source_id=f"{title}@{host}",
        origin=Origin(host=host, process=os.getpid(), version=__version__),
    )


def post(config: Config, clock: Clock, messages: Sequence[Message]) -> None:
    """Leave messages for the node, from another process; nothing where there is no audit trail.

    Raises AuditError.
    """
    if config.audit.is_on:
        reporter = reporter_of(config)
        for message in messages:
            box.post(box_of(config), reporter.posted(message), clock.new_uid())


def troubles(config: Config, catalog: Catalog, now: float) -> Iterator[str]:
    """What is wrong with the audit trail of a node that runs. Raises AuditError, CatalogError."""
    told = None
    for reader, name in (
        (FILE, str(config.audit.file)),
        (SYSLOG, f"the collector {config.audit.syslog}"),
    ):
        known = backlog(spool_of(config), reader) if reader in readers_of(config) else None
        if known is None:
            continue
        told = known.seen
        if known.oldest and time_of(known.oldest) < time_text(now - LAG_S):
            yield (
                f"THE AUDIT TRAIL LAGS: {known.waiting} messages wait for {name}, the oldest is of "
                f"{time_of(known.oldest)[:19]}"
            )
        if known.lost and now - known.lost_at < _REMEMBERED_S:
            yield (
                f"THE AUDIT TRAIL HAS A GAP: {known.lost} messages were lost before they reached "
                f"{name}, the last at {time_text(known.lost_at)[:19]}"
            )
    if told is not None and catalog.trail.position(told.number) == told:
        since = catalog.trail.first_after(told.number)
        if since is not None and now - since > LAG_S:
            yield (
                "THE AUDIT TRAIL STANDS STILL: what happened since "
                f"{time_text(since)[:19]} is not in it (the log says why)"
            )
