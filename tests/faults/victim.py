"""A node that ends by SIGKILL at a chosen step: victim.py PLAN serve --config FILE.

PLAN is a JSON file: point (see POINTS and ONWARD), when ("before" or "after" it), nth (the pass
that kills, from 1), process ("serve", "performer", or the command that is run in place of serve);
`only` confines a kill to series of that description, and then it comes every time; with `outcome`
only passes count that give that. `checkpoint_pages` is how far the log of the catalog grows, in
place of 4000. `names_follow` is what the spool takes the file system for (see
Disk.names_follow_files). Or `without`: "spool" or "catalog", whose syncs are then left out: a node
as it must not be, to see that a test would notice. Just before the kill the file PLAN.fired is
made: it says that the plan was carried out, and keeps the next process of the same run alive.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

POINTS: dict[str, tuple[str, dict[str, int]]] = {
    # name: (module:attribute, {process: how often one series of eight passes it})
    "temporary opened": ("dicom_node.spool.disk:Disk.open", {"serve": 8, "performer": 1}),
    "bytes written": ("dicom_node.spool.disk:Disk.write", {"serve": 16, "performer": 1}),
    # by folder: the file, then the folder; by name: the file that has its name
    "file synced": ("dicom_node.spool.disk:Disk.sync", {"serve": 8, "performer": 1}),
    "file renamed": ("dicom_node.spool.disk:Disk.rename", {"serve": 8, "performer": 1}),
    "folder synced": ("dicom_node.spool.disk:Disk.sync_folder", {"serve": 11, "performer": 4}),
    "name synced": ("dicom_node.spool.disk:Disk.sync_named", {"serve": 8, "performer": 1}),
    "event folded": ("dicom_node.catalog.store:fold", {"serve": 16, "performer": 4}),
    "catalog committed": ("dicom_node.catalog.store:Catalog.commit", {"serve": 13, "performer": 1}),
    "C-STORE answered": ("dicom_node.dimse.serving:Serving._respond", {"serve": 8}),
    "association ended": ("dicom_node.node.receive:StorageReceiver.ended", {"serve": 1}),
    "series judged": ("dicom_node.node.assemble:Assembler.judge", {"serve": 1}),
    "replaced results settled": (
        "dicom_node.node.supersede:Superseder.run_due",
        {"performer": 2},
    ),
    "step claimed": ("dicom_node.catalog.store:Catalog.claim_step", {"performer": 2}),
    "pixels read": ("dicom_node.node.produce:read_volume", {"performer": 1}),
    "tool run": ("dicom_node.node.produce:_run", {"performer": 1}),
    "result encoded": ("dicom_node.node.encode:_produced", {"performer": 1}),
    "step completed": ("dicom_node.node.perform:Performer._complete", {"performer": 1}),
    "deliveries claimed": ("dicom_node.catalog.store:Catalog.claim_deliveries", {"serve": 3}),
    "delivery": ("dicom_node.node.deliver:Deliverer._deliver", {"serve": 1}),
    "PDU to the PACS": ("pynetdicom.transport:AssociationSocket.send", {"serve": 5}),
    "delivery recorded": ("dicom_node.node.deliver:Deliverer._ended", {"serve": 1}),
    "catalog examined": ("dicom_node.node.serve:require_sound", {"serve": 1}),
    "catalog and spool compared": ("dicom_node.node.serve:reconcile", {"serve": 1}),
}
"""Where a node can be killed. A new stage adds its steps here, and every test knows them."""

_FACTS = (
    "SourceCounted", "CommitmentRequested", "CommitmentReported", "ProofAwaited",
    "DeliveryConfirmed", "CommitmentAsked", "CommitmentJudged", "CommitmentReportEnded",
    "DeliveryWithdrawn", "RejectionOwed", "SeriesHeld", "SeriesReleased", "PeerUnreachable",
    "PeerReached", "SeriesPurged", "FilesRemoved", "InstanceRestored", "InstanceArrived",
)  # fmt: skip
ONWARD: dict[str, tuple[str, str]] = {
    # name: (module:attribute, what is among the arguments)
    **{kind: ("dicom_node.catalog.store:Catalog.commit", f"{kind}(") for kind in _FACTS},
    "source asked": ("dicom_node.node.ask:count_series", ""),
    "commitment asked for": ("dicom_node.node.confirm:ask_commitment", ""),
    "report taken": ("dicom_node.node.confirm:Reports.take", ""),
    "holdings listed": ("dicom_node.node.confirm:held_instances", ""),
    "request for commitment": ("dicom_node.node.promise:Commitments.asked", ""),
    "promise reported": ("dicom_node.node.promise:report_commitment", ""),
    "rejection note made": ("dicom_node.node.supersede:Superseder._note", ""),
    "file removed": ("pathlib:Path.unlink", "/spool/objects/"),
    "files removed": ("dicom_node.spool.store:Spool.discard", ""),
}
"""Where it can be killed beyond the way of one image: see onward."""


def main(plan_file: str, *arguments: str) -> None:
    """Be the node, or its performer, with the plan built in."""
    plan = json.loads(Path(plan_file).read_text())
    process = arguments[0]
    for room in plan.get("without", ()):
        _leave_out_the_syncs_of(room)
    if "names_follow" in plan:
        disk = importlib.import_module("dicom_node.spool.disk").Disk
        disk.names_follow_files = lambda *_: bool(plan["names_follow"])
    if "checkpoint_pages" in plan:
        _every_connection(f"PRAGMA wal_autocheckpoint = {int(plan['checkpoint_pages'])}")
    if process == plan.get("process") and (plan.get("only") or not fired(plan_file)):
        _arm(plan, plan_file)
    sys.argv = [sys.argv[0], *arguments]
    if process == "performer":
        from dicom_node.node import performer  # noqa: PLC0415  # after arming

        sys.exit(performer.main(list(arguments[1:])))
    if process == "serve":
        _performers_read_the_plan(plan_file)
    from dicom_node.cli import main as cli  # noqa: PLC0415

    cli.main()


def _leave_out_the_syncs_of(room: str) -> None:
    if room == "spool":
        disk = importlib.import_module("dicom_node.spool.disk").Disk
        disk.sync = disk.sync_named = disk.sync_folder = lambda *_: None
        return
    _every_connection("PRAGMA synchronous = OFF")


def _every_connection(pragma: str) -> None:
    store = importlib.import_module("dicom_node.catalog.store")
    connect = store.connect

    def changed(path: Path) -> Any:
        connection = connect(path)
        connection.execute(pragma)
        return connection

    store.connect = changed


def fired(plan_file: str | Path) -> bool:
    """Whether the plan was carried out."""
    return Path(f"{plan_file}.fired").exists()


def _performers_read_the_plan(plan_file: str) -> None:
    from dicom_node.node import serve  # noqa: PLC0415

    made = serve.Supervisor

    def supervisor(**fields: Any) -> Any:
        return made(**{**fields, "command": (__file__, plan_file, "performer")})

    serve.Supervisor = supervisor  # type: ignore[assignment,misc]


def located(point: str) -> tuple[Any, str]:
    """Where the function of a point is: its module or class, and its name there."""
    module_name, _, path = (POINTS.get(point) or ONWARD[point])[0].partition(":")
    owner: Any = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    return owner, name


def _arm(plan: dict[str, Any], plan_file: str) -> None:
    """Replace the point's function by one that kills on its nth pass."""
    owner, name = located(plan["point"])
    original: Callable[..., Any] = getattr(owner, name)
    lock, passes = threading.Lock(), [0]
    about = ONWARD.get(plan["point"], ("", ""))[1]
    outcome = plan.get("outcome")

    def due(arguments: tuple[Any, ...]) -> bool:
        if plan.get("only"):
            return bool(arguments[-1].header.get("SeriesDescription") == plan["only"])
        if about and about not in repr(arguments):
            return False
        with lock:
            passes[0] += 1
            return bool(passes[0] == plan["nth"])

    @functools.wraps(original)
    def deadly(*arguments: Any, **more: Any) -> Any:
        now = outcome is None and due(arguments)
        if now and plan["when"] == "before":
            _die(plan_file)
        result = original(*arguments, **more)
        if now or (outcome is not None and outcome in result and due(arguments)):
            _die(plan_file)
        return result

    setattr(owner, name, deadly)


def _die(plan_file: str) -> None:
    os.close(os.open(f"{plan_file}.fired", os.O_CREAT | os.O_WRONLY, 0o600))
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()  # the signal may come a moment later: do nothing until then


if __name__ == "__main__":
    main(*sys.argv[1:])
