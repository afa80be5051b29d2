"""The sender of the fault tests: it counts what is acknowledged, and sends again what is not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset

from dicom_node.dimse.entity import Entity
from dicom_node.testing.series import Header, a_series

SLICES = 8


def new_series(seed: str, number: int, *, counted: bool = True, **header: Any) -> list[Dataset]:
    """Eight slices; counted: that say that they are eight. UIDs follow from seed and number."""
    extra = {"ImagesInAcquisition": SLICES} if counted else {}
    described = Header(study=seed, series=str(number), extra=extra, **header)
    return a_series(SLICES, size=64, spacing_mm=(5.0, 4.0, 4.0), header=described)


@dataclass
class Sent:
    """One Series, and what the node said to it."""

    datasets: Sequence[Dataset]
    acknowledged: set[str] = field(default_factory=set)
    refused: list[int] = field(default_factory=list)

    @property
    def uid(self) -> str:
        return str(self.datasets[0].SeriesInstanceUID)

    def owed(self) -> list[Dataset]:
        """What to send now: all that was not acknowledged, else the last once more.

        A sender that did not live to see its association released sends something again; without
        that the node would rightly wait for more, as long as its quiet time is.
        """
        missing = [d for d in self.datasets if d.SOPInstanceUID not in self.acknowledged]
        return missing or [self.datasets[-1]]


def send(address: tuple[str, int], sent: Sent, *, pause_s: float = 0.0) -> None:
    """C-STORE what is owed over one association, counting what is acknowledged; stops at a cut."""
    ae = Entity(ae_title="TESTPACS")
    ae.connection_timeout, ae.acse_timeout = 5, 30
    ae.dimse_timeout = ae.network_timeout = 60
    first = sent.datasets[0]
    ae.add_requested_context(first.SOPClassUID, first.file_meta.TransferSyntaxUID)
    association = ae.associate(*address, ae_title="DICOMNODE")
    try:
        for dataset in sent.owed():
            answer = association.send_c_store(dataset)
            if "Status" not in answer:
                return
            if answer.Status == 0:
                sent.acknowledged.add(str(dataset.SOPInstanceUID))
            else:
                sent.refused.append(int(answer.Status))
            time.sleep(pause_s)
        association.release()
    except RuntimeError:  # there was no association, or it was cut between two objects
        return
