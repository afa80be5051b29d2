"""The SCP's answer when the node behind it fails: the one place that catches everything."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import TypeVar

from dicom_node.dimse.contract import StoreAnswer
from dicom_node.dimse.status import OUT_OF_RESOURCES, PROCESSING_FAILURE
from dicom_node.domain.errors import NodeError, SpoolError

_log = logging.getLogger(__name__)
T = TypeVar("T")


def asked(question: Callable[[], T]) -> T | StoreAnswer:
    """Ask the node; whatever it raises becomes a failure status, and the association lives on."""
    try:
        return question()
    except NodeError as error:
        _log.error("the receiver failed: %s", error)
        if isinstance(error, SpoolError) and error.full:
            return StoreAnswer(status=OUT_OF_RESOURCES, comment="no room to store")
    except Exception as error:  # noqa: BLE001 - one of four places: a peer gets an answer, always
        # Neither text nor locals: an exception of a decoder may quote patient data.
        place = traceback.extract_tb(error.__traceback__)[-1]
        kind = type(error).__name__
        _log.error("the receiver failed: %s at %s:%s", kind, place.filename, place.lineno)
    return StoreAnswer(status=PROCESSING_FAILURE, comment="internal failure")
