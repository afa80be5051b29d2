"""Results found in the spool, and the steps that made them, as they were before a rebuild."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from dicom_node.catalog import Catalog
from dicom_node.decide import subject
from dicom_node.decide.geometry import split_localizers
from dicom_node.domain import events as e
from dicom_node.domain.identifiers import derived_uid
from dicom_node.domain.records import Result, Step
from dicom_node.domain.states import StepState
from dicom_node.iod.provenance import REJECTION, Provenance, provenance
from dicom_node.node.adopt import Found
from dicom_node.node.reasons import REBUILT
from dicom_node.spool.store import Spool

_BEFORE = 0  # the revision: below that of any Series, so that no verdict counts the step


@dataclass(frozen=True, slots=True, kw_only=True)
class _Object:
    """One result object, and the Series that it was made from."""

    found: Found
    made: Provenance
    source_uid: str

    @property
    def tool(self) -> tuple[str, str, str]:
        """What objects of one run have in common, beside their input."""
        return self.source_uid, self.made.tool_id, self.made.tool_version


@dataclass(slots=True, kw_only=True)
class _Run:
    """The objects of one run of a tool. inputs: SOP Instance UIDs."""

    objects: list[_Object]
    inputs: frozenset[str]

    @property
    def at(self) -> float:
        """When the first of them was stored."""
        return min(o.found.stored_at for o in self.objects)


@dataclass(slots=True, kw_only=True)
class Made:
    """Enters results. results: SHA-256 of the file -> what an old catalog still tells of it.

    A step that ran on the same images again makes the same objects only if it replaces what the
    first one replaced: so each step is entered with its input, and with what it replaced.
    """

    spool: Spool
    catalog: Catalog
    results: Mapping[str, Result]
    count: int = field(default=0)

    def enter(self, ours: Iterable[Found], progress: Callable[[int, int], None]) -> Iterator[Found]:
        """Enter what was made here; gives what was not: it was received."""
        objects: list[_Object] = []
        notes: list[tuple[Found, Provenance]] = []
        for found in ours:
            made = provenance(self.spool.path(found.path), found.attributes)
            source_uid = self._source(made)
            if made is not None and made.kind == REJECTION:
                notes.append((found, made))
            elif made is None or not source_uid:
                yield found
            else:
                objects.append(_Object(found=found, made=made, source_uid=source_uid))
        runs = sorted(self._runs(objects), key=lambda run: run.at)
        for number, run in enumerate(runs, 1):
            self._enter_run(run)
            progress(number, len(runs))
        for found, made in notes:
            sources = sorted(self.catalog.files.series_of_results(made.source_uids))
            if sources:
                self._store([_Object(found=found, made=made, source_uid=sources[0])], 0)
            else:
                yield found

    def _source(self, made: Provenance | None) -> str:
        """The Series that most of the sources are in, "" if none is here."""
        counted = self.catalog.files.series_of_instances(made.source_uids) if made else {}
        return max(counted, key=lambda uid: (counted[uid], uid), default="")

    def _runs(self, objects: Iterable[_Object]) -> list[_Run]:
        """Objects of one Series are of one run; so are Series of one tool with the same input."""
        of_series: dict[str, list[_Object]] = {}
        for one in objects:
            of_series.setdefault(one.found.series_uid, []).append(one)
        known: dict[tuple[tuple[str, str, str], frozenset[str]], _Run] = {}
        partial: list[_Run] = []
        for group in of_series.values():
            inputs = frozenset(uid for one in group for uid in one.made.source_uids)
            if group[0].made.kind == "sc":  # they need not show every image
                partial.append(_Run(objects=group, inputs=inputs))
            else:
                run = known.setdefault((group[0].tool, inputs), _Run(objects=[], inputs=inputs))
                run.objects.extend(group)
        alone: list[_Run] = []
        for run in partial:
            whole = [
                other
                for (tool, inputs), other in known.items()
                if tool == run.objects[0].tool and run.inputs <= inputs
            ]
            if whole:
                min(whole, key=lambda other: len(other.inputs)).objects.extend(run.objects)
            else:
                alone.append(replace(run, inputs=run.inputs | self._received_by(run)))
        return [*known.values(), *alone]

    def _received_by(self, run: _Run) -> frozenset[str]:
        """The images of the Series that were here when the first picture was made."""
        instances = [
            i
            for i in self.catalog.views.instances(run.objects[0].source_uid)
            if i.received_at <= run.at
        ]
        chosen = subject.chosen(split_localizers([i.attributes for i in instances]))
        return frozenset(str(attributes["SOPInstanceUID"]) for attributes in chosen)

    def _enter_run(self, run: _Run) -> None:
        """The step, as scheduled, performed and completed when its first object was stored."""
        first = run.objects[0]
        transaction = derived_uid(REBUILT, *sorted(o.found.uid for o in run.objects))
        replaced = {uid for one in run.objects for uid in one.made.replaced}
        step = Step(
            step_id=0,
            series_uid=first.source_uid,
            revision=_BEFORE,
            route=REBUILT,
            tool_id=first.made.tool_id,
            results=tuple(sorted({one.made.kind for one in run.objects})),
            destinations=(),
            instance_uids=tuple(sorted(run.inputs)),
            state=StepState.SCHEDULED,
            attempt=0,
            priority=0,
            due_at=run.at,
            replaces=tuple(
                result.sop_instance_uid
                for result in self.catalog.views.results(first.source_uid)
                if result.series_uid in replaced
            ),
        )
        self.catalog.commit(e.StepScheduled(at=run.at, step=step))
        number = self.catalog.views.steps(first.source_uid)[-1].step_id
        self.catalog.commit(
            e.StepClaimed(
                at=run.at,
                step_id=number,
                transaction_uid=transaction,
                performer=REBUILT,
                lease_until=run.at,
            ),
            e.StepCompleted(
                at=run.at, step_id=number, transaction_uid=transaction, seconds={}, notes=(REBUILT,)
            ),
        )
        self._store(run.objects, number)

    def _store(self, objects: Iterable[_Object], step_id: int) -> None:
        stored = [
            e.ResultStored(at=one.found.stored_at, result=self._result(one, step_id))
            for one in objects
        ]
        self.catalog.commit(*stored)
        self.count += len(stored)

    def _result(self, one: _Object, step_id: int) -> Result:
        """As it was, where the old catalog tells; steps are numbered anew."""
        found, made = one.found, one.made
        known = self.results.get(found.sha256)
        if known is not None and known.sop_instance_uid == found.uid:
            return replace(known, step_id=step_id, path=found.path)
        instance = found.instance(0)
        return Result(
            sop_instance_uid=instance.sop_instance_uid,
            sop_class_uid=instance.sop_class_uid,
            transfer_syntax_uid=instance.transfer_syntax_uid,
            series_uid=instance.series_uid,
            study_uid=instance.study_uid,
            step_id=step_id,
            source_series_uid=one.source_uid,
            tool_id=made.tool_id,
            tool_version=made.tool_version,
            kind=made.kind,
            path=found.path,
            size=found.size,
            sha256=found.sha256,
            created_at=found.stored_at,
        )
