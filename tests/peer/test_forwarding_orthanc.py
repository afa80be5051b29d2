"""The script of docker/orthanc makes a real Orthanc send each CT series to the node, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.testing.pacs import LocalPacs, send_series
from dicom_node.testing.series import Header, a_series

pytestmark = pytest.mark.peer

SCRIPT = Path(__file__).parents[2] / "docker" / "orthanc" / "forward.lua"


def test_a_stable_ct_series_is_forwarded_and_another_modality_stays(start_orthanc, tmp_path):
    orthanc = start_orthanc(LuaScripts=[str(SCRIPT)], StableAge=1)
    with LocalPacs(tmp_path / "node", ae_title="DICOMNODE") as node:
        orthanc.knows("dicom-node", "DICOMNODE", node.port)
        other = a_series(2, header=Header(series="other", extra={"Modality": "MR"}))
        to = ("127.0.0.1", orthanc.dicom_port)
        send_series(to, orthanc.ae_title, [*other, *a_series(3)])
        assert node.wait_for(3, 60.0)
        assert sorted(node.stored_counts.elements()) == sorted(
            d.SOPInstanceUID for d in a_series(3)
        )
