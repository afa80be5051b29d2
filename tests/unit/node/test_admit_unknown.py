"""Who is no peer: what of it is let in, and what it may."""

from __future__ import annotations

import pytest

from dicom_node.catalog import Catalog
from dicom_node.dimse.contract import AssociationRequest, Rejection
from dicom_node.dimse.status import CALLING_AE_UNKNOWN
from dicom_node.domain.records import Peer
from dicom_node.node import bell as bells
from dicom_node.node.admit import Admission, Doors
from dicom_node.node.clock import SystemClock
from dicom_node.node.journal import Journal

PEER = Peer(name="ct", ae_title="CT1", host="127.0.0.1", port=104, certificates=("subject:CN=ct",))


@pytest.mark.parametrize(
    ("unknown", "calling", "proposes_storage", "let_in", "may_store"),
    [
        ("echo", "PROBE", False, True, False),
        ("echo", "PROBE", True, False, False),
        ("echo", "CT1", False, False, False),
        ("refuse", "PROBE", False, False, False),
        ("accept", "PROBE", True, True, True),
        ("accept", "PROBE", False, True, True),
    ],
)
def test_somebody_unknown_may_verify_and_stores_only_where_all_may(
    tmp_path, unknown: str, calling: str, proposes_storage: bool, let_in: bool, may_store: bool
):
    catalog, bell = Catalog(tmp_path / "catalog.db"), bells.Bell(tmp_path)
    doors = Doors(
        admission=Admission(
            ae_title="NODE",
            peers=(PEER,),
            accept_unknown=unknown == "accept",
            verify_unknown=unknown == "echo",
            min_free_bytes=0,
            quiet_s=1.0,
        ),
        journal=Journal(catalog, bell),
        clock=SystemClock(),
        wake=lambda: None,
    )
    asked = AssociationRequest(
        calling_ae=calling,
        called_ae="NODE",
        address="127.0.0.1",
        port=1,
        proposes_storage=proposes_storage,
    )
    verdict = doors.admit(asked)
    if let_in:
        assert not isinstance(verdict, Rejection)
        assert doors.may_store(verdict) is may_store
    else:
        assert verdict == CALLING_AE_UNKNOWN
    bell.close()
    catalog.close()
