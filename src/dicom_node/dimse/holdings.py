"""What a peer has of a Series, learned by C-FIND: which instances, and how many (PS3.4 §C.6.2)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dicom_node.dimse.outcome import Outcome, Timeouts
from dicom_node.dimse.query import Found, Keys, Level, find
from dicom_node.domain.records import Peer

CHUNK = 100  # UIDs in one query: 6.5 KB
_COUNT = "NumberOfSeriesRelatedInstances"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Which of the wanted instances were found. outcome: of the query that failed, or the last.

    Only if it is a success are the others known to be missing.
    """

    found: frozenset[str]
    outcome: Outcome


class Learned(StrEnum):
    """How the size of a Series was learned."""

    STATED = _COUNT  # the peer's answer at SERIES level
    COUNTED = "SOP Instances at IMAGE level"
    NOT = "not told"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """How many instances a peer has of a Series: None if it cannot or does not say."""

    count: int | None
    how: Learned
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """Whom to ask, and for what."""

    peer: Peer
    calling_ae: str
    study_uid: str
    series_uid: str
    timeouts: Timeouts | None

    def find(self, level: Level, keyword: str, value: str | Sequence[str] = "") -> Found:
        keys: Keys = {
            "StudyInstanceUID": self.study_uid,
            "SeriesInstanceUID": self.series_uid,
            keyword: value,
        }
        return find(
            peer=self.peer,
            calling_ae=self.calling_ae,
            level=level,
            keys=keys,
            timeouts=self.timeouts,
        )


def held_instances(
    *,
    peer: Peer,
    calling_ae: str,
    study_uid: str,
    series_uid: str,
    sop_instance_uids: Collection[str],
    timeouts: Timeouts | None = None,
) -> Held:
    """Which of these SOP Instances of one Series does the peer have?

    Asked for by lists of UIDs; what those do not find is looked for among all of the Series, as
    some peers do not match lists (PS3.4 §C.2.2.2.2). Raises PeerError for keys that are no UIDs.
    """
    series = _Series(
        peer=peer,
        calling_ae=calling_ae,
        study_uid=study_uid,
        series_uid=series_uid,
        timeouts=timeouts,
    )
    wanted = frozenset(sop_instance_uids)
    found: set[str] = set()
    answer: Found | None = None
    for chunk in _chunks(sorted(wanted)):
        answer = series.find("IMAGE", "SOPInstanceUID", chunk)
        found |= wanted & set(_uids(answer))
        if not answer.outcome.succeeded:
            break
    if answer is None or (not wanted <= found and answer.outcome.status is not None):
        answer = series.find("IMAGE", "SOPInstanceUID")
        found |= wanted & set(_uids(answer))
    return Held(found=frozenset(found), outcome=answer.outcome)


def count_series(
    *,
    peer: Peer,
    calling_ae: str,
    study_uid: str,
    series_uid: str,
    timeouts: Timeouts | None = None,
) -> Counted:
    """How many instances does the peer have of a Series?

    By its own word, an optional key at SERIES level; else by counting at IMAGE level.
    """
    series = _Series(
        peer=peer,
        calling_ae=calling_ae,
        study_uid=study_uid,
        series_uid=series_uid,
        timeouts=timeouts,
    )
    answer = series.find("SERIES", _COUNT)
    stated = _stated(answer, series_uid)
    if stated is not None:
        return Counted(count=stated, how=Learned.STATED, outcome=answer.outcome)
    if answer.outcome.status is None:  # there is no talking to it
        return Counted(count=None, how=Learned.NOT, outcome=answer.outcome)
    answer = series.find("IMAGE", "SOPInstanceUID")
    uids = set(_uids(answer))
    if not uids or answer.cut or not answer.outcome.succeeded:
        return Counted(count=None, how=Learned.NOT, outcome=answer.outcome)
    return Counted(count=len(uids), how=Learned.COUNTED, outcome=answer.outcome)


def _stated(answer: Found, series_uid: str) -> int | None:
    """The count of the Series that was asked for: some peers answer with others, too."""
    for match in answer.matches:
        count = match.get(_COUNT)
        if match.get("SeriesInstanceUID") == series_uid and isinstance(count, int) and count > 0:
            return count
    return None


def _uids(answer: Found) -> Iterator[str]:
    return (str(match.get("SOPInstanceUID", "")) for match in answer.matches)


def _chunks(uids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (uids[start : start + CHUNK] for start in range(0, len(uids), CHUNK))
