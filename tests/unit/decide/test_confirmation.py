"""What follows from a peer's word: as tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicom_node.decide import retry
from dicom_node.decide.confirmation import (
    Ask,
    Policy,
    Reply,
    after_listing,
    after_report,
    after_request,
    ask_of,
    given_up,
    ways,
)
from dicom_node.domain.records import Delivery
from dicom_node.domain.states import DELIVERY_TRANSITIONS, DeliveryState

S = DeliveryState
POLICY = Policy(
    back_off=retry.Policy(first_s=10, factor=2, max_s=1000, give_up_s=86400, jitter=0),
    listed_within_s=100,
    report_within_s=3600,
    resend_max=2,
)
BOTH, COMMIT, QUERY = {"store", "commit", "query"}, {"commit"}, {"query"}


def sent(state=S.SENT, **fields):
    fields = {"transaction_uid": "2.25.7", **fields}
    return Delivery(
        delivery_id=1,
        result_uid="2.25.1",
        destination="pacs",
        state=state,
        attempt=1,
        created_at=0.0,
        due_at=0.0,
        sent_at=1000.0,
        **fields,
    )


@pytest.mark.parametrize(
    ("offers", "asked", "now"),
    [
        (BOTH, "", Ask.COMMIT),
        (QUERY, "", Ask.QUERY),
        ({"store"}, "", None),
        (BOTH, "query", Ask.QUERY),
        (COMMIT, "query", Ask.COMMIT),  # no longer offered
        ({"store"}, "commit", None),
    ],
)
def test_a_peer_is_asked_for_the_best_that_it_offers(offers, asked, now):
    assert ask_of(sent(ask=asked), offers) is now
    assert bool(ways(offers)) is (now is not None)


@pytest.mark.parametrize(
    ("reply", "offers", "tries", "state", "due_at", "ask", "tries_then"),
    [
        (Reply.ACCEPTED, BOTH, 3, S.SENT, 1010 + 3600, "query", 0),
        (Reply.ACCEPTED, COMMIT, 0, S.SENT, 1010 + 3600, "commit", 0),
        (Reply.REFUSED, BOTH, 0, S.SENT, 1010, "query", 0),
        (Reply.REFUSED, COMMIT, 0, S.SENT, 1020, "commit", 1),
        (Reply.UNHEARD, BOTH, 0, S.SENT, 1020, "commit", 1),
        (Reply.UNHEARD, BOTH, 2, S.SENT, 1050, "commit", 3),
    ],
)
def test_after_a_request_for_commitment(reply, offers, tries, state, due_at, ask, tries_then):
    then = after_request(sent(tries=tries), reply, offers, POLICY, 1010, 0.0, "words")
    assert (then.state, then.due_at, then.ask, then.tries) == (state, due_at, ask, tries_then)


@pytest.mark.parametrize(
    ("listed", "now", "returns", "state", "due_at"),
    [
        (True, 1005, 0, S.VERIFIED, 1005),
        (False, 1005, 0, S.SENT, 1015),  # it may take its time
        (False, 1100, 0, S.DEFERRED, 1110),
        (False, 1100, 1, S.DEFERRED, 1120),
        (False, 1100, 2, S.PARKED, 1100),  # resend_max
        (None, 1100, 0, S.SENT, 1110),
        (None, 1000 + 86400, 0, S.UNCONFIRMED, 1000 + 86400),
    ],
)
def test_after_a_query(listed, now, returns, state, due_at):
    then = after_listing(sent(returns=returns), listed, POLICY, now, 0.0, "no answer")
    assert (then.state, then.due_at) == (state, due_at)


@pytest.mark.parametrize(
    ("ask", "tries", "now", "over"),
    [
        ("", 0, 1000 + 86400, False),  # not asked yet
        ("commit", 0, 1000 + 86399, False),
        ("commit", 0, 1000 + 86400, True),  # accepted again and again, and never reported on
        ("query", 0, 1000 + 86400, False),  # no report came: now the query
        ("query", 1, 1000 + 86400, True),
    ],
)
def test_questions_come_to_an_end(ask, tries, now, over):
    then = given_up(sent(ask=ask, tries=tries), POLICY, now)
    assert (then is not None) is over
    assert then is None or then.state is S.UNCONFIRMED


ANY_OTHER = "2.25.8"


@pytest.mark.parametrize(
    ("state", "transaction", "failure", "then"),
    [
        (S.SENT, "2.25.7", None, S.COMMITTED),
        (S.SENT, ANY_OTHER, None, S.COMMITTED),  # an earlier promise is a promise
        (S.VERIFIED, "2.25.7", None, S.COMMITTED),
        (S.UNCONFIRMED, "2.25.7", None, S.COMMITTED),
        (S.DEFERRED, "2.25.7", None, S.COMMITTED),
        (S.PARKED, "2.25.7", None, S.COMMITTED),
        (S.DEAD, "2.25.7", None, S.COMMITTED),
        (S.SENDING, "2.25.7", None, None),
        (S.QUEUED, "2.25.7", None, None),
        (S.COMMITTED, "2.25.7", None, None),
        (S.WITHDRAWN, "2.25.7", None, None),
        (S.SENT, "2.25.7", 0x0112, S.DEFERRED),
        (S.SENT, "2.25.7", 0x0110, S.DEFERRED),
        (S.SENT, "2.25.7", 0x0213, S.DEFERRED),
        (S.SENT, "2.25.7", 0x0131, S.SENT),  # asked again, under another Transaction UID
        (S.SENT, "2.25.7", 0x0122, S.PARKED),
        (S.SENT, "2.25.7", 0x0119, S.PARKED),
        (S.SENT, ANY_OTHER, 0x0112, None),  # it has been sent again since
        (S.UNCONFIRMED, "2.25.7", 0x0112, S.DEFERRED),
        (S.UNCONFIRMED, "2.25.7", 0x0131, None),
        (S.VERIFIED, "2.25.7", 0x0112, S.DEFERRED),
        (S.VERIFIED, "2.25.7", 0x0122, None),  # it lists it, and does not promise
        (S.COMMITTED, "2.25.7", 0x0112, None),
        (S.DEFERRED, "2.25.7", 0x0112, None),
    ],
)
def test_after_a_report(state, transaction, failure, then):
    found = after_report(sent(state), transaction, failure, POLICY, 1005, 0.0, "words")
    assert (None if found is None else found.state) is then


def test_whatever_follows_is_a_legal_transition():
    for state in S:
        for failure in (None, 0x0110, 0x0112, 0x0119, 0x0122, 0x0131, 0x0213):
            for returns in (0, 2):
                delivery = sent(state, returns=returns)
                then = after_report(delivery, "2.25.7", failure, POLICY, 1e6, 0.0)
                if then is not None and then.state is not state:
                    assert then.state in DELIVERY_TRANSITIONS[state]


def test_a_peer_that_never_has_what_it_was_sent_is_for_a_person_to_look_at():
    then = after_report(sent(returns=2), "2.25.7", 0x0112, POLICY, 1005, 0.0, "no such object")
    assert then is not None
    assert (then.state, "3 times" in then.reason, "no such object" in then.reason) == (
        S.PARKED,
        True,
        True,
    )


def test_while_the_clock_is_doubted_no_proof_is_given_up():
    waiting = sent(ask="commit", tries=3)
    doubting = replace(POLICY, back_off=replace(POLICY.back_off, doubted_until=1e9))
    assert given_up(waiting, POLICY, 1e8) is not None
    assert given_up(waiting, doubting, 1e8) is None
    then = after_request(waiting, Reply.UNHEARD, BOTH, doubting, 1e8, 0.0, "away")
    assert then.state is S.SENT
