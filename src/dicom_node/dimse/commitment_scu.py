"""Storage Commitment towards a peer: ask it for a promise, or tell it what we keep (PS3.4 §J.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dicom_node.dimse import command as dimse
from dicom_node.dimse import commitment, committing
from dicom_node.dimse.committing import Committing, Told
from dicom_node.dimse.contexts import EXPLICIT_LITTLE, STORAGE_COMMITMENT
from dicom_node.dimse.contract import (
    CommitmentReport,
    CommitmentRequest,
    Limits,
    StoreAnswer,
)
from dicom_node.dimse.dialogue import Ended, Incoming, Proposal, Serve, conversing
from dicom_node.dimse.outcome import Outcome, Phase, Timeouts
from dicom_node.dimse.pdu import AnsweredContext, Roles
from dicom_node.dimse.status import INVALID_ARGUMENT, SUCCESS, UNRECOGNISED_OPERATION
from dicom_node.domain.errors import PeerError
from dicom_node.domain.identifiers import is_uid
from dicom_node.domain.records import Peer

_MESSAGE_ID = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """outcome: of the request; success means that the peer will report, now or later.

    report: the one that came on the same association and was answered with success, if it did.
    """

    outcome: Outcome
    report: CommitmentReport | None = None


def not_yet() -> bool:
    """Only a report ends the waiting."""
    return False


def ask_commitment(
    *,
    peer: Peer,
    calling_ae: str,
    request: CommitmentRequest,
    report_within_s: float = 0.0,
    on_report: Callable[[CommitmentReport], StoreAnswer] | None = None,
    enough: Callable[[], bool] = not_yet,
    timeouts: Timeouts | None = None,
) -> Asked:
    """Ask the peer to keep what the request names, in one N-ACTION.

    The association stays open for report_within_s, or until the report has come on it, or it is
    `enough`; the usual way is that the peer opens one to us (see Committer). on_report: gives the
    answer to each report on this association, also to those on other transactions; without it,
    success for this transaction alone. Raises PeerError for a request that can be no such.
    """
    _check(request.transaction_uid, len(request.references))
    reports: list[CommitmentReport] = []

    def reported(report: CommitmentReport) -> StoreAnswer:
        ours = report.transaction_uid == request.transaction_uid
        if on_report is not None:
            answer = on_report(report)
        elif ours:
            answer = StoreAnswer(status=SUCCESS)
        else:
            answer = StoreAnswer(status=INVALID_ARGUMENT, comment="unknown Transaction UID")
        if ours and answer.status == SUCCESS:
            reports.append(report)
        return answer

    outcome: Outcome | None = None
    try:
        with conversing(
            peer=peer,
            calling_ae=calling_ae,
            proposal=Proposal(abstract_syntax=STORAGE_COMMITMENT),
            serve=_serving(peer, reported),
            timeouts=timeouts or Timeouts(),
        ) as dialogue:
            explicit = dialogue.context.transfer_syntax == EXPLICIT_LITTLE
            outcome = dialogue.request(
                dimse.N_ACTION_RQ,
                _MESSAGE_ID,
                dimse.encode_action(
                    message_id=_MESSAGE_ID,
                    sop_class=STORAGE_COMMITMENT,
                    sop_instance=commitment.WELL_KNOWN_INSTANCE,
                    action_type=commitment.REQUEST_COMMITMENT,
                ),
                commitment.encode_request(request, explicit=explicit),
            )
            if outcome.succeeded:
                dialogue.listen(lambda: bool(reports) or enough(), report_within_s)
    except Ended as ended:
        outcome = outcome or ended.outcome
    return Asked(outcome=outcome, report=reports[0] if reports else None)


def report_commitment(
    *,
    peer: Peer,
    calling_ae: str,
    report: CommitmentReport,
    timeouts: Timeouts | None = None,
) -> Outcome:
    """Tell a peer that asked what we keep, over an association with us as SCP (PS3.4 §J.3.3.1.2).

    Raises PeerError for a report that can be no such.
    """
    _check(report.transaction_uid, len(report.committed) + len(report.failed))
    try:
        with conversing(
            peer=peer,
            calling_ae=calling_ae,
            proposal=Proposal(abstract_syntax=STORAGE_COMMITMENT, roles=Roles(scu=False, scp=True)),
            serve=lambda _command, _context: StoreAnswer(status=UNRECOGNISED_OPERATION),
            timeouts=timeouts or Timeouts(),
        ) as dialogue:
            # A peer that accepts the context and is silent about roles may take it all the same.
            if dialogue.roles is not None and not dialogue.roles.scp:
                return Outcome(phase=Phase.NO_CONTEXT, detail="the peer refuses the role of SCP")
            explicit = dialogue.context.transfer_syntax == EXPLICIT_LITTLE
            return dialogue.request(
                dimse.N_EVENT_REPORT_RQ,
                _MESSAGE_ID,
                dimse.encode_event_report(
                    message_id=_MESSAGE_ID,
                    sop_class=STORAGE_COMMITMENT,
                    sop_instance=commitment.WELL_KNOWN_INSTANCE,
                    event_type=commitment.event_type_of(report),
                ),
                commitment.encode_report(report, explicit=explicit),
            )
    except Ended as ended:
        return ended.outcome


def _check(transaction_uid: str, references: int) -> None:
    if not is_uid(transaction_uid):
        raise PeerError("the Transaction UID is no UID", permanent=True)
    if not 0 < references <= Limits().references_max:
        raise PeerError(
            f"a transaction names 1 to {Limits().references_max} instances", permanent=True
        )


def _serving(peer: Peer, reported: Callable[[CommitmentReport], StoreAnswer]) -> Serve:
    told = Told(asked=None, reported=reported, sender_ae=peer.ae_title)

    def serve(command: dimse.Command, context: AnsweredContext) -> Incoming | StoreAnswer:
        if command.field != dimse.N_EVENT_REPORT_RQ:
            return StoreAnswer(status=UNRECOGNISED_OPERATION)
        return committing.refusal(command, context, told) or Committing(
            command=command, context=context, told=told, limits=Limits()
        )

    return serve
