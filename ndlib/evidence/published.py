"""The published accuracies on CIFAR as records: three sources, what each value is, and what is odd about it.

The files in ``data/published`` hold what the studies printed. This module reads and joins them, and the checks of
:mod:`ndlib.evidence.audit` mark the values; no value is judged by hand. ``RULES`` says what the marks mean.

    published.select(source="paper", dataset="CIFAR-10", epochs=20, architecture="VGG-16", method="ND")[0].accuracy
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

from ..files import path
from . import audit

PAPER, SBANDATI, OBADAGE = "paper", "Sbandati 2021", "Obadage 2024"
RECOVERED = "Obadage 2024, logs"  # test means that the study did not print, from its own logs
SOURCES = (PAPER, SBANDATI, OBADAGE, RECOVERED)
DATASETS = ("CIFAR-10", "CIFAR-100")
EPOCHS = (1, 20, 100)

RULES = {
    "equals-test": "equals the best test accuracy of this run in the study's logs",
    "equals-train": "equals the best training accuracy of this run in the study's logs",
    "another-run": "equals the best training accuracy of another run in the study's logs",
    "impossible": "no multiple of 0.01 %, as every accuracy on 10,000 test images is",
    "block": "most values of the same data set and epochs cannot be test accuracies",
    "copy": "value and time of a run in another cell",
    "average": "differs from the mean of its runs by more than 0.01",
    "time": "the cell of the time holds an accuracy",
    "seconds": "the published mean time differs from the mean of the runs by more than 2 %",
}
# Marks that speak against a value as a test accuracy of its cell; the last two are about times.
SUSPICIOUS = ("equals-train", "another-run", "impossible", "block", "copy", "average")


@dataclass(frozen=True)
class Mark:
    """What a rule says about a value: a key of ``RULES``, the reason in words, and its numbers."""

    rule: str
    reason: str
    numbers: str = ""


@dataclass(frozen=True)
class Attempt:
    """One run of several that a study publishes; ``unrounded`` is its value in the first version of the spreadsheet."""

    number: int
    accuracy: float
    unrounded: float | None
    train_seconds: float | None
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Record:
    """One cell of Table 1 in one source. Accuracies in percent, times in seconds.

    ``kind`` is what the accuracy was measured on: ``"test"``, ``"train"`` or ``"not stated"``; ``basis`` says how that
    is known. ``accuracy`` and ``seconds`` are the values that the source prints (of several attempts their mean).
    """

    source: str
    dataset: str
    architecture: str
    epochs: int
    method: str
    accuracy: float
    kind: str
    basis: str
    file: str
    attempts: tuple[Attempt, ...] = ()
    seconds: float | None = None
    marks: tuple[Mark, ...] = ()

    @property
    def cell(self) -> tuple[str, str, int, str]:
        """What the sources share, which is data set, architecture, epochs and method."""
        return self.dataset, self.architecture, self.epochs, self.method

    @property
    def suspicious(self) -> bool:
        """Whether a mark, its own or of an attempt, speaks against the value as a test accuracy of this cell."""
        return any(mark.rule in SUSPICIOUS for mark in self.all_marks)

    @property
    def all_marks(self) -> tuple[Mark, ...]:
        """Its own marks and those of its attempts."""
        return self.marks + tuple(mark for attempt in self.attempts for mark in attempt.marks)

    def explain(self) -> str:
        """What is known about the value, in sentences."""
        said = [self.basis, *(f"{mark.reason}." for mark in self.marks)]
        found: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
        for attempt in self.attempts:
            rules = {mark.rule for mark in attempt.marks}
            for mark in attempt.marks:
                weaker = mark.rule == "impossible" and rules & {"equals-train", "another-run"}
                if mark.rule not in ("equals-test", "block") and not weaker:  # the basis says these
                    found[mark.rule, mark.reason].append((attempt.number, mark.numbers))
        for (_, reason), runs in found.items():
            *others, last = (str(number) for number, _ in runs)
            which = f"Runs {', '.join(others)} and {last}" if others else f"Run {last}"
            said.append(f"{which}: {reason} ({'; '.join(numbers for _, numbers in runs)}).")
        return " ".join(said)


@cache
def records() -> tuple[Record, ...]:
    """Every cell of Table 1 in every source, in the order of the table."""
    said = "The published code reports the best test accuracy."
    paper = [_plain(PAPER, row, "test", said) for row in rows(TABLE, audit.ORIGINAL)]
    obadage = _obadage()
    return (*paper, *_sbandati(paper, obadage), *obadage, *_recovered())


def select(among: Iterable[Record] | None = None, /, **conditions: Any) -> list[Record]:
    """The records whose fields have the given values: ``select(dataset="CIFAR-10", epochs=20, kind="test")``."""
    among = records() if among is None else among
    return [r for r in among if all(getattr(r, name) == value for name, value in conditions.items())]


def pairs(among: Iterable[Record]) -> list[tuple[Record, Record]]:
    """BN and ND of the same source, data set, architecture and epochs, where both are there."""
    both: dict[tuple[Any, ...], dict[str, Record]] = defaultdict(dict)
    for r in among:
        both[r.source, r.dataset, r.epochs, r.architecture][r.method] = r
    return [(found["BN"], found["ND"]) for found in both.values() if {"BN", "ND"} <= found.keys()]


class Difference(NamedTuple):
    """A test accuracy of a reproduction minus the paper's of the same cell, in points, with a 95 % interval.

    The interval is ``value`` plus and minus ``half``. ``binomial`` is the part of ``half`` that comes from the limited
    number of test images alone, and all of it where there is one run only: then the interval is too short.
    """

    record: Record
    paper: Record
    value: float
    half: float
    binomial: float


def differences(among: Iterable[Record] | None = None) -> list[Difference]:
    """Every test accuracy of a reproduction beside the paper's.

    Two uncertainties are added as squares. *Runs*: with n attempts of standard deviation s, the paper's one run and
    their mean differ by chance with s sqrt(1 + 1/n), times the quantile of Student's t with n - 1 degrees of freedom;
    this takes the paper's run to scatter as the attempts do. *Test images*: 1.96 times the binomial error of both
    accuracies on 10,000 images, as if each network had met images of its own, which is on the careful side.
    """
    from scipy.stats import t

    paper = {r.cell: r for r in select(source=PAPER)}
    found = []
    for r in select(among, kind="test"):
        if r.source == PAPER:
            continue
        shares = (r.accuracy / 100, paper[r.cell].accuracy / 100)
        binomial = 196 * sum(p * (1 - p) / audit.IMAGES[r.dataset][0] for p in shares) ** 0.5
        n, runs = len(r.attempts), 0.0
        if n > 1:
            spread = statistics.stdev(a.accuracy for a in r.attempts)
            runs = float(t.ppf(0.975, n - 1)) * spread * (1 + 1 / n) ** 0.5
        value = r.accuracy - paper[r.cell].accuracy
        found.append(Difference(r, paper[r.cell], value, math.hypot(runs, binomial), binomial))
    return found


def median_seconds(record: Record) -> float:
    """Seconds of training, median of the runs: some of the times stand in the wrong place."""
    return statistics.median(a.train_seconds for a in record.attempts if a.train_seconds is not None)


def time_ratios(dataset: str, epochs: int) -> dict[str, float]:
    """By architecture the training time with ND over that with BN, in the study that publishes its runs."""
    both = pairs(select(source=OBADAGE, dataset=dataset, epochs=epochs))
    return {bn.architecture: median_seconds(nd) / median_seconds(bn) for bn, nd in both}


def hours(text: str) -> float:
    """A time as the table of ImageNet gives it, "2d 21h 27m 18s", in hours."""
    units = {"d": 24, "h": 1, "m": 1 / 60, "s": 1 / 3600}
    return sum(int(part[:-1]) * units[part[-1]] for part in text.split())


def architectures() -> list[str]:
    """The ten architectures, in the order of the table."""
    return list(dict.fromkeys(row.architecture for row in rows(TABLE, audit.ORIGINAL)))


# Reading. --------------------------------------------------------------------------------------------------

Cell = tuple[str, str, int, str]  # data set, architecture, epochs, method

TABLE, REPORT = "table1_original_ye2020.csv", "table1_rep_sbandati2021.csv"
LOGS = "table1_rep_obadage2024_logs_20_epochs.csv"
STUDY = (  # the tables of the study that publishes its runs
    "table1_rep_obadage2024_raw.csv",
    "table1_rep_obadage2024_averages.csv",
    LOGS,
    "table89_train_seconds_obadage2024.csv",
)


@cache
def rows(file: str, source: str = audit.STUDY) -> tuple[audit.Row, ...]:
    """The rows of a file in ``data/published`` for :mod:`ndlib.evidence.audit`."""
    found, problems = audit.read(path(f"published/{file}"), source)
    if problems:
        raise ValueError(f"{problems[0].file}, line {problems[0].line}: {problems[0].message}")
    return tuple(found)


def study_rows() -> list[audit.Row]:
    """All rows of the study of 2024: runs, means, logs and mean times."""
    return [row for file in STUDY for row in rows(file)]


def other_rows() -> list[audit.Row]:
    """The values of the paper and of the study of 2021, for the checks that compare."""
    return [*rows(TABLE, audit.ORIGINAL), *rows(REPORT, SBANDATI)]


def _cell(row: audit.Row) -> Cell:
    return row.dataset, row.architecture, row.epochs, row.method


def _plain(source: str, row: audit.Row, kind: str, basis: str) -> Record:
    return Record(source, *_cell(row), float(row.accuracy or 0), kind, basis, row.file)


@cache
def _logged() -> dict[tuple[Cell, str], list[audit.Row]]:
    """By cell and split the lines of the logs, in the order of the attempts."""
    found: dict[tuple[Cell, str], list[audit.Row]] = defaultdict(list)
    for row in sorted(rows(LOGS), key=lambda row: row.attempt):
        found[_cell(row), row.split].append(row)
    return dict(found)


def _sbandati(paper: list[Record], obadage: list[Record]) -> Iterator[Record]:
    """Test accuracies where all values of a block are twice as near to the paper's as to known training accuracies."""
    original = {r.cell: r.accuracy for r in paper}
    trained = {r.cell: r.accuracy for r in obadage if r.kind == "train"}
    for (cell, split), lines in _logged().items():
        if split == "train":
            trained[cell] = statistics.mean(float(line.accuracy or 0) for line in lines)
    said = "The report does not say which accuracy it gives."
    found = [_plain(SBANDATI, row, "not stated", said) for row in rows(REPORT, SBANDATI)]
    blocks: dict[tuple[str, int], list[bool]] = defaultdict(list)
    for r in found:
        near = r.cell in trained and 2 * abs(r.accuracy - original[r.cell]) < abs(r.accuracy - trained[r.cell])
        blocks[r.dataset, r.epochs].append(near)
    for r in found:
        if all(blocks[r.dataset, r.epochs]):
            basis = (
                f"{said} After {r.epochs} epochs on {r.dataset} all its values lie at least twice as near to the "
                f"paper's test accuracies (here {original[r.cell]:.2f}) as to training accuracies of the 2024 study "
                f"(here {trained[r.cell]:.2f})."
            )
            yield replace(r, kind="test", basis=basis)
        else:
            yield r


