"""What it is that somebody asks about: an instance, a result, a number that only some have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dicom_node.catalog import Catalog
from dicom_node.decide.gate import repeats
from dicom_node.decide.geometry import split_localizers
from dicom_node.domain.records import Instance, Result, Series, Step
from dicom_node.domain.states import StepState
from dicom_node.node.verdict import fate, fates
from dicom_node.node.words import clock_text, counted, joined, listed


def about(
    catalog: Catalog, series: Series, instances: Sequence[Instance], text: str
) -> Iterator[str]:
    """What was asked about, if it is an instance or a result, or does not stand in its head."""
    if text not in (
        series.series_uid,
        series.study_uid,
        series.patient_id,
        series.accession_number,
    ):
        having = sum(text in _identifiers(i) for i in instances)
        if having:
            yield f"{having} of its {counted(len(instances), 'instance')} have {text}"
    for instance in instances:
        if instance.sop_instance_uid == text:
            yield _about_instance(catalog, series, instances, instance)
    results = catalog.views.results(series.series_uid)
    yield from (_about_result(catalog, r) for r in results if r.sop_instance_uid == text)
    own = [r for r in results if r.series_uid == text]
    if len(own) > 1:
        first, owed = own[0], ", ".join(fates(catalog, [r.sop_instance_uid for r in own]))
        yield (
            f"{text} is the series of the {len(own)} results ({first.kind}) that {first.tool_id} "
            f"{first.tool_version} made of this Series{'; ' if owed else ''}{owed}"
        )
    else:
        yield from (_about_result(catalog, r) for r in own)


def _identifiers(instance: Instance) -> tuple[object, ...]:
    """What may be another for each instance of a Series that should have but one of each."""
    told = instance.attributes.get
    return instance.study_uid, told("PatientID"), told("AccessionNumber")


def _about_instance(
    catalog: Catalog, series: Series, instances: Sequence[Instance], instance: Instance
) -> str:
    uid = instance.sop_instance_uid
    came = f"{uid} is an instance of this Series: it came {clock_text(instance.received_at)}"
    others = split_localizers([i.attributes for i in instances]).others
    reasons = [reason for attributes, reason in others if attributes.get("SOPInstanceUID") == uid]
    steps = [s for s in catalog.views.steps(series.series_uid) if s.revision == series.revision]
    using = [s for s in steps if uid in s.instance_uids]
    left_out = [step for step in using if uid in _dropped(step, instances)]
    if left_out:
        tools = ", ".join(step.tool_id for step in left_out)
        return f"{came}, and was left out by {tools}: it took another plane at the same position"
    if using:
        tools = ", ".join(step.tool_id for step in using)
        return f"{came}, and is part of the input of {tools}"
    return f"{came}, and is left out: {joined(reasons)}" if reasons else came


def _dropped(step: Step, instances: Sequence[Instance]) -> frozenset[str]:
    """What the gate left out of the input of a step that has a result."""
    if step.state is not StepState.COMPLETED:
        return frozenset()
    used = frozenset(step.instance_uids)
    return repeats([i.attributes for i in instances if i.sop_instance_uid in used]).dropped


def _about_result(catalog: Catalog, result: Result) -> str:
    uid = result.sop_instance_uid
    by = f"{result.tool_id} {result.tool_version}"
    steps = catalog.views.steps(result.source_series_uid)
    text = f"{uid} is what {by} made of this Series ({result.kind}) {clock_text(result.created_at)}"
    for step in steps:
        if step.step_id == result.step_id and step.replaces:
            text += f", to replace {listed(step.replaces)}"
    later = [s.step_id for s in steps if uid in s.replaces]
    by_others = [
        r.sop_instance_uid
        for r in catalog.views.results(result.source_series_uid)
        if r.step_id in later
    ]
    if by_others:
        text += f"; it was replaced by {listed(by_others)}"
    owed = catalog.views.deliveries(uid)
    return text + "".join(f"; {d.destination} {fate(d)}" for d in owed)
