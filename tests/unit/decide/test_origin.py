"""Who counts as the sender of a Series that came from several: a table of situations."""

from __future__ import annotations

import pytest

from dicom_node.decide.origin import origin
from dicom_node.domain.records import Association, Peer

PACS = Peer(name="pacs", ae_title="PACS1", host="10.0.0.1", port=104)
OTHER = Peer(name="other", ae_title="OTHER", host="10.0.0.2", port=104)
FARM = Peer(name="farm", ae_title="CT", host="ct", port=104, networks=("10.9.0.0/16",))
PEERS = (PACS, OTHER, FARM)


def opened(number, title, address):
    return Association(
        number=number, calling_ae=title, called_ae="NODE", address=address, opened_at=float(number)
    )


FROM_PACS, FROM_OTHER, AGAIN, STRANGER = (
    opened(1, "PACS1", "10.0.0.1"),
    opened(2, "OTHER", "10.0.0.2"),
    opened(3, "PACS1", "10.0.0.1"),
    opened(4, "STRANGER", "10.0.0.9"),
)
CT_A, CT_B = opened(5, "CT", "10.9.0.1"), opened(6, "CT", "10.9.0.2")


@pytest.mark.parametrize(
    ("what", "associations", "brought", "number", "reason"),
    [
        ("one sender", [FROM_PACS], {1: 8}, 1, ""),
        ("a repetition brings nothing", [FROM_PACS, FROM_OTHER], {1: 8}, 1, ""),
        (
            "most of them",
            [FROM_PACS, FROM_OTHER],
            {1: 6, 2: 2},
            1,
            "pacs counts as its sender: it brought 6 of 8 instances, other 2",
        ),
        (
            "of equals the latest",
            [FROM_PACS, FROM_OTHER],
            {1: 4, 2: 4},
            2,
            "other counts as its sender: it brought 4 of 8 instances, pacs 4",
        ),
        (
            "over several associations",
            [FROM_PACS, FROM_OTHER, AGAIN],
            {1: 3, 2: 4, 3: 3},
            3,
            "pacs counts as its sender: it brought 6 of 10 instances, other 4",
        ),
        (
            "its last association repeats what it brought",
            [FROM_PACS, FROM_OTHER, AGAIN],
            {1: 8, 2: 1},
            1,
            "pacs counts as its sender: it brought 8 of 9 instances, other 1",
        ),
        (
            "who is not configured",
            [FROM_PACS, STRANGER],
            {1: 1, 4: 7},
            4,
            "STRANGER counts as its sender: it brought 7 of 8 instances, pacs 1",
        ),
        ("many machines behind one peer", [CT_A, CT_B], {5: 3, 6: 5}, 6, ""),
        ("nobody brought anything that is known", [FROM_PACS, FROM_OTHER], {}, 2, ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_sender_is_who_brought_most(what, associations, brought, number, reason):
    found = origin(associations, brought, PEERS)
    assert found.association.number == number, what
    assert found.reason == reason, what
    assert found.sender.ae_title == found.association.calling_ae
    assert found.sender.address == found.association.address


def test_the_peer_comes_with_it():
    assert origin([FROM_PACS, FROM_OTHER], {1: 8}, PEERS).peer == PACS
    assert origin([STRANGER], {4: 1}, PEERS).peer is None


def test_a_stranger_with_the_name_of_a_peer_is_not_that_peer():
    stranger = opened(7, "pacs", "10.0.0.9")
    found = origin([FROM_PACS, stranger], {1: 8, 7: 1}, PEERS)
    assert (found.association.number, found.peer) == (1, PACS)
