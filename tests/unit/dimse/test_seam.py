"""What the front builds on in pynetdicom is there, and another version is told of."""

from __future__ import annotations

import inspect
import queue
import re
import tomllib
from pathlib import Path
from socketserver import TCPServer

import pynetdicom
import pytest
from pynetdicom import AE, evt
from pynetdicom.association import Association, ServiceUser
from pynetdicom.sop_class import uid_to_service_class
from pynetdicom.transport import AssociationServer, RequestHandler, ThreadedAssociationServer

from dicom_node.dimse import scp, seam

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("version", ["3.0.4", "3.0.10"])
def test_a_tested_version_is_no_doubt(version: str) -> None:
    assert seam.doubt(version) == ""


@pytest.mark.parametrize("version", ["3.0.3", "2.1.1", "3.1.0", "3.1.0.dev0", "4.0", "", "x"])
def test_another_version_is_told_with_the_switch(version: str) -> None:
    assert f"not with {version}" in seam.doubt(version)
    assert 'receive.front = "stock"' in seam.doubt(version)


def test_the_tested_versions_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (wanted,) = (d for d in project["dependencies"] if d.startswith("pynetdicom"))
    assert wanted == f"pynetdicom>={'.'.join(map(str, seam.FIRST))}"
    (pinned,) = re.findall(r"^pynetdicom==(.*)$", constraints(), re.MULTILINE)
    assert seam.doubt(pinned) == ""
    assert seam.doubt() == "", pynetdicom.__version__


def constraints() -> str:
    (file,) = ROOT.glob("constraints*.txt")
    return file.read_text("utf-8")


def test_the_front_says_at_its_start_that_it_was_not_tested(
    storage_scp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scp, "doubt", lambda: "not tested with this one")
    storage_scp()
    assert "not tested with this one" in caplog.text


def test_what_the_front_builds_on_is_there() -> None:
    made = inspect.signature(AE.make_server).parameters
    assert {"address", "contexts", "server_class", "kwargs"} <= made.keys()
    taken = inspect.signature(AssociationServer.__init__).parameters
    assert {"ae", "address", "contexts", "ssl_context", "request_handler"} <= taken.keys()
    assert issubclass(AssociationServer, TCPServer)
    for inherited in ("serve_forever", "finish_request", "server_close", "request_queue_size"):
        assert hasattr(AssociationServer, inherited)


def test_what_is_mended_in_an_association_is_there() -> None:
    association = Association(AE(), "requestor")
    assert {"_reactor_checkpoint", "_is_paused", "_kill"} <= vars(association).keys()
    assert type(association.dimse.msg_queue) is type(association.dul.to_user_queue) is queue.Queue
    assert callable(AE._create_socket)


def test_the_server_gives_the_front_its_socket_its_contexts_and_its_handler() -> None:
    class Handler(RequestHandler):
        pass

    entity = AE("NODE")
    entity.network_timeout = None
    context = pynetdicom.build_context("1.2.840.10008.1.1")
    server = entity.make_server(
        ("127.0.0.1", 0),
        contexts=[context],
        server_class=AssociationServer,
        request_handler=Handler,
    )
    try:
        assert server.RequestHandlerClass is Handler
        assert server.socket.gettimeout() is None  # accept() waits
        assert server.contexts == [context]
        assert server.server_address[1] > 0
    finally:
        server.server_close()


def test_what_the_stock_server_is_driven_by_is_there() -> None:
    for name in ("REQUESTED", "REJECTED", "PDU_RECV", "PDU_SENT", "C_ECHO", "C_STORE", "N_ACTION"):
        assert hasattr(evt, f"EVT_{name}")
    assert issubclass(ThreadedAssociationServer, AssociationServer)
    for method in ("abort", "kill", "join", "network_timeout"):
        assert hasattr(Association, method)
    for name in ("user_identity", "add_negotiation_item"):
        assert hasattr(ServiceUser, name)
    assert uid_to_service_class("1.2.840.10008.1.20.1").__name__ == "StorageCommitmentServiceClass"
