"""`move` and `get`: have a peer send a study, to an AE or into a folder."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import click

from dicom_node.cli import audited, listing
from dicom_node.cli.asking import (
    a_uid,
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
from dicom_node.cli.diagnosis import ANY_ADDRESS, diagnosis, move_diagnosis
from dicom_node.cli.query import STUDY_KEYS
from dicom_node.config.load import Config, load
from dicom_node.dimse import scu
from dicom_node.dimse.contract import StoreAnswer, StoreRequest
from dicom_node.dimse.query import Level
from dicom_node.domain.errors import NodeError
from dicom_node.domain.identifiers import is_ae_title
from dicom_node.domain.records import Peer

_OUT_OF_RESOURCES = 0xA700  # PS3.4 §B.2.3
_WILD = set("*?\\")


class NotOneStudy(NodeError):
    """The accession number does not lead to exactly one study."""


@click.command()
@peer_argument
@click.option("--study", metavar="UID", callback=a_uid, help="Study Instance UID.")
@click.option(
    "--series", metavar="UID", callback=a_uid, help="Series Instance UID: this series alone."
)
@click.option("--accession", metavar="NUMBER", help="The one study with this Accession Number.")
@click.option("--to", "destination", metavar="AET",
              help="AE title that gets the images. Default: this node.")  # fmt: skip
@timeout_option(1800.0)
@config_option
@json_option
def move(
    peer: str,
    study: str | None,
    series: str | None,
    accession: str | None,
    destination: str | None,
    answer_s: float,
    config_path: Path | None,
    as_json: bool,
) -> int:
    """C-MOVE: have PEER send a study to this node, or elsewhere.

    PEER is a configured name, the AE title of a configured peer, or AET@host:port. What comes to
    this node is processed as if PEER had sent it by itself.
    """
    config = load(config_path)
    other = peer_offering(peer, config, "retrieve")
    to_ae = config.node.ae_title if destination is None else destination.strip()
    if not is_ae_title(to_ae):
        raise click.UsageError(f"--to {to_ae!r}: an AE title has 1 to 16 characters")
    if (study is None) == (accession is None):
        raise click.UsageError("--study UID or --accession NUMBER is wanted, one of them")
    wait = timeouts(config, answer_s)
    if study is None:
        study = _study_of(str(accession), other, config, wait)
    if to_ae == config.node.ae_title:
        for doubt in _doubts(config, other):
            complain(f"warning: {doubt}")
    level, keys = _what(study, series)
    audited.asked(config, other, "move", level, keys)
    responses = scu.move(
        peer=other, calling_ae=config.node.ae_title, level=level, keys=keys,
        destination_ae=to_ae, timeouts=wait,
    )  # fmt: skip
    last = _followed(responses, "images sent")
    outcome, failed = last.outcome, last.failed or 0
    problem = ""
    if outcome is not None and not outcome.succeeded and not _only_warnings(last):
        problem = move_diagnosis(outcome, other, config, destination_ae=to_ae, failed=failed)
    return _report(last, problem, {"study_uid": study, "destination": to_ae}, as_json=as_json)


@click.command()
@peer_argument
@click.option("--study", metavar="UID", callback=a_uid, required=True, help="Study Instance UID.")
@click.option(
    "--series", metavar="UID", callback=a_uid, help="Series Instance UID: this series alone."
)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False),
              help="Folder for the files; made where missing.")  # fmt: skip
@timeout_option(300.0)
@config_option
@json_option
def get(
    peer: str,
    study: str,
    series: str | None,
    out: Path,
    answer_s: float,
    config_path: Path | None,
    as_json: bool,
) -> int:
    """C-GET: fetch a study from PEER into a folder.

    PEER is a configured name, the AE title of a configured peer, or AET@host:port. Each file is
    named by a digest of its SOP Instance UID, so that a second fetch overwrites the first.
    """
    config = load(config_path)
    other = peer_offering(peer, config, "retrieve")
    folder = Folder(out)
    level, keys = _what(study, series)
    audited.asked(config, other, "get", level, keys)
    responses = scu.get(
        peer=other, calling_ae=config.node.ae_title, level=level, keys=keys,
        receive=folder.receive, timeouts=timeouts(config, answer_s),
    )  # fmt: skip
    last = _followed(responses, "images fetched")
    audited.fetched(config, list(folder.files.values()), out)
    outcome = last.outcome
    problem = folder.problem
    if not problem and outcome is not None and not outcome.succeeded and not _only_warnings(last):
        problem = diagnosis(outcome, other, config, asked="get")
    files = {uid: str(path) for uid, path in sorted(folder.files.items())}
    if not as_json and files:
        click.echo(f"{counted(len(files), 'file')} in {out}")
    return _report(last, problem, {"study_uid": study, "files": files}, as_json=as_json)


def _what(study: str, series: str | None) -> tuple[Level, dict[str, str | Sequence[str]]]:
    if series is None:
        return "STUDY", {"StudyInstanceUID": study}
    return "SERIES", {"StudyInstanceUID": study, "SeriesInstanceUID": series}


def _followed(responses: Generator[scu.Progress, None, None], what: str) -> scu.Progress:
    """The last response, with the last counts that were told; the rest moves the bar."""
    last = scu.Progress()
    with bar(progress_console()) as shown:
        task = shown.add_task(what, total=None)
        for last in responses:
            done = sum(n or 0 for n in (last.completed, last.failed, last.warning))
            total = None if last.remaining is None else done + last.remaining
            shown.update(task, completed=done, total=total)
    return last


def _only_warnings(last: scu.Progress) -> bool:
    """0xB000 is also the status where all arrived, some with a warning (PS3.4 Table C.4-2)."""
    warned = last.outcome is not None and last.outcome.status == 0xB000
    return warned and not last.failed and bool(last.warning)


def _report(last: scu.Progress, problem: str, about: Mapping[str, Any], *, as_json: bool) -> int:
    sent, warned, failed = (n or 0 for n in (last.completed, last.warning, last.failed))
    told = None not in (last.completed, last.failed)
    if not problem and failed:
        problem = f"{counted(failed, 'image')} failed, though the peer calls it a success"
    if not problem and told and not sent + warned:
        problem = "the peer has no such images"
    if as_json:
        print_json(
            {
                **about,
                "status": status_text(last.outcome) if last.outcome else "",
                "completed": last.completed,
                "warning": last.warning,
                "failed": last.failed,
                "failed_uids": list(last.failed_uids),
                "problem": problem,
            }
        )
    elif sent + warned + failed:
        doubt = f" ({warned} with a warning)" if warned else ""
        click.echo(f"{counted(sent + warned, 'image')} sent{doubt}, {failed} failed")
    elif not problem:
        click.echo("done; the peer does not tell how many")
    if problem and not as_json:
        complain(problem, *last.failed_uids[:10])
    return EXIT_FAILED if problem else 0


def _study_of(accession: str, peer: Peer, config: Config, wait: scu.Timeouts) -> str:
    """The UID of the one study with that number. Raises NotOneStudy; lists them if several."""
    if not accession.strip() or set(accession) & _WILD:
        raise click.UsageError("--accession takes one number, without wildcards")
    if "query" not in peer.offers:
        raise click.UsageError(f"peer {peer.name} does not offer query: use --study UID")
    keys = {**dict.fromkeys(STUDY_KEYS, ""), "AccessionNumber": accession}
    audited.asked(config, peer, "find", "STUDY", keys)
    found = scu.find(
        peer=peer,
        calling_ae=config.node.ae_title,
        level="STUDY",
        keys=keys,
        matches_max=50,
        timeouts=wait,
    )
    if not found.outcome.succeeded and not found.cut:
        raise NotOneStudy(diagnosis(found.outcome, peer, config, asked="find"))
    if not found.matches:
        raise NotOneStudy(f"{peer.ae_title} has no study with accession number {accession}")
    if len(found.matches) > 1:
        listing.show("STUDY", found.matches, progress_console(), cut=found.cut)
        raise NotOneStudy("there is more than one study: choose one with --study UID")
    return listing.text(found.matches[0], "StudyInstanceUID")


def _doubts(config: Config, peer: Peer) -> list[str]:
    """Why images might not arrive here."""
    doubts = []
    host = "127.0.0.1" if config.node.host in ANY_ADDRESS else config.node.host
    if config.node.port:
        try:
            socket.create_connection((host, config.node.port), 2.0).close()
        except OSError:
            where = f"{host}:{config.node.port}"
            doubts.append(f"nobody listens at {where}: is dicom-node serve running?")
    known = any(p.ae_title == peer.ae_title and "store" in p.may for p in config.peers)
    if not known and config.receive.unknown_peers != "accept":
        doubts.append(f'this node rejects {peer.ae_title}: add [[peer]] with may = ["store"]')
    return doubts


class Folder:
    """Files that arrive by C-GET. problem: the first thing that the disk refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, Path] = {}
        self.problem = ""
        self._lock = threading.Lock()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise click.UsageError(f"--out {path}: {error.strerror}") from error

    def receive(self, request: StoreRequest) -> FileSink | StoreAnswer:
        """A sink; nothing that was received is in its name."""
        digest = hashlib.sha256(request.sop_instance_uid.encode()).hexdigest()[:32]
        return FileSink(self, request.sop_instance_uid, self.path / f"{digest}.dcm")

    def keep(self, uid: str, path: Path) -> None:
        """The file is whole."""
        with self._lock:
            self.files[uid] = path

    def refused(self, error: OSError) -> StoreAnswer:
        """The answer to the peer."""
        with self._lock:
            self.problem = self.problem or f"cannot write in {self.path}: {error.strerror}"
        return StoreAnswer(status=_OUT_OF_RESOURCES, comment="cannot write")


class FileSink:
    """One file, under a temporary name until it is whole."""

    def __init__(self, folder: Folder, uid: str, path: Path) -> None:
        self._folder = folder
        self._uid = uid
        self._path = path
        self._part = path.with_suffix(".part")
        self._file: IO[bytes] | None = None
        self._error: OSError | None = None

    def write(self, chunks: Sequence[memoryview | bytes]) -> None:
        """Take the next bytes."""
        if self._error is not None:
            return
        try:
            if self._file is None:
                self._file = self._part.open("wb")
            for chunk in chunks:
                self._file.write(chunk)
        except OSError as error:
            self._error = error

    def finish(self) -> StoreAnswer:
        """Give the file its name."""
        try:
            if self._error is not None:
                raise self._error
            if self._file is not None:
                self._file.close()
            self._part.replace(self._path)
        except OSError as error:
            self.abort()
            return self._folder.refused(error)
        self._folder.keep(self._uid, self._path)
        return StoreAnswer(status=0)

    def abort(self) -> None:
        """The object will not be whole: leave nothing behind."""
        if self._file is not None:
            self._file.close()
            self._part.unlink(missing_ok=True)
