"""What a site decides about segmentation objects; apart from iod.seg, which is slow to import."""

from __future__ import annotations

from dataclasses import dataclass

DEVICE_SERIAL_NUMBER = "1"
"""Device Serial Number (0018,1000) is required of enhanced objects (PS3.3 C.7.5.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegSettings:
    """What the site decides about a segmentation object.

    series_number_offset is added to the source's Series Number. omit_empty_frames: leave out the
    frames without a voxel, which most viewers read well; False for those that do not.
    """

    series_number_offset: int = 3000
    manufacturer: str = "dicom-node"
    research_use: bool = True
    omit_empty_frames: bool = True
