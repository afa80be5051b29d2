"""Slices become a Volume in Hounsfield units, in patient coordinates, or a reason."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from dicom_node.decide.geometry import Fault
from dicom_node.domain.errors import NotAVolume, NotDicom, PixelsUndecodable
from dicom_node.domain.volume import Volume
from dicom_node.iod.code_stream import CODECS
from dicom_node.iod.image import AIR_HU, Reading, read_headers, read_volume
from dicom_node.iod.pixels import find_picture
from dicom_node.testing.series import (
    PADDED,
    STORED_AS,
    UNSIGNED_12,
    Header,
    Pixels,
    a_series,
    ct_series,
    moved,
    turned,
    write_files,
    write_series,
)

RLE, J2K, JPEG_LS = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80"
DCMCJPEG = Path("/usr/bin/dcmcjpeg")
IMPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"


@pytest.fixture
def body() -> Volume:
    """Random HU on a grid with three different spacings and sizes."""
    rng = np.random.default_rng(1)
    affine = np.array(
        [[0.0, 0.0, 0.7, -100.0], [0.0, 0.9, 0.0, -90.5], [2.5, 0.0, 0.0, 30.25], [0, 0, 0, 1]]
    )
    voxels = rng.integers(-1024, 3000, (6, 34, 42), dtype=np.int16)
    return Volume(voxels_zyx=voxels, affine_lps_mm=affine)


def same_bodies(one: Volume, other: Volume) -> None:
    """Equal voxels at equal places, slice 0 lowest along the normal in `one`."""
    normal = np.cross(one.affine_lps_mm[:3, 2], one.affine_lps_mm[:3, 1])
    assert normal @ one.affine_lps_mm[:3, 0] > 0
    voxels, affine = other.voxels_zyx, other.affine_lps_mm.copy()
    if normal @ affine[:3, 0] < 0:
        affine[:, 3] += affine[:, 0] * (len(voxels) - 1)
        affine[:, 0] *= -1
        voxels = voxels[::-1]
    np.testing.assert_array_equal(one.voxels_zyx, voxels)
    np.testing.assert_allclose(one.affine_lps_mm, affine, atol=1e-6)


@pytest.mark.parametrize("position", STORED_AS)
def test_the_volume_lies_where_the_body_lay(tmp_path: Path, body: Volume, position: str) -> None:
    stored = turned(body, STORED_AS[position])
    paths = write_series(tmp_path, stored, shuffle_seed=3)
    same_bodies(read_volume(paths), stored)


def test_oblique_slices_keep_their_place(tmp_path: Path, body: Volume) -> None:
    angle = np.radians(25)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    stored = moved(body, turn)
    volume = read_volume(write_series(tmp_path, stored, shuffle_seed=1))
    np.testing.assert_allclose(volume.affine_lps_mm, stored.affine_lps_mm, atol=1e-4)


def test_uids_are_in_slice_order(tmp_path: Path, body: Volume) -> None:
    header = Header()
    volume = read_volume(write_series(tmp_path, body, header=header, shuffle_seed=5))
    assert volume.instance_uids == tuple(header.instance_uid(i) for i in range(6))


@pytest.mark.parametrize(
    "pixels",
    [
        Pixels(),
        Pixels(intercept=-1024.0),
        UNSIGNED_12,
        Pixels(signed=False, intercept=-8192.0),
        Pixels(transfer_syntax=IMPLICIT),
        Pixels(transfer_syntax=BIG),
        Pixels(transfer_syntax=RLE, intercept=-1024.0),
        Pixels(transfer_syntax=J2K, intercept=-1024.0),
        Pixels(transfer_syntax=JPEG_LS, signed=False, intercept=-1024.0),
        Pixels(monochrome1=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("threads", [1, 3])
def test_any_storage_gives_the_same_hounsfield_units(
    tmp_path: Path, body: Volume, pixels: Pixels, threads: int
) -> None:
    volume = read_volume(
        write_series(tmp_path, body, pixels=pixels), reading=Reading(threads=threads)
    )
    assert volume.voxels_zyx.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels_zyx, body.voxels_zyx)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", BIG])
@pytest.mark.parametrize(("bits", "dtype"), [(8, "u1"), (8, "i1"), (32, "i4"), (32, "u4")])
def test_other_widths_of_values_are_read(
    tmp_path: Path, syntax: str, bits: int, dtype: str
) -> None:
    values = np.random.default_rng(2).integers(0, 120, (32, 32))
    series = a_series(3, pixels=Pixels(intercept=-100.0))
    for dataset in series:
        dataset.BitsAllocated = dataset.BitsStored = bits
        dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(dtype[0] == "i")
        order = ">" if syntax == BIG else "<"
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
        dataset.PixelData = values.astype(order + dtype).tobytes()
        if bits == 32 and syntax == BIG:  # written as words of 16 bits
            dataset["PixelData"].VR = "OB"
    volume = read_volume(write_files(tmp_path, series))
    assert volume.voxels_zyx.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels_zyx[1], values - 100)


def test_odd_widths_of_values_are_undecodable(tmp_path: Path) -> None:
    series = a_series(3, header=Header(extra={"BitsAllocated": 12}))
    with pytest.raises(PixelsUndecodable, match="Bits Allocated is 12, not 8, 16 or 32"):
        read_volume(write_files(tmp_path, series))


def test_a_slope_that_is_not_whole_gives_floats(tmp_path: Path, body: Volume) -> None:
    pixels = Pixels(signed=False, slope=1.001, intercept=-1024.0)
    volume = read_volume(write_series(tmp_path, body, pixels=pixels))
    assert volume.voxels_zyx.dtype == np.float32
    np.testing.assert_allclose(volume.voxels_zyx, body.voxels_zyx, atol=0.51)


def test_a_whole_slope_stays_whole(tmp_path: Path, body: Volume) -> None:
    even = replace(body, voxels_zyx=body.voxels_zyx // 2 * 2)
    volume = read_volume(write_series(tmp_path, even, pixels=Pixels(slope=2.0)))
    assert volume.voxels_zyx.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels_zyx, even.voxels_zyx)


def test_every_slice_has_its_own_rescale(tmp_path: Path, body: Volume) -> None:
    a = ct_series(body, pixels=Pixels(intercept=-1024.0))
    b = ct_series(body, pixels=UNSIGNED_12)
    volume = read_volume(write_files(tmp_path, [*a[:3], *b[3:]]))
    np.testing.assert_array_equal(volume.voxels_zyx, body.voxels_zyx)


def test_values_beyond_int16_give_floats(tmp_path: Path, body: Volume) -> None:
    series = ct_series(body, pixels=Pixels(signed=False, intercept=-1024.0))
    plane = np.frombuffer(series[2].PixelData, "<u2").copy()
    plane[7] = 65000
    series[2].PixelData = plane.tobytes()
    volume = read_volume(write_files(tmp_path, series))
    assert volume.voxels_zyx.dtype == np.float32
    assert volume.voxels_zyx.max() == 65000 - 1024


def test_the_lowest_stored_value_does_not_wrap_round(tmp_path: Path, body: Volume) -> None:
    series = ct_series(body, pixels=Pixels(intercept=-1024.0))
    plane = np.frombuffer(series[2].PixelData, "<i2").copy()
    plane[7] = -32768
    series[2].PixelData = plane.tobytes()
    volume = read_volume(write_files(tmp_path, series))
    assert volume.voxels_zyx.dtype == np.int16
    assert volume.voxels_zyx[2].ravel()[7] == AIR_HU


@pytest.mark.parametrize(
    "pixels",
    [
        PADDED,  # far below air
        Pixels(signed=False, intercept=-1024.0, padding=65535),  # far above everything
        Pixels(padding=32767),
        Pixels(transfer_syntax=RLE, padding=-2000, intercept=-1024.0),
        Pixels(signed=False, slope=1.5, intercept=-1024.0, padding=65535),
    ],
    ids=str,
)
def test_outside_the_scan_circle_is_air(tmp_path: Path, body: Volume, pixels: Pixels) -> None:
    volume = read_volume(write_series(tmp_path, body, pixels=pixels))
    assert np.all(volume.voxels_zyx[:, 0, 0] == AIR_HU)
    np.testing.assert_allclose(
        volume.voxels_zyx[:, 17, 21], body.voxels_zyx[:, 17, 21], atol=pixels.slope
    )


def test_a_range_of_padding_values_is_air(tmp_path: Path, body: Volume) -> None:
    header = Header(extra={"PixelPaddingRangeLimit": 60000})
    pixels = Pixels(signed=False, intercept=-1024.0, padding=65535)
    series = ct_series(body, header=header, pixels=pixels)
    for dataset in series:
        plane = np.frombuffer(dataset.PixelData, "<u2").copy()
        plane[plane == 65535] = 61234
        dataset.PixelData = plane.tobytes()
    volume = read_volume(write_files(tmp_path, series))
    assert np.all(volume.voxels_zyx[:, 0, 0] == AIR_HU)


def test_a_padding_value_that_no_corner_has_is_not_believed(tmp_path: Path) -> None:
    series = a_series(3, header=Header(extra={}))
    for dataset in series:
        plane = np.full((32, 32), 60, np.int16)
        plane[10:20, 10:20] = 0  # water, declared to be padding
        dataset.PixelData = plane.tobytes()
        dataset.add_new("PixelPaddingValue", "SS", 0)
    volume = read_volume(write_files(tmp_path, series))
    assert volume.voxels_zyx.min() == 0


def test_bits_above_bits_stored_are_not_part_of_the_value(tmp_path: Path, body: Volume) -> None:
    series = ct_series(body, pixels=UNSIGNED_12)
    for dataset in series:
        plane = np.frombuffer(dataset.PixelData, "<u2").copy()
        plane[::3] |= 0x8000  # an overlay of old
        dataset.PixelData = plane.tobytes()
    volume = read_volume(write_files(tmp_path, series))
    np.testing.assert_array_equal(volume.voxels_zyx, body.voxels_zyx)


def test_negative_values_of_twelve_bits_keep_their_sign(tmp_path: Path) -> None:
    series = a_series(3, pixels=Pixels(bits_stored=12))
    for dataset in series:
        plane = np.frombuffer(dataset.PixelData, "<i2").copy()
        dataset.PixelData = (plane & 0x0FFF).tobytes()  # without the sign extension
    reference = np.frombuffer(a_series(3, pixels=Pixels(bits_stored=12))[0].PixelData, "<i2")
    volume = read_volume(write_files(tmp_path, series))
    np.testing.assert_array_equal(volume.voxels_zyx[0].ravel(), reference)


def test_other_modalities_keep_their_values(tmp_path: Path) -> None:
    extra = {"Modality": "MR", "RescaleSlope": None, "RescaleIntercept": None}
    series = a_series(3, header=Header(extra=extra))
    for dataset in series:
        dataset.PixelData = np.full((32, 32), -5000, np.int16).tobytes()
    assert read_volume(write_files(tmp_path, series)).voxels_zyx.max() == -5000


def test_headers_come_in_the_order_of_the_paths(tmp_path: Path) -> None:
    paths = write_files(tmp_path, a_series(4))
    numbers = [h["InstanceNumber"] for h in read_headers(list(reversed(paths)))]
    assert numbers == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"ImagePositionPatient": None}, "cannot be placed: no Image Position (Patient)"),
        ({"PixelSpacing": None}, "cannot be placed: no Pixel Spacing"),
        ({"NumberOfFrames": 3}, "is a multi-frame object of 3 frames"),
        ({"RescaleSlope": None}, "has no Rescale Slope and Intercept: HU are unknown"),
        ({"RescaleSlope": "0"}, "has a Rescale Slope of 0"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "is a colour picture (RGB)"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "is a colour picture (PALETTE COLOR)"),
    ],
)
def test_what_is_no_slice_is_refused_in_words(tmp_path: Path, extra, words: str) -> None:
    paths = write_files(tmp_path, a_series(3, header=Header(extra=extra)))
    with pytest.raises(NotAVolume, match=words.replace("(", r"\(").replace(")", r"\)")):
        read_volume(paths)


def test_a_hole_is_refused_unless_tolerated(tmp_path: Path) -> None:
    paths = write_files(tmp_path, a_series(6, missing=(3,)))
    with pytest.raises(NotAVolume, match="1 plane is missing"):
        read_volume(paths)
    assert read_volume(paths, tolerate={Fault.HOLE}).voxels_zyx.shape == (5, 32, 32)


def test_one_tolerated_slice_is_a_volume(tmp_path: Path) -> None:
    volume = read_volume(write_files(tmp_path, a_series(1)), tolerate={Fault.TOO_FEW})
    assert volume.voxels_zyx.shape == (1, 32, 32)
    assert volume.spacing_zyx_mm == (3.0, 8.0, 8.0)


def test_no_slice_at_all_is_refused() -> None:
    with pytest.raises(NotAVolume, match="there is no image plane"):
        read_volume([])


def test_a_volume_beyond_the_limit_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    header = Header(extra={"Rows": 60000, "Columns": 60000})
    with pytest.raises(NotAVolume, match="3 x 60000 x 60000 voxels are more than is allowed"):
        read_volume(write_files(tmp_path, a_series(3, header=header)))


def spoil(dataset: Dataset, start: int) -> None:
    content = bytearray(dataset.PixelData)
    content[start:] = b"\x55" * (len(content) - start)
    dataset.PixelData = bytes(content)


@pytest.mark.peer
@pytest.mark.skipif(not DCMCJPEG.exists(), reason="dcmcjpeg of DCMTK is not installed")
@pytest.mark.parametrize("process", ["+el", "+e1"])  # JPEG Lossless P14, and SV1
def test_what_another_program_compressed_is_read(
    tmp_path: Path, body: Volume, process: str
) -> None:
    paths = write_series(tmp_path, body, pixels=UNSIGNED_12)
    for path in paths:
        subprocess.run([DCMCJPEG, process, path, path], check=True)
    assert find_picture(paths[0]).length is None
    volume = read_volume(paths)
    expected = np.clip(body.voxels_zyx, None, 4095 - 1024)
    np.testing.assert_array_equal(volume.voxels_zyx, expected)


@pytest.mark.parametrize("syntax", [RLE, J2K, JPEG_LS])
def test_a_damaged_code_stream_is_undecodable(tmp_path: Path, syntax: str) -> None:
    series = a_series(3, pixels=Pixels(transfer_syntax=syntax))
    spoil(series[1], 130)
    with pytest.raises(PixelsUndecodable, match=r"its .* code stream is damaged"):
        read_volume(write_files(tmp_path, series))


@pytest.mark.parametrize("syntax", [RLE, J2K, JPEG_LS])
def test_damaged_fragments_are_undecodable(tmp_path: Path, syntax: str) -> None:
    series = a_series(3, pixels=Pixels(transfer_syntax=syntax))
    spoil(series[1], 16)
    with pytest.raises(PixelsUndecodable, match="Pixel Data ends inside a fragment"):
        read_volume(write_files(tmp_path, series))


def test_a_decoder_that_panics_is_an_undecodable_image(tmp_path: Path) -> None:
    series = a_series(3, pixels=Pixels(transfer_syntax=RLE))
    runs = b"\x81\x00" * 12  # of 128 bytes each: more than a plane has
    frame = struct.pack("<16I", 2, 64, 88, *[0] * 13) + runs * 2
    series[1].PixelData = encapsulate([frame])
    with pytest.raises(PixelsUndecodable, match="its RLE Lossless code stream is damaged") as seen:
        read_volume(write_files(tmp_path, series))
    assert not isinstance(seen.value.__cause__, Exception)


def test_other_interruptions_pass_through_decoding(monkeypatch, tmp_path: Path) -> None:
    def interrupted(_uid: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dicom_node.iod.code_stream.get_decoder", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_volume(write_files(tmp_path, a_series(3, pixels=Pixels(transfer_syntax=RLE))))


def test_short_native_pixels_are_undecodable(tmp_path: Path) -> None:
    series = a_series(3)
    series[1].PixelData = series[1].PixelData[:-2]
    with pytest.raises(PixelsUndecodable, match="shorter than Rows x Columns"):
        read_volume(write_files(tmp_path, series))


def test_a_file_cut_inside_its_pixels_is_undecodable(tmp_path: Path) -> None:
    paths = write_files(tmp_path, a_series(3))
    paths[1].write_bytes(paths[1].read_bytes()[:-2])
    with pytest.raises(PixelsUndecodable, match="the file ends inside Pixel Data"):
        read_volume(paths)


def test_an_object_without_pixels_is_undecodable(tmp_path: Path) -> None:
    paths = write_files(tmp_path, a_series(3, header=Header(extra={"PixelData": None})))
    with pytest.raises(PixelsUndecodable, match="has no Pixel Data"):
        read_volume(paths)


def test_a_syntax_without_a_decoder_is_named(tmp_path: Path) -> None:
    mpeg = "1.2.840.10008.1.2.4.102"
    series = a_series(3, pixels=Pixels(transfer_syntax=RLE))
    for dataset in series:
        dataset.file_meta.TransferSyntaxUID = mpeg
    with pytest.raises(PixelsUndecodable, match=f"transfer syntax {mpeg} is not supported"):
        read_volume(write_files(tmp_path, series))


def test_junk_is_not_dicom(tmp_path: Path) -> None:
    path = tmp_path / "junk"
    path.write_bytes(b"junk" * 100)
    with pytest.raises(NotDicom):
        read_volume([path])


def test_pixels_behind_a_long_header_are_found(tmp_path: Path, body: Volume) -> None:
    series = ct_series(body)
    for dataset in series:
        block = dataset.private_block(0x0019, "DICOM-NODE TEST", create=True)
        block.add_new(1, "OB", bytes(1_200_000))
    paths = write_files(tmp_path, series)
    assert find_picture(paths[0]).start > 1_200_000
    np.testing.assert_array_equal(read_volume(paths).voxels_zyx, body.voxels_zyx)


def test_every_compressed_syntax_has_a_decoder_that_is_installed() -> None:
    for uid, codec in CODECS.items():
        assert codec.plugin in get_decoder(uid).available_plugins
