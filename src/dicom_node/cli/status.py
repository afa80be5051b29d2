"""`status`: what needs attention, what came in, what was made of it, where it went."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from dicom_node.catalog import Catalog
from dicom_node.catalog.attention import Refused
from dicom_node.cli import capacity, guarded
from dicom_node.cli.asking import counted
from dicom_node.cli.common import config_option, json_option, print_json
from dicom_node.cli.examine import node_runs
from dicom_node.cli.opened import open_catalog
from dicom_node.cli.telling import say
from dicom_node.config.load import Config, load
from dicom_node.decide.pressure import Level, Pressure
from dicom_node.domain.errors import AuditError
from dicom_node.domain.records import Series
from dicom_node.domain.states import DeliveryState, SeriesState, StepState
from dicom_node.domain.tool import DOUBTFUL
from dicom_node.node import auditing, pulse
from dicom_node.node.clock import SystemClock
from dicom_node.node.layout import GIB
from dicom_node.node.verdict import fate
from dicom_node.node.why import clock_text
from dicom_node.node.words import joined

_COLOURS = {"COMPLETE": "green", "RECEIVING": "cyan", "INCOMPLETE": "red", "HELD": "yellow"}
_BAD_STEPS = {StepState.QUARANTINED, StepState.CANCELED}
_BAD_DELIVERIES = {DeliveryState.PARKED, DeliveryState.DEAD, DeliveryState.UNCONFIRMED}
_HEAD, _INDENT = 21, 4  # below its head: a UID has up to 64 characters
_REASON_MAX = 300


@click.command()
@click.option("--limit", default=10, show_default=True, help="How many series, newest first.")
@click.option(
    "--attention",
    is_flag=True,
    help="Only what needs attention; exit 1 if there is, the node cannot work, or a "
    "certificate expires or cannot be used.",
)
@config_option
@json_option
def status(limit: int, attention: bool, config_path: Path | None, as_json: bool) -> int:
    """What needs attention, and the newest series; also while the node runs.

    The first line says whether the node can do its work: for a monitor, with --attention.

    The UIDs are for dicom-node why, retry, hold and release. Times are UTC.
    """
    config = load(config_path)
    with open_catalog(config) as catalog:
        troubled = catalog.attention.series(limit)
        told: dict[str, Any] = {
            "node": _node(config, catalog),
            "counts": catalog.views.counts(),
            "needs_attention": dict(catalog.views.unhappy()),
            "rejected": [
                {"ae_title": title, "times": times, "last_at": clock_text(at)}
                for title, times, at in catalog.attention.rejected()
            ],
            "refused": [_refused(one) for one in catalog.attention.refused(limit)],
            "waiting": [
                {"peer": peer, "results": n, "next_at": clock_text(due_at), "reason": reason}
                for peer, n, due_at, reason in catalog.attention.waiting()
            ],
            "attention": [_row(catalog, series) for series in _known(catalog, troubled)],
            "series": []
            if attention
            else [_row(catalog, series) for series in catalog.views.all_series(limit)],
        }
    if as_json:
        print_json(told)
    else:
        _print(told, attention_only=attention)
    waits = told["attention"] or told["node"]["troubles"] or told["node"]["certificates"]
    return 1 if attention and waits else 0


def _refused(one: Refused) -> dict[str, Any]:
    return {
        "ae_title": one.calling_ae,
        "status": f"{one.status:04X}",
        "times": one.times,
        "last_at": clock_text(one.last_at),
        "reason": one.reason,
    }


def _known(catalog: Catalog, uids: Sequence[str]) -> list[Series]:
    return [series for uid in uids if (series := catalog.views.series(uid)) is not None]


def _node(config: Config, catalog: Catalog) -> dict[str, Any]:
    takes = capacity.pressure(config, catalog)
    free_gib = shutil.disk_usage(config.data_dir).free / GIB
    runs = node_runs(config)
    performs = runs and pulse.living(config.data_dir) > 0
    started = catalog.history.last_start()
    until = started.doubted_until if started is not None and started.doubt_s else 0.0
    return {
        "ae_title": config.node.ae_title,
        "running": runs,
        "performing": performs,
        "troubles": [
            *_troubles(takes, runs=runs, performs=performs),
            *(_of_the_audit(config, catalog) if runs else ()),
        ],
        "free_gib": round(free_gib, 1),
        "refuses_for_want_of_space": free_gib < config.receive.min_free_gib,
        "level": str(takes.level),
        "level_reason": takes.reason,
        "certificates": guarded.ending(
            config, catalog.history.last_certificate() if runs else None
        ),
        "clock_doubted_until": clock_text(until) if SystemClock().now() < until else "",
    }


def _troubles(takes: Pressure, *, runs: bool, performs: bool) -> Iterator[str]:
    """Why the node cannot do its work, whatever becomes of single series."""
    if not runs:
        yield "NOT RUNNING"
    elif not performs:
        yield "WITHOUT A PERFORMER: no model runs until one has started (the log says why)"
    if takes.level is Level.CLOSED:
        yield f"CLOSED TO SENDERS: {takes.reason}"
    elif takes.level is Level.REFUSING:
        yield f"REFUSING WHAT IS SENT: {takes.reason}"


def _of_the_audit(config: Config, catalog: Catalog) -> Iterator[str]:
    try:
        yield from auditing.troubles(config, catalog, SystemClock().now())
    except AuditError as error:
        yield f"THE AUDIT TRAIL CANNOT BE READ: {error}"


def _row(catalog: Catalog, series: Series) -> dict[str, Any]:
    results, troubles = _made(catalog, series)
    return {
        "series_uid": series.series_uid,
        "study_uid": series.study_uid,
        "patient_id": series.patient_id,
        "accession_number": series.accession_number,
        "modality": series.modality,
        "description": series.description,
        "instances": series.instances,
        "state": str(series.state),
        "revision": series.revision,
        "reason": _reason(catalog, series),
        "last_at": clock_text(series.last_at),
        "results": results,
        "troubles": troubles,
        "doubts": [
            note
            for note in catalog.attention.notes(series.series_uid, series.revision)
            if note.startswith(DOUBTFUL)
        ],
    }


def _reason(catalog: Catalog, series: Series) -> str:
    """Why there is no result, where that is not a matter of a step or a delivery."""
    if series.state is not SeriesState.COMPLETE:
        return series.reason
    if any(s.revision == series.revision for s in catalog.views.steps(series.series_uid)):
        return ""
    said = catalog.attention.routing(series.series_uid, series.revision)
    return f"no result: {joined(said) or 'no step was scheduled'}"


def _made(catalog: Catalog, series: Series) -> tuple[list[str], list[str]]:
    """What was made and where it is; and the reasons of what did not go well."""
    results, troubles = [], []
    for result in catalog.views.results(series.series_uid):
        for d in catalog.views.deliveries(result.sop_instance_uid):
            results.append(f"{result.tool_id} -> {d.destination} {d.state}")
            if d.state in _BAD_DELIVERIES or d.state is DeliveryState.DEFERRED:
                troubles.append(f"{d.destination} {fate(d)}")
    for step in catalog.views.steps(series.series_uid):
        if step.revision != series.revision or step.state is StepState.COMPLETED:
            continue
        results.append(f"{step.tool_id} {step.state}")
        if step.reason and (step.attempt or step.state in _BAD_STEPS):
            troubles.append(f"{step.tool_id}: {step.reason}")
    return results, troubles


def _print_node(node: dict[str, Any], counts: dict[str, int]) -> None:
    """What it has, and what is wrong with the node itself."""
    troubles = node["troubles"]
    state = "; ".join(troubles) or "running"
    if troubles and node["running"]:
        state = f"running, but {state}"
    say(f"{node['ae_title']} is {state}", colour="red" if troubles else None)
    say(
        f"{node['free_gib']} GiB free; {counts['series']} series, "
        f"{counted(counts['instance'], 'instance')}, {counted(counts['result'], 'result')}"
    )
    for text in node["certificates"]:
        say(text, colour="yellow")
    if node["clock_doubted_until"]:
        say(
            "the clock was far ahead of all that the node had recorded when it started: nothing is "
            f"removed or given up for its age before {node['clock_doubted_until'][:19]}; if the "
            "clock is wrong, set it and restart the node",
            colour="yellow",
        )


def _print(told: dict[str, Any], *, attention_only: bool) -> None:
    _print_node(told["node"], told["counts"])
    if told["attention"]:
        states = ", ".join(f"{n} {state}" for state, n in told["needs_attention"].items())
        click.secho(f"\nNEEDS ATTENTION: {states}", fg="yellow")
        for row in told["attention"]:
            _print_row(row)
        say("what happened: dicom-node why UID; then: dicom-node retry UID, or release UID")
    elif attention_only:
        others = told["node"]["troubles"] or told["node"]["certificates"]
        click.echo("no series needs attention" if others else "nothing needs attention")
    for row in told["waiting"]:
        say(
            f"{row['peer']} is waited for, with {counted(row['results'], 'result')}: "
            f"{row['reason']}; next attempt {row['next_at'][:19]}, or at once: "
            f"dicom-node retry --all --to {row['peer']}"
        )
    for row in told["rejected"]:
        say(
            f"{row['ae_title']} was rejected {counted(row['times'], 'time')}, last at "
            f"{row['last_at'][:19]}: dicom-node why '{row['ae_title']}'"
        )
    for row in told["refused"]:
        say(
            f"{row['ae_title']} was refused {counted(row['times'], 'request')} with "
            f"{row['status']}, last at {row['last_at'][:19]}: {row['reason']}: "
            f"dicom-node why '{row['ae_title']}'"
        )
    shown = {row["series_uid"] for row in told["attention"]}
    calm = [row for row in told["series"] if row["series_uid"] not in shown]
    if calm:
        click.echo("\nNEWEST SERIES" + (", the others" if shown else ""))
        for row in calm:
            _print_row(row)
    elif not attention_only and not shown:
        click.echo("nothing has been received yet")


def _print_row(row: dict[str, Any]) -> None:
    """When, what, which, whose, and what became of it."""
    name = " ".join(part for part in (row["modality"], row["description"]) if part) or "?"
    what = f"{row['state']:<10}  {name}, {counted(row['instances'], 'image')}"
    say(what, head=row["last_at"][:19], indent=_HEAD, colour=_COLOURS[row["state"]])
    whose = [
        f"{word} {row[key]}"
        for word, key in (("patient", "patient_id"), ("accession", "accession_number"))
        if row[key]
    ]
    reason = row["reason"] if row["state"] != "COMPLETE" or not row["results"] else ""
    for text in (
        row["series_uid"],
        ", ".join(whose),
        reason,
        ", ".join(row["results"]),
        *row["troubles"],
        " ".join(row["doubts"]) if row["state"] != "HELD" else "",
    ):
        if text:
            say(_cut(text), head=" " * _INDENT, indent=_INDENT)


def _cut(text: str) -> str:
    return text if len(text) <= _REASON_MAX else text[:_REASON_MAX].rpartition(" ")[0] + " ..."
