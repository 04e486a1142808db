"""The published accuracies on CIFAR as records: three sources, what each value is, and what is odd about it.

The files in ``data/published`` hold what the studies printed. This module reads and joins them and lets rules mark the
values; no value is judged by hand. ``RULES`` says what the marks mean.

    published.select(source="paper", dataset="CIFAR-10", epochs=20, architecture="VGG-16", method="ND")[0].accuracy
"""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from .data import path

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

_LIKELY = 0.5  # share of impossible values above which a block is one of training accuracies
_FIGURES = 0.0099  # printed with two decimals, some rounded and some cut off


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
    logs = _logs()
    obadage = _obadage(logs)
    paper = [
        _plain(PAPER, "table1_original_ye2020.csv", row, "test", "The published code reports the best test accuracy.")
        for row in _rows("table1_original_ye2020.csv")
    ]
    return (*paper, *_sbandati(paper, obadage, logs), *obadage, *_recovered(logs))


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


def architectures() -> list[str]:
    """The ten architectures, in the order of the table."""
    return list(dict.fromkeys(row["architecture"] for row in _rows("table1_original_ye2020.csv")))


# Reading. --------------------------------------------------------------------------------------------------

Row = dict[str, str]
Cell = tuple[str, str, int, str]  # data set, architecture, epochs, method
Run = tuple[str, str, int, str, int]  # data set, architecture, epochs, method, attempt
Logs = dict[Run, dict[str, tuple[float, float]]]  # by split: best accuracy, seconds


def _rows(file: str) -> list[Row]:
    with path(f"published/{file}").open(newline="") as stream:
        return list(csv.DictReader(stream))


def _cell(row: Row) -> Cell:
    return row["dataset"], row["architecture"], int(row["epochs"]), row["method"]


def _number(text: str) -> float | None:
    return float(text) if text else None


def _plain(source: str, file: str, row: Row, kind: str, basis: str) -> Record:
    dataset, architecture, epochs, method = _cell(row)
    value = float(row["accuracy_percent"])
    return Record(source, dataset, architecture, epochs, method, value, kind, basis, file)


def _logs() -> Logs:
    found: Logs = defaultdict(dict)
    for row in _rows("table1_rep_obadage2024_logs_20_epochs.csv"):
        values = float(row["max_top1_percent"]), float(row["seconds"])
        found[(*_cell(row), int(row["attempt"]))][row["split"]] = values
    return dict(found)


def _sbandati(paper: list[Record], obadage: list[Record], logs: Logs) -> Iterator[Record]:
    """Test accuracies where all values of a block are twice as near to the paper's as to known training accuracies."""
    file = "table1_rep_sbandati2021.csv"
    original = {r.cell: r.accuracy for r in paper}
    trained = {r.cell: r.accuracy for r in obadage if r.kind == "train"}
    for cell in {run[:4] for run in logs}:
        trained[cell] = statistics.mean(logs[(*cell, n)]["train"][0] for n in (1, 2, 3))
    blocks: dict[tuple[str, int], list[bool]] = defaultdict(list)
    for row in _rows(file):
        cell, value = _cell(row), float(row["accuracy_percent"])
        near = cell in trained and 2 * abs(value - original[cell]) < abs(value - trained[cell])
        blocks[cell[0], cell[2]].append(near)
    said = "The report does not say which accuracy it gives."
    for row in _rows(file):
        cell = _cell(row)
        if all(blocks[cell[0], cell[2]]):
            basis = (
                f"{said} After {cell[2]} epochs on {cell[0]} all its values lie at least twice as near to the paper's "
                f"test accuracies (here {original[cell]:.2f}) as to training accuracies of the 2024 study (here "
                f"{trained[cell]:.2f})."
            )
            yield _plain(SBANDATI, file, row, "test", basis)
        else:
            yield _plain(SBANDATI, file, row, "not stated", said)


