"""When the content of a result was made: as its sources say, so every run says the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from dicom_node.domain.records import Attributes

_PAIRS = (
    ("ContentDate", "ContentTime"),
    ("AcquisitionDate", "AcquisitionTime"),
    ("SeriesDate", "SeriesTime"),
    ("StudyDate", "StudyTime"),
)
_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")  # with dots: ACR-NEMA (PS3.5 §6.2, DA)
_TIME = re.compile(r"(\d{2}):?(\d{2})?:?(\d{2})?(?:\.(\d{1,6}))?")
UNKNOWN = datetime(1900, 1, 1)  # noqa: DTZ001  # DICOM dates are local, without a zone


def content_moment(sources: Sequence[Attributes]) -> datetime:
    """The latest moment that the sources name, by the best attribute that any of them has.

    Local time of the scanner, without a zone, as the source wrote it (PS3.3 C.12.1.1.1). UNKNOWN
    where no source has a date.
    """
    for date, time in _PAIRS:
        moments = [m for m in (_moment(s.get(date), s.get(time)) for s in sources) if m is not None]
        if moments:
            return max(moments)
    return UNKNOWN


def _moment(date: object, time: object) -> datetime | None:
    day = _DATE.fullmatch(str(date or "").strip())
    if day is None:
        return None
    clock = _TIME.fullmatch(str(time or "").strip())
    hour, minute, second, fraction = clock.groups() if clock else (None, None, None, None)
    try:
        return datetime(  # noqa: DTZ001
            int(day[1]),
            int(day[2]),
            int(day[3]),
            int(hour or 0),
            int(minute or 0),
            min(int(second or 0), 59),  # 60 is a leap second
            int((fraction or "0").ljust(6, "0")),
        )
    except ValueError:
        return None
