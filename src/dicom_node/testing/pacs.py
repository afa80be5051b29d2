"""A PACS for tests, on the loopback interface: stores, answers queries, moves, counts, refuses.

It is built on pynetdicom and shares nothing with the node's own network code, on purpose.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from dicom_node.testing.query import answer, matching

QUERY_RETRIEVE = (
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)
SUCCESS, PENDING, CANCELLED = 0x0000, 0xFF00, 0xFE00
UNABLE_TO_PROCESS, CANNOT_UNDERSTAND = 0xC000, 0xC001


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAttempt:
    """One C-STORE request: the number counts all of them from 1, times those of this instance."""

    number: int
    times: int
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    calling_ae: str


Judge = Callable[[StoreAttempt], int]


def accept_all(_attempt: StoreAttempt) -> int:
    """Success for every C-STORE."""
    return SUCCESS


def refuse_first(times: int, status: int) -> Judge:
    """Answer `status` to the first requests, then success."""
    return lambda attempt: status if attempt.number <= times else SUCCESS


class LocalPacs:
    """A running PACS on 127.0.0.1, from `with` until the end of its block.

    on_store: gives the status of each C-STORE; only 0x0000 and warnings (0xB...) store. It may
        block, to be slow. admits: calling AE title -> whether the association is accepted.
    destinations: AE title -> (host, port), whom C-MOVE may send to; may be changed at any time.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "TESTPACS",
        port: int = 0,
        destinations: Mapping[str, tuple[str, int]] | None = None,
        on_store: Judge = accept_all,
        admits: Callable[[str], bool] = lambda _calling: True,
        transfer_syntaxes: Sequence[str] = tuple(ALL_TRANSFER_SYNTAXES),
    ) -> None:
        self.ae_title = ae_title
        self.folder = folder
        self.destinations = dict(destinations or {})
        self.on_store = on_store
        self.admits = admits
        self.stored_counts: Counter[str] = Counter()
        self.attempts: list[StoreAttempt] = []
        self.queries: list[Dataset] = []
        self.rejected = 0
        self._wanted_port = port
        self._syntaxes = list(transfer_syntaxes)
        self._headers: dict[str, Dataset] = {}
        self._changed = threading.Condition()
        self._server: Any = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.folder.glob("*.dcm")):
            self._remember(pydicom.dcmread(path, stop_before_pixels=True))
        ae = AE(ae_title=self.ae_title)
        ae.maximum_associations = 50
        ae.require_called_aet = True
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(
                context.abstract_syntax, self._syntaxes, scu_role=True, scp_role=True
            )
        for uid in (*QUERY_RETRIEVE, Verification):
            ae.add_supported_context(uid, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        handlers = [
            (evt.EVT_C_ECHO, lambda _event: SUCCESS),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_C_MOVE, self._move),
            (evt.EVT_C_GET, self._get),
            (evt.EVT_REQUESTED, self._requested),
        ]
        address = ("127.0.0.1", self._wanted_port)
        self._server = ae.start_server(address, block=False, evt_handlers=handlers)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()

    def instances(self) -> list[Path]:
        """The files it holds, one a SOP Instance."""
        return sorted(self.folder.glob("*.dcm"))

    def datasets(self) -> list[Dataset]:
        """What it holds, read whole."""
        return [pydicom.dcmread(path) for path in self.instances()]

    def path_of(self, sop_instance_uid: str) -> Path:
        """Where an instance is, or would be."""
        return self.folder / f"{sop_instance_uid}.dcm"

    def wait_for(self, count: int, timeout_s: float = 30.0) -> bool:
        """Wait until so many different instances are stored; False when they did not come."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._headers) >= count, timeout_s)

    def _requested(self, event: Any) -> None:
        if not self.admits(event.assoc.requestor.primitive.calling_ae_title.strip()):
            self.rejected += 1
            # rejected-permanent by the service-user: calling AE title not recognized (PS3.8 §9.3.4)
            event.assoc.acse.send_reject(0x01, 0x01, 0x03)

    def _store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        with self._changed:
            attempt = StoreAttempt(
                number=len(self.attempts) + 1,
                times=sum(a.sop_instance_uid == uid for a in self.attempts) + 1,
                sop_instance_uid=uid,
                sop_class_uid=str(event.request.AffectedSOPClassUID),
                transfer_syntax_uid=str(event.context.transfer_syntax),
                calling_ae=event.assoc.requestor.ae_title,
            )
            self.attempts.append(attempt)
        status = self.on_store(attempt)
        if status == SUCCESS or status >> 12 == 0xB:
            path = self.path_of(uid)
            path.write_bytes(event.encoded_dataset())
            with self._changed:
                self.stored_counts[uid] += 1
                self._remember(pydicom.dcmread(path, stop_before_pixels=True))
                self._changed.notify_all()
        return status

    def _remember(self, header: Dataset) -> None:
        self._headers[str(header.SOPInstanceUID)] = header

    def _chosen(self, identifier: Dataset) -> list[Dataset]:
        with self._changed:
            held = list(self._headers.values())
        return matching(identifier, held)

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        self.queries.append(event.identifier)
        for found in answer(event.identifier, self._chosen(event.identifier), self.ae_title):
            if event.is_cancelled:
                yield CANCELLED, None
                return
            yield PENDING, found

    def _move(self, event: Any) -> Iterator[Any]:
        destination = self.destinations.get(str(event.move_destination).strip())
        if destination is None:
            yield None, None
            return
        chosen = self._chosen(event.identifier)
        pairs = sorted({(h.SOPClassUID, h.file_meta.TransferSyntaxUID) for h in chosen})
        contexts = [build_context(*pair) for pair in pairs or [(Verification, None)]]
        yield (*destination, {"contexts": contexts})
        yield from self._send(event, chosen)

    def _get(self, event: Any) -> Iterator[Any]:
        yield from self._send(event, self._chosen(event.identifier))

    def _send(self, event: Any, chosen: Sequence[Dataset]) -> Iterator[Any]:
        yield len(chosen)
        for header in chosen:
            if event.is_cancelled:
                yield CANCELLED, None
                return
            yield PENDING, pydicom.dcmread(self.path_of(str(header.SOPInstanceUID)))


def send_series(
    address: tuple[str, int],
    called_ae: str,
    objects: Sequence[Dataset | Path],
    *,
    calling_ae: str = "SENDER",
    abort_after: int | None = None,
) -> list[int]:
    """C-STORE objects over one association, and return the status of each.

    Every pair of SOP Class and Transfer Syntax is proposed as it is stored. abort_after: break the
    association off after so many. A dead association gives status -1 for each that was not sent.
    Raises ConnectionError when there is no association.
    """
    datasets = [o if isinstance(o, Dataset) else pydicom.dcmread(o) for o in objects]
    ae = AE(ae_title=calling_ae)
    for pair in sorted({(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets}):
        ae.add_requested_context(*pair)
    association = ae.associate(*address, ae_title=called_ae)
    if not association.is_established:
        raise ConnectionError(f"{called_ae} did not accept the association")
    statuses: list[int] = []
    for dataset in datasets[:abort_after]:
        alive = association.is_established
        status = association.send_c_store(dataset) if alive else Dataset()
        statuses.append(int(status.Status) if "Status" in status else -1)
    if abort_after is not None:
        association.abort()
    elif association.is_established:
        association.release()
    return statuses
