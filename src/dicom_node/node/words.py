"""What happened, in plain words: one sentence a kind of event, for the log and for `why`.

UIDs, AE titles, addresses, states and times; no patient data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dicom_node.catalog.views import Views
from dicom_node.decide import expiry
from dicom_node.domain import events as e
from dicom_node.domain import keeping as k
from dicom_node.domain import security as s
from dicom_node.domain.records import Step
from dicom_node.domain.states import DeliveryState, SeriesState

_ARRIVED = {
    "repeated": "came again, with the same content",
    "conflict": "came with other content: kept apart",
}

LISTED = 2  # UIDs, before they are but counted

_PROOF = {
    DeliveryState.COMMITTED: "it has committed to keep it",
    DeliveryState.VERIFIED: "it lists it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the numbers in events stand for; each is looked up once."""

    views: Views
    steps: dict[int, Step | None] = field(default_factory=dict)
    deliveries: dict[int, tuple[str, str]] = field(default_factory=dict)

    def tool(self, step_id: int) -> str:
        """The tool of a step."""
        if step_id not in self.steps:
            self.steps[step_id] = self.views.step(step_id)
        step = self.steps[step_id]
        return step.tool_id if step is not None else f"step {step_id}"

    def series_of_step(self, step_id: int) -> str:
        """The Series that a step works on."""
        return self.views.series_of_step(step_id)

    def destination(self, delivery_id: int) -> str:
        """Whom a delivery is owed to."""
        return self._delivery(delivery_id)[1]

    def result(self, delivery_id: int) -> str:
        """What a delivery brings."""
        return self._delivery(delivery_id)[0]

    def _delivery(self, delivery_id: int) -> tuple[str, str]:
        if delivery_id not in self.deliveries:
            uid, _ = self.views.result_of_delivery(delivery_id)
            owed = [d for d in self.views.deliveries(uid) if d.delivery_id == delivery_id]
            self.deliveries[delivery_id] = (uid, owed[0].destination if owed else "?")
        return self.deliveries[delivery_id]


def sentence(event: e.Event, names: Names, outcome: str = "") -> str:
    """The event as a sentence. outcome: what the catalog made of it, for InstanceArrived."""
    of_peers = (_of_reception, _of_delivery, _of_proof, _of_keeping, _of_security)
    for tell in (*of_peers, _of_series, _of_step):
        text = tell(event, names, outcome)
        if text:
            return text
    return ""


def joined(reasons: Iterable[str]) -> str:
    """Reasons as one sentence, whether or not they end with a full stop."""
    return "; ".join(reason.rstrip(". ") for reason in reasons)


def counted(count: int, noun: str) -> str:
    """A number with its noun: "1 instance", "2 instances"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(uids: Iterable[str]) -> str:
    """The first of them, and how many more there are."""
    every = list(uids)
    more = f" and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return ", ".join(every[:LISTED]) + more


def clock_text(at: float) -> str:
    """A time as people read it: UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def opened(calling_ae: str, address: str, number: int, secured: str) -> str:
    """Who opened an association; after a rebuild of the catalog the address may not be known.

    secured: see AssociationOpened.
    """
    where = f" at {address}" if address else ""
    how = f" by {secured}" if secured else ""
    return f"{calling_ae}{where} opened association {number}{how}"


def warned(event: e.InstanceArrived) -> str:
    """What its sender was told of what is wrong with it, if anything is."""
    return f", with a warning: {event.warning}" if event.warning else ""


def _doubted(started: e.NodeStarted) -> str:
    if not started.doubt_s:
        return ""
    ahead_days = (started.at - (started.believed_at or started.at)) / 86400
    return (
        f", {ahead_days:.0f} days after all that it had recorded: if its clock is wrong, set it "
        f"and restart the node; for {started.doubt_s / 3600:.1f} hours nothing is removed or given "
        "up for its age"
    )


def _often(times: int) -> str:
    return f" ({times} times)" if times > 1 else ""


