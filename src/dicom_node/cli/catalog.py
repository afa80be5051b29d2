"""`catalog`: is the catalog sound, and if not, make it anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import TaskID

from dicom_node.catalog.integrity import is_absent
from dicom_node.cli.asking import counted
from dicom_node.cli.bars import bar
from dicom_node.cli.common import (
    EXIT_FAILED,
    config_option,
    console,
    json_option,
    print_json,
    progress_console,
)
from dicom_node.config.load import Config, load
from dicom_node.domain.errors import CatalogError, ConfigurationError
from dicom_node.domain.records import Peer
from dicom_node.node import log
from dicom_node.node.clock import SystemClock
from dicom_node.node.inspect import Inspection, inspect
from dicom_node.node.layout import (
    catalog_path,
    lock_catalog,
    lock_data_dir,
    make_data_dir,
    spool_path,
)
from dicom_node.node.rebuild import Rebuilt, Wish, only_sender, rebuild

_DAY_S = 86400.0
_SHOWN = 10  # paths of one kind; --json tells all


@click.group()
def catalog() -> None:
    """Check the catalog, or make it anew from the spool."""


@catalog.command()
@config_option
@json_option
@click.option("--deep", is_flag=True, help="Read every file: are its bytes what was stored?")
def check(config_path: Path | None, as_json: bool, deep: bool) -> int:
    """Look at every page, every event and every file. Changes nothing; the node may run.

    Exit 0 if all is well, 1 if anything is damaged, differs or is missing.
    """
    config = load(config_path)
    path = catalog_path(config)
    if is_absent(path):
        raise CatalogError(f"there is no catalog at {path}: has a node run with this data_dir?")
    with _bars() as progress:
        found = inspect(config, deep=deep, progress=progress)
    if as_json:
        print_json({"sound": found.sound, **dataclasses.asdict(found)})
    else:
        _tell_inspection(found, config, deep=deep)
    return 0 if found.sound else EXIT_FAILED


def _tell_inspection(found: Inspection, config: Config, *, deep: bool) -> None:
    to = console()
    for problem in found.page:
        to.print(f"damaged: {problem}", style="red", markup=False)
    for table, number in found.differing.items():
        text = f"{counted(number, 'row')} of {table} differ from what the events make of them"
        to.print(text, style="red", markup=False)
    if found.unfoldable:
        to.print(found.unfoldable, style="red", markup=False)
    if found.catalog_is_sound:
        to.print("the catalog is sound")
    else:
        advice = "to make it anew, stop the node and run: dicom-node catalog rebuild"
        to.print(advice, markup=False)
    if found.outdated:
        to.print(
            "it is that of an older version of the node: its events and the files can be looked at "
            "when a node of this version has been started"
        )
    if found.page or found.outdated:
        return
    root = spool_path(config)
    _tell_files(to, "lost (the catalog knows them)", found.lost, "red")
    _tell_files(to, "altered (their bytes are not those that were stored)", found.altered, "red")
    _tell_files(to, "without an object in them, known to nobody", found.unreadable, "red")
    _tell_files(to, "not in the catalog (entered at the next start)", found.unknown, "yellow")
    how = "every byte of them read" if deep else "not read: --deep does"
    to.print(f"{counted(found.files, 'file')} in {root}, {how}", markup=False)


def _tell_files(to: Console, what: str, paths: Sequence[str], style: str) -> None:
    if not paths:
        return
    to.print(f"{counted(len(paths), 'file')} {what}:", style=style, markup=False)
    for path in paths[:_SHOWN]:
        to.print(f"  {path}", markup=False)
    if len(paths) > _SHOWN:
        to.print(f"  and {len(paths) - _SHOWN} more: --json lists them all", markup=False)


@catalog.command(name="rebuild")
@config_option
@json_option
@click.option(
    "--since",
    "days",
    type=click.FloatRange(min=0.0),
    default=1.0,
    show_default=True,
    metavar="DAYS",
    help="Process series again that received something in this time.",
)
@click.option(
    "--sender",
    metavar="PEER",
    help="Who is taken for the sender where none is known. Default: the only possible one.",
)
@click.option(
    "--from-spool", is_flag=True,
    help="Use the files alone, even if the events of the old catalog can be read.",
)  # fmt: skip
def make_anew(
    config_path: Path | None, as_json: bool, days: float, sender: str | None, from_spool: bool
) -> int:
    """Make the catalog anew; the node must be stopped. The old one is kept beside it.

    If the events of the old catalog can be read to the last, they are folded again, and nothing is
    forgotten. If not, every file of the spool is entered again: what was received, and the results.
    For series that received nothing in --since days nothing is then scheduled; `retry --judge`
    does it.

    Interrupted at any moment, it can be run again.
    """
    config = load(config_path)
    make_data_dir(config)
    wish = Wish(since_s=days * _DAY_S, sender=_peer(sender, config), events=not from_spool)
    data_dir = config.data_dir
    with (
        log.configured(), lock_data_dir(data_dir), lock_catalog(data_dir), _bars() as progress
    ):  # fmt: skip
        done = rebuild(config, wish, SystemClock(), progress)
    if as_json:
        print_json(dataclasses.asdict(done))
    else:
        _tell_rebuilt(done, wish, config)
    return 0


def _peer(name: str | None, config: Config) -> Peer | None:
    if name is None:
        return None
    for peer in config.peers:
        if name in (peer.name, peer.ae_title):
            return peer
    names = ", ".join(peer.name for peer in config.peers) or "none"
    raise ConfigurationError([f"{name!r} is no configured peer ({names})"], "--sender")


def _tell_rebuilt(done: Rebuilt, wish: Wish, config: Config) -> None:
    lines = [_HOW[done.source]]
    if done.kept_as:
        lines.append(f"the old one is kept as {config.data_dir / done.kept_as}")
    counts = done.counts
    lines.append(
        f"{counts['series']} series with {counted(counts['instance'], 'instance')}, "
        f"{counted(counts['result'], 'result')}, {counts['delivery']} deliveries"
    )
    if done.entered:
        lines.append(f"{counted(done.entered, 'file')} that the events did not know were entered")
    if done.lost:
        lines.append(f"{done.lost} series lack files and are held: dicom-node status")
    if done.unreadable:
        lines.append(f"{counted(done.unreadable, 'file')} hold no object, and were left alone")
    if done.rested is not None:
        lines += _of_spool(done, wish, config)
    for line in lines:
        console().print(line, markup=False)


_HOW = {
    "events": "the catalog was made anew from the events of the old one: nothing is forgotten",
    "spool": "the catalog was made anew from the files of the spool",
    "interrupted": "the rebuild that was interrupted is finished",
}


def _of_spool(done: Rebuilt, wish: Wish, config: Config) -> Iterator[str]:
    rested = done.rested
    if rested is None:
        return
    days = f"{wish.since_s / _DAY_S:g} days"
    if rested.conflicts:
        yield f"{rested.conflicts} objects with the UID of an older one were kept apart"
    yield (
        f"{rested.due} series received something in the last {days}: they are processed, and "
        "their results sent, at the next start (the same objects, under the same UIDs)"
    )
    if rested.resting:
        older = f"for {rested.resting} older series nothing is scheduled"
        yield f"{older}: dicom-node retry --judge UID does it"
    if rested.held:
        yield f"{rested.held} series were held, and are held again: dicom-node status"
    if rested.strangers:
        who = wish.sender or only_sender(config)
        taken = f"taken to be {who.name}" if who else "unknown: --sender PEER would say it"
        yield f"the sender of {counted(rested.strangers, 'instance')} is {taken}"


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each thing that is counted; nothing where there is no terminal."""
    with bar(progress_console()) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield progress
