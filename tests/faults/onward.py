"""A life of which more is wanted than the way of one image: proof, promises, what comes late.

The sender asks that what it sent is kept, sends late images, images with other content under a
known UID, and what was removed once more; the destination commits, is asked what it holds, turns
results away, is not there for a while, and honours rejection notes; an operator holds series and
lets them go. Each of it is done again after a kill until it was acknowledged.
"""

from __future__ import annotations

import contextlib
import copy
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from dicom_node.testing.commitment import Commitment, send_commitment_request
from dicom_node.testing.pacs import Refused
from faults.destinations import WatchfulPacs, data_set_digest, digest_of
from faults.harness import PATIENCE_S, VICTIM, Life, wait_until
from faults.sender import SLICES, Sent, new_series, send

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
KOS = "1.2.840.10008.5.1.4.1.1.88.59"
DUPLICATE = 0x0111
_LOOK_S = 0.25

KEEPS = """
may = ["store", "commit"]
offers = ["store", "commit", "query", "reject"]
"""
PROOF = """
proof_after_s = 0.05
report_s = 1.5
"""


class OnwardPacs(WatchfulPacs):
    """Remembers what each result was made from, and each note rejects.

    unwanted: Series of which it takes no result of fewer images than there are. away: associations
    are rejected for now.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, commitment=Commitment(), admits=self._admitted, **settings)
        self.unwanted: set[str] = set()
        self.turned_away: set[str] = set()
        self.away = False
        self.results: dict[str, Dataset] = {}
        self.notes: dict[str, set[str]] = {}

    def hold(self, datasets: Sequence[Dataset]) -> None:
        """Have images, to be counted by who asks; none of them is a result."""
        with self._changed:
            for dataset in datasets:
                self._remember(dataset)

    def results_of(self, series_uid: str) -> list[Dataset]:
        """What came that was made from a Series."""
        with self._changed:
            known = list(self.results.values())
        return [result for result in known if _source(result) == series_uid]

    def _admitted(self, _calling: str) -> bool | Refused:
        return Refused(result=2, source=3, reason=2) if self.away else True

    def _store(self, event: Any) -> int:
        dataset = event.dataset
        if dataset.SOPClassUID == SEG and _source(dataset) in self.unwanted and _is_part(dataset):
            self.turned_away.add(_source(dataset))
            return 0xA700
        status = super()._store(event)
        if status == 0:
            with self._changed:
                if dataset.SOPClassUID == SEG:
                    self.results[str(dataset.SOPInstanceUID)] = dataset
                elif dataset.SOPClassUID == KOS:
                    self.notes[str(dataset.SOPInstanceUID)] = _rejected(dataset)
        return status


def _source(result: Dataset) -> str:
    return str(result.ReferencedSeriesSequence[0].SeriesInstanceUID)


def _is_part(result: Dataset) -> bool:
    references = result.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    return len(references) < SLICES


def _rejected(note: Dataset) -> set[str]:
    return {
        str(item.ReferencedSOPInstanceUID)
        for study in note.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }


@dataclass
class Story:
    """One Series, and what is to happen to it.

    wants: "late" (the last image comes when the others have a result), "turned away" (late, and the
    first result is not taken), "conflict", "promise", "held", "again" (sent once more when it was
    removed), "away" (the destination rejects associations until the node has found that).
    done: what of it was acknowledged. again: what was acknowledged of the second sending.
    """

    sent: Sent
    wants: frozenset[str]
    done: set[str] = field(default_factory=set)
    again: set[str] = field(default_factory=set)
    stranger: Dataset | None = None

    @property
    def uid(self) -> str:
        return self.sent.uid

    @property
    def is_late(self) -> bool:
        return bool(self.wants & {"late", "turned away"})

    def part(self) -> Sent:
        """All but the last; what is acknowledged of it is so of the whole."""
        return Sent(self.sent.datasets[:-1], self.sent.acknowledged, self.sent.refused)

    def acknowledged(self, some: Sequence[Dataset]) -> bool:
        return all(d.SOPInstanceUID in self.sent.acknowledged for d in some)

    def transaction(self) -> str:
        return f"{self.uid}.1"[:64] if len(self.uid) < 60 else f"{self.uid[:-3]}.1"


class OnwardLife(Life):
    """One data folder through many ends of its node; nothing is done but by stories.

    passing: what is delivered is removed.
    """

    def __init__(
        self, folder: Path, pacs: OnwardPacs, *, seed: str, tally: Any, passing: bool = False
    ) -> None:
        route = "delete_after_delivery = true" if passing else ""
        super().__init__(
            folder, pacs, seed=seed, tally=tally, deliver=PROOF, peer=KEEPS, route=route
        )
        self.pacs, self.passing = pacs, passing
        self.stories: list[Story] = []
        self.finished: set[str] = set()
        pacs.destinations["DICOMNODE"] = self.address

    # --- what happens

    def begin(self, wants: Collection[str]) -> Story:
        """A new Series; what comes late or is held does not say how many images it has."""
        asks = not {"held", "away", "again"} & set(wants)
        sent = Sent(new_series(self.seed, len(self.stories), counted=not asks))
        self.stories.append(Story(sent, frozenset(wants)))
        self.sent.append(sent)
        self.pacs.commitment = Commitment(way=self.luck.choice(("new", "same", "never")))
        for way in {"new", "same", "never"} & set(wants):
            self.pacs.commitment = Commitment(way=way)
        self.pacs.away = "away" in wants
        return self.stories[-1]

    def working(self) -> threading.Thread:
        """Everybody does what is owed, from when the node listens until it dies."""

        def work() -> None:
            wait_until(lambda: self.dead() or self.listens(), "the node listens")
            for story in self.stories:
                with contextlib.suppress(_Died):
                    self._go_on(story)

        def come_back() -> None:
            with contextlib.suppress(_Died):
                self._until(lambda: self._unreachable() > known, "it is missed")
            self.pacs.away = False

        known = self._unreachable()
        if self.pacs.away:
            threading.Thread(target=come_back, daemon=True).start()
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def _go_on(self, story: Story) -> None:
        """What is owed of a story, from where it stood."""
        if story.uid in self.finished:
            return
        whole = story.sent.datasets
        first = story.part() if story.is_late or "held" in story.wants else story.sent
        if not story.acknowledged(whole):
            self._sent(story, first)
            if "held" in story.wants:
                self._ordered("hold", story, "HELD")
            elif story.is_late:
                self._first_result(story)
            self._sent(story, story.sent)
        elif not self._is_made(story):
            send(self.address, story.sent)  # it may not have seen its association released
        if "held" in story.wants and "released" not in story.done:
            assert not self.pacs.results_of(story.uid), "a result of what an operator held"
            self._ordered("release", story, "")
            story.done.add("released")
        if "conflict" in story.wants:
            self._stranger(story)
        if "promise" in story.wants:
            self._promise(story)
        if "again" in story.wants:
            self._again(story)
        self.finished.add(story.uid)

    def _unreachable(self) -> int:
        found = self.look("SELECT count(*) FROM event WHERE kind = 'PeerUnreachable'")
        return int(found[0][0]) if found else 0

    def _until(self, so: Callable[[], object], what: str) -> None:
        """Wait while the node lives."""
        deadline = time.monotonic() + PATIENCE_S
        while not so():
            if self.dead():
                raise _Died
            assert time.monotonic() < deadline, f"it did not happen: {what}\n{self.told()}"
            time.sleep(_LOOK_S)

    def _sent(self, story: Story, some: Sent) -> None:
        if "away" not in story.wants:
            # of what is to be held the source lists more than came: else it is complete before
            self.pacs.hold((story.sent if "held" in story.wants else some).datasets)
        while not story.acknowledged(some.datasets):
            if self.dead():
                raise _Died
            send(self.address, some)

    def _first_result(self, story: Story) -> None:
        if "turned away" in story.wants:
            self.pacs.unwanted.add(story.uid)
            self._until(lambda: story.uid in self.pacs.turned_away, "the first result is tried")
        else:
            self._until(lambda: self.pacs.results_of(story.uid), "the first result comes")

    def _ordered(self, order: str, story: Story, state: str) -> None:
        """An operator's command, in a process of its own that may be killed, too."""

        def stands() -> bool:
            is_held = self.state_of(story) == "HELD"
            return is_held if state else not is_held

        while not stands():
            if self.dead():
                raise _Died
            command = [sys.executable, VICTIM, self.plan_file, order, story.uid]
            if not self.plan_file.exists():
                command = [sys.executable, "-m", "dicom_node.cli.main", order, story.uid]
            subprocess.run(
                [*map(str, command), "--config", str(self.config)], capture_output=True, check=False
            )

    def _stranger(self, story: Story) -> None:
        """The first image once more, with other content: it is kept apart."""
        other = copy.deepcopy(story.sent.datasets[0])
        other.SeriesDescription = "of somebody else"
        answers = Sent([other])
        while DUPLICATE not in answers.refused:
            if self.dead():
                raise _Died
            assert not answers.acknowledged, "taken for the image that came first"
            send(self.address, answers)
        story.stranger = other

    def _promise(self, story: Story) -> None:
        """The node is asked to keep it, and asked again where no answer came."""
        pairs = [(str(d.SOPClassUID), str(d.SOPInstanceUID)) for d in story.sent.datasets]
        status: int | None = None
        while status is None:
            if self.dead():
                raise _Died
            with contextlib.suppress(RuntimeError):
                status = send_commitment_request(
                    self.address, "DICOMNODE", pairs, story.transaction(), calling_ae="TESTPACS"
                )
        assert status == 0, hex(status)
        story.done.add("promise")

    def _again(self, story: Story) -> None:
        """Once it was removed, it comes again."""
        if not story.again:
            self._until(lambda: self.is_purged(story), "it is removed")
        answers = Sent(story.sent.datasets, story.again)
        while not all(d.SOPInstanceUID in story.again for d in answers.datasets):
            if self.dead():
                raise _Died
            send(self.address, answers)

    # --- what is known

    def look(self, sql: str) -> list[Any]:
        """The catalog of a living node; nothing where the copy was made at a bad moment."""
        with contextlib.suppress(sqlite3.Error, OSError):
            return self.catalog(sql)
        return []

    def state_of(self, story: Story) -> str:
        found = self.look(f"SELECT state FROM series WHERE series_uid = '{story.uid}'")
        return found[0][0] if found else ""

    def is_purged(self, story: Story) -> bool:
        found = self.look(f"SELECT purged_at FROM series WHERE series_uid = '{story.uid}'")
        return bool(found) and found[0][0] is not None

    def _is_made(self, story: Story) -> bool:
        return any(not _is_part(result) for result in self.pacs.results_of(story.uid))

    def settled(self) -> bool:
        """Whether all is done that is to come of what was begun."""
        if not all(story.uid in self.finished and self._is_made(story) for story in self.stories):
            return False
        owed = {s.transaction() for s in self.stories if "promise" in s.done}
        if not owed <= {report.transaction_uid for report in self.pacs.reports_received}:
            return False
        if any(self._unnamed(story) for story in self.stories):
            return False
        counts = self.look(
            "SELECT (SELECT count(*) FROM delivery WHERE state NOT IN "
            "('COMMITTED', 'VERIFIED', 'WITHDRAWN')), (SELECT count(*) FROM step WHERE state IN "
            "('SCHEDULED', 'IN PROGRESS')), (SELECT count(*) FROM garbage), "
            "(SELECT count(*) FROM promise WHERE due_at IS NOT NULL), "
            f"(SELECT count(*) FROM series WHERE purged_at IS NULL AND {int(self.passing)})"
        )
        return counts == [(0, 0, 0, 0, 0)]

    def _unnamed(self, story: Story) -> list[str]:
        """Results of parts that the destination has and was not told to hide."""
        parts = [r for r in self.pacs.results_of(story.uid) if _is_part(r)]
        with self.pacs._changed:
            told = set().union(*self.pacs.notes.values())
        return [str(r.SOPInstanceUID) for r in parts if r.SOPInstanceUID not in told]

    # --- what must hold

    def check_after_death(self) -> None:
        """What was acknowledged is there, or went when the destination had all that was made."""
        assert not self.missing(), f"acknowledged and lost: {self.missing()}\n{self.told()}"
        refused = [status for sent in self.sent for status in sent.refused]
        assert not refused, f"refused with {refused}\n{self.told()}"
        apart = {data_set_digest(file) for file in self.kept_apart()}
        for story in self.stories:
            if story.stranger is not None and not self.passing:
                assert digest_of(story.stranger) in apart, self.told()
            if "held" in story.wants and story.acknowledged(story.sent.datasets):
                known = self.state_of(story)
                assert known == "HELD" or "released" in story.done or self.fired(), known

    def kept_apart(self) -> list[bytes]:
        rows = self.catalog("SELECT path FROM conflict WHERE path <> ''")
        return [(self.data_dir / "spool" / path).read_bytes() for (path,) in rows]

    def missing(self) -> list[str]:
        """What was acknowledged, is not there byte for byte, and was not removed by right."""
        lost = self.lost()
        if not lost or not self.passing:
            return lost
        purges = dict(
            self.catalog(
                "SELECT series, max(number) FROM event WHERE kind = 'SeriesPurged' GROUP BY series"
            )
        )
        return [uid for uid in lost if not self._went_by_right(uid, purges)]

    def _went_by_right(self, uid: str, purges: dict[str, int]) -> bool:
        """Each acknowledged arrival was before a purge, and that when all was proven."""
        story = next(s for s in self.stories if uid in {d.SOPInstanceUID for d in s.sent.datasets})
        purged = purges.get(story.uid, 0)
        arrivals = [
            number
            for (number,) in self.catalog(
                f"SELECT number FROM event WHERE kind = 'InstanceArrived' AND subject = '{uid}' "
                "ORDER BY number"
            )
        ]
        acknowledged = int(uid in story.sent.acknowledged) + int(uid in story.again)
        if len(arrivals) < acknowledged or arrivals[acknowledged - 1] > purged:
            return False
        results = {str(r.SOPInstanceUID) for r in self.pacs.results_of(story.uid)}
        proofs = self.catalog(
            "SELECT subject, body FROM event WHERE kind = 'DeliveryConfirmed' "
            f"AND series = '{story.uid}' AND number < {purged}"
        )
        proven = {
            subject
            for subject, body in proofs
            if json.loads(body)["state"] in ("COMMITTED", "VERIFIED")
        }
        return self._is_made(story) and results <= proven

    def finish(self) -> None:
        """An unharmed node ends all that was begun, and is held to the whole promise."""
        self.plan_file.unlink(missing_ok=True)
        self.pacs.commitment, self.pacs.away = Commitment(way="new"), False
        if self.dead():
            self.start()
        worker = self.working()
        self.wait(self.settled, "all that was begun comes to its end")
        worker.join(PATIENCE_S)
        self.stop()
        self.check_after_death()
        for story in self.stories:
            self._check(story)
        self._check_files()
        self._count()

    def _check(self, story: Story) -> None:
        """One result that counts; others only of parts, named by it and by a note."""
        results = self.pacs.results_of(story.uid)
        living = [r for r in results if not _is_part(r)]
        parts = [r for r in results if _is_part(r)]
        assert len(living) == 1, f"{len(living)} results of {story.uid}\n{self.told()}"
        assert len(parts) <= int(story.is_late), self.told()
        named = {str(one.SeriesInstanceUID) for one in living[0].get("RelatedSeriesSequence") or ()}
        assert {str(part.SeriesInstanceUID) for part in parts} <= named, self.told()
        assert not self._unnamed(story), self.told()
        if "promise" in story.done:
            reports = [
                (set(report.committed), report.failed)
                for report in self.pacs.reports_received
                if report.transaction_uid == story.transaction()
            ]
            wanted = {(str(d.SOPClassUID), str(d.SOPInstanceUID)) for d in story.sent.datasets}
            assert reports, self.told()
            assert all(report == (wanted, ()) for report in reports), reports

    def _check_files(self) -> None:
        spool = self.data_dir / "spool"
        known = self.catalog(
            "SELECT path FROM instance UNION SELECT path FROM result "
            "UNION SELECT path FROM conflict"
        )
        on_disk = {str(p.relative_to(spool)) for p in spool.rglob("*") if p.is_file()}
        assert on_disk == {path for (path,) in known} - {""}, "files that nobody knows, or missing"
        given = self.pacs.received()
        for uid, path in self.catalog("SELECT sop_instance_uid, path FROM result"):
            if uid in given:
                assert len(given[uid]) == 1, f"{uid} came with several contents"
            if uid in given and path:
                assert given[uid] == {data_set_digest((spool / path).read_bytes())}
        held = self.catalog("SELECT count(*) FROM series WHERE state = 'HELD'")
        assert held == [(0,)]

    def _count(self) -> None:
        acknowledged = sum(len(sent.acknowledged) for sent in self.sent)
        self.tally.acknowledged += acknowledged
        self.tally.found += acknowledged - len(self.missing())
        self.tally.expected += len(self.stories)
        self.tally.results += sum(self._is_made(story) for story in self.stories)


class _Died(Exception):
    """The node is dead: what is owed is done in its next life."""
