"""The files that the project carries, where data sets are kept, and writing a file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DatasetError", "cache_folder", "path", "write_npz", "written_whole"]


class DatasetError(RuntimeError):
    """A data set cannot be had, or its file cannot be trusted; the message says what to do.

    >>> raise DatasetError("cifar10.npz is damaged; delete it")
    Traceback (most recent call last):
        ...
    ndlib.files.DatasetError: cifar10.npz is damaged; delete it
    """


def path(name: str) -> Path:
    """A file that the project carries: ``path("published/table2_imagenet.csv")``, in a checkout and in the wheel.

    Raises:
        FileNotFoundError: no such file, with the names of those there are.

    >>> path("published/table2_imagenet.csv").name
    'table2_imagenet.csv'
    """
    package = Path(__file__).parent
    shared = package / "_shared"  # where the wheel has what a checkout has in data/
    root = shared if shared.is_dir() else package.parent / "data"
    file = root / name
    if not file.exists():
        there = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
        raise FileNotFoundError(f"the project carries no file {name!r}; it has {', '.join(there)}")
    return file


def cache_folder() -> Path:
    """Where data sets are kept: ``$NDLIB_DATA``, or ``~/.cache/ndlib``.

    >>> cache_folder().is_absolute()
    True
    """
    return Path(os.environ.get("NDLIB_DATA") or Path.home() / ".cache" / "ndlib")


@contextmanager
def written_whole(file: Path) -> Iterator[IO[bytes]]:
    """A stream whose content becomes the file, whole or not at all: under another name first, then renamed.

    >>> with written_whole(Path("new.bin")) as stream:
    ...     _ = stream.write(b"all of it")
    >>> Path("new.bin").read_bytes()
    b'all of it'
    >>> Path("new.bin").unlink()
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as partial:
        try:
            yield partial
            partial.flush()
            os.fsync(partial.fileno())
            Path(partial.name).chmod(0o644)  # temporary files are for their owner alone
            Path(partial.name).replace(file)
        except BaseException:
            Path(partial.name).unlink(missing_ok=True)
            raise


def write_npz(file: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an uncompressed NumPy archive, whole or not at all.

    >>> write_npz(Path("new.npz"), {"a": np.arange(3)})
    >>> with np.load("new.npz") as stored:
    ...     stored["a"].tolist()
    [0, 1, 2]
    >>> Path("new.npz").unlink()
    """
    with written_whole(file) as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
