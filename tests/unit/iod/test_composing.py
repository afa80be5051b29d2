"""What every object has in common: above all that what a reader must see is never cut off."""

from __future__ import annotations

import pytest

from dicom_node.iod.composing import LO, NOT_CLINICAL, titled
from dicom_node.iod.replacing import Replacement, mark_of

EARLIER = Replacement(kind="seg", sop_instance_uid="2.25.5", series_uid="2.25.6")


@pytest.mark.parametrize("research_use", [True, False])
@pytest.mark.parametrize("replaces", [(), (EARLIER,)])
@pytest.mark.parametrize("name", ["Lung U-Net", "Lungs of adults on CT, by a distilled U-Net " * 2])
def test_a_name_that_is_too_long_is_cut_and_never_its_mark(name, replaces, research_use) -> None:
    title = titled(name, mark=mark_of(replaces, doubtful=True), research_use=research_use)
    assert len(title) <= LO
    assert title.startswith(name[:10])
    assert ", DOUBTFUL" in title
    assert title.endswith(f" - {NOT_CLINICAL}") == research_use
    assert ("replaces earlier" in title) == bool(replaces)


def test_of_a_result_without_doubt_that_replaces_nothing_the_name_is_all() -> None:
    assert titled("Lung U-Net", mark=mark_of(()), research_use=False) == "Lung U-Net"
