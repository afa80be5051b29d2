"""Storage Commitment over real DIMSE, in both roles: what was sent is proven, what is asked for is
promised."""

from __future__ import annotations

import itertools

import pytest

from dicom_node.domain import keeping as k
from dicom_node.testing.commitment import (
    Commitment,
    Reported,
    send_commitment_request,
    send_report,
)
from dicom_node.testing.pacs import LocalPacs, send_series
from dicom_node.testing.series import Header, a_series

CT = "1.2.840.10008.5.1.4.1.1.2"
FROM_PACS = {"called_ae": "DICOMNODE", "calling_ae": "TESTPACS"}


def peer(pacs, *, offers, may='["store"]'):
    return f"""
[[peer]]
name = "pacs"
ae_title = "{pacs.ae_title}"
host = "127.0.0.1"
port = {pacs.port}
may = {may}
offers = {offers}
"""


def proof(report_s=60.0, listed_s=0.1, **more):
    lines = [f"proof_after_s = 0.05\nreport_s = {report_s}\nlisted_s = {listed_s}"]
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in more.items())])


COMMITS = '["store", "commit"]'
QUERIES = '["store", "query"]'
BOTH = '["store", "commit", "query"]'
MAY_COMMIT = '["store", "commit"]'
KEPT = "no route takes it"
ROUTE = """
[[route]]
name = "lungs"
when = 'SeriesDescription != "no route takes it"'
tool = "lung-threshold"
to = ["@sender"]
"""


def deliveries(node, series):
    views = node.running.catalog.views
    uid = series[0].SeriesInstanceUID
    return [d for r in views.results(uid) for d in views.deliveries(r.sop_instance_uid)]


def states(node, series):
    return {str(d.state) for d in deliveries(node, series)}


@pytest.fixture
def pacs(tmp_path):
    """A PACS that commits, however it is told to later on."""
    with LocalPacs(tmp_path / "pacs", commitment=Commitment()) as running:
        yield running


@pytest.fixture
def committing(start_node, pacs):
    """committing(commitment, offers=, **keys) -> node, series: sent, and its result delivered."""

    def begin(commitment, offers=COMMITS, **keys):
        pacs.commitment = commitment
        node = start_node(peers=peer(pacs, offers=offers), more=proof(**keys))
        pacs.destinations["DICOMNODE"] = node.address
        series = a_series(4)
        send_series(node.address, objects=series, **FROM_PACS)
        return node, series

    return begin


@pytest.fixture(scope="module")
def one_node(start_shared, tmp_path_factory):
    """A node and its PACS, for all tests that need neither another node nor a new start."""
    folder = tmp_path_factory.mktemp("pacs")
    with LocalPacs(folder, commitment=Commitment()) as pacs:
        peers = peer(pacs, offers=COMMITS, may=MAY_COMMIT)
        node = start_shared(peers=peers, more=proof(report_s=600.0), routes=ROUTE)
        pacs.destinations["DICOMNODE"] = node.address
        yield node, pacs


@pytest.fixture
def shared(one_node):
    """That node and its PACS, which remembers nothing of the test before."""
    _, pacs = one_node
    for remembered in (pacs.asked, pacs.reports_sent, pacs.reports_received, pacs.attempts):
        remembered.clear()
    return one_node


@pytest.fixture
def sent(shared, request):
    """sent(commitment) -> node, PACS, series: sent to that node, of a study of this test."""
    node, pacs = shared

    def begin(commitment):
        pacs.commitment = commitment
        series = a_series(4, header=Header(study=request.node.name))
        send_series(node.address, objects=series, **FROM_PACS)
        return node, pacs, series

    return begin


@pytest.fixture
def kept(shared, request):
    """kept(count) -> node, PACS, series: stored in that node, and no route takes it."""
    node, pacs = shared

    def begin(count):
        series = a_series(count, header=Header(study=request.node.name, series_description=KEPT))
        send_series(node.address, objects=series, **FROM_PACS)
        return node, pacs, series

    return begin


@pytest.mark.parametrize("way", ["same", "new"])
def test_a_pacs_that_commits_is_proof(sent, way):
    node, pacs, series = sent(Commitment(way=way))
    node.wait(lambda: states(node, series) == {"COMMITTED"})
    assert pacs.wait_until(lambda: pacs.reports_sent)
    (asked,) = pacs.asked
    (report,) = pacs.reports_sent
    assert asked.references == report.committed
    assert report.status == 0
    assert "has committed to keep it" in node.why(series[0].SeriesInstanceUID)


def test_a_pacs_that_never_reports_is_asked_what_it_lists(committing, pacs):
    node, series = committing(Commitment(way="never"), BOTH, report_s=0.3)
    node.wait(lambda: states(node, series) == {"VERIFIED"})
    assert len(pacs.asked) == 1


