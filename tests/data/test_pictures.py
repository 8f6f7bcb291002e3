"""Image files: depth is judged by the header, odd tags do no harm, every kind gives the pixels that were written."""

import io
import struct
import zlib

import numpy as np
import pytest
from photo_folder import HEIGHT, WIDTH, picture, read, refusal, write_folder
from PIL import Image

from study.data.pictures import eight_bit

GREY, COLOUR, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 4, 6


def png_of_16_bits(pixels: np.ndarray, kind: int) -> bytes:
    """A PNG written by hand; `kind` is the colour type of its header."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("kind", "channels"), [(GREY, 1), (COLOUR, 3), (GREY_ALPHA, 2), (COLOUR_ALPHA, 4)])
def test_sixteen_bits_are_seen_in_the_header(tmp_path, kind, channels):
    folder = write_folder(tmp_path)
    path = folder / "val" / "calm" / "1.png"
    path.write_bytes(png_of_16_bits(picture(np.random.default_rng(0), channels, 1024, "uint16"), kind))
    assert refusal(tmp_path).startswith(f"{path}: must be an image of eight bits a channel, got 16 bits")


@pytest.mark.parametrize("tag", [(339, 3), (258, (16, 16, 16))])
def test_the_depth_of_a_tiff_is_seen_in_its_tags(tmp_path, tag):
    folder = write_folder(tmp_path)
    path = folder / "val" / "calm" / "1.tif"
    if tag[0] == 339:
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.float32)).save(path)
        expected = "floating-point numbers"
    else:
        import tifffile

        tifffile.imwrite(path, np.zeros((HEIGHT, WIDTH, 3), np.uint16), photometric="rgb")
        expected = "16 bits"
    assert refusal(tmp_path).startswith(f"{path}: must be an image of eight bits a channel, got {expected}")


@pytest.mark.parametrize("ending", ["bmp", "tif", "tiff", "TIF", "png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_kinds_without_loss_give_the_pixels_that_were_written(tmp_path, ending, channels):
    folder = write_folder(tmp_path)
    pixels = picture(np.random.default_rng(5), channels)
    Image.fromarray(pixels).save(folder / "val" / "calm" / f"9.{ending}")
    found = read(tmp_path).splits["val"].images
    assert np.array_equal(found[3], pixels.reshape(HEIGHT, WIDTH, channels))


def test_palettes_inks_and_transparency_become_plain_colour(tmp_path):
    folder = write_folder(tmp_path)
    red = Image.new("RGB", (WIDTH, HEIGHT), (255, 0, 0))
    red.quantize(4).save(folder / "val" / "ill" / "3.png")
    red.convert("CMYK").save(folder / "val" / "ill" / "4.tif")
    red.putalpha(90)
    red.save(folder / "val" / "ill" / "5.png")
    found = read(tmp_path).splits["val"].images
    for place in (-3, -2, -1):
        assert np.unique(found[place].reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


def test_pages_of_one_file_are_images_of_one_group(tmp_path):
    folder = write_folder(tmp_path)
    pages = [picture(np.random.default_rng(seed)) for seed in range(3)]
    first, *more = (Image.fromarray(page) for page in pages)
    first.save(folder / "train" / "ill" / "9.tif", save_all=True, append_images=more)
    split = read(tmp_path).splits["train"]
    assert np.array_equal(split.images[-3:, ..., 0], np.stack(pages))
    assert split.ids[-3:].tolist() == [f"train/ill/9.tif#{page}" for page in range(3)]
    assert split.groups is not None
    assert len(set(split.groups)) == 7 and len(set(split.groups[-3:])) == 1
    Image.fromarray(pages[0]).save(
        folder / "train" / "ill" / "9.tif", save_all=True, append_images=[Image.new("L", (4, 5))]
    )
    assert refusal(tmp_path).endswith("9.tif: must have pages of one size, got 5×4 and 6×9")


@pytest.mark.parametrize("ending", ["jpg", "tif", "png"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_every_turn_is_undone(tmp_path, ending, turn):
    pixels = np.full((HEIGHT, WIDTH), 10, np.uint8)
    pixels[: HEIGHT // 2, : WIDTH // 3] = 250
    stored = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.T, 6: np.rot90(pixels),
        7: np.rot90(pixels, 2).T, 8: np.rot90(pixels, -1),
    }[turn]  # fmt: skip
    exif = Image.Exif()
    exif[eight_bit.ORIENTATION] = turn
    path = tmp_path / f"turned.{ending}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **({"quality": 100} if ending == "jpg" else {}))
    found = eight_bit.frames(path, colour=False)
    assert found.shape == (1, HEIGHT, WIDTH)
    assert np.abs(found[0].astype(int) - pixels).max() < 60


def test_odd_tags_do_no_harm(tmp_path):
    folder = write_folder(tmp_path)
    # Orientation 6 and a negative signed resolution, which no writer of tags accepts.
    entries = struct.pack("<H", 2) + struct.pack("<HHIHH", 0x112, 3, 1, 6, 0) + struct.pack("<HHII", 0x11A, 10, 1, 38)
    odd = b"Exif\0\0II*\0" + struct.pack("<I", 8) + entries + struct.pack("<I", 0) + struct.pack("<ii", -72, 1)
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(picture(np.random.default_rng(0)))))
    turned.save(folder / "train" / "ill" / "9.jpg", exif=odd)
    Image.new("L", (WIDTH, HEIGHT)).save(folder / "train" / "ill" / "8.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read(tmp_path).info.n_train == 8


@pytest.mark.parametrize("fault", [struct.error("argument out of range"), KeyError(), RecursionError("deep\nfault")])
def test_any_fault_of_a_reader_names_the_file(tmp_path, monkeypatch, fault):
    folder = write_folder(tmp_path)

    def broken(path, colour):
        raise fault

    monkeypatch.setattr(eight_bit, "frames", broken)
    text = (str(fault) or type(fault).__name__).splitlines()[0]
    assert refusal(tmp_path) == f"{folder / 'train' / 'calm' / '0.png'}: must be a readable image, got {text}"


def test_a_cut_file_is_named(tmp_path):
    folder = write_folder(tmp_path)
    made = io.BytesIO()
    Image.fromarray(picture(np.random.default_rng(0))).save(made, "TIFF")
    for name, content in (("8.tif", made.getvalue()[:40]), ("8.bmp", b"BM"), ("8.jpg", b""), ("8.png", b"\x89PNG")):
        path = folder / "train" / "ill" / name
        path.write_bytes(content)
        assert refusal(tmp_path).startswith(f"{path}: must be a readable image, got ")
        path.unlink()
