"""Images of more than eight bits, DICOM and NIfTI: every kind gives the levels that its numbers stand for."""

import sys

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from photo_folder import HEIGHT, WIDTH, read, refusal, write_folder
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from test_pictures import COLOUR, COLOUR_ALPHA, GREY, GREY_ALPHA, png_of_16_bits

from study.data.pictures.decoding import Decoder

RNG = np.random.default_rng(0)
SHAPES = {GREY: (), COLOUR: (3,), GREY_ALPHA: (2,), COLOUR_ALPHA: (4,)}


def numbers(*more: int, low: int = 0, high: int = 65536, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(1).integers(low, high, (HEIGHT, WIDTH, *more)).astype(dtype)


def levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """What the numbers stand for, in exact arithmetic: one at a time."""
    flat = [round(255 * min(max((float(value) - low) / (high - low), 0.0), 1.0)) for value in values.ravel()]
    return np.array(flat, dtype=np.uint8).reshape(values.shape)


def decoded(path, window=None, axis=None, colour=None) -> np.ndarray:
    decoder = Decoder(window, axis)
    header = decoder.header(path)
    found = decoder.frames(path, header.colour if colour is None else colour)
    assert found.dtype == np.uint8 and len(found) == header.frames
    assert (found.ndim == 4) == (header.colour if colour is None else colour)
    return found


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("window", ["full", {"low": 100, "high": 4195}])
def test_png_of_16_bits(tmp_path, kind, window):
    pixels = numbers(*SHAPES[kind])
    path = tmp_path / "a.png"
    path.write_bytes(png_of_16_bits(pixels.reshape(HEIGHT, WIDTH, -1), kind))
    colours = {GREY: pixels, COLOUR: pixels, GREY_ALPHA: pixels[..., 0], COLOUR_ALPHA: pixels[..., :3]}[kind]
    ends = (0, 65535) if window == "full" else (100, 4195)
    assert np.array_equal(decoded(path, window)[0], levels(colours, *ends))


TIFFS = {
    "grey": (numbers(), {}, (0, 65535)),
    "colour": (numbers(3), {"photometric": "rgb"}, (0, 65535)),
    "planes": (np.moveaxis(numbers(3), -1, 0), {"photometric": "rgb", "planarconfig": "separate"}, (0, 65535)),
    "alpha": (numbers(4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}, (0, 65535)),
    "signed": (numbers(low=-2000, high=2000, dtype="int16"), {}, (-32768, 32767)),
    "deflated": (numbers(3), {"photometric": "rgb", "compression": "zlib"}, (0, 65535)),
    "32 bits": (numbers(high=2**32, dtype="uint32"), {}, (0, 2**32 - 1)),
    "bytes behind each other": (numbers(), {"byteorder": ">"}, (0, 65535)),
}


@pytest.mark.parametrize("case", TIFFS)
def test_tiff_of_more_than_eight_bits(tmp_path, case):
    pixels, options, ends = TIFFS[case]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, **options)
    expected = np.moveaxis(pixels, 0, -1) if case == "planes" else pixels[..., :3] if case == "alpha" else pixels
    found = decoded(path, "full")[0]
    assert np.abs(found.astype(int) - levels(expected, *ends)).max() == 0


def test_white_may_be_zero_and_pages_may_be_many(tmp_path):
    pages = np.stack([numbers(high=1000), numbers(high=900)])
    for name, photometric in (("black", "minisblack"), ("white", "miniswhite")):
        tifffile.imwrite(tmp_path / f"{name}.tif", pages, photometric=photometric)
    window = {"low": 0, "high": 999}
    black, white = (decoded(tmp_path / f"{name}.tif", window) for name in ("black", "white"))
    assert np.array_equal(black, levels(pages, 0, 999))
    assert np.array_equal(white, 255 - black)


def test_floating_point_numbers_need_ends(tmp_path):
    path = tmp_path / "a.tif"
    values = RNG.normal(size=(HEIGHT, WIDTH)).astype(np.float32)
    tifffile.imwrite(path, values)
    low, high = np.percentile(values, [5, 90])
    assert np.array_equal(decoded(path, {"percentiles": [5, 90]})[0], levels(values, low, high))
    with pytest.raises(ValueError, match=r"must hold whole numbers, for source\.window: full, got floating-point"):
        decoded(path, "full")
    with pytest.raises(ValueError, match=r"must have a window in its tags, for source\.window: tag, got none"):
        decoded(path, "tag")


def test_inks_of_sixteen_bits_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, numbers(4), photometric="separated")
    with pytest.raises(ValueError, match=r"a\.tif: must be grey or RGB, got SEPARATED of 16 bits"):
        decoded(path, "full")


