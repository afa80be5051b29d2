"""What bench_receive.py measures, one thing at a time; each returns what goes into its JSON."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from bench_job import Node, phantom_series, renamed, running_node
from dicom_node.catalog import Catalog
from dicom_node.dimse.contract import AssociationRequest, StoreRequest
from dicom_node.dimse.part10 import file_head
from dicom_node.domain.states import StepState
from dicom_node.iod.image import read_volume
from dicom_node.iod.received import check_received
from dicom_node.spool.store import Spool
from receivers import Running, running, whole_receiver
from sending import (
    CT,
    EXPLICIT,
    VERIFICATION,
    Instance,
    Proposal,
    Sender,
    echo_s,
    pdus,
    store_command,
)  # fmt: skip
from sent_images import LARGE, instances_of, large_object, uid_of

SENDING = Path(__file__).with_name("sending_process.py")
ECHO = Proposal(sop_class_uid=VERIFICATION, transfer_syntax_uid="1.2.840.10008.1.2")


# --- throughput -----------------------------------------------------------------------------------


@contextlib.contextmanager
def sending(port: int, **settings: object) -> Iterator[subprocess.Popen[str]]:
    """The sender in a process of its own, its associations open; see sending_process."""
    child = subprocess.Popen(
        [sys.executable, str(SENDING), json.dumps({"port": port, **settings})],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if child.stdout.readline() != "ready\n":
            raise SystemExit("the sender could not associate")
        yield child
    finally:
        child.terminate()
        child.wait(60)
        child.stdin.close()
        child.stdout.close()


def tell(child: subprocess.Popen[str], word: str) -> None:
    child.stdin.write(word + "\n")
    child.stdin.flush()


def result_of(child: subprocess.Popen[str], instances: int) -> dict[str, Any]:
    """What the sender tells when all is answered, with success."""
    result = json.loads(child.stdout.readline())
    if result["answers"] != instances or result["failures"]:
        raise SystemExit(f"{result['failures']} failures, {result['answers']} answers")
    return result


def throughput(
    kind: str, where: Path, *, associations: int, pdu: int, instances: int
) -> dict[str, Any]:
    """One receiver, once: counts only if every data set is found in it, byte for byte."""
    with running(kind, where, pdu=pdu, associations=associations) as receiver:
        settings = {"associations": associations, "instances": instances, "max_pdu": pdu}
        with sending(receiver.port, **settings) as sender:
            os.sync()  # else what the last receiver left unwritten slows this one's syncs
            before = receiver.cpu_s()
            tell(sender, "go")
            result = result_of(sender, instances)
            after, peak_mb = receiver.cpu_s(), receiver.mb("VmHWM")
            tell(sender, "end")
            sender.wait(60)
        sent = [one.data_set for one in instances_of(instances)]
        missing = {hashlib.sha256(data).digest() for data in sent} - receiver.digests()
    if missing:
        raise SystemExit(f"{kind}: {len(missing)} data sets are not there, or differ")
    gigabytes = sum(map(len, sent)) / 1e9
    user, system = after[0] - before[0], after[1] - before[1]
    return {
        "receiver": kind,
        "associations": associations,
        "pdu": pdu,
        "images_per_s": instances / result["seconds"],
        "cpu_s_per_gb": (user + system) / gigabytes,
        "user_s_per_gb": user / gigabytes,
        "peak_mb": peak_mb,
        "median_wait_ms": result["median_wait_ms"],
        "p99_wait_ms": result["p99_wait_ms"],
    }


# --- memory ---------------------------------------------------------------------------------------


def memory(where: Path, sizes_gib: list[float], associations: int) -> dict[str, Any]:
    """MB by which the node grows for one object of each size, and for each further association."""
    grown = []
    for gib in sizes_gib:
        with running("node", where) as node:
            sender = Sender(node.port, list(enumerate(instances_of(8))))
            sender.run()
            node.forget_peak()
            before = node.mb("VmRSS")
            digest = hashlib.sha256()
            command = store_command(1, uid_of(LARGE), CT)
            sender.send(
                pdus([command], 1, sender.max_pdu),
                pdus(_noted(large_object(gib), digest), 0, sender.max_pdu),
            )
            grown.append({"gib": gib, "mb": node.mb("VmHWM") - before})
            sender.release()
            if sender.failures or digest.digest() not in node.digests():
                raise SystemExit(f"the object of {gib} GiB was refused, or differs")
    with running("node", where) as node:
        first = Sender(node.port, list(enumerate(instances_of(8))))
        first.run()
        before = node.mb("VmRSS")
        more = [
            Sender(node.port, list(enumerate(instances_of(1, first=10 + n))))
            for n in range(associations)
        ]
        for one in more:
            one.run()
        each = (node.mb("VmRSS") - before) / associations
        for one in (first, *more):
            one.release()
    return {"grown": grown, "association_mb": each}


def _noted(pieces: Iterator[bytes], digest: Any) -> Iterator[bytes]:
    for piece in pieces:
        digest.update(piece)
        yield piece


# --- C-ECHO, idle and many associations -----------------------------------------------------------


def echoes(port: int, count: int, proposal: Proposal = ECHO) -> dict[str, float]:
    """Whole associations with one C-ECHO each, one at a time, ms."""
    echo_s(port, proposal)  # not counted
    waits_ms = sorted(echo_s(port, proposal) * 1000 for _ in range(count))
    return {
        "count": count,
        "median_ms": statistics.median(waits_ms),
        "p99_ms": waits_ms[min(count - 1, int(count * 0.99))],
    }


def echo(kind: str, where: Path, *, count: int, instances: int) -> dict[str, Any]:
    """Idle, and while one association stores as fast as it goes."""
    with running(kind, where, associations=2) as receiver:
        found = {"idle": echoes(receiver.port, count)}
        with sending(receiver.port, instances=instances) as sender:
            tell(sender, "go")
            found["storing"] = echoes(receiver.port, count)
            result_of(sender, instances)
            tell(sender, "end")
            sender.wait(60)
    return found


def idle(where: Path, *, associations: int, seconds: float) -> dict[str, float]:
    """The share of a core that open associations cost that say nothing."""
    with running("node", where) as node:
        held = [Sender(node.port, [], ECHO) for _ in range(associations)]
        before = sum(node.cpu_s())
        time.sleep(seconds)
        percent = (sum(node.cpu_s()) - before) / seconds * 100
        for one in held:
            one.release()
    return {"associations": associations, "seconds": seconds, "percent": percent}


def many(where: Path, *, count: int) -> dict[str, Any]:
    """Associations in turn that echo, store, break off inside a PDU, and disconnect."""
    work = instances_of(count, size=32)
    with running("node", where) as node:
        Sender(node.port, [(0, work[0])]).release()
        looks = [_look(node)]
        for number in range(count):
            _one_of_many(node.port, number, work[number])
            if number + 1 in (count // 4, count):
                looks.append(_look(node, looks[0]))
    names = ("start", "quarter", "end")
    return {"count": count, **dict(zip(names, looks, strict=True))}


def _one_of_many(port: int, number: int, instance: Instance) -> None:
    if number % 4 == 0:
        echo_s(port, ECHO)
        return
    one = Sender(port, [(number, instance)])
    if number % 4 == 1:
        one.run()
        one.release()
        return
    if number % 4 == 2:
        one.socket.sendall(one.messages[0][:-500])
    one.socket.close()


def _look(node: Running, like: dict[str, float] | None = None) -> dict[str, float]:
    """Threads, descriptors, MB; given time to be as they were."""
    until = time.monotonic() + 10
    while True:
        now = {"threads": node.threads(), "descriptors": node.descriptors()}
        if like is None or now.items() <= like.items() or time.monotonic() > until:
            return {**now, "mb": node.mb("VmRSS")}
        time.sleep(0.1)


# --- header to catalog ----------------------------------------------------------------------------


def header(where: Path, *, count: int) -> dict[str, float]:
    """CPU ms an instance from the whole file to the fact, and ms for a volume of them."""
    with contextlib.ExitStack() as undo:
        folder = undo.enter_context(tempfile.TemporaryDirectory(prefix="bench-header-", dir=where))
        spool = Spool(Path(folder) / "spool")
        receiver = undo.enter_context(whole_receiver(Path(folder), spool))
        number = receiver.admit(
            AssociationRequest(calling_ae="B", called_ae="RECEIVER", address="::1", port=1)
        )
        checked, recorded, paths = [], [], []
        for instance in instances_of(count):
            request = StoreRequest(
                association=number, sop_class_uid=CT, sop_instance_uid=instance.sop_instance_uid,
                transfer_syntax_uid=EXPLICIT, message_id=1, calling_ae="B",
            )  # fmt: skip
            incoming = spool.begin()
            incoming.write((
                file_head(sop_class_uid=CT, sop_instance_uid=instance.sop_instance_uid,
                          transfer_syntax_uid=EXPLICIT), instance.data_set,
            ))  # fmt: skip
            began = time.thread_time()
            received = check_received(
                incoming.path, expected_class=CT, expected_instance=instance.sop_instance_uid,
                transfer_syntax=EXPLICIT, heavy=contextlib.nullcontext(),
                head=incoming.head, size=incoming.size,
            )  # fmt: skip
            checked.append(time.thread_time() - began)
            stored = incoming.commit()
            began = time.thread_time()
            answer = receiver.record(request, stored, received)
            recorded.append(time.thread_time() - began)
            if answer.status:
                raise SystemExit(f"refused: {answer.comment}")
            paths.append(spool.path(stored.path))
        volumes = []
        for _ in range(6):
            began = time.process_time()
            read_volume(paths)
            volumes.append(time.process_time() - began)
    return {
        "count": count,
        "check_ms": statistics.mean(checked) * 1000,
        "record_ms": statistics.mean(recorded) * 1000,
        "volume_ms": statistics.median(volumes[1:]) * 1000,
    }


# --- a whole node, while a model runs -------------------------------------------------------------


def live(*, instances: int, slices: int, count: int) -> dict[str, Any]:
    """Receiving and C-ECHO of a node that runs as a user runs it: idle, and while it infers.

    busy: whether the model ran from the beginning of the measurement to its end.
    """
    series = phantom_series(slices, 64)
    who = {"calling_ae": "TESTPACS", "called_ae": "DICOMNODE"}
    asking = replace(ECHO, **who)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as made, running_node(Path(made)) as node:

        def sent(number: int) -> dict[str, Any]:
            more = {"first": number * instances, "modality": "OT", "instances": instances, **who}
            with sending(node.port, **more) as sender:
                tell(sender, "go")
                if number == 2:
                    found["echo"] = echoes(node.port, count, asking)
                result = result_of(sender, instances)
                tell(sender, "end")
                sender.wait(60)
            return {"images_per_s": instances / result["seconds"]}

        found["idle"] = sent(0)
        for number, name in ((1, "inferring"), (2, "with C-ECHO")):
            copy = renamed(series, number)
            wanted = Sender(node.port, [(n, _encoded(one)) for n, one in enumerate(copy)],
                            Proposal(**who))  # fmt: skip
            wanted.run()
            wanted.release()
            uid = copy[0].SeriesInstanceUID
            if not _infers(node, uid, within_s=120):
                raise SystemExit("the model did not begin")
            found[name] = sent(number)
            found[name]["busy"] = _infers(node, uid, within_s=0)
    return found


def _encoded(dataset: Dataset) -> Instance:
    data = encode(dataset, False, True)
    return Instance(sop_instance_uid=dataset.SOPInstanceUID, data_set=data)


def _infers(node: Node, series_uid: str, *, within_s: float) -> bool:
    """Whether a step on the Series is under way, now or soon."""
    until = time.monotonic() + within_s
    catalog = Catalog(node.folder / "var" / "catalog.db")
    try:
        while True:
            steps = catalog.views.steps(series_uid)
            if any(step.state is StepState.IN_PROGRESS for step in steps):
                return True
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
    finally:
        catalog.close()
