"""The PACS for tests: it stores, counts, refuses, finds, moves and gives back."""

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import build_role, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from dicom_node.dimse.entity import Entity
from dicom_node.testing.pacs import LocalPacs, refuse_first, send_series
from dicom_node.testing.series import Header, Pixels, a_series


@pytest.fixture
def pacs(tmp_path):
    with LocalPacs(tmp_path / "pacs") as running:
        yield running


def send(pacs, objects, **settings):
    return send_series(("127.0.0.1", pacs.port), pacs.ae_title, objects, **settings)


def ask(pacs, context, **keys):
    """Open an association, and give it with the identifier made of `keys`."""
    ae = Entity(ae_title="ASKER")
    ae.add_requested_context(context)
    identifier = Dataset()
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    association = ae.associate("127.0.0.1", pacs.port, ae_title=pacs.ae_title)
    assert association.is_established
    return association, identifier


def find(pacs, **keys):
    association, identifier = ask(pacs, StudyRootQueryRetrieveInformationModelFind, **keys)
    answers = association.send_c_find(identifier, StudyRootQueryRetrieveInformationModelFind)
    found = [dataset for status, dataset in answers if status.Status == 0xFF00]
    association.release()
    return found


def test_what_is_sent_is_stored_once_and_unchanged(pacs):
    series = a_series(3)
    assert send(pacs, series) == [0, 0, 0]
    assert pacs.wait_for(3)
    assert set(pacs.stored_counts.values()) == {1}
    held = {d.SOPInstanceUID: d for d in pacs.datasets()}
    assert all(held[d.SOPInstanceUID] == d for d in series)


def test_a_repeated_instance_is_counted_again(pacs):
    series = a_series(2)
    send(pacs, series)
    send(pacs, series[:1], calling_ae="SECOND")
    assert pacs.stored_counts[series[0].SOPInstanceUID] == 2
    assert [a.times for a in pacs.attempts] == [1, 1, 2]
    assert pacs.attempts[-1].calling_ae == "SECOND"
    assert len(pacs.instances()) == 2


def test_compressed_objects_stay_compressed(pacs):
    rle = "1.2.840.10008.1.2.5"
    send(pacs, a_series(1, pixels=Pixels(transfer_syntax=rle)))
    assert pydicom.dcmread(pacs.instances()[0]).file_meta.TransferSyntaxUID == rle


def test_refused_instances_are_answered_and_not_kept(pacs):
    pacs.on_store = refuse_first(2, 0xA700)
    assert send(pacs, a_series(3)) == [0xA700, 0xA700, 0]
    assert len(pacs.instances()) == 1


def test_an_unwanted_caller_gets_no_association(pacs):
    pacs.admits = lambda calling: calling != "SENDER"
    with pytest.raises(ConnectionError):
        send(pacs, a_series(1))
    assert pacs.rejected == 1
    assert send(pacs, a_series(1), calling_ae="FRIEND") == [0]


def test_an_aborted_sender_leaves_what_it_sent(pacs):
    assert send(pacs, a_series(4), abort_after=2) == [0, 0]
    assert len(pacs.instances()) == 2


def test_studies_series_and_images_are_found_by_their_keys(pacs):
    send(pacs, a_series(3))
    other = Header(
        seed=1, patient_name="Other^Name", accession_number="ACC-1", study_date="20251231"
    )
    send(pacs, a_series(2, header=other))
    study = Header().study_uid
    assert len(find(pacs, QueryRetrieveLevel="STUDY", StudyInstanceUID="")) == 2
    (one,) = find(
        pacs,
        QueryRetrieveLevel="STUDY",
        PatientName="phantom*",
        StudyInstanceUID="",
        NumberOfStudyRelatedInstances="",
        ModalitiesInStudy="",
    )
    assert one.StudyInstanceUID == study
    assert one.NumberOfStudyRelatedInstances == 3
    assert one.ModalitiesInStudy == "CT"
    (old,) = find(
        pacs, QueryRetrieveLevel="STUDY", StudyDate="20251201-20260101", StudyInstanceUID=""
    )
    assert old.StudyInstanceUID == other.study_uid
    (series,) = find(
        pacs,
        QueryRetrieveLevel="SERIES",
        StudyInstanceUID=study,
        SeriesInstanceUID="",
        NumberOfSeriesRelatedInstances="",
    )
    assert series.NumberOfSeriesRelatedInstances == 3
    wanted = [d.SOPInstanceUID for d in a_series(3)][:2]
    images = find(
        pacs,
        QueryRetrieveLevel="IMAGE",
        StudyInstanceUID=study,
        SOPInstanceUID=wanted,
        InstanceNumber="",
    )
    assert sorted(i.SOPInstanceUID for i in images) == sorted(wanted)
    assert {i.InstanceNumber for i in images} == {1, 2}


def test_a_study_is_moved_to_a_known_destination_only(pacs, tmp_path):
    send(pacs, a_series(3))
    model = StudyRootQueryRetrieveInformationModelMove
    with LocalPacs(tmp_path / "other", ae_title="OTHER") as other:
        pacs.destinations["OTHER"] = ("127.0.0.1", other.port)
        association, identifier = ask(
            pacs, model, QueryRetrieveLevel="STUDY", StudyInstanceUID=Header().study_uid
        )
        statuses = [s.Status for s, _ in association.send_c_move(identifier, "OTHER", model)]
        unknown = [s.Status for s, _ in association.send_c_move(identifier, "NOBODY", model)]
        association.release()
        assert statuses[-1] == 0x0000
        assert unknown == [0xA801]
        assert set(other.stored_counts.values()) == {1}
        assert len(other.instances()) == 3


def test_a_study_can_be_got_over_the_same_association(pacs):
    send(pacs, a_series(3))
    got = []
    ae = Entity(ae_title="ASKER")
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelGet)
    ae.add_requested_context(CTImageStorage, "1.2.840.10008.1.2.1")
    association = ae.associate(
        "127.0.0.1",
        pacs.port,
        ae_title=pacs.ae_title,
        ext_neg=[build_role(CTImageStorage, scp_role=True)],
        evt_handlers=[
            (evt.EVT_C_STORE, lambda event: got.append(event.dataset.SOPInstanceUID) or 0)
        ],
    )
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.StudyInstanceUID = Header().study_uid
    identifier.SeriesInstanceUID = Header().series_uid
    model = StudyRootQueryRetrieveInformationModelGet
    statuses = [s.Status for s, _ in association.send_c_get(identifier, model)]
    association.release()
    assert statuses[-1] == 0
    assert sorted(got) == sorted(d.SOPInstanceUID for d in a_series(3))


def test_a_pacs_that_is_started_again_still_has_its_instances(tmp_path):
    with LocalPacs(tmp_path / "pacs") as first:
        send(first, a_series(2))
    with LocalPacs(tmp_path / "pacs") as second:
        assert len(find(second, QueryRetrieveLevel="STUDY", StudyInstanceUID="")) == 1
