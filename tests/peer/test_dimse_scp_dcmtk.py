"""DCMTK's and Orthanc's senders against our SCP: every data set whole, in the syntax it came in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.dimse import status
from dicom_node.dimse.contract import Limits
from dicom_node.testing.series import Pixels, a_series, write_files

pytestmark = pytest.mark.peer

UNSIGNED = Pixels(signed=False, bits_stored=12, intercept=-1024.0)
COMPRESSED = {  # how DCMTK makes it, how storescu proposes it
    "1.2.840.10008.1.2.4.70": ("dcmcjpeg", "-xs"),
    "1.2.840.10008.1.2.4.80": ("dcmcjpls", "-xt"),
    "1.2.840.10008.1.2.5": ("dcmcrle", "-xr"),
}


def kept(spool_receiver) -> dict[str, tuple[str, bytes]]:
    """SOP Instance UID -> transfer syntax and pixel data of what the SCP stored."""
    files = [dcmread(spool_receiver.spool.path(s.path)) for _, s in spool_receiver.stored]
    return {f.SOPInstanceUID: (f.file_meta.TransferSyntaxUID, f.PixelData) for f in files}


def held(paths: list[Path]) -> dict[str, tuple[str, bytes]]:
    files = [dcmread(path) for path in paths]
    return {f.SOPInstanceUID: (f.file_meta.TransferSyntaxUID, f.PixelData) for f in files}


def test_echoscu_is_answered(storage_scp: Callable, spool_receiver, dcmtk: Callable) -> None:
    done = dcmtk("echoscu", "-aet", "PEER", "-aec", "DICOMNODE", "127.0.0.1", storage_scp().port)
    assert done.returncode == 0, done.stderr
    assert spool_receiver.wait(lambda: len(spool_receiver.echoes) == 1)
    assert spool_receiver.echoes[0].calling_ae == "PEER"


@pytest.mark.parametrize("max_pdu", [4096, 131072])
@pytest.mark.parametrize("sender", ["storescu", "dcmsend"])
def test_uncompressed_series_are_stored_whole(
    storage_scp: Callable,
    spool_receiver,
    dcmtk: Callable,
    tmp_path: Path,
    sender: str,
    max_pdu: int,
) -> None:
    paths = write_files(tmp_path / "ct", a_series(8))
    port = storage_scp(limits=Limits(pdu_bytes=max_pdu)).port
    done = dcmtk(sender, "-aec", "DICOMNODE", "127.0.0.1", port, *paths)
    assert done.returncode == 0, done.stderr
    assert kept(spool_receiver) == held(paths)
    assert spool_receiver.wait(lambda: spool_receiver.endings == {1: "released"})


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_compressed_objects_are_stored_as_they_came(
    storage_scp: Callable, spool_receiver, dcmtk: Callable, tmp_path: Path, syntax: str
) -> None:
    encoder, option = COMPRESSED[syntax]
    plain = write_files(tmp_path / "plain", a_series(3, pixels=UNSIGNED))
    packed = [tmp_path / f"{number}.dcm" for number in range(len(plain))]
    for source, target in zip(plain, packed, strict=True):
        done = dcmtk(encoder, source, target)
        assert done.returncode == 0, done.stderr
    done = dcmtk("storescu", option, "-aec", "DICOMNODE", "127.0.0.1", storage_scp().port, *packed)
    assert done.returncode == 0, done.stderr
    assert {value[0] for value in kept(spool_receiver).values()} == {syntax}
    assert kept(spool_receiver) == held(packed)


def test_implicit_vr_is_kept_implicit(
    storage_scp: Callable, spool_receiver, dcmtk: Callable, tmp_path: Path
) -> None:
    paths = write_files(tmp_path / "ct", a_series(2))
    done = dcmtk("storescu", "-xi", "-aec", "DICOMNODE", "127.0.0.1", storage_scp().port, *paths)
    assert done.returncode == 0, done.stderr
    assert {syntax for syntax, _ in kept(spool_receiver).values()} == {"1.2.840.10008.1.2"}
    assert {uid: pixels for uid, (_, pixels) in kept(spool_receiver).items()} == {
        uid: pixels for uid, (_, pixels) in held(paths).items()
    }


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (status.CALLED_AE_UNKNOWN, "Called AE Title Not Recognized"),
        (status.CALLING_AE_UNKNOWN, "Calling AE Title Not Recognized"),
        (status.LOCAL_LIMIT_EXCEEDED, "Local Limit Exceeded"),
    ],
    ids=["called", "calling", "limit"],
)
def test_dcmtk_understands_why_it_is_rejected(
    storage_scp: Callable, spool_receiver, dcmtk: Callable, verdict: object, words: str
) -> None:
    spool_receiver.verdict = verdict
    done = dcmtk("echoscu", "127.0.0.1", storage_scp().port)
    assert done.returncode != 0
    assert words in done.stderr + done.stdout


def test_storescu_that_aborts_leaves_what_was_acknowledged(
    storage_scp: Callable, spool_receiver, dcmtk: Callable, tmp_path: Path
) -> None:
    paths = write_files(tmp_path / "ct", a_series(2))
    done = dcmtk(
        "storescu", "--abort", "-aec", "DICOMNODE", "127.0.0.1", storage_scp().port, *paths
    )
    assert done.returncode == 0, done.stderr
    assert spool_receiver.wait(lambda: spool_receiver.endings == {1: "aborted"})
    assert kept(spool_receiver) == held(paths)


def test_orthanc_echoes_and_stores_to_us(
    storage_scp: Callable, spool_receiver, orthanc, dcmtk: Callable, tmp_path: Path
) -> None:
    paths = write_files(tmp_path / "ct", a_series(4))
    done = dcmtk("storescu", "-aec", orthanc.ae_title, "127.0.0.1", orthanc.dicom_port, *paths)
    assert done.returncode == 0, done.stderr
    orthanc.wait_for(4)
    orthanc.knows("node", "DICOMNODE", storage_scp().port)
    orthanc.ask("/modalities/node/echo", {})
    (study,) = orthanc.ask("/studies")
    orthanc.send(study, "node")
    assert kept(spool_receiver) == held(paths)
