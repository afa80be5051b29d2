"""Objects at a receiver without an association: stored through it, or as it would record them."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset

from dicom_node.dimse.contract import StoreAnswer, StoreRequest
from dicom_node.domain.records import Instance
from dicom_node.iod.header import read_attributes
from dicom_node.spool.store import Spool
from dicom_node.testing.series import file_of


def received(spool: Spool, dataset: Dataset, *, association: int, at: float) -> Instance:
    """Put an object into the spool: the record of it, as it would be committed."""
    stored = spool.put(file_of(dataset))
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


def store_through(
    receiver: Any, dataset: Dataset, *, association: int, calling_ae: str = "CT1"
) -> int:
    """One C-STORE, as the front would hand it to a receiver; the status."""
    sink = receiver.begin(
        StoreRequest(
            association=association,
            sop_class_uid=str(dataset.SOPClassUID),
            sop_instance_uid=str(dataset.SOPInstanceUID),
            transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
            message_id=1,
            calling_ae=calling_ae,
        )
    )
    if isinstance(sink, StoreAnswer):
        return sink.status
    sink.write([file_of(dataset)])
    answer: StoreAnswer = sink.finish()
    return answer.status
