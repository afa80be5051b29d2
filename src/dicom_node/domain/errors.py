"""The tree of errors, by who is to blame.

NodeError
├── ConfigurationError   the operator's file; carries all mistakes at once
├── ObjectError          a received object: unreadable, inconsistent, not an image
│   ├── NotDicom         no data set in it
│   ├── PixelsUndecodable  the transfer syntax or the code stream cannot be decoded
│   │   └── DecoderEnded  decoding it ended the decoder, or took too much time
│   └── NotAVolume       the planes do not make a regular grid
├── ToolError            a model: failed run
│   └── ToolUnavailable  it cannot be loaded: missing weights, wrong digest, no such device
├── PeerError            another AE: unreachable, rejected, no common presentation context
├── SpoolError           the disk: full, failing, missing file
├── CatalogError         the catalog: locked, an illegal transition
│   └── CatalogDamaged   its file cannot be trusted: nothing more is written to it
└── AuditError           the audit trail: its disk, or the collector that it is sent to

Refusals and verdicts are values, not exceptions; these are for what a stage cannot go on with.
Every message is one sentence that says what to do or what is wrong, without patient data.
"""

from __future__ import annotations

from collections.abc import Sequence


class NodeError(Exception):
    """The root: `str()` of it is fit for the operator."""


class ConfigurationError(NodeError):
    """The configuration holds mistakes; `mistakes` lists every one, each with its path."""

    def __init__(self, mistakes: Sequence[str], source: str = "configuration") -> None:
        self.mistakes = tuple(mistakes)
        self.source = source
        super().__init__(f"{source}: " + "; ".join(self.mistakes))


class ObjectError(NodeError):
    """A received object cannot be used."""


class NotDicom(ObjectError):
    """The bytes are not a DICOM data set."""


class PixelsUndecodable(ObjectError):
    """The pixel data cannot be decoded."""


class DecoderEnded(PixelsUndecodable):
    """The decoder had to be ended, or died: another try would cost as much again."""


class NotAVolume(ObjectError):
    """The planes do not make a regular grid."""


class ToolError(NodeError):
    """A tool cannot be loaded, or failed.

    lost: with it the process lost its device, and only a fresh process can use that again.
    """

    def __init__(self, message: str, *, lost: bool = False) -> None:
        self.lost = lost
        super().__init__(message)


class ToolUnavailable(ToolError):
    """A tool cannot be loaded: that has nothing to do with the input, and can be mended."""


def is_lost(error: BaseException) -> bool:
    """Whether the process should end after this error, for a fresh one to begin."""
    return isinstance(error, ToolError) and error.lost


class PeerError(NodeError):
    """Another AE could not be reached or refused; `permanent` tells whether retrying is useless."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        self.permanent = permanent
        super().__init__(message)


class SpoolError(NodeError):
    """The disk under the spool refused; `full` tells whether for want of room."""

    def __init__(self, message: str, *, full: bool = False) -> None:
        self.full = full
        super().__init__(message)


class CatalogError(NodeError):
    """The catalog refused; `full` tells whether for want of room.

    unsure: what was to be committed is not there now, and might be after a crash.
    """

    def __init__(self, message: str, *, full: bool = False, unsure: bool = False) -> None:
        self.full = full
        self.unsure = unsure
        super().__init__(message)


class CatalogDamaged(CatalogError):
    """The catalog's file is damaged: only a rebuild helps."""


class AuditError(NodeError):
    """The audit trail cannot be written, or not be sent on."""