def _of_reception(event: e.Event, names: Names, outcome: str) -> str:  # noqa: PLR0911  # a table
    del names
    match event:
        case e.NodeStarted():
            return f"the node was started (version {event.version}){_doubted(event)}"
        case e.AssociationOpened():
            return opened(event.calling_ae, event.address, event.number, event.secured)
        case e.AssociationEnded():
            return f"association {event.number} was {event.how}"
        case e.AssociationRejected():
            return (
                f"{event.calling_ae} at {event.address}, calling {event.called_ae}, was "
                f"rejected{_often(event.times)}: {event.reason}"
            )
        case e.InstanceArrived(instance=i):
            verb = _ARRIVED.get(outcome, "was stored")
            return f"instance {i.sop_instance_uid} {verb}{warned(event)}"
        case e.InstanceRefused():
            others = f" and {counted(event.times - 1, 'other')}" if event.times > 1 else ""
            return (
                f"instance {event.sop_instance_uid}{others} from {event.calling_ae} "
                f"{'were' if others else 'was'} refused with 0x{event.status:04X}: {event.reason}"
            )
        case k.InstancesMissed():
            count = len(event.sop_instance_uids)
            were = "instance was" if count == 1 else "instances were"
            return f"{count} {were} refused that came with series {event.series_uid}"
        case e.RequestRefused():
            return (
                f"{event.request} from {event.calling_ae} at {event.address} was refused with "
                f"0x{event.status:04X}{_often(event.times)}: {event.reason}"
            )
        case e.AssociationBroken():
            who = f"{event.calling_ae} at {event.address}" if event.calling_ae else event.address
            what = "a connection" if event.number is None else f"association {event.number}"
            return f"{what} of {who} was broken{_often(event.times)}: {event.reason}"
    return ""


def _of_security(event: e.Event, names: Names, outcome: str) -> str:
    del names, outcome
    match event:
        case s.HandshakeFailed():
            return f"no TLS with {event.address}{_often(event.times)}: {event.reason}"
        case s.CertificateLoaded():
            return (
                f"the certificate that is shown from now on is sha256:{event.sha256}, good until "
                f"{clock_text(event.expires_at)[:10]}"
            )
        case s.CertificateRefused():
            return f"the files of TLS were changed, and the old ones are used on: {event.reason}"
        case s.CertificateExpiring():
            day = clock_text(event.expires_at)[:10]
            return f"{event.whose} {expiry.words(event.expires_at, event.at)}: on {day}"
    return ""


def _of_series(event: e.Event, names: Names, outcome: str) -> str:
    del names, outcome
    match event:
        case e.SeriesJudged():
            verb = "waits" if event.state is SeriesState.RECEIVING else f"is {event.state}"
            return f"the Series {verb}: {joined(event.reasons)}"
        case e.SourceCounted():
            return f"asked the source: {event.source}"
        case e.SeriesHeld():
            return f"the Series was held: {event.reason}"
        case e.SeriesReleased():
            return f"the Series was released: {event.reason}"
        case e.SeriesReopened():
            return f"the Series is judged anew: {event.reason}"
        case e.SeriesUnrouted():
            return f"the routes say: {joined(event.reasons)}"
    return ""


def _of_step(event: e.Event, names: Names, outcome: str) -> str:  # noqa: PLR0911  # a table
    del outcome
    match event:
        case e.StepScheduled(step=step):
            replaces = f", to replace {', '.join(step.replaces)}" if step.replaces else ""
            count = counted(len(step.instance_uids), "instance")
            return f"{step.tool_id} was scheduled by route '{step.route}' on {count}{replaces}"
        case e.StepClaimed():
            return f"{names.tool(event.step_id)} was begun by {event.performer}"
        case e.StepCompleted():
            parts = ", ".join(f"{name} {value:.2f}" for name, value in event.seconds.items())
            notes = f"; {joined(event.notes)}" if event.notes else ""
            tool = names.tool(event.step_id)
            if not parts:
                return f"{tool} was run{notes}"
            return f"{tool} took {sum(event.seconds.values()):.2f} s ({parts}){notes}"
        case e.StepCanceled():
            return f"{names.tool(event.step_id)} was canceled: {joined([event.reason])}"
        case e.StepFailed():
            then = "it is tried again" if event.retry_at is not None else "it is quarantined"
            return f"{names.tool(event.step_id)} failed: {joined([event.reason])}; {then}"
        case e.StepReturned():
            return f"{names.tool(event.step_id)} was interrupted: {joined([event.reason])}"
        case e.StepReset():
            return f"an operator asked for {names.tool(event.step_id)} again"
        case e.ResultStored(result=result):
            return f"result {result.sop_instance_uid} ({result.kind}) was made"
    return ""


