"""Over real DIMSE: what is done while a series arrives changes nothing of what comes back."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Callable, Sequence

import pytest

from dicom_node.dimse.entity import Entity
from dicom_node.testing.pacs import LocalPacs, send_series
from dicom_node.testing.phantom import chest_phantom
from dicom_node.testing.series import ct_series

SLICES = 16
ROUTE = """
[[route]]
name = "lungs"
when = 'Modality == "CT"'
tool = "small-unet"
results = ["seg"]
to = ["@sender"]
"""
WITHOUT = "[engine]\nahead_mib = 0\n"
FROM_PACS = {"called_ae": "DICOMNODE", "calling_ae": "TESTPACS"}


@pytest.fixture(scope="module")
def chest():
    volume, _ = chest_phantom(slices=SLICES, size=48, spacing_mm=(5.0, 8.0, 8.0))
    return ct_series(volume)


@pytest.fixture
def a_node(tmp_path, small_network, start_shared_here, build):
    """Starts a node with the small network, and a PACS of its own; the node and its PACS."""

    def begin(name: str, more: str = ""):
        folder = tmp_path / name
        small_network(folder / "models")
        pacs = start_shared_here(LocalPacs(folder / "pacs", ae_title="TESTPACS"))
        path = build.write_node(
            folder, peers=build.peer_table("pacs", "TESTPACS", pacs.port), routes=ROUTE, more=more
        )
        return start_shared_here(build.started(path)), pacs

    return begin


@pytest.fixture
def start_shared_here():
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture
def expected(a_node, chest):
    """The segmentation by a node that begins when the series is complete."""
    node, pacs = a_node("batch", WITHOUT)
    send_series(node.address, objects=chest, **FROM_PACS)
    assert pacs.wait_for(1, 120)
    (seg,) = pacs.datasets()
    assert seg.NumberOfFrames >= SLICES, "the network finds something"
    return seg


def send_one_by_one(address, objects: Sequence, between: Callable[[int], None]) -> None:
    """Over one association; between(n) is called when n were taken."""
    ae = Entity(ae_title="TESTPACS")
    ae.add_requested_context(objects[0].SOPClassUID, objects[0].file_meta.TransferSyntaxUID)
    association = ae.associate(*address, ae_title="DICOMNODE")
    assert association.is_established
    for number, dataset in enumerate(objects, start=1):
        assert association.send_c_store(dataset).Status == 0
        between(number)
    association.release()


def test_slices_at_random_each_twice_with_a_performer_killed_give_the_same(a_node, chest, expected):
    node, pacs = a_node("ahead")
    shuffled = random.Random(7).sample([*chest, *chest], 2 * SLICES)
    first = node.performer_pid()

    def between(number: int) -> None:
        if number == SLICES:
            os.kill(first, signal.SIGKILL)

    send_one_by_one(node.address, shuffled, between)
    assert pacs.wait_for(1, 120)
    (seg,) = pacs.datasets()
    assert seg == expected
    node.wait(lambda: "pacs has it" in node.why(chest[0].SeriesInstanceUID))
    assert list(pacs.stored_counts.values()) == [1]


def test_a_slice_too_late_gives_the_same_as_without(a_node, chest):
    made = []
    for name, more in (("batch", WITHOUT), ("ahead", "")):
        node, pacs = a_node(name, more)
        for count, part in ((1, chest[:-1]), (2, chest[-1:])):
            send_series(node.address, objects=part, **FROM_PACS)
            assert pacs.wait_for(count, 120)
        made.append({d.SOPInstanceUID: d for d in pacs.datasets()})
    assert made[0].keys() == made[1].keys()
    assert all(made[0][uid] == made[1][uid] for uid in made[0])
