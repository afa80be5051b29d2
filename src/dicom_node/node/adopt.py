"""A file of the spool that the catalog does not know, as the object that it holds."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.domain.errors import NotDicom
from dicom_node.domain.records import Attributes, Instance
from dicom_node.iod.checks import check_stored
from dicom_node.iod.header import read_attributes, transfer_syntax
from dicom_node.iod.provenance import claims_to_be_ours
from dicom_node.spool.store import Spool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One object in the spool. stored_at: UTC seconds. ours: it says that this software made it."""

    path: str
    size: int
    sha256: str
    stored_at: float
    transfer_syntax_uid: str
    attributes: Attributes
    ours: bool

    @property
    def uid(self) -> str:
        """Its SOP Instance UID."""
        return str(self.attributes["SOPInstanceUID"])

    @property
    def series_uid(self) -> str:
        """Its Series Instance UID."""
        return str(self.attributes["SeriesInstanceUID"])

    def instance(self, association: int, received_at: float | None = None) -> Instance:
        """As it was received; at the time of the file, if no better one is known."""
        return Instance(
            sop_instance_uid=self.uid,
            sop_class_uid=str(self.attributes["SOPClassUID"]),
            transfer_syntax_uid=self.transfer_syntax_uid,
            study_uid=str(self.attributes["StudyInstanceUID"]),
            series_uid=self.series_uid,
            path=self.path,
            size=self.size,
            sha256=self.sha256,
            association=association,
            received_at=self.stored_at if received_at is None else received_at,
            attributes=self.attributes,
        )


def look(spool: Spool, relative: str, *, recorded: bool = False) -> Found | str:
    """What a file holds, or why it is no object that the node can have stored.

    recorded: a catalog had it, so it was whole and durable then; else it is made durable, and all
    its bytes are read: it may have got its name, and no more, before the power went. Raises
    SpoolError where it cannot be read.
    """
    state = spool.look(relative)
    if state is None:
        return "it is gone"
    path = spool.path(relative)
    if not recorded:
        spool.settle(relative)
        if not spool.is_intact(relative):
            return "its bytes are not those that its name stands for"
    with spool.faults("read an object"):
        try:
            attributes = read_attributes(path)
            syntax = transfer_syntax(path)
            problem = check_stored(
                path,
                expected_class=str(attributes.get("SOPClassUID", "")),
                expected_instance=str(attributes.get("SOPInstanceUID", "")),
            )
        except NotDicom as error:
            return str(error)
    if problem is not None:
        return problem.comment
    return Found(
        path=relative,
        size=state[0],
        sha256=spool.sha256(relative),
        stored_at=state[1],
        transfer_syntax_uid=syntax,
        attributes=attributes,
        ours=claims_to_be_ours(attributes),
    )