def _recovered(logs: Logs) -> Iterator[Record]:
    file = "table1_rep_obadage2024_logs_20_epochs.csv"
    basis = "Mean of the best test accuracies that the study's logs print for its three runs."
    for dataset, architecture, epochs, method in dict.fromkeys(run[:4] for run in logs):
        if dataset != "CIFAR-100":
            continue  # on CIFAR-10 they are the published values
        runs = [logs[dataset, architecture, epochs, method, n] for n in (1, 2, 3)]
        attempts = tuple(Attempt(n, r["test"][0], r["test"][0], r["train"][1]) for n, r in enumerate(runs, start=1))
        mean = statistics.mean(a.accuracy for a in attempts)
        cell = dataset, architecture, epochs, method
        yield Record(RECOVERED, *cell, mean, "test", basis, file, attempts)


# The rules, for the study that publishes its runs. ----------------------------------------------------------

Runs = dict[Run, Row]
Found = Iterator[tuple[Run, Mark]]


def _obadage(logs: Logs) -> list[Record]:
    runs: Runs = {(*_cell(r), int(r["attempt"])): r for r in _rows("table1_rep_obadage2024_raw.csv")}
    marks: dict[Run, list[Mark]] = defaultdict(list)
    for rule in (_like_the_logs(runs, logs), _impossible(runs), _copies(runs, logs), _times(runs)):
        for run, mark in rule:
            marks[run].append(mark)
    kinds = {block: _kind_of_block(block, runs, marks) for block in dict.fromkeys((r[0], r[2]) for r in runs)}
    seconds = {
        _cell(r): float(r["published_mean_train_seconds"]) for r in _rows("table89_train_seconds_obadage2024.csv")
    }
    file = "table1_rep_obadage2024_averages.csv"
    averages = {_cell(row): float(row["reported_average_accuracy_percent"]) for row in _rows(file)}
    wrong = dict(_averages(averages, runs))
    found = []
    for cell in averages:
        kind, basis = kinds[cell[0], cell[2]]
        if kind == "train":
            for n in (1, 2, 3):
                marks[(*cell, n)].append(Mark("block", basis))
        attempts = tuple(
            Attempt(
                n,
                float(runs[(*cell, n)]["reported_accuracy_percent"]),
                _number(runs[(*cell, n)]["first_version_accuracy_percent"]),
                _number(runs[(*cell, n)]["train_seconds"]),
                tuple(marks[(*cell, n)]),
            )
            for n in (1, 2, 3)
        )
        own = [*([wrong[cell]] if cell in wrong else []), *_seconds(seconds[cell], attempts)]
        found.append(Record(OBADAGE, *cell, averages[cell], kind, basis, file, attempts, seconds[cell], tuple(own)))
    return found


def _value(row: Row) -> float:
    """As exactly as it is known."""
    return float(row["first_version_accuracy_percent"] or row["reported_accuracy_percent"])


def _same(value: float, figure: float) -> bool:
    return abs(value - figure) <= _FIGURES


def _like_the_logs(runs: Runs, logs: Logs) -> Found:
    for run in logs:
        printed, value = float(runs[run]["reported_accuracy_percent"]), _value(runs[run])
        train, test = logs[run]["train"][0], logs[run]["test"][0]
        if _same(printed, test):
            yield run, Mark("equals-test", "the test accuracy in the study's logs", f"{test:g}")
        elif _same(printed, train):
            numbers = f"{train:g}, test {test:g}"
            yield run, Mark("equals-train", "the training accuracy in the study's logs", numbers)
        else:
            for other in logs:
                if other[0] == run[0] and logs[other]["train"][0] == value:
                    whose = f"{other[1]} {other[3]}, run {other[4]}"
                    yield run, Mark("another-run", f"in the logs the training accuracy of {whose}", f"{value:g}")


def _multiple(value: float, of: float) -> bool:
    return abs(value / of - round(value / of)) < 1e-6


def _impossible(runs: Runs) -> Found:
    for run, row in runs.items():
        exact = _number(row["first_version_accuracy_percent"])
        if exact is not None and not _multiple(exact, 0.01):
            yield run, Mark("impossible", "no multiple of 0.01 before rounding", f"{exact:g}")


