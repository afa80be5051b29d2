"""A rejection note and a result that replaces another: each names what it is about."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pydicom
import pytest

from dicom_node.domain.tool import AlgorithmIdentity
from dicom_node.iod.identity import result_uids
from dicom_node.iod.rejection import Rejection, encode_rejection, rejection_uids
from dicom_node.iod.seg_settings import SegSettings
from dicom_node.testing.series import a_series, write_files

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
WHO = AlgorithmIdentity(tool_id="lung-unet", name="Lung U-Net", version="1.2.0", digest="ab" * 32)
NOTE = Rejection(
    series_uid="2.25.6", rejected=((SEG, "2.25.5"), (SEG, "2.25.4")), replaced_by="2.25.7"
)


@pytest.fixture
def source(tmp_path):
    return write_files(tmp_path, a_series(1))[0]


def note_of(source, rejection=NOTE):
    return encode_rejection(rejection, of_study=source, tool=WHO, settings=SegSettings())


def test_the_note_has_the_title_of_a_rejection_and_names_each_instance(source):
    note = pydicom.dcmread(BytesIO(note_of(source)))
    assert note.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.59"
    title = note.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113001", "DCM")
    (study,) = note.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert study.StudyInstanceUID == note.StudyInstanceUID
    assert series.SeriesInstanceUID == "2.25.6"
    listed = [r.ReferencedSOPInstanceUID for r in series.ReferencedSOPSequence]
    shown = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in note.ContentSequence
        if item.ValueType == "IMAGE"
    ]
    assert listed == shown == ["2.25.5", "2.25.4"]
    assert "2.25.7" in note.ContentSequence[0].TextValue


def test_the_note_is_in_the_study_of_the_source_with_its_patient(source):
    note, of = pydicom.dcmread(BytesIO(note_of(source))), pydicom.dcmread(source)
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber", "StudyDate"):
        assert note[keyword].value == of[keyword].value


def test_the_same_rejection_gives_the_same_note(source):
    assert note_of(source) == note_of(source)
    settings = SegSettings()
    uids = rejection_uids(NOTE, WHO, settings)
    turned = replace(NOTE, rejected=NOTE.rejected[::-1])
    assert rejection_uids(turned, WHO, settings) == uids
    others = [
        rejection_uids(replace(NOTE, rejected=NOTE.rejected[:1]), WHO, settings),
        rejection_uids(replace(NOTE, replaced_by="2.25.8"), WHO, settings),
        rejection_uids(NOTE, replace(WHO, version="1.3.0"), settings),
        rejection_uids(NOTE, WHO, SegSettings(manufacturer="Others")),
    ]
    assert len({uids, *others}) == 5


def test_uids_depend_on_what_is_replaced_and_on_nothing_where_nothing_is():
    made_of = {
        "tool_id": "t", "tool_version": "1", "digest": "d", "kind": "segmentation", "manner": "",
    }  # fmt: skip
    plain = result_uids([("1.2", "aa")], **made_of)
    assert plain == result_uids([("1.2", "aa")], **made_of, replaces=())
    one = result_uids([("1.2", "aa")], **made_of, replaces=("2.25.1", "2.25.2"))
    assert one == result_uids([("1.2", "aa")], **made_of, replaces=("2.25.2", "2.25.1"))
    assert len({plain, one, result_uids([("1.2", "aa")], **made_of, replaces=("2.25.1",))}) == 3
    assert np.unique([len(uid) <= 64 for uid in one]).tolist() == [True]
