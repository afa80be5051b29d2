"""Orthanc's DICOMweb plug-in says how many instances it has of a series."""

import pytest

from dicom_node.testing.pacs import send_series
from dicom_node.testing.series import Header, a_series
from dicom_node.web.qido import Service, count_instances

pytestmark = pytest.mark.peer


def test_orthanc_is_asked_by_qido(orthanc):
    if not orthanc.dicomweb:
        pytest.skip("Orthanc's DICOMweb plug-in is not installed")
    series = a_series(7, header=Header(seed=77, series="qido"))
    send_series(("127.0.0.1", orthanc.dicom_port), orthanc.ae_title, series, calling_ae="CT1")
    service = Service(url=orthanc.dicomweb_url)
    uids = {"study_uid": series[0].StudyInstanceUID, "series_uid": series[0].SeriesInstanceUID}
    assert count_instances(service, **uids) == 7
    assert count_instances(service, **(uids | {"series_uid": "1.2.3"})) is None