def _kind_of_block(block: tuple[str, int], runs: Runs, marks: dict[Run, list[Mark]]) -> tuple[str, str]:
    dataset, epochs = block
    inside = [run for run in runs if (run[0], run[2]) == block]
    known = [run for run in inside if runs[run]["first_version_accuracy_percent"]]
    impossible = [run for run in known if any(mark.rule == "impossible" for mark in marks[run])]
    of = f"{dataset} after {epochs} epoch{'s' * (epochs > 1)}"
    if len(impossible) > _LIKELY * len(known):
        fine = all(_multiple(_value(runs[run]), 0.002) for run in known)
        images = ", and all could come from 50,000 training images" if fine else ""
        counts = f"{len(impossible)} of the {len(known)} unrounded values of {of}"
        return "train", f"Training accuracy: {counts} cannot come from 10,000 test images{images}."
    if not impossible and known:
        return "test", f"Test accuracy: all {len(known)} unrounded values of {of} fit 10,000 test images."
    return "not stated", "The study does not say which accuracy it gives."


def _copies(runs: Runs, logs: Logs) -> Found:
    alike = defaultdict(list)
    for run, row in runs.items():
        alike[row["reported_accuracy_percent"], row["train_seconds"]].append(run)
    for group in alike.values():
        if len({run[:4] for run in group}) < 2:
            continue
        owners = [r for r in group if r in logs and any(_same(_value(runs[r]), v) for v, _ in logs[r].values())]
        for run in group:
            others = [other for other in owners or group if other != run]
            if run not in owners and others:
                row, whose = runs[run], f"{others[0][1]} {others[0][3]}, run {others[0][4]}"
                numbers = f"{row['reported_accuracy_percent']} %, {row['train_seconds']} s"
                yield run, Mark("copy", f"value and time of {whose}", numbers)


def _times(runs: Runs) -> Found:
    for run, row in runs.items():
        cell = [_value(runs[(*run[:4], n)]) for n in (1, 2, 3)]
        if float(row["train_seconds"]) in cell:
            yield run, Mark("time", "an accuracy where the time should stand", row["train_seconds"])


def _averages(published: dict[Cell, float], runs: Runs) -> Iterator[tuple[Cell, Mark]]:
    values = {cell: [float(runs[(*cell, n)]["reported_accuracy_percent"]) for n in (1, 2, 3)] for cell in published}
    wrong: dict[tuple[str, int, str], list[Cell]] = defaultdict(list)  # a formula is copied down its column
    for cell, average in published.items():
        if abs(average - statistics.mean(values[cell])) > 0.01 + 1e-9:
            wrong[cell[0], cell[2], cell[3]].append(cell)
    for (_, _, method), cells in wrong.items():
        other = "ND" if method == "BN" else "BN"
        slips = {(i, n) for i in range(3) for n in range(3)}  # run i replaced by run n of the other method
        for cell in cells:
            for i, n in list(slips):
                mixed = [*values[cell][:i], *values[cell][i + 1 :], values[(*cell[:3], other)][n]]
                if abs(published[cell] - statistics.mean(mixed)) > _FIGURES:
                    slips.discard((i, n))
        for cell in cells:
            mean = statistics.mean(values[cell])
            reason = f"The published average, {published[cell]:.2f}, is not the mean of the three runs, {mean:.2f}"
            if len(slips) == 1:
                ((i, n),) = slips
                reason += f"; it is the mean with run {n + 1} of {other} in the place of run {i + 1}"
            yield cell, Mark("average", reason)


def _seconds(published: float, attempts: tuple[Attempt, ...]) -> Iterator[Mark]:
    mean = statistics.mean(a.train_seconds for a in attempts if a.train_seconds is not None)
    if abs(published / mean - 1) > 0.02:
        yield Mark(
            "seconds", f"The published mean time, {published:,g} s, is not that of the three runs, {mean:,.0f} s"
        )
