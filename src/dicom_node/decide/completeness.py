"""Is a Series whole? Judged from evidence, with the reasons in words.

No attribute and no message of DICOM says "this was the last image" to a Storage SCP. So witnesses
are heard, and weighed:

- proof: the source, asked after the last instance came, has exactly as many; or the header counts
  as many, every association was released and no plane is missing. Nothing is waited for. The header
  counts one acquisition: while an association is open, another may follow.
- contradiction: the source has more, or the planes leave a hole that the source was not asked
  about, or instances that came with it were refused. The Series waits for them until the limit, and
  is INCOMPLETE then.
- hints: how associations ended, how long it has been quiet. They only set the length of the wait.
  The end of an association is not the end of a Series: senders split one over several, or open
  one for each image.
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
    answer_s: wait for the source to say how many it has.
    """

    release_s: float = 2.0
    quiet_s: float = 20.0
    give_up_s: float = 600.0
    answer_s: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known about a Series at one moment; times in UTC seconds.

    instances: how many have arrived. planes: those that are not set aside, as localizers are.
    associations: how many of them brought any. open_associations: those that have not ended.
    broken_associations: those that have, and not by release. last_end: how the latest to end did
    ("released", "aborted", ...), and last_end_at when. heard_since: when the node was started: it
    heard nothing before. hole: the geometry's complaint about missing planes, "" if there is none.
    expected: what the header counts (Images in Acquisition (0020,1002)), if it does.
    can_ask: the source answers queries. asking_since: it is being asked. asked_at: when the query
    went out that gave source_count (None: it could not say) and source (who said it, and how).
    released: an operator has declared the Series whole. missed: instances that came with those of
    this Series and were refused, and have not come since.
    """

    instances: int
    planes: int
    first_at: float
    last_at: float
    associations: int
    open_associations: int
    broken_associations: int = 0
    heard_since: float = 0.0
    last_end: str | None = None
    last_end_at: float | None = None
    hole: str = ""
    doubt: str = ""
    expected: int | None = None
    can_ask: bool = False
    asking_since: float | None = None
    asked_at: float | None = None
    source_count: int | None = None
    source: str = ""
    released: bool = False
    missed: int = 0

    @property
    def asked_since_last(self) -> bool:
        """Whether the source was asked after the last instance came."""
        return self.asked_at is not None and self.asked_at >= self.last_at

    @property
    def one_each(self) -> bool:
        """Whether the sender opens an association for each image: then no end is the last."""
        return self.associations >= self.instances


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """state RECEIVING means: judge again at due_at, or when more becomes known.

    ask: the source is to be asked how many it has.
    """

    state: SeriesState
    reasons: tuple[str, ...]
    due_at: float | None = None
    ask: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weighed:
    """patience: how long to wait since the last sign of life, and why. missing: a contradiction."""

    patience_s: float
    reasons: tuple[str, ...]
    missing: bool = False


def judge(evidence: Evidence, policy: Policy, now: float) -> Verdict:
    """The verdict on a Series at the time `now`. Judging twice gives the same."""
    if evidence.released:
        released = (_counted(evidence), "an operator released it")
        return Verdict(state=SeriesState.COMPLETE, reasons=released)
    weighed = _weigh(evidence, policy)
    if not weighed.patience_s:
        return Verdict(state=SeriesState.COMPLETE, reasons=weighed.reasons)
    since = max(evidence.last_at, evidence.heard_since)
    if weighed.patience_s == policy.release_s and evidence.last_end_at is not None:
        since = max(since, evidence.last_end_at)
    since = min(since, now)  # a clock that was set back: "just now"
    waits_until = since + weighed.patience_s
    over = now >= waits_until
    ask_at = _next_ask(evidence, policy, weighed, since)
    if ask_at is not None and ask_at <= now and not (over and evidence.asked_since_last):
        asking_since = now if evidence.asking_since is None else evidence.asking_since
        answer_by = asking_since + policy.answer_s
        if now < answer_by:
            reasons = (*weighed.reasons, "the source is being asked")
            return Verdict(state=SeriesState.RECEIVING, reasons=reasons, due_at=answer_by, ask=True)
    if not over:
        due_at = waits_until if ask_at is None or ask_at <= now else min(waits_until, ask_at)
        return Verdict(
            state=SeriesState.RECEIVING,
            reasons=weighed.reasons,
            due_at=due_at,
            ask=evidence.asking_since is not None,
        )
    state = SeriesState.INCOMPLETE if weighed.missing else SeriesState.COMPLETE
    return Verdict(state=state, reasons=(*weighed.reasons, f"quiet for {now - since:.1f} s"))


def _next_ask(evidence: Evidence, policy: Policy, weighed: _Weighed, since: float) -> float | None:
    """From when on the source is to be asked; None: not at all."""
    if not evidence.can_ask:
        return None
    if evidence.asked_since_last:
        # it may be about to delete, or to send, what is missing
        return (evidence.asked_at or 0.0) + policy.quiet_s if weighed.missing else None
    if evidence.asking_since is not None:
        return evidence.asking_since
    if evidence.open_associations or evidence.one_each:
        return since + policy.release_s  # more is likely to be on its way
    return since


def _weigh(evidence: Evidence, policy: Policy) -> _Weighed:
    """How long to wait since the last sign of life, and why. 0: it is proven whole."""
    asked = _source(evidence, policy)
    if asked is not None:
        return asked
    reasons: tuple[str, ...] = (_counted(evidence),)
    if evidence.asked_since_last and evidence.source:
        reasons = (*reasons, evidence.source)
    if evidence.hole:
        return _Weighed(
            patience_s=policy.give_up_s, reasons=(*reasons, evidence.hole), missing=True
        )
    hint = _hint(evidence)
    if evidence.expected == evidence.planes and not evidence.doubt:
        as_many = f"{_planes(evidence.planes)}, as many as the header counts"
        if evidence.open_associations:
            return _Weighed(patience_s=policy.release_s, reasons=(*reasons, as_many, hint))
        if not hint and not evidence.broken_associations:
            proof = (*reasons, "every association was released", as_many)
            return _Weighed(patience_s=0.0, reasons=proof)
    if evidence.missed:
        missed = f"{_instances(evidence.missed)} more came with it, to be refused, and not again"
        return _Weighed(patience_s=policy.give_up_s, reasons=(*reasons, missed), missing=True)
    if not hint and evidence.one_each:
        hint = "the sender opens an association for each image"
    if hint:
        return _Weighed(patience_s=policy.quiet_s, reasons=(*reasons, hint))
    which = "the last" if evidence.broken_associations else "every"
    reasons = (*reasons, f"{which} association was released", "no plane is missing")
    return _Weighed(patience_s=policy.release_s, reasons=reasons)


def _source(evidence: Evidence, policy: Policy) -> _Weighed | None:
    """What the source's count says, if it says anything."""
    count = evidence.source_count
    if count is None or not evidence.asked_since_last or count < evidence.instances:
        return None
    reasons: tuple[str, ...] = (f"{evidence.instances} of {_instances(count)}", evidence.source)
    if count > evidence.instances:
        more = (evidence.hole,) if evidence.hole else ()
        return _Weighed(patience_s=policy.give_up_s, reasons=(*reasons, *more), missing=True)
    if evidence.hole:
        reasons = (*reasons, f"{evidence.hole}, at the source too")
    return _Weighed(patience_s=0.0, reasons=reasons)


def _hint(evidence: Evidence) -> str:
    """Why the end is not clear, "" if it is."""
    if evidence.open_associations:
        return "an association that sent to it is still open"
    if evidence.last_end != "released":
        return f"the last association was {evidence.last_end or 'ended in an unknown way'}"
    if evidence.doubt:
        return evidence.doubt
    if evidence.expected is not None and evidence.planes < evidence.expected:
        return f"{_planes(evidence.planes)}, and the header counts {evidence.expected}"
    return ""


def _counted(evidence: Evidence) -> str:
    return _instances(evidence.instances)


def _planes(count: int) -> str:
    return "1 plane" if count == 1 else f"{count} planes"


def _instances(count: int) -> str:
    return "1 instance" if count == 1 else f"{count} instances"
