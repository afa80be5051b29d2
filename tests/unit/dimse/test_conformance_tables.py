"""The tables of the Conformance Statement: all that the code can answer, and nothing else."""

from __future__ import annotations

import ast
import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage

import dicom_node
from dicom_node.dimse import conformance, pdu, status
from dicom_node.dimse.contexts import EXPLICIT_LITTLE, VERIFICATION
from dicom_node.dimse.contract import CommitmentReport, CommitmentRequest, Reference, Rejection
from dicom_node.dimse.query import find, get, move
from dicom_node.dimse.scp import Extra
from dicom_node.dimse.scu import StoreItem, Timeouts, ask_commitment, echo, report_commitment, store
from dicom_node.dimse.status import Abort
from dicom_node.domain.records import Peer

PACKAGE = Path(dicom_node.__file__).parent
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
TELLS = {"status", "conformance"}  # they name all there are


def answering() -> Iterator[tuple[ModuleType, ast.Module]]:
    """The modules that answer peers, or judge for those that do."""
    for room in ("dimse", "node", "iod"):
        for path in sorted((PACKAGE / room).glob("*.py")):
            text = path.read_text("utf-8")
            judges = any(word in text for word in ("StoreAnswer", "Problem", "Rejection", "Abort"))
            if judges and path.stem not in TELLS:
                module = importlib.import_module(f"dicom_node.{room}.{path.stem}")
                yield module, ast.parse(text)


def constants(module: ModuleType, tree: ast.Module, kind: type) -> Iterator[object]:
    """The constants of that kind that a module uses."""
    for node in ast.walk(tree):
        value: object = None
        if isinstance(node, ast.Name) and node.id.lstrip("_").isupper():
            value = getattr(module, node.id, None)
        elif isinstance(node, ast.Attribute) and node.attr.isupper():
            value = getattr(status, node.attr, None)
        if type(value) is kind:
            yield value


def named(kind: type) -> set[object]:
    """Those of all modules that answer."""
    return {value for module, tree in answering() for value in constants(module, tree, kind)}


def test_every_status_that_the_code_can_answer_is_in_a_table_and_no_other():
    tables = (
        conformance.ECHO_ANSWERS,
        conformance.STORE_ANSWERS,
        conformance.COMMITMENT_ANSWERS,
        conformance.FAILURE_REASONS,
        conformance.OTHER_ANSWERS,
    )
    listed = {code for table in tables for code in table}
    used = {code for code in named(int) if code in status.MEANINGS}

    assert used == listed
    assert {status.CANNOT_UNDERSTAND, status.CLASS_MISMATCH, status.DUPLICATE_INSTANCE} <= used


def test_what_refuses_an_object_before_it_is_stored_is_in_the_table_of_storage():
    judges = {"dicom_node.dimse.storing", "dicom_node.iod.checks", "dicom_node.iod.received"}
    codes = {
        value
        for module, tree in answering()
        if module.__name__ in judges
        for value in constants(module, tree, int)
        if value in status.MEANINGS
    }

    assert len(codes) > 5
    assert codes <= conformance.STORE_ANSWERS.keys()


def test_every_rejection_that_the_code_can_give_is_in_the_table_and_no_other():
    assert named(Rejection) == set(conformance.REJECTIONS)


def test_every_abort_that_the_code_can_send_is_in_the_table_and_no_other():
    default = pdu.ProtocolError("").abort

    assert named(Abort) | {default} == set(conformance.ABORTS)


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", "CT Image Storage"),
        ("1.2.840.10008.5.1.4.1.1.66.7", "Label Map Segmentation Storage"),
        ("1.2.3.4", "1.2.3.4"),
    ],
)
def test_a_class_is_called_what_dicom_calls_it(uid: str, name: str):
    assert conformance.name_of(uid) == name


