"""What a receiver makes of an object, without an association: its file and its record."""

from __future__ import annotations

from io import BytesIO

from pydicom.dataset import Dataset

from dicom_node.domain.records import Instance
from dicom_node.iod.header import read_attributes
from dicom_node.spool.store import Spool


def received(spool: Spool, dataset: Dataset, *, association: int, at: float) -> Instance:
    """Put an object into the spool: the record of it, as it would be committed."""
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    stored = spool.put(file.getvalue())
    header = read_attributes(spool.path(stored.path))
    return Instance(
        sop_instance_uid=str(header["SOPInstanceUID"]),
        sop_class_uid=str(header["SOPClassUID"]),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        study_uid=str(header["StudyInstanceUID"]),
        series_uid=str(header["SeriesInstanceUID"]),
        path=stored.path,
        size=stored.size,
        sha256=stored.sha256,
        association=association,
        received_at=at,
        attributes=header,
    )
