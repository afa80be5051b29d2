"""Who is rejected for his user identity is recorded with the name that he gave, and no secret."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

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


@contextlib.contextmanager
def doors_of(folder: Path) -> Iterator[tuple[Doors, Catalog]]:
    catalog, bell = Catalog(folder / "catalog.db"), bells.Bell(folder)
    yield (
        Doors(
            admission=Admission(
                ae_title="NODE", peers=(PEER,), accept_unknown=False, min_free_bytes=0, quiet_s=1.0
            ),
            journal=Journal(catalog, bell),
            clock=SystemClock(),
            wake=lambda: None,
        ),
        catalog,
    )
    bell.close()
    catalog.close()


def a_request(identity: Identity | None) -> AssociationRequest:
    return AssociationRequest(
        calling_ae="CT1", called_ae="NODE", address="127.0.0.1", port=1, identity=identity
    )


def test_who_proved_to_be_the_user_stands_in_the_record_of_the_association(tmp_path):
    with doors_of(tmp_path) as (doors, _):
        number = doors.admit(a_request(Identity(kind=1, primary=b"ct-one")))

        (opened,) = doors.opening(number)

    assert opened.user == "ct-one"


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
    with doors_of(tmp_path) as (doors, catalog):
        assert doors.admit(a_request(identity)) == IDENTITY_REFUSED

        (rejected,) = (event for _, event in catalog.views.events_about("CT1"))
        assert isinstance(rejected, e.AssociationRejected)
        assert rejected.user == user
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("catalog.db*"))
    assert b"guessed" not in kept
    assert b"Kerberos" not in kept
