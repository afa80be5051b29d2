"""Who is let in, as tables: title, address, certificate, user; and how much a peer may send."""

from __future__ import annotations

import pytest

from dicom_node.decide import expiry
from dicom_node.decide.admission import (
    Caller,
    Stranger,
    identified,
    is_named,
    is_pinned,
    subject_of,
    subject_text,
    whom,
)
from dicom_node.decide.quota import Allowance, Quota, is_crowded, one_more
from dicom_node.domain.records import Peer
from dicom_node.domain.security import Certificate, Identity

CT = Certificate(sha256="ab" * 32, subject=(("O", "Hospital"), ("CN", "ct1")))
MR = Certificate(sha256="cd" * 32, subject=(("O", "Hospital"), ("CN", "mr1")))
BY_DIGEST, BY_NAME = ("sha256:" + "ab" * 32,), ("subject:CN=ct1",)


def a_peer(**more: object) -> Peer:
    return Peer(name="ct", ae_title="CT1", host="10.0.0.5", port=104, **more)


def verdict(peer: Peer, *, accept_unknown: bool = False, **caller: object) -> str:
    known = {"ae_title": "CT1", "address": "10.0.0.5"} | caller
    found = whom(Caller(**known), [peer], accept_unknown=accept_unknown)
    if isinstance(found, Stranger):
        return found.reason
    return "unknown" if found is None else "let in"


@pytest.mark.parametrize("certificates", [BY_DIGEST, BY_NAME, (*BY_DIGEST, "subject:CN=x")])
def test_all_that_is_configured_of_a_peer_must_match(certificates: tuple[str, ...]) -> None:
    peer = a_peer(certificates=certificates)
    good = {"over_tls": True, "certificate": CT}
    assert verdict(peer, **good) == "let in"
    assert "AE title at this address" in verdict(peer, **good, address="10.0.0.6")
    assert "AE title at this address" in verdict(peer, **good, ae_title="CT2")
    assert "its certificate is not that of" in verdict(peer, over_tls=True, certificate=MR)
    assert "this one showed none" in verdict(peer, over_tls=True)
    assert "this is not TLS" in verdict(peer)


def test_a_peer_without_certificates_may_call_either_way() -> None:
    assert verdict(a_peer()) == "let in"
    assert verdict(a_peer(), over_tls=True, certificate=MR) == "let in"


def test_unknown_callers_are_let_in_where_that_is_so_and_never_as_a_peer() -> None:
    peer = a_peer(certificates=BY_NAME)
    assert verdict(peer, accept_unknown=True, ae_title="OTHER") == "unknown"
    assert (
        verdict(peer, accept_unknown=True) == "the peer ct has a certificate, and this is not TLS"
    )


@pytest.mark.parametrize(
    ("name", "subject", "fits"),
    [
        ("CN=ct1", (("CN", "ct1"),), True),
        ("cn = ct1 , O=Hospital", (("O", "Hospital"), ("CN", "ct1")), True),
        ("CN=ct1,O=Other", (("O", "Hospital"), ("CN", "ct1")), False),
        ("CN=ct1", (("CN", "ct11"),), False),
        ("CN=ct1", (("CN", "ct1\0.evil"),), False),
        ("CN=ct1", (("CN", "evil"), ("CN", "ct1")), False),  # neither of two will do
        ("CN=ct1", (("CN", "ct1"), ("CN", "evil")), False),
        ("CN=CT1", (("CN", "ct1"),), False),
        ("OU=a,OU=b", (("OU", "a"), ("OU", "b")), True),
        ("CN=Doe\\, John", (("CN", "Doe, John"),), True),
        ("CN=ct1", (), False),
    ],
)
def test_a_subject_names_a_certificate(name: str, subject, fits: bool) -> None:
    assert is_named(f"subject:{name}", Certificate(sha256="00" * 32, subject=subject)) is fits


@pytest.mark.parametrize("text", ["", "ct1", "CN=", "CN=a,", "=a", "CN=a;O=b,,", "CN=a,b"])
def test_what_is_no_subject_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a subject is written as CN=name"):
        subject_of(text)


def test_a_subject_is_read_as_it_is_written() -> None:
    subject = (("O", "Doe, Roe \\ Co"), ("CN", "ct1"))
    assert subject_of(subject_text(subject)) == subject


def test_a_peer_is_pinned_if_fingerprints_are_all_there_is() -> None:
    assert is_pinned(a_peer(certificates=BY_DIGEST))
    assert not is_pinned(a_peer(certificates=(*BY_DIGEST, *BY_NAME)))
    assert not is_pinned(a_peer())


