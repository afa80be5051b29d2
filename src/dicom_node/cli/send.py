"""`send`: DICOM files to a peer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dicom_node.cli import audited
from dicom_node.cli.asking import (
    counted,
    peer_argument,
    peer_offering,
    status_text,
    timeout_option,
    timeouts,
)
from dicom_node.cli.bars import bar
from dicom_node.cli.common import (
    EXIT_FAILED,
    complain,
    config_option,
    json_option,
    print_json,
    progress_console,
)
from dicom_node.cli.diagnosis import diagnosis
from dicom_node.config.load import Config, load
from dicom_node.dimse.scu import Outcome, Phase, StoreItem, store
from dicom_node.dimse.status import meaning
from dicom_node.domain.errors import NotDicom
from dicom_node.domain.identifiers import is_uid
from dicom_node.domain.records import Peer
from dicom_node.domain.text import printable
from dicom_node.iod.header import read_attributes, transfer_syntax

_LISTED = 20  # failures that are listed one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The files to send, and those that are no DICOM objects, with the reason."""

    items: tuple[StoreItem, ...]
    skipped: dict[Path, str]


@click.command()
@peer_argument
@click.argument("paths", nargs=-1, required=True, metavar="PATH...",
                type=click.Path(exists=True, path_type=Path))  # fmt: skip
@timeout_option(60.0)
@config_option
@json_option
def send(
    peer: str, paths: tuple[Path, ...], answer_s: float, config_path: Path | None, as_json: bool
) -> int:
    """C-STORE: send DICOM files, and all under folders, to PEER.

    PEER is a configured name, the AE title of a configured peer, or AET@host:port. Files that are
    not DICOM objects are named and skipped. Exit 1 if anything was not stored.
    """
    config = load(config_path)
    other = peer_offering(peer, config, "store")
    with bar(progress_console()) as shown:
        reading = shown.add_task("files read", total=None)
        collected = collect(_files(paths), lambda: shown.advance(reading))
        sending = shown.add_task("objects sent", total=len(collected.items))
        outcomes = store(
            peer=other,
            calling_ae=config.node.ae_title,
            items=collected.items,
            on_outcome=lambda _: shown.advance(sending),
            timeouts=timeouts(config, answer_s),
        )
    reasons = _reasons(outcomes, other, config)
    done = [i.path for i, why in zip(collected.items, reasons, strict=True) if not why]
    audited.sent(config, other, done)
    failures = [(i.path, why) for i, why in zip(collected.items, reasons, strict=True) if why]
    if as_json:
        print_json(
            {
                "peer": other.ae_title,
                "statuses": _summary(outcomes),
                "objects": _plain(collected.items, outcomes, reasons),
                "skipped": {str(path): why for path, why in collected.skipped.items()},
            }
        )
    else:
        for kind, number in _summary(outcomes).items():
            click.echo(f"{counted(number, 'object')}: {kind}")
        _complain(f"not stored: {counted(len(failures), 'object')}", failures)
        _complain(
            f"skipped: {counted(len(collected.skipped), 'file')}", list(collected.skipped.items())
        )
        if not collected.items:
            complain("there is no DICOM object to send")
    return EXIT_FAILED if failures or not collected.items else 0


def stored(outcome: Outcome) -> bool:
    """Success, or a warning with which the object was stored (PS3.4 §B.2.3)."""
    return outcome.succeeded or (outcome.status is not None and outcome.status >> 12 == 0xB)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """Each file once."""
    seen: set[Path] = set()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file not in seen and not file.is_dir():
                seen.add(file)
                yield file


def collect(files: Iterable[Path], advance: Callable[[], object]) -> Collected:
    """What can be sent, by the headers of the files. advance: called after each."""
    items: list[StoreItem] = []
    skipped: dict[Path, str] = {}
    for file in files:
        try:
            items.append(_item(file))
        except NotDicom as error:
            skipped[file] = str(error)
        except OSError as error:
            skipped[file] = f"it cannot be read: {error.strerror}"
        advance()
    return Collected(items=tuple(items), skipped=skipped)


def _item(file: Path) -> StoreItem:
    attributes = read_attributes(file)
    sop_class, instance = (str(attributes.get(k, "")) for k in ("SOPClassUID", "SOPInstanceUID"))
    if not (is_uid(sop_class) and is_uid(instance)):
        raise NotDicom("it has no SOP Class UID and SOP Instance UID, as an object to store has")
    return StoreItem(
        sop_class_uid=sop_class,
        sop_instance_uid=instance,
        transfer_syntax_uid=transfer_syntax(file),
        path=file,
    )


def _reasons(outcomes: Sequence[Outcome], peer: Peer, config: Config) -> list[str]:
    """Why each was not stored, "" where it was; found out once for outcomes that are alike."""

    known: dict[tuple[Phase, int | None, str], str] = {}
    for outcome in outcomes:
        kind = (outcome.phase, outcome.status, outcome.detail)
        if kind not in known:
            good = stored(outcome)
            known[kind] = "" if good else diagnosis(outcome, peer, config, asked="send")
    return [known[outcome.phase, outcome.status, outcome.detail] for outcome in outcomes]


def _summary(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How often each status (or, without one, each kind of failure) was met."""
    return dict(Counter(_kind(outcome) for outcome in outcomes))


def _kind(outcome: Outcome) -> str:
    words = meaning(outcome.status) if outcome.status is not None else _WITHOUT[outcome.phase]
    return f"{status_text(outcome)} {words}" if outcome.status is not None else words


_WITHOUT = {
    Phase.CONNECT: "no connection",
    Phase.TLS: "no TLS",
    Phase.REJECT: "association rejected",
    Phase.ABORT: "association aborted",
    Phase.TIMEOUT: "no answer in time",
    Phase.NO_CONTEXT: "SOP Class or transfer syntax not accepted",
    Phase.OBJECT: "unreadable object",
    Phase.STATUS: "status",
}


def _plain(
    items: Sequence[StoreItem], outcomes: Sequence[Outcome], reasons: Sequence[str]
) -> list[dict[str, Any]]:
    return [
        {
            "file": str(item.path),
            "sop_instance_uid": item.sop_instance_uid,
            "status": status_text(outcome),
            "stored": not reason,
            "reason": reason,
        }
        for item, outcome, reason in zip(items, outcomes, reasons, strict=True)
    ]


def _complain(title: str, rows: Sequence[tuple[Path, str]]) -> None:
    """Each file with its reason; where all have the same, the reason once."""
    if not rows:
        return
    why = {reason for _, reason in rows}
    if len(why) == 1 and len(rows) > 1:
        complain(f"{title}: {why.pop()}")
        return
    complain(title, *(printable(f"{path}: {reason}") for path, reason in rows[:_LISTED]))
    if len(rows) > _LISTED:
        complain(f"and {len(rows) - _LISTED} more; --json names them all")