def _of_delivery(event: e.Event, names: Names, outcome: str) -> str:
    del outcome
    match event:
        case e.DeliveryQueued(delivery=delivery):
            return f"the result is owed to {delivery.destination}"
        case e.DeliveryClaimed():
            return f"sending it to {names.destination(event.delivery_id)}"
        case e.DeliveryEnded():
            status = f" with 0x{event.status:04X}" if event.status is not None else ""
            to = names.destination(event.delivery_id)
            return f"{to}: {event.state}{status}{_because(event.reason)}"
        case e.DeliveryReset():
            to = names.destination(event.delivery_id)
            return f"an operator asked for it to be sent to {to} again"
    return ""


def _of_proof(event: e.Event, names: Names, outcome: str) -> str:
    del outcome
    match event:
        case e.DeliveryWithdrawn():
            to = names.destination(event.delivery_id)
            return f"it is not sent to {to} any more{_because(event.reason)}"
        case e.RejectionOwed():
            to = names.destination(event.delivery_id)
            return f"{to} is told that it was replaced, by rejection note {event.note_uid}"
        case k.CommitmentRequested():
            count = counted(len(event.delivery_ids), "result")
            return f"{event.destination} is asked to commit to keeping {count}"
        case k.CommitmentReported():
            asked = "" if event.destination else ", which this node did not ask for"
            kept = f"{counted(event.committed, 'object')} kept, {event.failed} not"
            return f"{event.sender_ae} reports on commitment{asked}: {kept}"
        case k.ProofAwaited():
            to = names.destination(event.delivery_id)
            return f"{to}: no proof yet that it has it{_because(event.reason)}"
        case k.DeliveryConfirmed():
            to = names.destination(event.delivery_id)
            return f"{to}: {event.state}{_because(event.reason or _PROOF.get(event.state, ''))}"
    return ""


def _of_keeping(event: e.Event, names: Names, outcome: str) -> str:  # noqa: PLR0911  # a table
    del names, outcome
    match event:
        case k.CommitmentAsked():
            count = counted(sum(map(len, event.references.values())), "instance")
            return f"{event.peer} asks this node to commit to keeping {count}"
        case k.CommitmentJudged():
            kept = counted(event.committed, "instance")
            failed = sum(map(len, event.failed.values()))
            return f"the answer to {event.peer} on commitment: {kept} kept, {failed} not"
        case k.SeriesPromised():
            count = counted(event.instances, "instance")
            return f"{event.peer} was promised that {count} of the Series are kept"
        case k.CommitmentReportEnded():
            then = "it is tried again" if event.due_at is not None else "that is the end of it"
            return f"reporting to {event.peer} on commitment{_because(event.reason)}; {then}"
        case k.SeriesPurged():
            count, mib = counted(event.files, "file"), event.size / (1 << 20)
            return f"{count} ({mib:.1f} MiB) are to be removed: {joined([event.reason])}"
        case k.FilesRemoved():
            return f"{counted(event.files, 'file')} of the Series removed from the disk"
        case k.InstanceRestored():
            return f"instance {event.sop_instance_uid} came again, after its file was removed"
        case k.ResultLost():
            return f"the file of result {event.sop_instance_uid} is lost{_because(event.reason)}"
        case k.PressureChanged():
            return f"the node is {event.level} to senders{_because(event.reason)}"
        case k.PeerUnreachable():
            return f"{event.destination} cannot be reached{_because(event.reason)}; all wait for it"
        case k.PeerReached():
            return f"{event.destination} can be reached again"
    return ""


def _because(reason: str) -> str:
    text = joined([reason])
    return f": {text}" if text else ""


def is_well(event: e.Event) -> bool:
    """Whether nobody need be told: it went as it should."""
    match event:
        case e.DeliveryEnded():
            return event.state is DeliveryState.SENT
        case k.DeliveryConfirmed():
            return event.state in (DeliveryState.COMMITTED, DeliveryState.VERIFIED)
        case k.CommitmentReported():
            return not event.failed
        case k.PressureChanged():
            return event.level == "open"
        case e.NodeStarted():
            return not event.doubt_s
        case (
            e.AssociationRejected() | e.AssociationBroken() | e.InstanceRefused()
            | e.RequestRefused() | e.SeriesHeld() | e.StepCanceled() | e.StepFailed()
            | k.InstancesMissed() | k.ResultLost() | k.PeerUnreachable() | s.HandshakeFailed()
            | s.CertificateRefused() | s.CertificateExpiring()
        ):  # fmt: skip
            return False
    return True