def test_what_the_acceptor_takes_is_what_is_listed(storage_scp):
    class Committer:
        asked = reported = None

    extra = Extra(classes=["1.2.3.4"], syntaxes=["1.2.3.5"])
    server = storage_scp(committer=Committer(), extra=extra)

    listed = conformance.accepted(["1.2.3.4"], ["1.2.3.5"])
    table = server.listener.house.contexts
    assert {c.abstract_syntax: c.transfer_syntaxes for c in listed} == dict(table)
    assert [c.abstract_syntax for c in listed if not c.standard] == ["1.2.3.4"]


@contextmanager
def listening(proposed: list[tuple[str, tuple[str, ...], str]]) -> Iterator[Peer]:
    """A peer that notes what is proposed to it, and accepts nothing of it but Verification."""
    noted = threading.Event()

    def note(event: evt.Event) -> None:
        items = event.assoc.requestor.primitive.user_information
        roles = {i.sop_class_uid: i for i in items if hasattr(i, "scp_role")}
        for context in event.assoc.requestor.primitive.presentation_context_definition_list:
            uid = context.abstract_syntax
            role = "SCP" if uid in roles and roles[uid].scp_role else "SCU"
            proposed.append((str(uid), tuple(map(str, context.transfer_syntax)), role))
        noted.set()

    entity = AE("PEER")
    entity.add_supported_context(VERIFICATION)
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_REQUESTED, note)]
    )
    try:
        yield Peer(name="peer", ae_title="PEER", host="127.0.0.1", port=server.server_address[1])
        assert noted.wait(20)
    finally:
        server.shutdown()


UIDS = {"StudyInstanceUID": "1.2.3"}
REFERENCES = (Reference(str(CTImageStorage), "1.2.3"),)
QUICK = Timeouts(connect_s=20, associate_s=20, answer_s=20)


def asks(service: str, peer: Peer, model: str) -> None:
    """Do what the service is for, once."""
    common = {"peer": peer, "calling_ae": "NODE", "timeouts": QUICK}
    if service == "echo":
        echo(**common)
    elif service == "find":
        find(level="STUDY", keys={**UIDS, "PatientID": "1"}, model=model, **common)
    elif service == "move":
        keys = UIDS if model == "STUDY" else {**UIDS, "PatientID": "1"}
        list(move(level="STUDY", keys=keys, destination_ae="NODE", model=model, **common))
    elif service == "get":
        keys = UIDS if model == "STUDY" else {**UIDS, "PatientID": "1"}
        list(get(level="STUDY", keys=keys, receive=None, model=model, **common))
    elif service == "commit":
        request = CommitmentRequest(transaction_uid="1.2.3", references=REFERENCES)
        ask_commitment(request=request, **common)
    else:
        report = CommitmentReport(transaction_uid="1.2.3", committed=REFERENCES)
        report_commitment(report=report, **common)


@pytest.mark.parametrize(
    "listed", conformance.proposed_besides(), ids=lambda c: f"{c.service} {c.abstract_syntax}"
)
def test_what_is_listed_as_proposed_is_what_is_proposed(listed: conformance.Context):
    model = "PATIENT" if "4.1.2.1." in listed.abstract_syntax else "STUDY"
    proposed: list[tuple[str, tuple[str, ...], str]] = []
    with listening(proposed) as peer:
        asks(listed.service, peer, model)

    brought = conformance.proposed_to_get() if listed.service == "get" else ()
    assert proposed == [
        (c.abstract_syntax, c.transfer_syntaxes, c.role) for c in (listed, *brought)
    ]


def test_what_is_listed_for_results_is_what_is_proposed_for_them(tmp_path: Path):
    item = StoreItem(
        sop_class_uid=SEG,
        sop_instance_uid="1.2.3",
        transfer_syntax_uid=EXPLICIT_LITTLE,
        path=tmp_path / "none",
    )
    proposed: list[tuple[str, tuple[str, ...], str]] = []
    with listening(proposed) as peer:
        store(peer=peer, calling_ae="NODE", items=[item], timeouts=QUICK)

    listed = conformance.proposed_for_results([SEG])
    assert proposed == [(c.abstract_syntax, c.transfer_syntaxes, c.role) for c in listed]
