"""Picture files of every depth, sign, scale, orientation and mode; and what lies below a folder."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ndlib.pictures import reading

Image.init()  # fills Image.SAVE


def pixels(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


GREY8, GREY16 = pixels(20, 24), pixels(20, 24, dtype=np.uint16)
COLOUR8, COLOUR16 = pixels(20, 24, 3), pixels(20, 24, 3, dtype=np.uint16)
WITH_ALPHA = np.concatenate([COLOUR16, GREY16[:, :, None]], 2)


def tiff(values, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file


def png_of_16_bits(values, colour_type):
    """Pillow writes no PNG with colour of 16 bits."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + parts)


def pnm(kind, most, values):
    height, width = values.shape[:2]
    stored = values.astype(np.uint8 if most < 256 else ">u2").tobytes()
    return io.BytesIO(f"{kind} {width} {height} {most}\n".encode() + stored)


def saved(picture, form, **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file


READ_AT_FULL_DEPTH = {
    "png 8": (saved(Image.fromarray(COLOUR8), "PNG"), COLOUR8 / 255),
    "png 16": (png_of_16_bits(COLOUR16, 2), COLOUR16 / 65535),
    "png 16 alpha": (png_of_16_bits(WITH_ALPHA, 6), COLOUR16 / 65535),
    "png 16 grey": (png_of_16_bits(GREY16, 0), GREY16 / 65535),
    "png 1": (saved(Image.fromarray(GREY8 > 99), "PNG"), GREY8 > 99),
    "png 4": (saved(Image.fromarray(GREY8 // 16).convert("P"), "PNG", bits=4), GREY8 // 16 / 255),
    "tiff 8": (tiff(COLOUR8, photometric="rgb"), COLOUR8 / 255),
    "tiff 16": (tiff(COLOUR16, photometric="rgb"), COLOUR16 / 65535),
    "tiff 16 big-endian": (tiff(COLOUR16, photometric="rgb", byteorder=">"), COLOUR16 / 65535),
    "tiff 16 deflated": (tiff(COLOUR16, photometric="rgb", compression="zlib"), COLOUR16 / 65535),
    "tiff 16 alpha": (tiff(WITH_ALPHA, photometric="rgb", extrasamples=["unassalpha"]), COLOUR16 / 65535),
    "tiff 16 grey": (tiff(GREY16), GREY16 / 65535),
    "tiff 16 grey big-endian": (tiff(GREY16, byteorder=">"), GREY16 / 65535),
    "tiff 16 white is zero": (tiff(GREY16, photometric="miniswhite"), 1 - GREY16 / 65535),
    "tiff 8 white is zero": (tiff(GREY8, photometric="miniswhite"), 1 - GREY8 / 255),
    "pgm to 100": (pnm("P5", 100, GREY8 % 101), np.round(GREY8 % 101 / 100 * 255) / 255),
    "pgm to 1023": (pnm("P5", 1023, GREY16 % 1024), np.round(GREY16 % 1024 * 65535.0 / 1023) / 65535),
    "pgm to 65535": (pnm("P5", 65535, GREY16), GREY16 / 65535),
    "jpeg 2000 of 16 bits": (saved(Image.fromarray(GREY16), "JPEG2000"), GREY16 / 65535),
}


@pytest.mark.parametrize("name", READ_AT_FULL_DEPTH)
def test_depth_sign_and_scale_are_read_right(name):
    file, wanted = READ_AT_FULL_DEPTH[name]
    file.seek(0)
    found = reading.read_picture(file).numpy().transpose(1, 2, 0)
    wanted = wanted if wanted.ndim == 3 else np.stack([wanted] * 3, 2)
    np.testing.assert_allclose(found, wanted, atol=1e-15, rtol=0)


def twelve_bits():
    """A grey TIFF of 12 bits: tags as tifffile writes them, the samples packed as 16 bits would be."""
    file = tiff(GREY16[:, :16] >> 4)
    content = file.getvalue()
    with tifffile.TiffFile(io.BytesIO(content)) as opened:
        offset = opened.pages[0].tags["BitsPerSample"].valueoffset
    return io.BytesIO(content[:offset] + struct.pack("<H", 12) + content[offset + 2 :])


def jpeg_2000(flag):
    """The depth in the header of a grey picture, changed."""
    content = saved(Image.fromarray(GREY16), "JPEG2000").getvalue()
    at = content.find(b"\xff\x4f\xff\x51") + 2 + 40
    return io.BytesIO(content[:at] + bytes([flag]) + content[at + 1 :])


REFUSED = {
    "float": (tiff(GREY8.astype(np.float32)), "floating-point pixels, whose scale is not known"),
    "int8": (tiff(GREY8.astype(np.int8)), "signed pixels"),
    "int16": (tiff(GREY16.astype(np.int16)), "signed pixels"),
    "int32": (tiff(GREY8.astype(np.int32)), "signed pixels"),
    "uint32": (tiff(GREY8.astype(np.uint32)), "pixels of 32 bits"),
    "12 bits": (twelve_bits(), "pixels of 12 bits"),
    "ppm of 16 bits": (pnm("P6", 65535, COLOUR16), "PPM with colour of 16 bits, of which 8 would be read: convert"),
    "ppm of 10 bits": (pnm("P6", 1023, COLOUR16 % 1024), "PPM with colour of 16 bits, of which 8 would be read"),
    "planes of 16 bits": (
        tiff(COLOUR16.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate"),
        "of which 8 would be read",
    ),
    "grey and alpha of 16 bits": (png_of_16_bits(WITH_ALPHA[:, :, 2:], 4), "LA;16B, of which 8 would be read"),
    "premultiplied": (
        tiff(WITH_ALPHA, photometric="rgb", compression="zlib", extrasamples=["assocalpha"]),
        "RGBa;16N, of which 8 would be read",
    ),
    "sgi of 16 bits": (saved(Image.fromarray(GREY8), "SGI", bpc=2), "SGI with pixels of 16 bits"),
    "fits": (
        io.BytesIO(
            "".join(
                card.ljust(80)
                for card in ("SIMPLE  =                    T", "BITPIX  =                   16", "NAXIS   = 2")
            ).encode()
            + "".join(c.ljust(80) for c in ("NAXIS1  = 24", "NAXIS2  = 20", "END")).encode().ljust(2880 - 240)
            + GREY16.astype(">i2").tobytes().ljust(2880, b"\0")
        ),
        "FITS with pixels of 16 bits, whose scale is not known",
    ),
    "jpeg 2000 of 12 bits": (jpeg_2000(11), "pixels of 12 bits"),
    "jpeg 2000 with a sign": (jpeg_2000(128 + 15), "pixels of 144 bits"),
    "cie lab": (saved(Image.new("LAB", (20, 20)), "TIFF"), "TIFF with pixels of mode LAB"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_right_is_refused(name):
    file, message = REFUSED[name]
    file.seek(0)
    with pytest.raises(ValueError, match=message):
        reading.read_picture(file)


@pytest.mark.skipif("AVIF" not in Image.SAVE, reason="this Pillow was built without AVIF")
@pytest.mark.parametrize(("flags", "bits"), [(0, 8), (0x40, 10), (0x60, 12)])
def test_bits_of_avif_stand_in_its_header(flags, bits):
    """Pillow reads pictures of 10 and 12 bits as 8, and writes none."""
    content = bytearray(saved(Image.fromarray(COLOUR8), "AVIF").getvalue())
    content[content.find(b"av1C") + 6] |= flags
    assert reading._bits_of_codec("AVIF", io.BytesIO(bytes(content))) == {bits}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_pictures_are_turned_as_viewers_turn_them(form, orientation):
    exif = Image.Exif()
    exif[reading.ORIENTATION] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    file = saved(Image.fromarray(COLOUR8), form, exif=exif, **options)
    with Image.open(file) as picture:
        picture.load()
        wanted = np.asarray(ImageOps.exif_transpose(picture))
    file.seek(0)
    raster = reading.open_picture(file)
    np.testing.assert_array_equal(raster.values().numpy().transpose(1, 2, 0), wanted / 255)
    assert ("turned by its EXIF orientation" in raster.notes) == (orientation != 1)


@pytest.mark.parametrize("orientation", [3, 6])
def test_deep_tiffs_are_turned_too(orientation):
    for values in (GREY16, COLOUR16):
        file = tiff(
            values, extratags=[(274, "H", 1, orientation, True)], photometric=("minisblack", "rgb")[values.ndim - 2]
        )
        raster = reading.open_picture(file)
        wanted = torch.from_numpy(np.atleast_3d(values) / 65535).permute(2, 0, 1).expand(3, -1, -1)
        assert torch.equal(raster.values(), reading.turned(wanted, orientation))
        assert "turned by its EXIF orientation" in raster.notes


@pytest.mark.parametrize(
    ("mode", "form"), [("RGB", "PNG"), ("RGBA", "PNG"), ("P", "GIF"), ("P", "PNG"), ("CMYK", "TIFF")]
)
def test_every_mode_becomes_rgb(mode, form):
    colour = Image.fromarray(COLOUR8)
    stored = colour.quantize(64) if mode == "P" else colour.convert(mode)
    found = reading.read_picture(saved(stored, form))
    assert found.dtype == torch.float64 and found.shape == (3, 20, 24)
    np.testing.assert_array_equal(found.numpy(), np.asarray(stored.convert("RGB")).transpose(2, 0, 1) / 255)


def test_transparency_is_dropped_and_noted():
    alpha = pixels(20, 24, 1, seed=1)
    raster = reading.open_picture(saved(Image.fromarray(np.concatenate([COLOUR8, alpha], 2)), "PNG"))
    np.testing.assert_array_equal(raster.values(), COLOUR8.transpose(2, 0, 1) / 255)
    assert raster.notes == ("transparency dropped",)
    palette = Image.fromarray(COLOUR8).quantize(16)
    raster = reading.open_picture(saved(palette, "PNG", transparency=bytes([0, 100, 200])))
    np.testing.assert_array_equal(raster.values(), np.asarray(palette.convert("RGB")).transpose(2, 0, 1) / 255)
    assert raster.notes == ("transparency dropped",)
    grey = reading.open_picture(
        saved(Image.merge("LA", [Image.fromarray(GREY8), Image.fromarray(alpha[..., 0])]), "PNG")
    )
    np.testing.assert_array_equal(grey.rows(0, 20)[..., 0], GREY8)


def test_of_several_frames_the_first_counts():
    first, second = Image.fromarray(GREY8), Image.fromarray(255 - GREY8)
    for form in ("GIF", "TIFF"):
        raster = reading.open_picture(saved(first, form, save_all=True, append_images=[second]))
        np.testing.assert_array_equal(raster.values()[0], GREY8 / 255)
        assert raster.notes == ("the first of several frames",)


def test_rows_are_those_of_the_whole_picture():
    for name in ("png 8", "png 16", "tiff 16 grey", "png 1", "png 4"):
        file, _ = READ_AT_FULL_DEPTH[name]
        file.seek(0)
        raster = reading.open_picture(file)
        np.testing.assert_array_equal(raster.rows(3, 9), raster.rows(0, 20)[3:9])


def test_rescaling_is_torchvisions_and_never_enlarges():
    from torchvision.transforms.functional import resize

    stored = Image.fromarray(pixels(60, 90, 3))
    file = saved(stored, "PNG")
    found = reading.read_picture(file, 20)
    np.testing.assert_array_equal(found.numpy(), np.asarray(resize(stored, 20)).transpose(2, 0, 1) / 255)
    assert found.shape == (3, 20, 30)
    assert reading.read_picture(file, 61).shape == (3, 60, 90)
    deep = pixels(60, 90, 3, dtype=np.uint16)
    ours = reading.read_picture(png_of_16_bits(deep, 2), 20)
    wanted = resize(torch.from_numpy(deep.astype(np.float32)).permute(2, 0, 1), 20, antialias=True) / 65535
    torch.testing.assert_close(ours, wanted.double(), atol=1e-4, rtol=0)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(READ_AT_FULL_DEPTH)),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6),
    st.integers(0, 10**6),
)
def test_damaged_files_give_a_picture_or_an_error_with_a_message(name, changes, kept):
    """Any bytes: a picture of some size with values in [0, 1], or an exception that says something."""
    content = bytearray(READ_AT_FULL_DEPTH[name][0].getvalue())
    for place, value in changes:
        content[place % len(content)] = value
    content = content[: max(1, kept % (2 * len(content)))]
    try:
        found = reading.read_picture(io.BytesIO(bytes(content)))
    except Exception as error:
        assert str(error) or type(error) is not Exception
        return
    assert found.shape[0] == 3 and found.min() >= 0 and found.max() <= 1


# Folders. ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    """Pictures with any ending, hidden files, links within and out of the folder, a loop and a broken link."""
    root, elsewhere = tmp_path / "pictures", tmp_path / "elsewhere"
    for folder in (root / "a", elsewhere / "inner"):
        folder.mkdir(parents=True)
    picture = saved(Image.fromarray(COLOUR8), "PNG").getvalue()
    for file in ("a/one.PNG", "a/two", "three.xyz", "a/._one.png", ".hidden.png"):
        (root / file).write_bytes(picture if "._" not in file else b"AppleDouble")
    (elsewhere / "inner" / "four.png").write_bytes(picture)
    (root / "notes.txt").write_text("not a picture")
    (root / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (root / "linked").symlink_to(elsewhere)
    (root / "again").symlink_to(root / "a")
    (root / "a" / "loop").symlink_to(root)
    (root / "five.png").symlink_to(elsewhere / "inner" / "four.png")
    (root / "broken.png").symlink_to(tmp_path / "nowhere")
    return root


def test_listing_names_every_file_once(tree):
    names, left_out = reading.listing(tree)
    assert names == [
        *(".hidden.png", "a/._one.png", "a/one.PNG", "a/two", "five.png", "linked/inner/four.png", "three.xyz"),
    ]
    assert left_out == {
        ".DS_Store": "no picture",
        "a/loop": "a link to a folder that is read already",
        "again": "a link to a folder that is read already",
        "broken.png": "a broken link",
        "notes.txt": "no picture",
    }
    assert reading.pictures_in(tree) == names
    assert reading.listing(tree, but=[tree / "three.xyz"])[0] == [name for name in names if name != "three.xyz"]


def test_listing_names_what_cannot_be_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    assert reading.listing(tmp_path) == ([], {"pipe.png": "no ordinary file"})
    assert reading.listing(tmp_path / "nowhere")[1] == {".": "a folder that cannot be read: No such file or directory"}
