"""Is a Series whole? Judged from evidence, with the reasons in words.

No attribute and no message of DICOM says "this was the last image" to a Storage SCP, so several
weak witnesses are heard: how the associations ended, how long it has been quiet, whether the planes
leave a hole, and what the header counts. The end of an association is not the end of a Series:
senders split one over several, or open one for each image.
"""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.domain.states import SeriesState


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How patient to be.

    release_s: wait after every association was released, with a stack without holes.
    quiet_s: wait after the last instance when the end is not that clear.
    give_up_s: wait after the last instance when the evidence says that something is missing.
    """

    release_s: float = 2.0
    quiet_s: float = 20.0
    give_up_s: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known about a Series at one moment; times in UTC seconds.

    instances: how many have arrived. associations: how many of them brought any. open_associations:
    those that have not ended. last_end: how the latest to end did ("released", "aborted", ...), and
    last_end_at when. hole: the geometry's complaint about missing planes, "" if there is none.
    expected: what the header counts (Images in Acquisition (0020,1002)), if it does.
    """

    instances: int
    first_at: float
    last_at: float
    associations: int
    open_associations: int
    last_end: str | None = None
    last_end_at: float | None = None
    hole: str = ""
    doubt: str = ""
    expected: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """state RECEIVING means: judge again at due_at, or when more becomes known."""

    state: SeriesState
    reasons: tuple[str, ...]
    due_at: float | None = None


def judge(evidence: Evidence, policy: Policy, now: float) -> Verdict:
    """The verdict on a Series at the time `now`. Judging twice gives the same."""
    quiet_for = max(0.0, now - evidence.last_at)  # a clock set back counts as "just now"
    patience, reasons = _patience(evidence, policy)
    missing = bool(evidence.hole)
    since = evidence.last_at
    if patience == policy.release_s and evidence.last_end_at is not None:
        since = max(since, evidence.last_end_at)
        quiet_for = max(0.0, now - since)
    if quiet_for < patience:
        due = min(since, now) + patience
        return Verdict(state=SeriesState.RECEIVING, reasons=reasons, due_at=due)
    waited = f"quiet for {quiet_for:.1f} s"
    state = SeriesState.INCOMPLETE if missing else SeriesState.COMPLETE
    return Verdict(state=state, reasons=(*reasons, waited))


def _patience(evidence: Evidence, policy: Policy) -> tuple[float, tuple[str, ...]]:
    """How long to wait since the last sign of life, and why."""
    count = _counted(evidence)
    if evidence.hole:
        return policy.give_up_s, (count, evidence.hole)
    if evidence.open_associations:
        return policy.quiet_s, (count, "an association that sent to it is still open")
    if evidence.last_end != "released":
        how = evidence.last_end or "ended in an unknown way"
        return policy.quiet_s, (count, f"the last association was {how}")
    if evidence.doubt:
        return policy.quiet_s, (count, evidence.doubt)
    if evidence.expected is not None and evidence.instances < evidence.expected:
        return policy.quiet_s, (count, "fewer than the header counts")
    if evidence.expected is not None and evidence.instances == evidence.expected:
        return 0.0, (count, "every association was released", "as many as the header counts")
    if evidence.associations >= evidence.instances:
        return policy.quiet_s, (count, "the sender opens an association for each image")
    return policy.release_s, (count, "every association was released", "no plane is missing")


def _counted(evidence: Evidence) -> str:
    said = f" of {evidence.expected}" if evidence.expected is not None else ""
    plural = "instance" if evidence.instances == 1 else "instances"
    return f"{evidence.instances}{said} {plural}"
