"""The PACS for tests against DCMTK, and the foreign programs as the fixtures start them."""

from __future__ import annotations

import pydicom
import pytest

from dicom_node.testing.pacs import LocalPacs, send_series
from dicom_node.testing.series import Header, Pixels, a_series, write_files

pytestmark = pytest.mark.peer


@pytest.fixture
def pacs(tmp_path):
    with LocalPacs(tmp_path / "pacs") as running:
        yield running


def uids(datasets):
    return sorted(d.SOPInstanceUID for d in datasets)


def test_dcmtk_echoes_and_stores_to_the_test_pacs(pacs, dcmtk, tmp_path):
    write_files(tmp_path / "ct", a_series(3))
    assert dcmtk("echoscu", "-aec", pacs.ae_title, "127.0.0.1", pacs.port).returncode == 0
    done = dcmtk("dcmsend", "-aec", pacs.ae_title, "+sd", "127.0.0.1", pacs.port, tmp_path / "ct")
    assert done.returncode == 0, done.stderr
    assert uids(pacs.datasets()) == uids(a_series(3))


def test_dcmtk_finds_and_moves_from_the_test_pacs(pacs, dcmtk, storescp):
    send_series(("127.0.0.1", pacs.port), pacs.ae_title, a_series(3))
    study = Header().study_uid
    port, folder = storescp()
    pacs.destinations["STORESCP"] = ("127.0.0.1", port)
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
    common = ["-S", "-aec", pacs.ae_title, *keys, "127.0.0.1", pacs.port]
    found = dcmtk("findscu", "-v", *common)
    assert study in found.stdout + found.stderr
    moved = dcmtk("movescu", "-aem", "STORESCP", *common)
    assert moved.returncode == 0, moved.stderr
    assert uids(pydicom.dcmread(p) for p in folder.iterdir()) == uids(a_series(3))


def test_a_refused_instance_is_seen_as_refused_by_dcmtk(pacs, dcmtk, tmp_path):
    paths = write_files(tmp_path / "ct", a_series(1))
    pacs.on_store = lambda _attempt: 0xA700
    done = dcmtk("storescu", "-aec", pacs.ae_title, "127.0.0.1", pacs.port, *paths)
    assert done.returncode == 0xA7  # storescu ends with the high byte of the status
    assert pacs.instances() == []


def test_orthanc_takes_the_objects_of_the_builders_and_gives_them_back(orthanc, pacs):
    series = [*a_series(2), *a_series(2, header=Header(series="other"))]
    sent = send_series(("127.0.0.1", orthanc.dicom_port), orthanc.ae_title, series)
    assert sent == [0] * 4
    orthanc.wait_for(4)
    assert {len(s["Instances"]) for s in orthanc.series()} == {2}
    orthanc.knows("test", pacs.ae_title, pacs.port)
    (study,) = orthanc.ask("/studies")
    orthanc.send(study, "test")
    assert uids(pacs.datasets()) == uids(series)


def test_every_test_begins_with_an_empty_orthanc(orthanc):
    assert orthanc.instances() == []
    assert orthanc.ask("/modalities") == []


def test_orthanc_answers_dicomweb_queries(orthanc):
    if not orthanc.dicomweb:
        pytest.skip("the DICOMweb plugin of Orthanc is not installed")
    send_series(("127.0.0.1", orthanc.dicom_port), orthanc.ae_title, a_series(1))
    (study,) = orthanc.ask("/dicom-web/studies")
    assert study["0020000D"]["Value"] == [Header().study_uid]


def test_dcmtk_reads_what_the_builders_compress(dcmtk, tmp_path):
    jpeg_ls = Pixels(
        transfer_syntax="1.2.840.10008.1.2.4.80", signed=False, bits_stored=12, intercept=-1024.0
    )
    (plain,) = a_series(1, pixels=Pixels(signed=False, bits_stored=12, intercept=-1024.0))
    (path,) = write_files(tmp_path / "ct", a_series(1, pixels=jpeg_ls))
    back = tmp_path / "back.dcm"
    done = dcmtk("dcmdjpls", path, back)
    assert done.returncode == 0, done.stderr
    assert pydicom.dcmread(back).PixelData == plain.PixelData
