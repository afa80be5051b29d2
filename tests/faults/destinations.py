"""Where results go in the fault tests, and what each destination was given, byte for byte."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from dicom_node.testing.pacs import LocalPacs


def data_set_digest(file: bytes) -> str:
    """SHA-256 of a Part 10 file behind its File Meta Information (PS3.10 §7.1); "" for another."""
    if file[128:132] != b"DICM":
        return ""
    return hashlib.sha256(file[144 + int.from_bytes(file[140:144], "little") :]).hexdigest()


def digest_of(dataset: Dataset) -> str:
    """SHA-256 of the data set as a sender encodes it."""
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return data_set_digest(stream.getvalue())


class Destination(Protocol):
    """Where results go: SOP Instance UID -> digests of every data set that came under it."""

    port: int

    def received(self) -> Mapping[str, set[str]]: ...

    def source_series(self, sop_instance_uid: str) -> str: ...


class WatchfulPacs(LocalPacs):
    """The test PACS, with the digest of every object that it was ever given."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.given: dict[str, set[str]] = {}

    def _store(self, event: Any) -> int:
        data = event.request.DataSet.getvalue()
        status = super()._store(event)
        if status == 0:
            with self._changed:
                uid = str(event.request.AffectedSOPInstanceUID)
                self.given.setdefault(uid, set()).add(hashlib.sha256(data).hexdigest())
        return status

    def received(self) -> Mapping[str, set[str]]:
        with self._changed:
            return {uid: set(digests) for uid, digests in self.given.items()}

    def source_series(self, sop_instance_uid: str) -> str:
        return source_series_of(pydicom.dcmread(self.path_of(sop_instance_uid)))


class Files:
    """A destination that is known by the files that it keeps: DCMTK's storescp."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port, self._folder = port, folder
        self._series: dict[str, str] = {}

    def files(self) -> Iterator[bytes]:
        for path in self._folder.iterdir():
            yield path.read_bytes()

    def received(self) -> Mapping[str, set[str]]:
        known: dict[str, set[str]] = {}
        for file in self.files():
            try:
                result = pydicom.dcmread(io.BytesIO(file))
                self._series[str(result.SOPInstanceUID)] = source_series_of(result)
            except (InvalidDicomError, AttributeError, EOFError):
                continue  # it is still being written
            known.setdefault(str(result.SOPInstanceUID), set()).add(data_set_digest(file))
        return known

    def source_series(self, sop_instance_uid: str) -> str:
        return self._series[sop_instance_uid]


class OrthancFiles(Files):
    """What an Orthanc keeps."""

    def __init__(self, orthanc: Any) -> None:
        super().__init__(orthanc.dicom_port, Path())
        self._orthanc = orthanc
        self._known: dict[str, bytes] = {}

    def files(self) -> Iterator[bytes]:
        for name in self._orthanc.instances():
            if name not in self._known:
                self._known[name] = self._orthanc.file(name)
            yield self._known[name]


def source_series_of(result: Dataset) -> str:
    """The Series that a segmentation was made from."""
    return str(result.ReferencedSeriesSequence[0].SeriesInstanceUID)
