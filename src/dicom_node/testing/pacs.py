"""A PACS for tests, on the loopback interface: stores, answers queries, moves, counts, refuses.

It is built on pynetdicom and shares nothing with the node's own network code, on purpose.
"""

from __future__ import annotations

import ssl
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
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from dicom_node.dimse.entity import Entity, lose_no_response
from dicom_node.testing.commitment import Asked, Commitment, CommitmentScp, Reported
from dicom_node.testing.query import StatedCount, answer, matching, true_count

QUERY_RETRIEVE = (
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)
SUCCESS, PENDING, CANCELLED = 0x0000, 0xFF00, 0xFE00
CANNOT_UNDERSTAND = 0xC001
_REJECTED_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAttempt:
    """One C-STORE request: the number counts all of them from 1, times those of this instance."""

    number: int
    times: int
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    calling_ae: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An A-ASSOCIATE-RJ (PS3.8 Table 9-21); as it stands: calling AE title not recognised."""

    result: int = 1
    source: int = 1
    reason: int = 3


Judge = Callable[[StoreAttempt], int]
Admits = Callable[[str], "bool | Refused"]
"""Calling AE title -> whether the association is accepted; False is Refused() as it stands."""


def accept_all(_attempt: StoreAttempt) -> int:
    """Success for every C-STORE."""
    return SUCCESS


def refuse_first(times: int, status: int) -> Judge:
    """Answer `status` to the first requests, then success."""
    return lambda attempt: status if attempt.number <= times else SUCCESS


def refuse_classes(statuses: Mapping[str, int], times: int) -> Judge:
    """Answer to the first requests of each of these SOP Classes its status, then success."""
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    def judge(attempt: StoreAttempt) -> int:
        with lock:
            seen[attempt.sop_class_uid] += 1
            if seen[attempt.sop_class_uid] <= times:
                return statuses.get(attempt.sop_class_uid, SUCCESS)
        return SUCCESS

    return judge


def slowly(seconds: float, judge: Judge = accept_all) -> Judge:
    """Judge each request after so long a time."""

    def wait(attempt: StoreAttempt) -> int:
        threading.Event().wait(seconds)
        return judge(attempt)

    return wait


class LocalPacs:
    """A running PACS on 127.0.0.1, from `with` until the end of its block.

    on_store: gives the status of each C-STORE; only 0x0000 and warnings (0xB...) store. It may
        block, to be slow. admits: see Admits.
    destinations: AE title -> (host, port), whom C-MOVE may send to; may be changed at any time.
    commitment: how it commits; None, and it refuses the context of Storage Commitment.
    secure: it speaks TLS by this context; set it before `with`, too.
    unsupported: SOP Classes refused at negotiation; set it before `with`.
    stated_count: Series Instance UID and true count -> what NumberOfSeriesRelatedInstances says.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "TESTPACS",
        port: int = 0,
        destinations: Mapping[str, tuple[str, int]] | None = None,
        on_store: Judge = accept_all,
        admits: Admits = lambda _calling: True,
        transfer_syntaxes: Sequence[str] = tuple(ALL_TRANSFER_SYNTAXES),
        commitment: Commitment | None = None,
    ) -> None:
        self.ae_title = ae_title
        self.folder = folder
        self.destinations = dict(destinations or {})
        self.on_store = on_store
        self.admits = admits
        self.commitment = commitment
        self.unsupported: set[str] = set()
        self.secure: ssl.SSLContext | None = None
        self.stated_count: StatedCount = true_count
        self.stored_counts: Counter[str] = Counter()
        self.attempts: list[StoreAttempt] = []
        self.queries: list[Dataset] = []
        self.rejected = 0
        self._wanted_port = port
        self._syntaxes = list(transfer_syntaxes)
        self._headers: dict[str, Dataset] = {}
        self._changed = threading.Condition()
        self._server: Any = None
        self._committing = CommitmentScp(
            ae_title,
            lambda: self.commitment,
            self._class_of,
            self._address_of,
            self._changed,
        )

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
        plain = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
        for context in AllStoragePresentationContexts:
            if context.abstract_syntax not in self.unsupported:
                ae.add_supported_context(
                    context.abstract_syntax, self._syntaxes, scu_role=True, scp_role=True
                )
        for uid in (*QUERY_RETRIEVE, Verification):
            ae.add_supported_context(uid, plain)
        if self.commitment is not None:
            ae.add_supported_context(
                StorageCommitmentPushModel, plain, scu_role=True, scp_role=True
            )
        handlers = [
            (evt.EVT_C_ECHO, lambda _event: SUCCESS),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_C_MOVE, self._move),
            (evt.EVT_C_GET, self._get),
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_N_ACTION, self._committing.on_action),
            (evt.EVT_N_EVENT_REPORT, self._committing.on_report),
        ]
        address = ("127.0.0.1", self._wanted_port)
        self._server = ae.start_server(
            address, block=False, evt_handlers=handlers, ssl_context=self.secure
        )
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._committing.stop()
        self._server.shutdown()

    def instances(self) -> list[Path]:
        """The files it holds, one a SOP Instance."""
        return sorted(self.folder.glob("*.dcm"))

    def datasets(self) -> list[Dataset]:
        """What it holds, read whole."""
        return [pydicom.dcmread(path) for path in self.instances()]

    def made_from(self, series_uid: str, sop_class_uid: str = "") -> list[Dataset]:
        """What was made from a Series: of what it holds, or of the objects of one class."""
        wanted = [d for d in self.datasets() if sop_class_uid in ("", d.SOPClassUID)]
        return [d for d in wanted if d.ReferencedSeriesSequence[0].SeriesInstanceUID == series_uid]

    def path_of(self, sop_instance_uid: str) -> Path:
        """Where an instance is, or would be."""
        return self.folder / f"{sop_instance_uid}.dcm"

    def wait_for(self, count: int, timeout_s: float = 30.0) -> bool:
        """Wait until so many different instances are stored; False when they did not come."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._headers) >= count, timeout_s)

    @property
    def asked(self) -> list[Asked]:
        """The requests for commitment that came."""
        return self._committing.asked

    @property
    def reports_sent(self) -> list[Reported]:
        """Its reports on them, with the status that each was answered with."""
        return self._committing.sent

    @property
    def reports_received(self) -> list[Reported]:
        """The reports of others, on what they were asked in the name of this PACS."""
        return self._committing.received

    def wait_until(self, so: Callable[[], bool], timeout_s: float = 30.0) -> bool:
        """Wait until something about its records is so; False when it did not become so."""
        with self._changed:
            return self._changed.wait_for(so, timeout_s)

    def forget(self, sop_instance_uid: str) -> None:
        """Lose an instance: it is not found any more, and not committed."""
        with self._changed:
            self._headers.pop(sop_instance_uid, None)
        self.path_of(sop_instance_uid).unlink(missing_ok=True)

    def _address_of(self, ae_title: str) -> tuple[str, int] | None:
        return self.destinations.get(ae_title)

    def _class_of(self, sop_instance_uid: str) -> str | None:
        with self._changed:
            header = self._headers.get(sop_instance_uid)
        return None if header is None else str(header.SOPClassUID)

    def _requested(self, event: Any) -> None:
        lose_no_response(event.assoc)
        verdict = self.admits(event.assoc.requestor.primitive.calling_ae_title.strip())
        if verdict is True:
            return
        refused = verdict or Refused()
        self.rejected += 1
        sent = threading.Event()

        def on_sent(told: Any) -> None:
            if isinstance(told.pdu, A_ASSOCIATE_RJ):
                sent.set()

        event.assoc.bind(evt.EVT_PDU_SENT, on_sent)
        event.assoc.acse.send_reject(refused.result, refused.source, refused.reason)
        # The connection is shut down as soon as this returns: not before the peer has been told.
        sent.wait(_REJECTED_WITHIN_S)

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
            partly = path.with_suffix(f".{attempt.number}.part")
            partly.write_bytes(event.encoded_dataset())
            partly.replace(path)  # who reads while it stores finds the object whole, or not
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
        chosen = self._chosen(event.identifier)
        for found in answer(event.identifier, chosen, self.ae_title, self.stated_count):
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
    ae = Entity(ae_title=calling_ae)
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
