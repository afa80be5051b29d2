"""Is another image to be expected of a Series that is being received, or have they paused."""

from __future__ import annotations

from dicom_node.domain.records import Arriving

_SHORTEST_S = 0.5  # no image for so long: none may come, even where the association stays open
_PATIENCE = 4  # times the usual time between two images


def awaited_until(series: Arriving) -> float | None:
    """When it is no image's turn any more, if they go on coming as they did.

    None where nothing is awaited: every association that brought images has ended.
    """
    if not series.is_open:
        return None
    usual_s = (series.last_at - series.first_at) / max(series.instances - 1, 1)
    return series.last_at + max(_SHORTEST_S, _PATIENCE * usual_s)
