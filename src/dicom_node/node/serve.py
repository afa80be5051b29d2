"""Wiring: one data folder, one port, a thread for each stage, a process for each device."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from dicom_node import __version__
from dicom_node.catalog import Catalog
from dicom_node.catalog.integrity import note_closed
from dicom_node.config.hazards import unsafe
from dicom_node.config.load import Config, check
from dicom_node.decide import doubt
from dicom_node.dimse.scp import Server, serve_beside, serve_storage
from dicom_node.dimse.scu import Timeouts
from dicom_node.dimse.stock import StockServer, serve_with_stock
from dicom_node.domain import events as e
from dicom_node.iod.header import KEYWORDS
from dicom_node.node import bell as bells
from dicom_node.node import stage
from dicom_node.node.admit import Admission
from dicom_node.node.applicability import judges
from dicom_node.node.ask import Asker, counter
from dicom_node.node.assemble import Assembler
from dicom_node.node.auditing import auditing
from dicom_node.node.certificates import Certificates, needs_tls
from dicom_node.node.clock import Clock, SystemClock
from dicom_node.node.crew import Crew
from dicom_node.node.descriptors import provide
from dicom_node.node.devices import places
from dicom_node.node.fallback import instead
from dicom_node.node.journal import Journal
from dicom_node.node.lanes import Lanes
from dicom_node.node.layout import (
    catalog_path,
    extra,
    hand_over,
    limits,
    lock_data_dir,
    make_data_dir,
    min_free_bytes,
    share_catalog,
    spool_path,
)
from dicom_node.node.outgoing import Outgoing, Shared, outgoing, reserve_of
from dicom_node.node.receive import StorageReceiver
from dicom_node.node.reconcile import reconcile
from dicom_node.node.retain import collect
from dicom_node.node.router import Router
from dicom_node.node.soundness import require_sound
from dicom_node.node.supervise import Supervisor, quarantine_fatal
from dicom_node.spool.store import Spool
from dicom_node.tools.registry import ModelManifest, load_models

_log = logging.getLogger("dicom_node")
_GRACE_S = 10.0
_DRIFT_S = 5.0
_COUNT_S = 10.0  # for the source to answer; the verdict does not wait longer than its policy


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningNode:
    """A node that serves. stop() ends it in order: nobody new, finish what is under way, leave.

    ports: see port and tls_port.
    """

    config: Config
    catalog: Catalog
    ports: tuple[int, int | None]
    stop: Callable[[], None]

    @property
    def port(self) -> int:
        """Where it listens; by TLS if there is no other."""
        return self.ports[0]

    @property
    def tls_port(self) -> int | None:
        """Where it listens by TLS, if it does."""
        return self.ports[1]


def start(config: Config, *, log_to: IO[str] | None = None) -> RunningNode:
    """Start every stage. log_to: for the log of the performers; standard error without it.

    Raises ConfigurationError (a mistake that only shows now, the port or the data folder taken),
    ToolError (a model that cannot be used), CatalogError and SpoolError.
    """
    manifests = load_models(config.models_dir)
    check(config, tools=manifests.keys(), keywords=KEYWORDS)
    _warn(config)
    make_data_dir(config)
    clock = SystemClock()
    stop = threading.Event()
    with contextlib.ExitStack() as undo:
        devices = places(config.engine.device, config.engine.performers)
        spool, journal, bell = _opened(config, len(devices), undo)
        started = _started(journal, config.engine.max_attempts, clock.now())
        collect(spool, journal, clock)
        reconciler = reconcile(spool, journal, clock)
        audit = auditing(config, journal, clock, bell)
        undo.callback(audit.close)
        shared = Shared(
            config=config,
            spool=spool,
            journal=journal,
            bell=bell,
            clock=clock,
            doubted_until=started.doubted_until,
            tell=audit.tell,
        )
        onward = outgoing(shared, instead(journal.catalog, clock))
        handed_over = str(hand_over(config))
        receiver = _receiver(shared, onward)
        crew = _crew(shared, receiver, handed_over, log_to)
        undo.callback(crew.end)
        certificates = Certificates(config, journal, clock) if needs_tls(config) else None
        server = _listen(shared, receiver, onward, crew, certificates)
        close = undo.pop_all().close
    threads, finish = _stages(shared, manifests, receiver, onward, stop)
    supervisor = _supervisor(shared, clock.offset, devices, handed_over, log_to)
    more = {
        bells.SUPERVISE: watching(clock, supervisor.run_due),
        **dict(audit.stages),
        bells.CERTIFICATES: certificates.run_due if certificates is not None else None,
        bells.RECEIVERS: crew.run_due if crew.count else None,
        bells.RECONCILE: None if reconciler.finished else reconciler.run_due,
    }
    threads += [_thread(name, due, bell, clock, stop) for name, due in more.items() if due]
    for thread in threads:
        thread.start()

    def stop_all() -> None:
        server.stop(_GRACE_S)
        stop.set()
        for thread in threads:
            bell.ring(thread.name)
        for thread in threads:
            thread.join()
        supervisor.end()
        finish()
        audit.finish()
        close()
        _log.info("the node was stopped in order")

    ports = (server.port, server.tls_port)
    return RunningNode(config=config, catalog=journal.catalog, stop=stop_all, ports=ports)


def _warn(config: Config) -> None:
    for danger in unsafe(config):
        _log.warning("UNSAFE: %s", danger)
    if not provide(config):
        _log.warning("there may be too few descriptors: dicom-node doctor says how many")


def _opened(
    config: Config, performers: int, undo: contextlib.ExitStack
) -> tuple[Spool, Journal, bells.Bell]:
    """The data folder and what is in it, for this node alone, until `undo` is closed."""
    undo.enter_context(lock_data_dir(config.data_dir))
    undo.enter_context(share_catalog(config.data_dir))
    spool = Spool(spool_path(config))
    reserve_of(config).relieve(spool.free_bytes())  # else the catalog cannot so much as be read
    require_sound(config, spool)
    catalog = Catalog(catalog_path(config))
    undo.callback(note_closed, catalog_path(config))
    undo.callback(catalog.close)
    bell = bells.Bell(config.data_dir)
    undo.callback(bell.close)
    return spool, Journal(catalog, bell, performers), bell


def _started(journal: Journal, max_attempts: int, now: float) -> doubt.Start:
    """Record the start, and whether its clock is believed."""
    history = journal.catalog.history
    started = doubt.start(now, history.newest_at(), history.last_start())
    # what it finds has happened before: at a time that is beyond doubt
    quarantine_fatal(journal, max_attempts, started.believed_at if started.doubt_s else now)
    journal.commit(
        e.NodeStarted(
            at=now,
            version=__version__,
            believed_at=started.believed_at if started.doubt_s else None,
            doubt_s=started.doubt_s,
        )
    )
    return started


def watching(clock: SystemClock, run_due: stage.RunDue) -> stage.RunDue:
    """run_due, and a warning whenever the system's clock has been set."""
    known_s = 0.0

    def run(now: float) -> float | None:
        nonlocal known_s
        drift_s = clock.drift_s()
        if abs(drift_s - known_s) > _DRIFT_S:
            known_s = drift_s
            _log.warning(
                "the system's clock was set: it is %.0f s off the node's, which goes on steadily "
                "and takes the new time at its next start",
                drift_s,
            )
        return run_due(now)

    return run


