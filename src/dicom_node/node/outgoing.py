"""Wiring of the stages behind the results: deliver, confirm, promise, retain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dicom_node.config.load import Config
from dicom_node.decide import retry
from dicom_node.decide.pressure import Limits
from dicom_node.dimse.contract import CommitmentRequest
from dicom_node.dimse.scu import Timeouts
from dicom_node.node import bell as bells
from dicom_node.node import confirm, deliver, promise
from dicom_node.node.asked import Queries
from dicom_node.node.audit import Tell, nobody
from dicom_node.node.clock import Clock
from dicom_node.node.journal import Journal
from dicom_node.node.lanes import Lanes
from dicom_node.node.layout import GIB
from dicom_node.node.pressure import RESERVE_BYTES, Gauge, Reserve
from dicom_node.node.retain import Retainer
from dicom_node.node.stage import RunDue
from dicom_node.spool.store import Spool

_MIB = 1024 * 1024
RESERVE = "reserve"
"""The file in the data folder that is given up when the disk is full."""

STOP_FREE_GIB = 1.0  # enough for the catalog, however early an operator wants to be warned


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What every stage has. doubted_until: when the clock is believed. tell: the audit trail."""

    config: Config
    spool: Spool
    journal: Journal
    bell: bells.Bell
    clock: Clock
    doubted_until: float = 0.0
    tell: Tell = nobody

    @property
    def queries(self) -> Queries:
        """Tells the audit trail of queries."""
        return Queries(tell=self.tell, ae_title=self.config.node.ae_title, clock=self.clock)

    @property
    def patience(self) -> retry.Policy:
        """With what is owed to peers."""
        return replace(self.config.deliver.policy(), doubted_until=self.doubted_until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """run_due of each stage by its bell. finish: waits so many seconds for what is under way."""

    stages: Sequence[tuple[str, RunDue]]
    commitments: promise.Commitments
    gauge: Gauge
    finish: Callable[[float], None]


def gauge_of(config: Config, spool: Spool, journal: Journal, clock: Clock) -> Gauge:
    """How full the node is."""
    return Gauge(
        limits=limits_of(config),
        free_bytes=spool.free_bytes,
        reserve=reserve_of(config),
        journal=journal,
        clock=clock,
    )


def reserve_of(config: Config) -> Reserve:
    """What is given up when the disk is full."""
    return Reserve(path=config.data_dir / RESERVE, size=reserve_bytes(limits_of(config)))


def reserve_bytes(limits: Limits) -> int:
    """Well below the level at which nobody is let in any more."""
    return max(_MIB, min(RESERVE_BYTES, limits.stop_free_bytes // 8))


def limits_of(config: Config) -> Limits:
    """The levels at which less is taken in."""
    receive = config.receive
    half = min(receive.min_free_gib / 2, STOP_FREE_GIB)
    stop = half if receive.stop_free_gib is None else receive.stop_free_gib
    return Limits(
        min_free_bytes=int(receive.min_free_gib * GIB),
        stop_free_bytes=int(stop * GIB),
        max_backlog=receive.max_backlog,
    )


def outgoing(shared: Shared, instead: deliver.Instead = deliver.nothing_instead) -> Outgoing:
    """All of them. instead: what follows where a peer takes no results of a kind."""
    config, journal, clock = shared.config, shared.journal, shared.clock
    gauge = gauge_of(config, shared.spool, journal, clock)
    reports = confirm.Reports(
        policy=replace(config.deliver.proof(), back_off=shared.patience),
        journal=journal,
        clock=clock,
    )
    deliverer = _deliverer(shared, instead)
    confirmer = _confirmer(shared, reports)
    promiser = _promiser(shared)
    retainer = Retainer(
        policy=replace(config.retain.policy(config.passing), doubted_until=shared.doubted_until),
        free_bytes=int(config.retain.free_gib * GIB),
        peers=deliverer.peers,
        spool=shared.spool,
        journal=journal,
        gauge=gauge,
        clock=clock,
    )

    def finish(seconds: float) -> None:
        for stage in (deliverer, confirmer, promiser):
            stage.finish(seconds)

    return Outgoing(
        stages=(
            (bells.DELIVER, deliverer.run_due),
            (bells.CONFIRM, confirmer.run_due),
            (bells.PROMISE, promiser.run_due),
            (bells.RETAIN, retainer.run_due),
        ),
        commitments=promise.Commitments(
            peers=config.peers, reports=reports, journal=journal, clock=clock
        ),
        gauge=gauge,
        finish=finish,
    )


def _deliverer(shared: Shared, instead: deliver.Instead) -> deliver.Deliverer:
    config = shared.config
    return deliver.Deliverer(
        peers={peer.name: peer for peer in config.peers},
        policy=shared.patience,
        spool=shared.spool,
        journal=shared.journal,
        clock=shared.clock,
        send=deliver.sender(config.node.ae_title, _timeouts(config)),
        lanes=_lanes(shared, "deliver to", bells.DELIVER),
        instead=instead,
        ask_after_s=config.deliver.proof_after_s,
    )


def _confirmer(shared: Shared, reports: confirm.Reports) -> confirm.Confirmer:
    title, timeouts = shared.config.node.ae_title, _timeouts(shared.config)
    lanes = _lanes(shared, "confirm with", bells.CONFIRM)
    keeping = shared.journal.catalog.keeping

    def enough(request: CommitmentRequest) -> bool:
        return lanes.ending() or not keeping.awaits_report(request.transaction_uid)

    return confirm.Confirmer(
        peers={peer.name: peer for peer in shared.config.peers},
        policy=reports.policy,
        journal=shared.journal,
        clock=shared.clock,
        reports=reports,
        ask=confirm.asker(title, timeouts, reports.policy.report_within_s, enough),
        listing=shared.queries.listing(confirm.lister(title, timeouts)),
        lanes=lanes,
    )


def _promiser(shared: Shared) -> promise.Promiser:
    config = shared.config
    return promise.Promiser(
        peers={peer.name: peer for peer in config.peers},
        policy=shared.patience,
        digest=config.retain.verify_promises == "digest",
        spool=shared.spool,
        journal=shared.journal,
        clock=shared.clock,
        report=promise.reporter(config.node.ae_title, _timeouts(config)),
        lanes=_lanes(shared, "report to", bells.PROMISE),
    )


def _timeouts(config: Config) -> Timeouts:
    return Timeouts(connect_s=config.deliver.connect_s, answer_s=config.deliver.answer_s)


def _lanes(shared: Shared, what: str, stage: str) -> Lanes:
    return Lanes(what=what, wake=lambda: shared.bell.ring(stage))