def write_dicom(path, pixels, preamble=True, **tags):
    """A file of these pixels; what its tags say beyond their shape is in `tags`."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID = "None", "0"
    data.Rows, data.Columns = HEIGHT, WIDTH
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in tags.items():
        setattr(data, name, value)
    data.HighBit = data.BitsStored - 1
    data.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    data["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    data.save_as(path, enforce_file_format=True)
    if not preamble:
        path.write_bytes(path.read_bytes()[132:])
    return path


CT = {"BitsStored": 12, "RescaleSlope": "2", "RescaleIntercept": "-1024"}


def test_dicom_of_twelve_bits_with_a_rescaling(tmp_path):
    pixels = numbers(high=4096)
    path = write_dicom(tmp_path / "a.dcm", pixels, **CT)
    units = 2.0 * pixels - 1024
    assert np.array_equal(decoded(path, {"low": -160, "high": 240})[0], levels(units, -160, 240))
    assert np.array_equal(decoded(path, "full")[0], levels(units, -1024, 2 * 4095 - 1024))
    low, high = np.percentile(units, [1, 99])
    assert np.array_equal(decoded(path, {"percentiles": [1, 99]})[0], levels(units, low, high))
    with pytest.raises(ValueError, match=r"must have a window in its tags"):
        decoded(path, "tag")


@pytest.mark.parametrize("shape", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_window_of_the_tags_is_that_of_pydicom(tmp_path, shape):
    pixels = numbers(high=4096)
    tags = {**CT, "WindowCenter": ["40", "600"], "WindowWidth": ["400", "1500"]}
    path = write_dicom(tmp_path / "a.dcm", pixels, **tags, **({"VOILUTFunction": shape} if shape else {}))
    data = pydicom.dcmread(path)
    shown = pydicom.pixels.apply_windowing(2.0 * pixels - 1024, data)
    ends = (-1024, 2 * 4095 - 1024)
    assert np.array_equal(decoded(path, "tag")[0], levels(shown, *ends))


def test_dicom_may_be_bright_where_it_is_low_and_signed(tmp_path):
    pixels = numbers(low=-1000, high=1000, dtype="int16")
    window = {"low": -500, "high": 500}
    dark = decoded(write_dicom(tmp_path / "a.dcm", pixels), window)
    bright = decoded(write_dicom(tmp_path / "b.dcm", pixels, PhotometricInterpretation="MONOCHROME1"), window)
    assert np.array_equal(dark[0], levels(pixels, -500, 500)) and np.array_equal(bright, 255 - dark)
    assert np.array_equal(decoded(tmp_path / "a.dcm", "full")[0], levels(pixels, -32768, 32767))


def test_dicom_of_eight_bits_is_as_it_is(tmp_path):
    pixels = numbers(high=256, dtype="uint8")
    assert np.array_equal(decoded(write_dicom(tmp_path / "a.dcm", pixels))[0], pixels)
    inverted = write_dicom(tmp_path / "b.dcm", pixels, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(decoded(inverted)[0], 255 - pixels)
    with pytest.raises(ValueError, match="must be an image of eight bits a channel, got rescaled numbers"):
        decoded(write_dicom(tmp_path / "c.dcm", pixels, RescaleSlope="2", RescaleIntercept="0"))
    signed = write_dicom(tmp_path / "d.dcm", numbers(low=-100, high=100, dtype="int8"))
    with pytest.raises(ValueError, match="must be an image of eight bits a channel, got signed numbers"):
        decoded(signed)


@pytest.mark.parametrize("planes", [0, 1])
def test_dicom_in_colour(tmp_path, planes):
    pixels = numbers(3, high=256, dtype="uint8")
    stored = np.ascontiguousarray(np.moveaxis(pixels, -1, 0)) if planes else pixels
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": planes}
    assert np.array_equal(decoded(write_dicom(tmp_path / "a.dcm", stored, **tags))[0], pixels)


def test_dicom_in_brightness_and_colour_differences(tmp_path):
    pixels = numbers(3, high=256, dtype="uint8")
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL", "PlanarConfiguration": 0}
    found = decoded(write_dicom(tmp_path / "a.dcm", pixels, **tags))[0]
    # PS3.3 C.7.6.3.1.2, solved for red, green and blue.
    y, blue, red = (pixels[..., place].astype(float) - offset for place, offset in ((0, 0), (1, 128), (2, 128)))
    expected = np.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], axis=-1)
    assert np.abs(found - np.clip(expected, 0, 255)).max() <= 1


def test_dicom_with_a_palette(tmp_path):
    pixels = numbers(high=4, dtype="uint8")
    table = np.array([[0, 65535, 0, 256], [0, 0, 65535, 512], [0, 0, 0, 1024]], dtype=np.uint16)
    tags = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, row in zip(("Red", "Green", "Blue"), table, strict=True):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        tags[f"{name}PaletteColorLookupTableData"] = row.tobytes()
    found = decoded(write_dicom(tmp_path / "a.dcm", pixels, **tags))[0]
    assert np.array_equal(found, (table >> 8).T[pixels])


def test_frames_of_one_file_share_a_group_in_a_set(tmp_path):
    folder = write_folder(tmp_path)
    frames = np.stack([numbers(high=4096), numbers(high=2000)])
    # Without an ending it is known by its content; a list of files is no image.
    write_dicom(folder / "train" / "ill" / "1.2.840.7", frames, NumberOfFrames=2, BitsStored=12)
    write_dicom(folder / "train" / "ill" / "IM0001", numbers(high=4096), BitsStored=12)
    write_dicom(folder / "train" / "ill" / "9.ima", numbers(high=4096), preamble=False, BitsStored=12)
    (folder / "train" / "ill" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    data = read(tmp_path, window={"low": 0, "high": 4095})
    train = data.splits["train"]
    assert data.info.n_train == 10 and train.groups is not None
    places = {name: place for place, name in enumerate(train.ids)}
    assert train.groups[places["train/ill/1.2.840.7#0"]] == train.groups[places["train/ill/1.2.840.7#1"]]
    assert len(set(train.groups)) == 9
    assert np.array_equal(train.images[places["train/ill/1.2.840.7#1"], ..., 0], levels(frames[1], 0, 4095))
    assert data.info.notes == ("3 of 21 files have more than eight bits a channel: black to white is 0 to 4095",)
    assert read(tmp_path, window="full").info.fingerprint == data.info.fingerprint
    assert read(tmp_path, window={"low": 0, "high": 4000}).info.fingerprint != data.info.fingerprint


def test_dicom_without_pixels_is_named(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", numbers())
    data = pydicom.dcmread(path)
    data.SOPClassUID = pydicom.uid.RTStructureSetStorage
    del data.Rows
    data.save_as(path)
    with pytest.raises(
        ValueError, match=r"a\.dcm: must be a DICOM file with pixels, got one without Rows \(RT Structure Set Storage\)"
    ):
        decoded(path, "full")
    path.write_bytes(b"\0" * 128 + b"DICM" + b"text")
    with pytest.raises(ValueError, match=r"a\.dcm: must be a "):
        decoded(path, "full")


def body(dtype="int16", flips=(1, 1, 1), order=(0, 1, 2)):
    """A volume of 4 × 5 × 6 voxels by x, y and z, and a file of it with axes in another order and direction."""
    truth = RNG.integers(-900, 900, (4, 5, 6)).astype(dtype)
    stored, affine = truth, np.zeros((4, 4))
    for axis, flip in enumerate(flips):
        stored = np.flip(stored, axis) if flip < 0 else stored
    stored = stored.transpose(order)
    for place, axis in enumerate(order):
        affine[axis, place] = flips[axis]
    affine[3, 3] = 1
    return truth, nibabel.Nifti1Image(np.ascontiguousarray(stored), affine)


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (-1, -1, 1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_slices_of_a_volume_lie_upright_however_it_is_stored(tmp_path, flips, order, ending):
    truth, image = body(flips=flips, order=order)
    path = tmp_path / f"a.{ending}"
    nibabel.save(image, path)
    window = {"low": -900, "high": 900}
    axial = decoded(path, window, "axial")
    assert axial.shape == (6, 5, 4)
    # Column 0 is where x is least, row 0 where y, or z, is largest.
    assert np.array_equal(axial[2], levels(truth[:, ::-1, 2].T, -900, 900))
    assert np.array_equal(decoded(path, window, "coronal")[3], levels(truth[:, 3, ::-1].T, -900, 900))
    assert np.array_equal(decoded(path, window, "sagittal")[1], levels(truth[1, :, ::-1].T, -900, 900))


def test_a_volume_with_a_rescaling_and_one_of_floating_point_numbers(tmp_path):
    truth, image = body()
    image.header.set_slope_inter(0.5, 10)
    nibabel.save(nibabel.Nifti1Image(0.5 * truth + 10, image.affine, image.header), tmp_path / "a.nii")
    found = decoded(tmp_path / "a.nii", "full", "axial")
    # The scaling that nibabel chose when it wrote the numbers as whole ones.
    scaling = nibabel.load(tmp_path / "a.nii").dataobj
    ends = (scaling.slope * end + scaling.inter for end in (-32768, 32767))
    expected = levels(0.5 * truth[:, ::-1, 0].T + 10, *ends)
    assert np.abs(found[0].astype(int) - expected).max() <= 1
    nibabel.save(nibabel.Nifti1Image(truth.astype(np.float32), np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(ValueError, match=r"must hold whole numbers, for source\.window: full"):
        decoded(tmp_path / "b.nii", "full", "axial")
    small = RNG.integers(0, 256, (4, 5, 6)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(small, np.eye(4)), tmp_path / "c.nii")
    assert np.array_equal(decoded(tmp_path / "c.nii", None, "axial")[5], small[:, ::-1, 5].T)
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6, 7), np.int16), np.eye(4)), tmp_path / "d.nii")
    with pytest.raises(ValueError, match=r"must be a volume of three axes of numbers, got 4×5×6×7 of int16"):
        decoded(tmp_path / "d.nii", "full", "axial")


def test_a_volume_needs_an_axis_and_its_slices_stay_in_one_split(tmp_path):
    for title in ("calm", "ill"):
        (tmp_path / "photos" / title).mkdir(parents=True)
        for number in range(5):
            nibabel.save(body()[1], tmp_path / "photos" / title / f"{number}.nii.gz")
    settings = {"window": {"percentiles": [1, 99]}, "split": {"val": 0.2, "test": 0.2}}
    assert refusal(tmp_path, **settings).endswith(
        "0.nii.gz: must have source.axis, the axis of its slices (sagittal, coronal, axial), got none"
    )
    data = read(tmp_path, axis="axial", **settings)
    assert (data.info.n_train, data.info.n_val, data.info.n_test) == (36, 12, 12)
    assert data.info.image_size == (5, 4)
    groups = [set(part.groups) for part in data.splits.values() if part.groups is not None]
    assert [len(each) for each in groups] == [6, 2, 2] and not groups[0] & groups[1] | groups[0] & groups[2]


@pytest.mark.parametrize(("name", "module"), [("a.dcm", "pydicom"), ("a.tif", "tifffile"), ("a.nii", "nibabel")])
def test_without_the_extra_the_error_is_the_line_that_installs_it(tmp_path, monkeypatch, name, module):
    path = tmp_path / name
    if module == "pydicom":
        write_dicom(path, numbers())
    elif module == "tifffile":
        tifffile.imwrite(path, numbers(3), photometric="rgb")
    else:
        nibabel.save(body()[1], path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError) as caught:
        decoded(path, "full", "axial")
    install = "pip install -e '.[medical]'"
    assert str(caught.value) == f"{path}: must be read by {module}, which is not installed: {install}"


def test_grey_and_deep_beside_colour_and_shallow(tmp_path):
    folder = write_folder(tmp_path)
    Image.new("RGB", (WIDTH, HEIGHT), (9, 8, 7)).save(folder / "val" / "ill" / "8.png")
    pixels = numbers()
    (folder / "val" / "ill" / "9.png").write_bytes(png_of_16_bits(pixels, GREY))
    found = read(tmp_path, window="full").splits["val"].images
    assert found[-2, 0, 0].tolist() == [9, 8, 7]
    assert np.array_equal(found[-1], np.repeat(levels(pixels, 0, 65535)[..., None], 3, axis=-1))
    assert read(tmp_path, window="full").info.notes == (
        "1 of 20 files have more than eight bits a channel: black to white is all that a file's type can hold",
    )


def test_a_window_without_use_is_told_and_a_wrong_one_refused(tmp_path):
    write_folder(tmp_path)
    assert read(tmp_path, window="full").info.notes == (
        "source.window maps nothing: no file has more than eight bits a channel",
    )
    for window, text in (
        ("auto", "source.window must be one of full, tag"),
        ({"low": 5, "high": 5}, "source.window must have its high end above the low one, got 5 and 5"),
        ({"low": 5}, "source.window.high must be given"),
        ({"percentiles": [1]}, "source.window.percentiles must be a list of two numbers, got 1"),
        ({"percentiles": [1, 101]}, r"source.window.percentiles\[1\] must be a number from 0 to 100, got 101"),
    ):
        with pytest.raises(ValueError, match=text):
            read(tmp_path, window=window)
    with pytest.raises(ValueError, match=r"source\.axis must be one of sagittal, coronal, axial"):
        read(tmp_path, axis="z")