def _recovered() -> Iterator[Record]:
    basis = "Mean of the best test accuracies that the study's logs print for its three runs."
    for (cell, split), lines in _logged().items():
        if cell[0] == "CIFAR-100" and split == "test":  # on CIFAR-10 they are the published values
            timed = zip(lines, _logged()[cell, "train"], strict=True)
            values = [(float(line.accuracy or 0), float(train.seconds or 0)) for line, train in timed]
            attempts = tuple(Attempt(n, value, value, time) for n, (value, time) in enumerate(values, start=1))
            mean = statistics.mean(a.accuracy for a in attempts)
            yield Record(RECOVERED, *cell, mean, "test", basis, LOGS, attempts)


def recovered_table() -> str:
    """The test means that the study's logs give back, as CSV: the text of ``recovered_test_means_20_epochs.csv``.

    python -c "from ndlib import published; print(published.recovered_table(), end='')" > FILE.csv
    """
    lines = ["architecture,dataset,epochs,method,runs,recovered_test_mean_percent,standard_deviation_percent"]
    for r in select(source=RECOVERED):
        labels = f"{r.architecture},{r.dataset},{r.epochs},{r.method},{len(r.attempts)}"
        lines.append(f"{labels},{r.accuracy:.3f},{statistics.stdev(a.accuracy for a in r.attempts):.3f}")
    return "\n".join(lines) + "\n"


