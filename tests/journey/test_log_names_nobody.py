"""No name and no ID of a patient is ever in the operational log, at whatever level.

Whether an object is stored, refused, damaged, processed, delivered or asked for.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator

import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dicom_node.cli.main import main
from dicom_node.node import log
from dicom_node.testing.pacs import LocalPacs, send_series
from dicom_node.testing.series import Header, a_series

FROM_PACS = {"called_ae": "DICOMNODE", "calling_ae": "TESTPACS"}
SECRETS = ("Geheimrat", "Gustav", "PID-4711", "QUAIL", "19120304")
"""Of the names, IDs and birth dates of all who are sent here."""


def whose(seed: int, **more: object) -> Header:
    return Header(
        seed=seed,
        patient_name="Geheimrat^Gustav",
        patient_id=f"PID-4711-{seed}",
        patient_birth_date="19120304",
        extra={"OtherPatientNames": "QUAIL^ANNA", "PatientComments": "Gustav is PID-4711", **more},
    )


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """All that the node's handler writes, of any logger, at any level."""
    stream = io.StringIO()
    known = [logging.getLogger(name) for name in ("pynetdicom", "pydicom", "highdicom")]
    levels = [one.level for one in known]
    with log.configured(stream):
        logging.getLogger().setLevel(1)
        logging.getLogger("dicom_node").setLevel(1)
        for one in known:
            one.setLevel(1)
        yield stream.getvalue
        for one, level in zip(known, levels, strict=True):
            one.setLevel(level)


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["dicom-node", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def put(dataset: Dataset, tag: int, value: str) -> None:
    """What is no value of the element's VR."""
    dataset.add(DataElement(tag, "LO", value))


def damaged(seed: int) -> list[Dataset]:
    """Objects that are refused, each by another check, and some that are merely odd."""
    cut, odd, other, conflict = (a_series(2, header=whose(seed + n))[0] for n in range(4))
    cut.PixelData = cut.PixelData[:100]
    odd.file_meta.MediaStorageSOPInstanceUID = odd.SOPInstanceUID
    put(odd, 0x0020000D, "Geheimrat.Gustav")
    other.PatientName = "Geheimrat^Gustav\x1b[31m\r\nforged PID-4711"
    del other.PatientID
    other.NumberOfFrames = 3
    conflict.PatientID = "PID-4711\\PID-4711-2"
    return [cut, odd, other, conflict]


def test_whatever_happens_to_whoever_the_log_names_nobody(
    start_node, build, logged, monkeypatch, capsys, tmp_path, pacs: LocalPacs
):
    peers = build.peer_table("pacs", "TESTPACS", pacs.port) + (
        'offers = ["store", "query", "retrieve"]\n'
    )
    node = start_node(peers=peers, more='[audit]\nfile = "audit.log"')
    good = a_series(6, header=whose(1))
    uid = good[0].SeriesInstanceUID
    assert set(send_series(node.address, objects=good, **FROM_PACS)) == {0}
    again = a_series(6, header=whose(1))[0]
    again.PatientName = "Geheimrat^Gustav^again"  # same UID, other bytes
    statuses = send_series(node.address, objects=[again, *damaged(10)], **FROM_PACS)
    assert sum(status != 0 for status in statuses) >= 3, statuses
    gapped = a_series(8, header=whose(2))
    del gapped[3]
    for one in gapped:
        put(one, 0x00180050, "Gustav")  # Slice Thickness
    send_series(node.address, objects=gapped, **FROM_PACS)
    pacs.on_store = lambda _attempt: 0xA900
    refused = a_series(6, header=whose(3))
    send_series(node.address, objects=refused, abort_after=6, **FROM_PACS)
    with pytest.raises(ConnectionError):
        send_series(node.address, "DICOMNODE", good, calling_ae="STRANGER")
    node.wait(lambda: "pacs has it" in node.why(uid) or "PARKED" in node.why(uid))
    node.wait(lambda: "PARKED" in node.why(refused[0].SeriesInstanceUID))
    node.wait(lambda: "INCOMPLETE" in node.story(gapped[0].SeriesInstanceUID).verdict.upper())
    pacs.on_store = lambda _attempt: 0
    options = ("--config", node.config_path)
    study = good[0].StudyInstanceUID
    assert send_series(("127.0.0.1", pacs.port), "TESTPACS", good) == [0] * 6
    assert command(monkeypatch, "find", "pacs", "--patient", "PID-4711-1", *options) == 0
    assert "Geheimrat" in capsys.readouterr().out, "whoever asked is told"
    command(monkeypatch, "move", "pacs", "--study", study, *options)
    command(monkeypatch, "get", "pacs", "--study", study, "--out", tmp_path / "out", *options)
    printed = capsys.readouterr()
    node.stop()

    text = logged()
    performers = (node.folder / "performers.log").read_text("utf-8", "replace")
    assert uid in text, "the log was written"
    assert "refused" in text
    for place in (text, performers, printed.err):
        assert [secret for secret in SECRETS if secret.lower() in place.lower()] == []
    trail = (node.folder / "audit.log").read_text("utf-8")
    assert "Geheimrat" in trail, "the audit trail is another matter"
    assert "\x1b" not in trail + text