def test_a_pacs_that_refuses_to_commit_is_asked_what_it_lists(committing, pacs):
    node, series = committing(Commitment(status=0x0110), BOTH)
    node.wait(lambda: states(node, series) == {"VERIFIED"})
    assert {asked.status for asked in pacs.asked} == {0x0110}
    assert pacs.queries


def test_without_any_report_the_proof_is_missed_and_a_late_one_still_counts(committing, pacs):
    node, series = committing(Commitment(way="never"), report_s=0.3, give_up_days=0.00002)
    node.wait(lambda: states(node, series) == {"UNCONFIRMED"})
    assert "without proof" in node.why(series[0].SeriesInstanceUID)
    asked = pacs.asked[0]  # the first of several
    assert report_back(node, asked, committed=asked.references) == 0
    assert states(node, series) == {"COMMITTED"}


def report_back(node, asked, *, committed=(), failed=(), transaction_uid=""):
    report = Reported(
        transaction_uid=transaction_uid or asked.transaction_uid,
        committed=committed,
        failed=failed,
        event_type=2 if failed else 1,
        status=None,
        ae_title="TESTPACS",
    )
    return send_report("TESTPACS", ("DICOMNODE", *node.address), report)


def test_what_the_pacs_has_lost_is_sent_again_until_it_keeps_it(committing, pacs):
    lost = itertools.chain([0x0112, 0x0110], itertools.repeat(None))
    node, series = committing(Commitment(way="new", fails=lambda _uid: next(lost)))
    node.wait(lambda: states(node, series) == {"COMMITTED"})
    assert [a.times for a in pacs.attempts] == [1, 2, 3]
    assert len({a.transaction_uid for a in pacs.asked}) == 3


def test_what_is_sent_again_in_vain_is_parked(committing, pacs):
    node, series = committing(Commitment(way="new", fails=lambda _uid: 0x0112), resend_max=1)
    node.wait(lambda: states(node, series) == {"PARKED"})
    assert len(pacs.attempts) == 2
    assert "sent 2 times in vain" in node.why(series[0].SeriesInstanceUID)


def test_a_refusal_to_keep_waits_for_a_person(sent):
    node, pacs, series = sent(Commitment(way="new", fails=lambda _uid: 0x0122))
    node.wait(lambda: states(node, series) == {"PARKED"})
    assert "0x0122 (SOP Class not supported)" in node.why(series[0].SeriesInstanceUID)
    assert len(pacs.attempts) == 1


def test_a_report_after_a_restart_is_known(committing, start_node, pacs):
    node, series = committing(Commitment(way="never"))
    node.wait(lambda: pacs.asked)
    node = start_node(peers=peer(pacs, offers=COMMITS), more=proof())
    asked = pacs.asked[0]
    assert report_back(node, asked, committed=asked.references) == 0
    assert states(node, series) == {"COMMITTED"}
    assert len(pacs.asked) == 1, "and nothing was asked twice"


def test_a_report_on_a_transaction_that_nobody_asked_for_is_refused_and_recorded(sent):
    node, pacs, series = sent(Commitment(way="never"))
    node.wait(lambda: pacs.asked)
    asked = pacs.asked[0]
    status = report_back(node, asked, committed=asked.references, transaction_uid="1.2.3.4")
    assert status == 0x0115
    told = node.running.catalog.views.events_about("1.2.3.4")
    assert [type(event) for _, event in told] == [k.CommitmentReported]
    assert states(node, series) == {"SENT"}


def test_only_who_was_asked_can_report(committing, pacs, tmp_path, start_node):
    node, series = committing(Commitment(way="never"))
    node.wait(lambda: pacs.asked)
    with LocalPacs(tmp_path / "other", ae_title="OTHER") as other:
        both = peer(pacs, offers=COMMITS) + peer(other, offers=COMMITS).replace('"pacs"', '"b"')
        node = start_node(peers=both, more=proof())
        asked = pacs.asked[0]
        report = Reported(
            transaction_uid=asked.transaction_uid,
            committed=asked.references,
            failed=(),
            event_type=1,
            status=None,
            ae_title="OTHER",
        )
        assert send_report("OTHER", ("DICOMNODE", *node.address), report) == 0x0115
    assert states(node, series) == {"SENT"}


def test_who_only_uses_the_title_of_who_was_asked_cannot_report(committing, pacs, start_node):
    node, series = committing(Commitment(way="never"))
    node.wait(lambda: pacs.asked)
    elsewhere = peer(pacs, offers=COMMITS) + 'networks = ["10.1.2.3"]\n'
    node = start_node(peers=elsewhere, more=proof(), receive='unknown_peers = "accept"')
    assert report_back(node, pacs.asked[0], committed=pacs.asked[0].references) == 0x0115
    assert states(node, series) == {"SENT"}


def test_a_pacs_without_commitment_is_asked_what_it_lists(start_node, pacs):
    node = start_node(peers=peer(pacs, offers=QUERIES), more=proof())
    series = a_series(4)
    send_series(node.address, objects=series, **FROM_PACS)
    node.wait(lambda: states(node, series) == {"VERIFIED"})
    assert "lists it" in node.why(series[0].SeriesInstanceUID)


