"""Storage Commitment of the test PACS, in both roles, on pynetdicom (PS3.4 Annex J)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydicom.dataset import Dataset
from pynetdicom import build_role, evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from dicom_node.dimse.entity import Entity

NO_SUCH_INSTANCE, CLASS_CONFLICT = 0x0112, 0x0119
ALL_COMMITTED, SOME_FAILED = 1, 2
PATIENCE_S = 10.0

Way = Literal["same", "new", "never"]
Reason = Callable[[str], int | None]
"""SOP Instance UID -> Failure Reason, None to commit it."""


def fail_none(_uid: str) -> int | None:
    """Commit whatever is there."""
    return None


@dataclass(slots=True, kw_only=True)
class Commitment:
    """How a PACS commits; may be changed at any time.

    way: on which association it reports, if at all. report_to: AE title, host and port for "new",
    else the caller's among the destinations of the PACS. fails: gives instances a Failure Reason
    that are there; those that are not get 0112. status: of the N-ACTION; a failure is not reported
    on. delay_s: before the report. roles: whether "new" proposes the role of SCP, as it must.
    """

    way: Way = "new"
    report_to: tuple[str, str, int] | None = None
    fails: Reason = fail_none
    status: int = 0x0000
    delay_s: float = 0.0
    roles: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One N-ACTION that came in."""

    transaction_uid: str
    references: tuple[tuple[str, str], ...]
    calling_ae: str
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """One N-EVENT-REPORT: that came in, or that went out with `status` as its answer.

    status: None if there was no association or no answer. failed: with reasons.
    """

    transaction_uid: str
    committed: tuple[tuple[str, str], ...]
    failed: tuple[tuple[str, str, int], ...]
    event_type: int
    status: int | None
    ae_title: str


@dataclass(slots=True)
class CommitmentScp:
    """The records and the handlers; `changed` is notified of every new record."""

    ae_title: str
    rules: Callable[[], Commitment | None]
    class_of: Callable[[str], str | None]
    address_of: Callable[[str], tuple[str, int] | None]
    changed: threading.Condition
    asked: list[Asked] = field(default_factory=list)
    sent: list[Reported] = field(default_factory=list)
    received: list[Reported] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def on_action(self, event: Any) -> tuple[int, Dataset | None]:
        """N-ACTION: record, answer, and report in a thread."""
        rules = self.rules() or Commitment()
        information = event.action_information
        one = Asked(
            transaction_uid=str(information.get("TransactionUID", "")),
            references=_pairs(information.get("ReferencedSOPSequence") or ()),
            calling_ae=event.assoc.requestor.ae_title,
            status=rules.status,
        )
        with self.changed:
            self.asked.append(one)
            self.changed.notify_all()
        if rules.status == 0 and rules.way != "never":
            answered = threading.Event()

            def on_sent(told: Any) -> None:
                if isinstance(told.pdu, P_DATA_TF):
                    answered.set()

            event.assoc.bind(evt.EVT_PDU_SENT, on_sent)
            thread = threading.Thread(target=self._report, args=(event.assoc, answered, one))
            self.threads.append(thread)
            thread.start()
        return rules.status, None

    def on_report(self, event: Any) -> tuple[int, Dataset | None]:
        """N-EVENT-REPORT: record, answer with success."""
        information = event.event_information
        with self.changed:
            self.received.append(
                Reported(
                    transaction_uid=str(information.TransactionUID),
                    committed=_pairs(information.get("ReferencedSOPSequence") or ()),
                    failed=tuple(
                        (*_pair(item), int(item.FailureReason))
                        for item in information.get("FailedSOPSequence") or ()
                    ),
                    event_type=int(event.event_type),
                    status=0,
                    ae_title=event.assoc.requestor.ae_title,
                )
            )
            self.changed.notify_all()
        return 0x0000, None

    def stop(self) -> None:
        """Give up what is not reported yet."""
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def _report(self, association: Any, answered: threading.Event, asked: Asked) -> None:
        rules = self.rules() or Commitment()
        answered.wait(PATIENCE_S)  # the response goes first
        self.stopping.wait(rules.delay_s)
        if self.stopping.is_set():
            return
        failed = tuple(
            (*pair, reason)
            for pair in asked.references
            if (reason := self._reason(rules, *pair)) is not None
        )
        refused = {instance for _, instance, _ in failed}
        report = Reported(
            transaction_uid=asked.transaction_uid,
            committed=tuple(pair for pair in asked.references if pair[1] not in refused),
            failed=failed,
            event_type=SOME_FAILED if failed else ALL_COMMITTED,
            status=None,
            ae_title=asked.calling_ae,
        )
        status: int | None = None
        known = self.address_of(asked.calling_ae)
        target = rules.report_to or (None if known is None else (asked.calling_ae, *known))
        if rules.way == "same":
            status = _send(association, report)
        elif target is not None:
            status = send_report(self.ae_title, target, report, roles=rules.roles)
        with self.changed:
            self.sent.append(replace(report, status=status))
            self.changed.notify_all()

    def _reason(self, rules: Commitment, sop_class: str, instance: str) -> int | None:
        held = self.class_of(instance)
        if held is None:
            return NO_SUCH_INSTANCE
        return CLASS_CONFLICT if held != sop_class else rules.fails(instance)


def send_report(
    ae_title: str, target: tuple[str, str, int], report: Reported, *, roles: bool = True
) -> int | None:
    """Send an N-EVENT-REPORT over an association of its own; target: AE title, host, port.

    Returns the answer's status, None if there was no association or no answer.
    """
    ae = _entity(ae_title)
    ae.add_requested_context(StorageCommitmentPushModel)
    association = ae.associate(
        target[1],
        target[2],
        ae_title=target[0],
        ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)] if roles else [],
    )
    if not association.is_established:
        return None
    status = _send(association, report)
    association.release()
    return status


def send_commitment_request(
    address: tuple[str, int],
    called_ae: str,
    references: Sequence[tuple[str, str]],
    transaction_uid: str,
    *,
    calling_ae: str = "SENDER",
) -> int | None:
    """Ask for commitment by an N-ACTION; references: SOP Class and Instance UID.

    Returns the answer's status, None if there was no association, no context or no answer.
    """
    ae = _entity(calling_ae)
    ae.add_requested_context(StorageCommitmentPushModel)
    association = ae.associate(*address, ae_title=called_ae)
    if not association.is_established:
        return None
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [_item(*pair) for pair in references]
    status, _ = association.send_n_action(
        information, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    association.release()
    return int(status.Status) if "Status" in status else None


def _entity(ae_title: str) -> Entity:
    ae = Entity(ae_title=ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.connection_timeout = PATIENCE_S
    return ae


def _send(association: Any, report: Reported) -> int | None:
    information = Dataset()
    information.TransactionUID = report.transaction_uid
    if report.committed:
        information.ReferencedSOPSequence = [_item(*pair) for pair in report.committed]
    if report.failed:
        failed = []
        for sop_class, instance, reason in report.failed:
            failed.append(_item(sop_class, instance))
            failed[-1].FailureReason = reason
        information.FailedSOPSequence = failed
    try:
        status, _ = association.send_n_event_report(
            information,
            report.event_type,
            StorageCommitmentPushModel,
            StorageCommitmentPushModelInstance,
        )
    except RuntimeError:  # the association is gone
        return None
    return int(status.Status) if "Status" in status else None


def _item(sop_class: str, instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
    return item


def _pairs(items: Sequence[Dataset]) -> tuple[tuple[str, str], ...]:
    return tuple(_pair(item) for item in items)


def _pair(item: Dataset) -> tuple[str, str]:
    return str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)