def _receiver(shared: Shared, onward: Outgoing) -> StorageReceiver:
    config, receive = shared.config, shared.config.receive
    return StorageReceiver(
        admission=Admission(
            ae_title=config.node.ae_title,
            peers=config.peers,
            accept_unknown=receive.unknown_peers == "accept",
            verify_unknown=receive.unknown_peers == "echo",
            min_free_bytes=min_free_bytes(config),
            quiet_s=min(config.complete.release_s, config.complete.quiet_s),
            peer_max=receive.peer_associations(),
            closed=onward.gauge.closed,
        ),
        spool=shared.spool,
        journal=shared.journal,
        clock=shared.clock,
        wake=lambda: shared.bell.ring(bells.RECEIVE),
    )


def _supervisor(
    shared: Shared,
    clock_offset: float,
    devices: Sequence[str],
    handed_over: str,
    log_to: IO[str] | None,
) -> Supervisor:
    config = shared.config
    return Supervisor(
        command=("-m", "dicom_node.node.performer"),
        arguments=(",".join(devices), repr(clock_offset), handed_over),
        count=len(devices),
        data_dir=config.data_dir,
        step_limit_s=config.engine.step_limit_s,
        max_attempts=config.engine.max_attempts,
        journal=shared.journal,
        clock=shared.clock,
        log_to=log_to,
    )