def test_what_a_pacs_does_not_list_is_sent_again(start_node, pacs):
    forgotten: list[str] = []

    def forget_the_first(attempt):
        if attempt.number == 1:
            forgotten.append(attempt.sop_instance_uid)
            return 0xA9FF if attempt.times > 1 else 0
        forgotten.clear()
        return 0

    pacs.on_store = forget_the_first
    found = pacs._chosen
    pacs._chosen = lambda identifier: [
        header for header in found(identifier) if header.SOPInstanceUID not in forgotten
    ]
    node = start_node(peers=peer(pacs, offers=QUERIES), more=proof())
    series = a_series(4)
    send_series(node.address, objects=series, **FROM_PACS)
    node.wait(lambda: states(node, series) == {"VERIFIED"})
    assert [a.times for a in pacs.attempts] == [1, 2]


def test_a_pacs_that_offers_no_proof_has_what_it_answered_with_success(start_node, pacs):
    node = start_node(peers=peer(pacs, offers='["store"]'), more=proof())
    series = a_series(4)
    send_series(node.address, objects=series, **FROM_PACS)
    node.wait(lambda: states(node, series) == {"SENT"})
    assert not pacs.asked
    assert not pacs.queries


# --- as provider


def references(series):
    return [(CT, d.SOPInstanceUID) for d in series]


def test_what_is_stored_here_is_promised_to_who_asks(kept):
    node, pacs, series = kept(4)
    asked = [
        *references(series[:3]),
        (CT, "1.2.3"),
        ("1.2.840.10008.5.1.4.1.1.4", series[3].SOPInstanceUID),
    ]
    status = send_commitment_request(
        node.address, "DICOMNODE", asked, "2.25.77", calling_ae="TESTPACS"
    )
    assert status == 0
    assert pacs.wait_until(lambda: pacs.reports_received)
    (report,) = pacs.reports_received
    assert set(report.committed) == set(references(series[:3]))
    assert {(uid, reason) for _, uid, reason in report.failed} == {
        ("1.2.3", 0x0112),
        (series[3].SOPInstanceUID, 0x0119),
    }
    known = node.running.catalog.views.series(series[0].SeriesInstanceUID)
    assert known.promised_at is not None
    assert any("was promised" in line.text for line in node.story(known.series_uid).lines)


def test_a_file_that_is_gone_is_not_promised(kept):
    node, pacs, series = kept(2)
    known = node.running.catalog.views.instance(series[0].SOPInstanceUID)
    (node.folder / "var" / "spool" / known.path).unlink()
    send_commitment_request(
        node.address, "DICOMNODE", references(series), "2.25.78", calling_ae="TESTPACS"
    )
    assert pacs.wait_until(lambda: pacs.reports_received)
    (report,) = pacs.reports_received
    assert [(uid, reason) for _, uid, reason in report.failed] == [
        (series[0].SOPInstanceUID, 0x0112)
    ]


def test_a_promise_outlives_a_restart_and_a_pacs_that_is_away(start_node, pacs):
    peers = peer(pacs, offers='["store"]', may=MAY_COMMIT)
    node = start_node(peers=peers, routes="")
    series = a_series(2)
    send_series(node.address, objects=series, **FROM_PACS)
    pacs.admits = lambda _calling: False
    send_commitment_request(
        node.address, "DICOMNODE", references(series), "2.25.79", calling_ae="TESTPACS"
    )
    keeping = node.running.catalog.keeping
    node.wait(lambda: keeping.promise("2.25.79", "pacs").attempt)
    pacs.admits = lambda _calling: True
    node = start_node(peers=peers, routes="")
    assert pacs.wait_until(lambda: pacs.reports_received)
    assert set(pacs.reports_received[0].committed) == set(references(series))


def test_a_request_that_comes_twice_is_reported_twice_and_another_under_its_uid_refused(kept):
    node, pacs, series = kept(2)

    def ask(some):
        return send_commitment_request(
            node.address, "DICOMNODE", references(some), "2.25.80", calling_ae="TESTPACS"
        )

    assert ask(series) == 0
    assert pacs.wait_until(lambda: len(pacs.reports_received) == 1)
    node.wait(lambda: node.running.catalog.keeping.promise("2.25.80", "pacs").due_at is None)
    assert ask(series) == 0
    assert pacs.wait_until(lambda: len(pacs.reports_received) == 2)
    assert ask(series[:1]) == 0x0115


def test_who_may_not_ask_is_told_so(start_node, pacs):
    node = start_node(peers=peer(pacs, offers='["store"]'), routes="")
    status = send_commitment_request(
        node.address, "DICOMNODE", [(CT, "1.2.3")], "2.25.81", calling_ae="TESTPACS"
    )
    assert status == 0x0124
