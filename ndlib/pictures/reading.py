"""Picture files as whole numbers, read for what they are or refused with a sentence; and what lies below a folder.

    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("L", (60, 40), 128).save(file, "PNG")
    >>> raster = open_picture(file)
    >>> raster.extent, raster.rows(0, 2).shape, raster.notes
    ((40, 60), (2, 60, 1), ())

- *Depth*: 8 bits, and 16 bits of grey (PNG, TIFF, PGM, JPEG 2000) and of colour (PNG, TIFF), at full depth. Refused:
  floating-point pixels, integers that are signed or of 12 or 32 bits, or whose scale a format does not state, and
  colour of more than 8 bits that Pillow would cut to 8.
- *Orientation*: a picture is turned as its EXIF data say, as every viewer turns it.
- *Transparency* is dropped: the colours count as they are stored. *Palettes*, CMYK, YCbCr and HSV become R, G and B as
  Pillow makes them; grey stays one channel; colour profiles are not applied. Of several frames the first counts.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Raster", "listing", "open_picture", "pictures_in", "printable", "read_picture", "turned"]

GREY, COLOUR = ("1", "L", "LA", "La"), ("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV")
DEEP_GREY = {"PNG": ("I;16",), "TIFF": ("I;16", "I;16B"), "PPM": ("I",), "JPEG2000": ("I;16",)}
DEEP = re.compile("(L|LA|RGB|RGBA|RGBX|CMYK|I);16[BLN]?|SGI16")  # raw modes of 16 bits, and one decoder
ORIENTATION = 0x0112  # the tag of EXIF, and of TIFF
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
TURNS, TURNED = range(2, 9), "turned by its EXIF orientation"

Rows = Callable[[int, int], NDArray[Any]]


@dataclass(frozen=True)
class Raster:
    """A picture that was opened: whole numbers of 8 or 16 bits, as they are stored, not yet turned.

    Args:
        extent: height and width as stored.
        rows: gives the rows from ``top`` up to ``bottom``, uint8 or uint16 of shape (bottom - top, W, 1 or 3).
        orientation: 1 to 8, see EXIF: how a viewer turns it.
        notes: what else to know of it: "turned by its EXIF orientation", ...

    >>> Raster((2, 3), lambda top, bottom: np.zeros((bottom - top, 3, 1), np.uint8), 1, ()).rows(0, 1).shape
    (1, 3, 1)
    """

    extent: tuple[int, int]
    rows: Rows
    orientation: int
    notes: tuple[str, ...]

    def rescaled(self, size: int) -> Raster:
        """With the shorter side so many pixels, as torchvision's ``Resize`` does it; never enlarged.

        >>> Raster((40, 60), lambda t, b: np.zeros((b - t, 60, 3), np.uint8), 1, ()).rescaled(20).extent
        (20, 30)
        """
        from PIL import Image

        shorter = min(self.extent)
        if shorter <= size:
            return self
        height, width = (round(side * size / shorter) for side in self.extent)
        pixels = self.rows(0, self.extent[0])

        def resized(values: NDArray[Any]) -> NDArray[Any]:
            return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR))

        if pixels.dtype == np.uint8:
            small = resized(pixels[..., 0] if pixels.shape[2] == 1 else pixels).reshape(height, width, -1)
        else:  # Pillow filters 16 bits as floating-point numbers, one channel at a time
            channels = [resized(pixels[..., c].astype(np.float32)) for c in range(pixels.shape[2])]
            small = np.stack(channels, 2).round().astype(np.uint16)
        return Raster((height, width), lambda top, bottom: small[top:bottom], self.orientation, self.notes)

    def values(self) -> Tensor:
        """The whole picture, turned, as float64 of shape (3, H, W) in [0, 1].

        >>> Raster((2, 3), lambda t, b: np.full((b - t, 3, 1), 255, np.uint8), 6, ()).values().shape
        torch.Size([3, 3, 2])
        """
        pixels = self.rows(0, self.extent[0])
        values = torch.from_numpy(pixels / np.iinfo(pixels.dtype).max).permute(2, 0, 1).expand(3, -1, -1)
        return turned(values, self.orientation)


def turned(x: Tensor, orientation: int) -> Tensor:
    """Rows and columns, the last two dimensions, turned as the EXIF orientation says.

    >>> turned(torch.tensor([[1, 2], [3, 4]]), 6).tolist()  # a quarter to the right
    [[3, 1], [4, 2]]
    """
    x = x.transpose(-2, -1) if orientation in (5, 6, 7, 8) else x
    flips = {2: (-1,), 3: (-2, -1), 4: (-2,), 6: (-1,), 7: (-2, -1), 8: (-2,)}.get(orientation, ())
    return x.flip(flips)


def read_picture(file: Path | BinaryIO, size: int | None = None) -> Tensor:
    """A picture file as float64 of shape (3, H, W) in [0, 1], turned as its EXIF orientation says; grey as R = G = B.

    Args:
        size: rescale the shorter side to so many pixels, antialiased, with the bilinear filter that torchvision's
            ``Resize`` takes too; a smaller picture keeps its size, since enlarging adds no detail.

    Raises:
        ValueError: pixels whose scale is not known or that cannot be read at full depth. A damaged file raises whatever
            Pillow raises.

    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (60, 40), (255, 0, 0)).save(file, "PNG")
    >>> picture = read_picture(file, size=20)
    >>> picture.shape, picture[:, 0, 0].tolist()
    (torch.Size([3, 20, 30]), [1.0, 0.0, 0.0])
    """
    raster = open_picture(file)
    return (raster if size is None else raster.rescaled(size)).values()


def open_picture(file: Path | BinaryIO) -> Raster:
    """Open a picture file and decode it.

    Raises:
        ValueError: pixels whose scale is not known or that cannot be read at full depth. A damaged file raises whatever
            Pillow raises.

    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("F", (60, 40)).save(file, "TIFF")
    >>> open_picture(file)
    Traceback (most recent call last):
        ...
    ValueError: floating-point pixels, whose scale is not known
    """
    from PIL import Image

    if isinstance(file, Path):
        with file.open("rb") as stream:
            return open_picture(stream)
    with Image.open(file) as picture:
        deep = _is_deep(picture, file)
        notes = _notes(picture, deep)
        in_tiff = _tag(picture, ORIENTATION, 1)
        rows = (
            (_both_bytes(picture, file) if picture.mode in COLOUR else _grey(picture)) if deep else _converted(picture)
        )
        orientation = picture.getexif().get(ORIENTATION, 1)  # 1 of a TIFF, which Pillow has turned while it read it
        notes += [TURNED] if orientation in TURNS or in_tiff in TURNS else []
        return Raster((picture.height, picture.width), rows, orientation, tuple(notes))


def _tag(picture: Image, tag: int, otherwise: Any) -> Any:
    """A tag of a TIFF; ``otherwise`` where it is missing, and for all other formats."""
    return getattr(picture, "tag_v2", {}).get(tag, otherwise) if picture.format == "TIFF" else otherwise


def _notes(picture: Image, deep: bool) -> list[str]:
    notes = {
        "16 bits deep": deep,
        "transparency dropped": "transparency" in picture.info or picture.mode in ("LA", "La", "PA", "RGBA", "RGBa"),
        "the first of several frames": getattr(picture, "n_frames", 1) > 1,
    }
    return [note for note, holds in notes.items() if holds]


def _is_deep(picture: Image, file: BinaryIO) -> bool:
    """Whether pixels have 16 bits rather than 8; what can be read as neither is refused.

    Only before it is loaded does Pillow say what is in the file: colour of 16 bits becomes ``RGB``, as that of 8 does.
    """
    form, mode = str(picture.format), picture.mode
    kinds, bits = ({*np.ravel(_tag(picture, tag, usual)).tolist()} for tag, usual in ((SAMPLE_FORMAT, 1), (BITS, 8)))
    bits |= _bits_of_codec(form, file)
    if mode == "F" or 3 in kinds:
        raise ValueError("floating-point pixels, whose scale is not known")
    if kinds != {1}:
        raise ValueError("signed pixels, or of no stated kind, whose scale is not known")
    if not bits <= {1, 2, 4, 8, 16}:
        raise ValueError(
            f"pixels of {max(bits)} bits: only 8 and 16 can be read, and 1, 2 and 4 where they are stretched"
        )
    words = _told_to_the_decoder(picture)
    deep = 16 in bits or any(DEEP.fullmatch(word) for word in words if isinstance(word, str))
    deep |= form == "PPM" and any(word > 255 for word in words if isinstance(word, int))
    if deep and mode in COLOUR and form not in ("PNG", "TIFF"):
        raise ValueError(f"{form} with colour of 16 bits, of which 8 would be read: convert it to PNG or TIFF")
    if mode not in (*COLOUR, *(DEEP_GREY.get(form, ()) if deep else GREY)):
        raise ValueError(f"{form} with pixels of {'16 bits' if deep else f'mode {mode}'}, whose scale is not known")
    return deep


def _told_to_the_decoder(picture: Image) -> list[Any]:
    """The raw mode, such as ``"RGB;16B"``, and of PPM the largest value, among other things."""
    tiles: list[Any] = getattr(picture, "tile", [])
    told = (tile[3] if isinstance(tile[3], tuple) else (tile[3],) for tile in tiles)
    return [tile[0] for tile in tiles] + [word for words in told for word in words]


def _bits_of_codec(form: str, file: BinaryIO) -> set[int]:
    """The bits that JPEG 2000 and AVIF state in their headers, which Pillow does not tell; none for other formats."""
    if form not in ("JPEG2000", "AVIF"):
        return set()
    file.seek(0)
    head = file.read(2**16)
    if form == "AVIF":
        flags = head[head.find(b"av1C") + 6]
        return {8 + 2 * bool(flags & 0x40) + 2 * bool(flags & 0x20)}
    size = (
        head.find(b"\xff\x4f\xff\x51") + 2
    )  # the marker SIZ: 38 bytes on, the number of components, then their depths
    components = int.from_bytes(head[size + 38 : size + 40])
    return {1 + depth for depth in head[size + 40 : size + 40 + 3 * components : 3]}  # 128 more where they are signed


def _converted(picture: Image) -> Rows:
    """Rows of a picture of 8 bits, converted to grey or to R, G and B a strip at a time."""
    picture.load()
    mode = "L" if picture.mode in GREY else "RGB"

    def rows(top: int, bottom: int) -> NDArray[Any]:
        whole = top == 0 and bottom >= picture.height
        strip = picture if whole else picture.crop((0, top, picture.width, bottom))
        if strip.mode == "P" and "transparency" in strip.info:
            strip = strip.convert("RGBA")  # Pillow warns of a palette with transparency that is not first made RGBA
        strip = strip if strip.mode == mode else strip.convert(mode)
        return np.asarray(strip).reshape(strip.height, strip.width, -1)

    return rows


def _grey(picture: Image) -> Rows:
    """Rows of a grey picture of 16 bits."""
    white_is_zero = _tag(picture, PHOTOMETRIC, 1) == 0  # Pillow turns this round for 8 bits, not for 16
    values = np.asarray(picture).astype(np.uint16)[:, :, None]
    pixels = 65535 - values if white_is_zero else values
    return lambda top, bottom: pixels[top:bottom]


def _both_bytes(picture: Image, file: BinaryIO) -> Rows:
    """Rows of a PNG or TIFF with colour of 16 bits, of which Pillow keeps the high byte.

    Told that the bytes stand the other way round, it keeps the low one: the file is decoded twice.
    """
    from PIL import Image

    file.seek(0)
    low = Image.open(file)
    low.tile = [tile._replace(args=_other_byte(tile.args)) for tile in low.tile]
    high_rows, low_rows = _converted(picture), _converted(low)
    return lambda top, bottom: high_rows(top, bottom).astype(np.uint16) << 8 | low_rows(top, bottom)


def _other_byte(told: Any) -> Any:
    raw, *rest = told if isinstance(told, tuple) else (told,)
    if raw not in {f"{mode};16{order}" for mode in ("RGB", "RGBA", "RGBX") for order in "BLN"}:
        raise ValueError(f"colour of 16 bits, stored as {raw}, of which 8 would be read")
    big = "L" if sys.byteorder == "big" else "B"
    other = raw[:-1] + {"B": "L", "L": "B", "N": big}[raw[-1]]
    return (other, *rest) if isinstance(told, tuple) else other


# Folders. ------------------------------------------------------------------------------------------------------


def pictures_in(folder: Path) -> list[str]:
    """Names of the pictures below a folder, relative to it, sorted: see :func:`listing`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.JPG", "a.png", "notes.txt"):
    ...         (Path(folder) / name).touch()
    ...     pictures_in(Path(folder))
    ['a.png', 'b.JPG']
    """
    return listing(folder)[0]


def listing(folder: Path, but: Collection[Path] = ()) -> tuple[list[str], dict[str, str]]:
    """What lies below a folder: the names of pictures, sorted, and of all else with the reason for leaving it out.

    A picture is what Pillow knows by its ending, or by its first bytes whatever the ending. Links are followed; a
    folder to which several ways lead is read once.

    Args:
        but: files that are no part of it (the result that is being written).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.JPG", "a.png", "notes.txt"):
    ...         (Path(folder) / name).touch()
    ...     listing(Path(folder))
    (['a.png', 'b.JPG'], {'notes.txt': 'no picture'})
    """
    from PIL import Image

    endings = Image.registered_extensions()
    names, left_out = [], {}
    for name, reason in _below(folder):
        file = folder / name
        if file in but:
            continue
        if reason:
            left_out[name] = reason
        elif file.suffix.lower() in endings or _is_picture(file):
            names.append(name)
        else:
            left_out[name] = "no picture"
    return sorted(names), dict(sorted(left_out.items()))


def _below(root: Path) -> Iterator[tuple[str, str]]:
    """All files below a folder; with a reason where one can be no picture, or a folder cannot be read."""
    seen, waiting = set(), [root]  # folders, links to folders last: a folder is known by its own name where it has one
    while waiting:
        folder = waiting.pop(0)
        name = folder.relative_to(root).as_posix()
        try:
            about = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield name, f"a folder that cannot be read: {error.strerror}"
            continue
        if (about.st_dev, about.st_ino) in seen:
            yield name, "a link to a folder that is read already"
            continue
        seen.add((about.st_dev, about.st_ino))
        inner = [entry for entry in entries if entry.is_dir()]
        waiting = [
            *(folder / entry.name for entry in inner if not entry.is_symlink()),
            *waiting,
            *(folder / entry.name for entry in inner if entry.is_symlink()),
        ]
        for entry in entries:
            if not entry.is_dir():
                yield (folder / entry.name).relative_to(root).as_posix(), _why_no_file(entry)


def _why_no_file(entry: os.DirEntry[str]) -> str:
    try:
        return "" if entry.is_file() else "a broken link" if entry.is_symlink() else "no ordinary file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _is_picture(file: Path) -> bool:
    """Whether Pillow knows the first bytes."""
    from PIL import Image

    try:
        with Image.open(file):
            return True
    except Exception:  # whatever a decoder raises on what is no picture of its kind
        return False


def printable(name: str) -> str:
    r"""A file name that can be printed and stored whatever bytes it has.

    >>> printable("caf\xe9\udcff.png")
    'café\\udcff.png'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
