"""Statistics of all pictures below a folder, in constant memory; an interrupted run goes on where it stopped.

collect(folder, file, sizes=(224,), orders=4)
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from .exact_sums import Sums, sums_of
from .image_statistics import SMALLEST_SIDE
from .reading import listing, open_picture, printable
from .statistics_files import DAMAGE, GROUPS, SCHEMA, Collection, NamedArrays, arrays_of, save_statistics, sums_in

__all__ = ["collect", "measured", "prefix_counts"]

SAVE_EVERY = 10.0  # seconds of work that an interruption costs at the most


def prefix_counts(n: int, wanted: int = 64) -> list[int]:
    """About so many counts from 1 to n, equally spaced on a logarithmic scale, and n // 2 among them.

    >>> prefix_counts(100, 8)
    [1, 2, 4, 7, 14, 27, 50, 52, 100]
    """
    for points in range(wanted, 4 * wanted):  # small counts coincide once they are rounded: ask for more
        counts = {round(c) for c in np.geomspace(1, n, points)} | {max(1, n // 2)}
        if len(counts) >= wanted:
            break
    return sorted(counts)


def measured(file: Path, sizes: Sequence[int] = ()) -> tuple[dict[int, Sums], tuple[str, ...], bytes]:
    """The sums of one picture file: as it is, under 0, and rescaled to each of ``sizes``; its notes and its SHA-256.

    Raises:
        ValueError: the picture is refused, or a side is below 15 pixels. A damaged file raises whatever Pillow raises.

    >>> from PIL import Image
    >>> Image.new("RGB", (40, 30), "gray").save("new.png")
    >>> sums, notes, digest = measured(Path("new.png"), [20])
    >>> [(size, s.statistics().extent.tolist()) for size, s in sums.items()]
    [(0, [1.0, 30.0, 40.0, 1200.0]), (20, [1.0, 20.0, 27.0, 540.0])]
    >>> Path("new.png").unlink()
    """
    with file.open("rb") as stream:
        content = hashlib.sha256()
        while block := stream.read(2**16):
            content.update(block)
        stream.seek(0)
        raster = open_picture(stream)
        rasters = {0: raster, **{size: raster.rescaled(size) for size in sizes}}
        return (
            {size: sums_of(r.rows, r.extent).turned(r.orientation) for size, r in rasters.items()},
            raster.notes,
            content.digest(),
        )


def collect(folder: Path, file: Path, *, sizes: Sequence[int] = (), orders: int = 0) -> Collection:
    """Statistics of all pictures below a folder, into a file; memory does not grow with their number.

    The sums are whole numbers: no order of the pictures, no interruption and no merging changes them by a bit. Pictures
    are read by :func:`ndlib.pictures.reading.open_picture`. One that cannot be read, or has a side below 15 pixels, is
    skipped, and files that are no pictures are left out; both are named in the provenance. Every ten seconds the sums
    so far are written beside ``file``; after an interruption the same call goes on from there.

    Args:
        sizes: also keep the sums of the pictures rescaled to these shorter sides.
        orders: number of random orders of the pictures of which to keep prefix sums, at :func:`prefix_counts`;
            order o is ``numpy.random.default_rng(o).permutation(n)`` of the sorted names.

    Raises:
        ValueError: no picture that can be read, or a size below 15.
        DatasetError: the file of an interrupted run is damaged, or of other pictures or options.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a.png", "b.png"):
    ...         Image.new("RGB", (40, 30), "gray").save(Path(folder) / name)
    ...     collection = collect(Path(folder), Path(folder) / "statistics.npz")
    >>> collection.total.images.item(), collection.provenance["skipped"]
    (2, [])
    """
    from tqdm.auto import tqdm

    if any(size < SMALLEST_SIDE for size in sizes):
        raise ValueError(f"a size must be at least {SMALLEST_SIDE} pixels, got {min(sizes)}")
    partial = file.with_name(f".{file.name}.partial")
    names, left_out = listing(folder, but={file, partial})
    if not names:
        raise ValueError(f"there are no pictures below {folder}")
    state = _State(names, sizes, orders)
    if partial.exists():
        state.restore(partial)
    saved = time.monotonic()
    with tqdm(total=len(names), initial=int(state.done.sum()), unit="picture") as bar:
        for place in np.flatnonzero(~state.done).tolist():
            state.add(folder, place)
            bar.update()
            if time.monotonic() - saved > SAVE_EVERY:
                state.write(partial)
                saved = time.monotonic()
    collection = state.finish(left_out)
    save_statistics(file, collection)
    partial.unlink(missing_ok=True)
    return collection


class _State:
    """The sums of the pictures that are done, and all that is needed to go on with the others."""

    def __init__(self, names: list[str], sizes: Sequence[int], orders: int) -> None:
        self.names = names
        self.done = np.zeros(len(names), bool)
        self.skipped: dict[str, str] = {}
        self.notes: Counter[str] = Counter()
        self.digest = 0
        self.job = hashlib.sha256(json.dumps([names, list(sizes), orders, SCHEMA]).encode()).hexdigest()
        self.totals = {size: Sums() for size in (0, *sizes)}
        self.groups = Sums((GROUPS,))
        counts = prefix_counts(len(names))
        ranks = (np.random.default_rng(order).permutation(len(names)).argsort() for order in range(orders))
        self.bins = [np.searchsorted(counts, rank + 1) for rank in ranks]  # the first count that has the picture
        self.steps = [Sums((len(counts),)) for _ in range(orders)]

    def add(self, folder: Path, place: int) -> None:
        """Add a picture, or note why it cannot be read."""
        self.done[place], name = True, self.names[place]
        try:
            found, notes, content = measured(folder / name, list(self.totals)[1:])
        except Exception as error:  # a damaged file can raise anything in a decoder; one picture is not worth the run
            # Pillow's own message on what is no picture ends with an address in memory.
            self.skipped[printable(name)] = printable(str(error).partition(" <")[0]) or type(error).__name__
            return
        self.notes.update(notes)
        self.digest += int.from_bytes(hashlib.sha256(os.fsencode(name) + content).digest())
        self.digest %= 2**256
        for size, sums in found.items():
            self.totals[size].add(sums)
        self.groups.add(found[0], at=place % GROUPS)
        for bins, steps in zip(self.bins, self.steps, strict=True):
            steps.add(found[0], at=int(bins[place]))

    def _sums(self) -> dict[str, Sums]:
        totals = {f"total/{size}": sums for size, sums in self.totals.items()}
        return {**totals, "groups": self.groups, **{f"steps/{order}": s for order, s in enumerate(self.steps)}}

    def write(self, partial: Path) -> None:
        """Write the sums so far, for :meth:`restore`."""
        state = {"job": self.job, "skipped": self.skipped, "notes": self.notes, "digest": f"{self.digest:064x}"}
        arrays: NamedArrays = {"state": np.array(json.dumps(state)), "done": self.done}
        for name, sums in self._sums().items():
            arrays |= arrays_of(sums, name)
        files.write_npz(partial, arrays)

    def restore(self, partial: Path) -> None:
        """Take up the sums of a file that :meth:`write` wrote with the same pictures and options."""
        try:
            with partial.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                state = json.loads(str(stored["state"]))
                if state["job"] != self.job:
                    raise ValueError("it is of other pictures or options, or of another version of ndlib")
                self.done, self.digest = stored["done"], int(state["digest"], 16)
                self.skipped, self.notes = state["skipped"], Counter(state["notes"])
                for name, sums in self._sums().items():
                    sums.parts = sums_in(stored, name, sums.leading).parts
        except DAMAGE as error:
            raise files.DatasetError(f"cannot go on from {partial} ({error}): delete it to begin afresh") from error

    def finish(self, left_out: dict[str, str]) -> Collection:
        """The statistics of all pictures that were added."""
        from .. import __version__

        skipped = [f"{name}: {reason}" for name, reason in sorted(self.skipped.items())]
        if len(skipped) == len(self.names):
            raise ValueError(f"none of the {len(skipped)} pictures could be read; the first: {skipped[0]}")
        sizes = list(self.totals)[1:]
        options = [f"--sizes {' '.join(map(str, sizes))}"] if sizes else []
        options += [f"--orders {len(self.steps)}"] if self.steps else []
        provenance: dict[str, Any] = {
            "schema": SCHEMA,
            "pictures": len(self.names) - len(skipped),
            "skipped": skipped,
            "left_out": [f"{printable(name)}: {reason}" for name, reason in left_out.items()],
            "notes": dict(sorted(self.notes.items())),
            "sha256": f"{self.digest:064x}",
            "sha256_of": "the sum, modulo 2^256, of sha256(name + sha256(content)) over the pictures",
            "estimator": "sums over all pairs of pixels at each lag, in whole numbers",
            "resolution": "as the files are",
            "sizes": sizes,
            "orders": len(self.steps),
            "command": " ".join(["python -m ndlib statistics FOLDER --out FILE.npz", *options]),
            "ndlib": __version__,
            "date": date.today().isoformat(),
        }
        prefixes = tuple(s.running().statistics("luminance" if n else "rgb") for n, s in enumerate(self.steps))
        return Collection(self.totals, self.groups, prefixes, provenance)