def _crew(
    shared: Shared, receiver: StorageReceiver, handed_over: str, log_to: IO[str] | None
) -> Crew:
    """The processes that receive beside this one, started; none, if it does so alone."""
    processes = shared.config.receive.processes
    crew = Crew(
        count=processes if processes > 1 else 0,
        command=("-m", "dicom_node.node.receiving", handed_over),
        receiver=receiver,
        sweep=shared.spool.sweep,
        log_to=log_to,
    )
    crew.start(shared.clock.now())
    return crew


def _listen(
    shared: Shared,
    receiver: StorageReceiver,
    onward: Outgoing,
    crew: Crew,
    certificates: Certificates | None,
) -> Server | StockServer:
    config = shared.config
    if config.receive.front == "stock":
        return serve_with_stock(
            ae_title=config.node.ae_title,
            host=config.node.host,
            port=config.node.port,
            receiver=receiver,
            committer=onward.commitments,
            limits=limits(config),
            extra=extra(config),
        )
    secure = certificates.port if certificates is not None else None
    server = serve_storage(
        ae_title=config.node.ae_title,
        host=config.node.host,
        port=config.node.port if secure is None or config.tls.plain else secure,
        receiver=receiver,
        committer=onward.commitments,
        limits=limits(config),
        extra=extra(config),
        elsewhere=crew if crew.count else None,
    )
    if secure is None or not config.tls.plain:
        return server
    with contextlib.ExitStack() as undo:
        undo.callback(server.stop, 0.0)
        both = serve_beside(server, host=config.node.host, port=secure)
        undo.pop_all()
    return both


def _stages(
    shared: Shared,
    manifests: Mapping[str, ModelManifest],
    receiver: StorageReceiver,
    onward: Outgoing,
    stop: threading.Event,
) -> tuple[list[threading.Thread], Callable[[], None]]:
    """The threads of the stages, and what to do when they have ended."""
    config, journal, bell, clock = shared.config, shared.journal, shared.bell, shared.clock
    assembler = Assembler(
        policy=config.complete.policy(),
        ask_source=config.complete.ask_source,
        router=Router(
            routes=config.routes,
            peers=config.peers,
            tools=judges(manifests),
            catalog=journal.catalog,
        ),
        journal=journal,
        started_at=clock.now(),
    )
    asker = Asker(
        source_of=assembler.source_of,
        count=shared.queries.counting(
            counter(
                config.node.ae_title,
                Timeouts(connect_s=config.deliver.connect_s, answer_s=_COUNT_S),
            )
        ),
        journal=journal,
        clock=clock,
        lanes=Lanes(what="ask", wake=lambda: bell.ring(bells.ASK)),
    )
    threads = [
        _thread(bells.RECEIVE, receiver.run_due, bell, clock, stop),
        _thread(bells.ASSEMBLE, assembler.run_due, bell, clock, stop),
        _thread(bells.ASK, asker.run_due, bell, clock, stop),
        *(_thread(name, run_due, bell, clock, stop) for name, run_due in onward.stages),
    ]

    def finish() -> None:
        receiver.finish()
        asker.finish(_GRACE_S)
        onward.finish(_GRACE_S)

    return threads, finish


def _thread(
    name: str, run_due: stage.RunDue, bell: bells.Bell, clock: Clock, stop: threading.Event
) -> threading.Thread:
    arguments = (name, run_due, bell.listen(name), clock, stop)
    return threading.Thread(target=stage.run, args=arguments, name=name)