# The study that publishes its runs. -------------------------------------------------------------------------


def _obadage() -> list[Record]:
    everything = study_rows()
    marks: dict[audit.Row, list[Mark]] = defaultdict(list)
    for trace in audit.traces(everything):
        marks[trace.row].append(Mark(trace.rule, trace.reason, trace.numbers))
    grains = audit.grains(everything)
    for grain in grains.values():
        for row in grain.impossible:
            marks[row].append(Mark("impossible", "no multiple of 0.01 before rounding", f"{row.value:f}"))
    for check in (audit.copies, audit.misplaced, audit.averages):
        for finding in check(everything).findings:
            marks[finding.rows[0]].append(Mark(finding.rule, finding.message, finding.numbers))
    timed = {m.row: m for m in audit.means(everything, "seconds")}
    for finding in audit.shifts(everything).findings:
        for row in finding.rows:
            marks[row].append(Mark("seconds", f"{audit.not_the_mean(timed[row])}. {finding.message}"))
    of = [row for row in everything if not row.split]
    runs = {(_cell(row), row.attempt): row for row in of if row.accuracy is not None}
    seconds = {_cell(row): row for row in of if row.average_seconds is not None}
    found = []
    for row in of:
        if row.average is None:
            continue
        cell = _cell(row)
        kind, basis = _kind(grains[row.dataset, row.epochs, 0], row)
        block = [Mark("block", basis)] if kind == "train" else []
        attempts = tuple(_attempt(runs[cell, n], marks, block) for n in "123")
        own = (*marks[row], *marks[seconds[cell]])
        spent = float(seconds[cell].average_seconds or 0)
        found.append(Record(OBADAGE, *cell, float(row.average), kind, basis, row.file, attempts, spent, own))
    return found


def _attempt(row: audit.Row, marks: dict[audit.Row, list[Mark]], block: list[Mark]) -> Attempt:
    accuracy, unrounded, seconds = (None if v is None else float(v) for v in (row.accuracy, row.unrounded, row.seconds))
    return Attempt(int(row.attempt), accuracy or 0.0, unrounded, seconds, (*marks[row], *block))


def _kind(grain: audit.Grain, row: audit.Row) -> tuple[str, str]:
    """What the values of a block were measured on, and how that is known."""
    known, impossible = len(grain.known), len(grain.impossible)
    of = f"{row.dataset} after {row.epochs} epoch{'s' * (row.epochs > 1)}"
    said = {
        "train": f"Training accuracy: {impossible} of the {known} unrounded values of {of} cannot come from 10,000 "
        f"test images{', and all could come from 50,000 training images' * grain.all_train}.",
        "test": f"Test accuracy: all {known} unrounded values of {of} fit 10,000 test images.",
        "not stated": "The study does not say which accuracy it gives.",
    }
    return grain.kind, said[grain.kind]
