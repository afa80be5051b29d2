"""Routes: which steps a Series gets, and the reason of each route that gave none."""

from __future__ import annotations

import pytest

from dicom_node.decide.geometry import Fault, Finding
from dicom_node.decide.match import parse
from dicom_node.decide.routing import Plan, Route, Sender, StepPlan, plan, resolve_sender
from dicom_node.domain.records import Peer
from dicom_node.domain.tool import Applicable, NotApplicable

CT = {"Modality": "CT", "BodyPartExamined": "CHEST"}
FROM_PACS = Sender(ae_title="PACS", address="10.0.0.5")


def a_peer(name: str = "pacs", ae_title: str = "PACS", host: str = "10.0.0.5", **more) -> Peer:
    return Peer(name=name, ae_title=ae_title, host=host, port=104, **more)


def a_route(name: str = "lungs", tool_id: str = "lung-unet", **more) -> Route:
    return Route(name=name, tool_id=tool_id, **more)


def planned(*routes: Route, **more) -> Plan:
    arguments = {
        "attributes": CT,
        "sender": FROM_PACS,
        "peers": [a_peer(), a_peer("archive", "ARCHIVE", "10.0.0.9")],
        "applicability": {"lung-unet": Applicable(), "fussy": NotApplicable("it wants MR")},
    }
    return plan(routes=routes, **(arguments | more))


def a_step(**more) -> StepPlan:
    values = {
        "route": "lungs",
        "tool_id": "lung-unet",
        "results": ("seg",),
        "destinations": ("pacs",),
        "priority": 0,
    }
    return StepPlan(**(values | more))


def test_a_route_that_matches_gives_a_step_with_the_sender_as_destination():
    assert planned(a_route()) == Plan(steps=(a_step(),))


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        (a_route(enabled=False), "it is not enabled"),
        (a_route(sources=("ct1", "CT2")), "the Series came from 'PACS', not from 'ct1', 'CT2'"),
        (a_route(when=parse('Modality == "MR"')), "Modality is 'CT', not 'MR'"),
        (a_route(tool_id="gone"), "its tool 'gone' is not there"),
        (a_route(tool_id="fussy"), "its tool 'fussy' declines: it wants MR"),
    ],
)
def test_a_route_that_does_not_match_gives_its_reason(route: Route, reason: str):
    assert planned(route) == Plan(reasons=(f"route 'lungs': {reason}",))


def test_a_series_that_no_route_takes_gets_the_reasons_of_all():
    result = planned(a_route("a", enabled=False), a_route("b", sources=("x",)))

    assert result.steps == ()
    assert [reason.split(":")[0] for reason in result.reasons] == ["route 'a'", "route 'b'"]


@pytest.mark.parametrize("source", ["*", "pacs", "PACS"])
def test_senders_are_named_by_peer_or_ae_title_or_any(source: str):
    assert planned(a_route(sources=("other", source))).steps == (a_step(),)


def test_own_results_are_never_processed():
    result = planned(a_route(), is_own_result=True)

    assert result == Plan(reasons=("the Series is a result of this node: no route takes it",))


def test_images_of_several_patients_go_nowhere():
    finding = Finding(code=Fault.PATIENTS, reason="the Series holds images of 2 patients")
    result = planned(a_route(), mixed=(finding,))

    assert result == Plan(reasons=("the Series holds images of 2 patients",))


def test_no_route_at_all_is_a_reason():
    assert planned() == Plan(reasons=("no route is configured: add [[route]]",))


def test_an_unknown_sender_is_told_with_what_to_add():
    result = planned(a_route(), sender=Sender(ae_title="CT1", address="10.0.0.5"))

    assert result == Plan(
        reasons=(
            "route 'lungs': nothing goes to the sender: 'CT1' at 10.0.0.5 is not a configured "
            "peer: add [[peer]] with its AE title, host and port",
        )
    )


def test_a_sender_that_takes_no_objects_is_told():
    result = planned(a_route(), peers=[a_peer(offers=frozenset({"query"}))])

    assert result == Plan(
        reasons=(
            "route 'lungs': nothing goes to the sender: the peer 'pacs' does not offer \"store\"",
        )
    )


def test_an_unknown_sender_does_not_keep_results_from_the_others():
    result = planned(
        a_route(destinations=("@sender", "archive")), sender=Sender(ae_title="CT1", address="x")
    )

    assert result.steps == (a_step(destinations=("archive",)),)
    assert len(result.reasons) == 1


def test_a_route_without_destinations_keeps_its_results_here():
    result = planned(a_route(destinations=()), sender=Sender(ae_title="CT1", address="x"))

    assert result == Plan(steps=(a_step(destinations=()),))


def test_each_destination_is_there_once():
    result = planned(a_route(destinations=("archive", "pacs", "@sender", "archive")))

    assert result.steps == (a_step(destinations=("archive", "pacs")),)


def test_routes_that_want_the_same_share_one_step():
    result = planned(a_route("a"), a_route("b", destinations=("archive", "@sender"), priority=5))

    assert result == Plan(
        steps=(a_step(route="a", destinations=("pacs", "archive"), priority=5),),
        reasons=("route 'b': it shares the step of route 'a'",),
    )


def test_routes_with_other_results_have_steps_of_their_own():
    result = planned(a_route("a"), a_route("b", results=("sr",)))

    assert [step.results for step in result.steps] == [("seg",), ("sr",)]


@pytest.mark.parametrize(
    ("peers", "address", "name"),
    [
        ([a_peer("a", host="10.0.0.5")], "10.0.0.5", "a"),
        ([a_peer("a", host="10.0.0.6")], "10.0.0.5", None),
        ([a_peer("a", host="pacs.local")], "10.0.0.5", "a"),
        ([a_peer("a", networks=("10.0.0.0/24",), host="pacs.local")], "10.0.0.5", "a"),
        ([a_peer("a", networks=("10.1.0.0/24",), host="10.0.0.5")], "10.0.0.5", None),
        ([a_peer("a", host="pacs.local"), a_peer("b", host="10.0.0.5")], "10.0.0.5", "b"),
        ([a_peer("a"), a_peer("b")], "10.0.0.5", "a"),
        ([a_peer("a", ae_title="OTHER")], "10.0.0.5", None),
        ([a_peer("a", host="10.0.0.5")], "::ffff:10.0.0.5", "a"),
        ([a_peer("a", networks=("2001:db8::/32",))], "2001:db8::1", "a"),
        ([a_peer("a", networks=("10.0.0.0/8",))], "2001:db8::1", None),
        ([a_peer("a", networks=("10.0.0.0/8",))], "not an address", None),
        ([a_peer("a", host="localhost")], "127.0.0.1", "a"),
        ([a_peer("a", host="localhost")], "::1", "a"),
        ([a_peer("a", host="localhost")], "10.0.0.5", None),
        ([], "10.0.0.5", None),
    ],
)
def test_the_sender_is_the_peer_with_its_title_at_its_address(
    peers: list[Peer], address: str, name: str | None
):
    found = resolve_sender(Sender(ae_title="PACS ", address=address), peers)

    assert (found.name if found else None) == name
