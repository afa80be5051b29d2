"""Who is rejected for his user identity is recorded with the name that he gave, and no secret."""

from __future__ import annotations

import pytest

from dicom_node.catalog import Catalog
from dicom_node.dimse.contract import AssociationRequest
from dicom_node.dimse.status import IDENTITY_REFUSED
from dicom_node.domain import events as e
from dicom_node.domain.records import Peer
from dicom_node.domain.security import Identity
from dicom_node.node import bell as bells
from dicom_node.node.admit import Admission, Doors
from dicom_node.node.clock import SystemClock
from dicom_node.node.journal import Journal

PEER = Peer(name="ct", ae_title="CT1", host="127.0.0.1", port=104, user="ct-one")


@pytest.mark.parametrize(
    ("identity", "user"),
    [
        (None, ""),
        (Identity(kind=1, primary=b"mallory\x1b\n"), "mallory\\x1b\\n"),
        (Identity(kind=2, primary=b"mallory", secondary=b"guessed"), "mallory"),
        (Identity(kind=3, primary=b"a ticket of Kerberos"), ""),
        (Identity(kind=1, primary=b"x" * 60_000), "x" * 64),
    ],
)
def test_the_name_is_told_and_the_secret_is_not(tmp_path, identity: Identity | None, user: str):
    catalog, bell = Catalog(tmp_path / "catalog.db"), bells.Bell(tmp_path)
    doors = Doors(
        admission=Admission(
            ae_title="NODE", peers=(PEER,), accept_unknown=False, min_free_bytes=0, quiet_s=1.0
        ),
        journal=Journal(catalog, bell),
        clock=SystemClock(),
        wake=lambda: None,
    )
    asked = AssociationRequest(
        calling_ae="CT1", called_ae="NODE", address="127.0.0.1", port=1, identity=identity
    )

    assert doors.admit(asked) == IDENTITY_REFUSED

    (rejected,) = (event for _, event in catalog.views.events_about("CT1"))
    assert isinstance(rejected, e.AssociationRejected)
    assert rejected.user == user
    bell.close()
    catalog.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("catalog.db*"))
    assert b"guessed" not in kept
    assert b"Kerberos" not in kept