NAMED, PROVEN = {"user": "ct"}, {"user": "ct", "passcode": "env:CT"}
RIGHT = Identity(kind=2, primary=b"ct", secondary=b"s3cret")


@pytest.mark.parametrize(
    ("peer", "identity", "over_tls", "reason"),
    [
        ({}, Identity(kind=4, primary=b"<saml/>"), False, None),  # nobody asked
        ({}, None, False, None),
        (NAMED, Identity(kind=1, primary=b"ct"), False, None),
        (NAMED, Identity(kind=1, primary=b"mr"), True, "is not that of the peer"),
        (NAMED, None, True, "it gives no user identity"),
        (NAMED, RIGHT, True, "of type 2, not 1"),
        (PROVEN, RIGHT, True, None),
        (PROVEN, RIGHT, False, "a passcode counts only over TLS"),
        (PROVEN, Identity(kind=2, primary=b"ct", secondary=b"other"), True, "is not that"),
        (PROVEN, Identity(kind=2, primary=b"mr", secondary=b"s3cret"), True, "is not that"),
        (PROVEN, Identity(kind=1, primary=b"ct"), True, "of type 1, not 2"),
        (PROVEN, Identity(kind=3, primary=b"ticket"), True, "of type 3, not 2"),
        (PROVEN, None, True, "it gives no user identity"),
    ],
)
def test_a_user_is_judged_where_one_is_demanded(
    peer: dict, identity: Identity | None, over_tls: bool, reason: str | None
) -> None:
    caller = Caller(ae_title="CT1", address="10.0.0.5", over_tls=over_tls, identity=identity)
    found = identified(a_peer(**peer), caller, "s3cret" if "passcode" in peer else "")
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert reason in found.reason


def test_an_empty_passcode_proves_nothing() -> None:
    nothing = Identity(kind=2, primary=b"ct", secondary=b"")
    caller = Caller(ae_title="CT1", address="10.0.0.5", over_tls=True, identity=nothing)
    assert identified(a_peer(**PROVEN), caller, "") is not None


def taken(quota: Quota, times: list[float]) -> list[bool]:
    allowance, answers = Allowance(), []
    for now in times:
        allowance, may = one_more(allowance, quota, now)
        answers.append(may)
    return answers


def test_so_many_objects_a_minute_may_come_at_once_or_spread() -> None:
    quota = Quota(per_minute=3)
    assert taken(quota, [100.0] * 5) == [True] * 3 + [False] * 2
    assert taken(quota, [100.0, 100.0, 100.0, 100.0, 119.0, 121.0, 121.0]) == [
        *(True, True, True),  # the minute's worth
        *(False, False),
        *(True, False),  # a third of a minute later
    ]
    assert all(taken(quota, [20.0 * n for n in range(50)]))
    assert taken(quota, [0.0] * 3 + [3600.0] * 4) == [True] * 6 + [False]  # no more than a minute's
    assert all(taken(Quota(), [0.0] * 1000))


def test_a_clock_that_is_set_back_neither_gives_nor_takes() -> None:
    assert taken(Quota(per_minute=2), [100.0, 50.0, 50.0, 50.0, 80.0]) == [
        *(True, True, False, False, True),
    ]


def test_one_object_alone_is_never_too_much_in_flight() -> None:
    quota = Quota(in_flight_bytes=100)
    assert not is_crowded(quota, 1, 1_000_000)
    assert not is_crowded(quota, 2, 100)
    assert is_crowded(quota, 2, 101)
    assert not is_crowded(Quota(), 64, 1 << 40)


DAY = 86400.0


def test_an_end_is_told_once_a_day_from_so_many_days_before() -> None:
    assert not expiry.is_due(31 * DAY, 0.0, 30, None)
    assert expiry.is_due(30 * DAY, 0.0, 30, None)
    assert not expiry.is_due(30 * DAY, DAY / 2, 30, 0.0)
    assert expiry.is_due(30 * DAY, DAY, 30, 0.0)
    assert expiry.is_due(-DAY, 0.0, 0, None)
    assert not expiry.is_due(DAY, 0.0, 0, None)
    assert expiry.words(12.9 * DAY, 0.0) == "expires in 12 days"
    assert expiry.words(0.5 * DAY, 0.0) == "expires today"
    assert expiry.words(0.0, 1.0) == "has expired"
