"""How many images an accuracy was counted on: with enough decimals the number itself tells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from ..formats import plain_name
from ..tables import TableRow, TableRows
from ._shared import decimals_of, decimals_of_column, group, not_applicable, plural, reported, values_of
from .outcomes import Finding, Outcome

__all__ = ["IMAGES", "Grain", "fewest_images", "grains", "granularity", "images_of", "possible_percentage"]

IMAGES = {  # test and training images
    "CIFAR-10": (10_000, 50_000),
    "CIFAR-100": (10_000, 50_000),
    "MNIST": (10_000, 60_000),
    "Fashion-MNIST": (10_000, 60_000),
    "ImageNet": (50_000, 1_281_167),  # the validation images, on which results are reported
    "Tiny ImageNet": (10_000, 100_000),
    "SVHN": (26_032, 73_257),
    "STL-10": (8_000, 5_000),
}
_ALIASES = {plain_name(name): sizes for name, sizes in IMAGES.items()}
_ALIASES |= dict.fromkeys(("fmnist",), IMAGES["Fashion-MNIST"])
_ALIASES |= dict.fromkeys(("imagenet1k", "ilsvrc2012", "ilsvrc", "imagenet2012"), IMAGES["ImageNet"])


def images_of(dataset: str) -> tuple[int, int]:
    """Test and training images of a data set, whatever its spelling; 0 and 0 where they are not known.

    >>> images_of("cifar10"), images_of("ImageNet-1k")[0], images_of("my pictures")
    ((10000, 50000), 50000, (0, 0))
    """
    return _ALIASES.get(plain_name(dataset), (0, 0))


def possible_percentage(value: Decimal, images: int, decimals: int) -> bool:
    """Whether some whole number m of images, in per cent 100 m / images, gives a value known to so many decimals.

    >>> possible_percentage(Decimal("88.516"), 10_000, decimals=3)
    False
    >>> possible_percentage(Decimal("88.516"), 50_000, decimals=3)  # 44,258 of them
    True
    """
    nearest = 100 * Decimal(round(value * images / 100)) / images
    return abs(value - nearest) <= max(Decimal(5).scaleb(-decimals - 1), Decimal("1e-9"))


def _otherwise_printed(values: list[tuple[Decimal, int]], images: int) -> bool:
    """Whether all values, each with its decimals, are counts of images printed in one of the other honest ways.

    Digits cut off instead of rounded; stored in single precision, or in one of 16 bits, as percentages or fractions.
    """
    ways: list[Callable[[Decimal, int], bool]] = [
        lambda value, decimals: _cut_off(value, images, decimals),
        lambda value, decimals: _near(value, images, _half_unit(decimals) + value / 2**21),
    ]
    for bits in (11, 8):  # significant ones, of float16 and bfloat16
        for unit in (1, 100):
            ways.append(partial(_stored, images, bits, unit))
    return any(all(fits(value, decimals) for value, decimals in values) for fits in ways)


def _half_unit(decimals: int) -> Decimal:
    return max(Decimal(5).scaleb(-decimals - 1), Decimal("1e-9"))


def _near(value: Decimal, images: int, tolerance: Decimal) -> bool:
    return abs(value - 100 * Decimal(round(value * images / 100)) / images) <= tolerance


def _cut_off(value: Decimal, images: int, decimals: int) -> bool:
    """Whether a count of images gives a percentage that begins with these digits."""
    count = math.ceil(value * images / 100)
    return 100 * Decimal(count) / images - value < 2 * _half_unit(decimals)


def _stored(images: int, bits: int, unit: int, value: Decimal, decimals: int) -> bool:
    """Whether a number of so many significant bits is printed as this value, and a count of images is rounded to it."""
    if value == 0:
        return True
    exact = float(value) / unit
    step = 2.0 ** (math.frexp(exact)[1] - bits)
    stored = Decimal(round(exact / step) * step * unit)
    return abs(stored - value) <= _half_unit(decimals) and _near(stored, images, Decimal(step * unit) / 2)


def fewest_images(values: Iterable[Decimal]) -> int:
    """The smallest number of images from which all these percentages can come, if none of them was rounded.

    It is the least common multiple of the denominators of the values as fractions.

    >>> fewest_images([Decimal("81.25"), Decimal("77.5")])  # 13/16 and 31/40
    80
    """
    return math.lcm(*((value / 100).as_integer_ratio()[1] for value in values))


@dataclass(frozen=True)
class Grain:
    """The unrounded values of one data set after some epochs, beside the numbers of test and training images.

    Args:
        known: the values with enough decimals to tell; impossible: those of them that no count of test images gives.
        test_images, train_images: 0 where the number is not known.
        all_train: whether counts of training images give all of ``known``.

    >>> row = TableRow(accuracy=Decimal("88.516"))
    >>> Grain((row,), (row,), test_images=10_000, train_images=50_000, all_train=True).kind
    'train'
    """

    known: tuple[TableRow, ...]
    impossible: tuple[TableRow, ...]
    test_images: int
    train_images: int
    all_train: bool

    @property
    def kind(self) -> str:
        """``"train"`` if most of the values cannot be test accuracies, ``"test"`` if all can, or ``"not stated"``."""
        if 2 * len(self.impossible) > len(self.known):
            return "train"
        return "test" if self.known and not self.impossible else "not stated"


def grains(rows: TableRows) -> dict[tuple[str, int, int], Grain]:
    """For each data set, number of epochs and number of test images in the table (0: none there) the :class:`Grain`.

    A group has none if no value has enough decimals to tell one image more from one less.

    >>> rows = [TableRow(dataset="CIFAR-10", epochs=20, accuracy=Decimal(text)) for text in ("88.516", "90.120")]
    >>> {key: len(grain.impossible) for key, grain in grains(rows).items()}
    {('CIFAR-10', 20, 0): 1}
    """
    column = "unrounded" if any(r.unrounded is not None for r in reported(rows)) else "accuracy"
    # A value with a spread is a mean of runs.
    runs = [r for r in reported(rows) if getattr(r, column) is not None and r.spread is None]
    of_file = {
        file: decimals_of_column(values_of(inside, column)) for file, inside in group(runs, lambda r: r.file).items()
    }
    found = {}
    for key, inside in group(runs, lambda r: (r.dataset, r.epochs, r.images)).items():
        test, train = (key[2], 0) if key[2] else images_of(key[0])
        decimals = {id(r): max(of_file[r.file], decimals_of(getattr(r, column))) for r in inside}
        known = [r for r in inside if test * 10.0 ** -decimals[id(r)] < 100]
        if test and known:
            able = {
                n: [possible_percentage(getattr(r, column), n, decimals[id(r)]) for r in known]
                for n in (test, train)
                if n
            }
            impossible = tuple(r for r, fine in zip(known, able[test], strict=True) if not fine)
            if impossible and _otherwise_printed([(getattr(r, column), decimals[id(r)]) for r in known], test):
                impossible = ()
            found[key] = Grain(tuple(known), impossible, test, train, all(able.get(train, [False])))
    return found


def granularity(rows: TableRows) -> Outcome:
    """Is accuracy times the number of test images a whole number?

    Certain is an impossible value of a run (its row has an attempt). Without, it may be a mean of runs, which no table
    has to say. Means with their spread are not asked.

    >>> rows = [TableRow(dataset="CIFAR-10", epochs=20, attempt="1", accuracy=Decimal("88.516"))]
    >>> print(granularity(rows).findings[0].message)
    1 of 1 value cannot come from 10,000 test images; all fit 50,000 training images
    """
    found = grains(rows)
    if not found:
        return not_applicable("needs a known number of test images, and more printed decimals than one of them makes")
    findings = []
    for grain in found.values():
        if grain.impossible:
            first = grain.impossible[0]
            counts = f"{len(grain.impossible)} of {plural(len(grain.known), 'value')}"
            also = f"; all fit {grain.train_images:,} training images" if grain.all_train else ""
            message = f"{counts} cannot come from {grain.test_images:,} test images{also}"
            numbers = f"{first.architecture} {first.method}: {first.value:f}".strip()
            of_runs = all(row.attempt for row in grain.impossible)
            if not of_runs:
                message += ", unless they are means of several runs"
            findings.append(Finding("impossible", grain.impossible, message, "certain" if of_runs else "look", numbers))
    return Outcome(tuple(findings), plural(sum(len(g.known) for g in found.values()), "value"))
