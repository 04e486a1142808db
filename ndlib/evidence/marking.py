"""Each published accuracy with what is known about it: what it was measured on, and what the checks find odd.

No value is judged by hand: :mod:`ndlib.evidence.checks` marks them.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from .checks import (
    Grain,
    averages,
    copies,
    grains,
    misplaced,
    not_the_mean,
    printed_means,
    shifts,
    traces,
)
from .sources import LOGS, OBADAGE, PAPER, RECOVERED, SINGLE, TABLE, study_rows, table_rows
from .tables import ORIGINAL, TableRow

__all__ = [
    "SUSPICIOUS",
    "Attempt",
    "Cell",
    "Mark",
    "PublishedResult",
    "obadage_results",
    "paper_results",
    "recovered_results",
    "single_results",
]

Cell = tuple[str, str, int, str]  # data set, architecture, epochs, method: a cell of Table 1

# Rules of marks that speak against a value as a test accuracy of its cell: it equals a training accuracy of its run
# or of another, no count of test images gives it, most values beside it are impossible, its run is a copy, or it is
# not the mean of its runs. "equals-test" speaks for it; "time" and "seconds" are about times.
SUSPICIOUS = ("equals-train", "another-run", "impossible", "block", "copy", "average")


@dataclass(frozen=True)
class Mark:
    """What a check says about a value: its rule, the reason in words, and its numbers.

    >>> Mark("impossible", "no multiple of 0.01 before rounding", "88.516").rule in SUSPICIOUS
    True
    """

    rule: str
    reason: str
    numbers: str = ""


@dataclass(frozen=True)
class Attempt:
    """One run of several that a study publishes, in percent and seconds.

    ``unrounded`` is the accuracy in the first version of the study's spreadsheet, None where that cell is empty.

    >>> Attempt(1, accuracy=93.2, unrounded=93.2, train_seconds=70.1).marks
    ()
    """

    number: int
    accuracy: float
    unrounded: float | None
    train_seconds: float | None
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class PublishedResult:
    """One cell of Table 1 in one source. Accuracies in percent, times in seconds.

    ``kind`` is what the accuracy was measured on: ``"test"``, ``"train"`` or ``"not stated"``; ``basis`` says how that
    is known. ``accuracy`` and ``seconds`` are the values that the source prints (of several attempts their mean).

    >>> result = paper_results()[0]
    >>> result.cell, result.kind, result.suspicious
    (('CIFAR-10', 'VGG-16', 1, 'BN'), 'test', False)
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
    def cell(self) -> Cell:
        """Data set, architecture, epochs and method, by which the sources can be compared."""
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


def _cell(row: TableRow) -> Cell:
    return row.dataset, row.architecture, row.epochs, row.method


def _unmarked(source: str, row: TableRow, kind: str, basis: str) -> PublishedResult:
    return PublishedResult(source, *_cell(row), float(row.accuracy or 0), kind, basis, row.file)


# The studies that print one accuracy a cell. -----------------------------------------------------------------


def paper_results() -> list[PublishedResult]:
    """The cells of Table 1 of the paper, test accuracies.

    Source: Ye et al. 2020, arXiv 1905.11926.

    >>> len(paper_results())
    120
    """
    basis = "The published code reports the best test accuracy."
    return [_unmarked(PAPER, row, "test", basis) for row in table_rows(TABLE, ORIGINAL)]


def single_results(
    source: str, paper: list[PublishedResult], obadage: list[PublishedResult]
) -> Iterator[PublishedResult]:
    """The cells of a study of one value each: test accuracies where they look like it, "not stated" elsewhere.

    They count as test accuracies where all values of one data set and number of epochs are at least twice as near to a
    known test accuracy, the paper's or one that the study of 2024 logged, as to the training accuracies that are known
    from that study. Networks that are not in Table 1 are left out.

    Source: Sbandati, Stein and Wang 2021; Jiang, Wu, Zhu and Zhang 2021.

    Args:
        source: a key of ``sources.SINGLE``.

    >>> results = list(single_results("Sbandati 2021", paper_results(), obadage_results()))
    >>> sorted({(result.epochs, result.kind) for result in results})
    [(1, 'not stated'), (20, 'test'), (100, 'test')]
    """
    original = {r.cell: r.accuracy for r in paper}
    trained = {r.cell: r.accuracy for r in obadage if r.kind == "train"}
    tested = {cell: [accuracy] for cell, accuracy in original.items()}
    for (cell, split), lines in _logged().items():
        mean = statistics.mean(float(line.accuracy or 0) for line in lines)
        if split == "train":
            trained[cell] = mean
        else:
            tested[cell].append(mean)
    said = "The report does not say which accuracy it gives."
    rows = [row for row in table_rows(SINGLE[source], source) if _cell(row) in original]
    found = [_unmarked(source, row, "not stated", said) for row in rows]
    blocks: dict[tuple[str, int], list[bool]] = defaultdict(list)
    nearest = {}
    for r in found:
        distances = {abs(r.accuracy - value): value for value in tested[r.cell]}
        nearest[r.cell] = distances[min(distances)]
    for r in found:
        near = r.cell in trained and 2 * abs(r.accuracy - nearest[r.cell]) < abs(r.accuracy - trained[r.cell])
        blocks[r.dataset, r.epochs].append(near)
    for r in found:
        if all(blocks[r.dataset, r.epochs]):
            basis = (
                f"{said} After {r.epochs} epochs on {r.dataset} all its values lie at least twice as near to test "
                f"accuracies of the paper or of the 2024 logs (here {nearest[r.cell]:.2f}) as to training accuracies "
                f"of the 2024 study (here {trained[r.cell]:.2f})."
            )
            yield replace(r, kind="test", basis=basis)
        else:
            yield r


# The study that publishes its runs. -------------------------------------------------------------------------


@cache
def _logged() -> dict[tuple[Cell, str], list[TableRow]]:
    """The lines of the logs, by cell and split, in the order of the attempts."""
    found: dict[tuple[Cell, str], list[TableRow]] = defaultdict(list)
    for row in sorted(table_rows(LOGS), key=lambda row: row.attempt):
        found[_cell(row), row.split].append(row)
    return dict(found)


def recovered_results() -> Iterator[PublishedResult]:
    """Means of the test accuracies that the logs of the study of 2024 print, where the study printed others.

    That is on CIFAR-100: on CIFAR-10 the logged test accuracies are those that the study printed.

    >>> len(list(recovered_results()))
    20
    """
    basis = "Mean of the best test accuracies that the study's logs print for its three runs."
    for (cell, split), lines in _logged().items():
        if cell[0] == "CIFAR-100" and split == "test":
            timed = zip(lines, _logged()[cell, "train"], strict=True)
            values = [(float(line.accuracy or 0), float(train.seconds or 0)) for line, train in timed]
            attempts = tuple(Attempt(n, value, value, time) for n, (value, time) in enumerate(values, start=1))
            mean = statistics.mean(a.accuracy for a in attempts)
            yield PublishedResult(RECOVERED, *cell, mean, "test", basis, LOGS, attempts)


def obadage_results() -> list[PublishedResult]:
    """The cells of the study of 2024, their three runs, and the marks of the checks on both.

    Source: Obadage et al. 2024, arXiv 2410.01189, and its repository.

    >>> results = obadage_results()
    >>> len(results), sum(result.suspicious for result in results)
    (120, 80)
    """
    rows = study_rows()
    marks, grain_of = _marks(rows), grains(rows)
    of = [row for row in rows if not row.split]
    runs = {(_cell(row), row.attempt): row for row in of if row.accuracy is not None}
    seconds = {_cell(row): row for row in of if row.average_seconds is not None}
    found = []
    for row in of:
        if row.average is None:
            continue
        cell = _cell(row)
        kind, basis = _kind(grain_of[row.dataset, row.epochs, 0], row)
        block = [Mark("block", basis)] if kind == "train" else []
        attempts = tuple(_attempt(runs[cell, n], marks, block) for n in "123")
        own = (*marks[row], *marks[seconds[cell]])
        spent = float(seconds[cell].average_seconds or 0)
        found.append(PublishedResult(OBADAGE, *cell, float(row.average), kind, basis, row.file, attempts, spent, own))
    return found


def _marks(rows: list[TableRow]) -> dict[TableRow, list[Mark]]:
    """What the checks say about each row of the study, in a fixed order."""
    marks: dict[TableRow, list[Mark]] = defaultdict(list)
    for trace in traces(rows):
        marks[trace.row].append(Mark(trace.rule, trace.reason, trace.numbers))
    for grain in grains(rows).values():
        for row in grain.impossible:
            marks[row].append(Mark("impossible", "no multiple of 0.01 before rounding", f"{row.value:f}"))
    for check in (copies, misplaced, averages):
        for finding in check(rows).findings:
            marks[finding.rows[0]].append(Mark(finding.rule, finding.message, finding.numbers))
    timed = {m.row: m for m in printed_means(rows, "seconds")}
    for finding in shifts(rows).findings:
        for row in finding.rows:
            marks[row].append(Mark("seconds", f"{not_the_mean(timed[row])}. {finding.message}"))
    return marks


def _attempt(row: TableRow, marks: dict[TableRow, list[Mark]], block: list[Mark]) -> Attempt:
    accuracy, unrounded, seconds = (None if v is None else float(v) for v in (row.accuracy, row.unrounded, row.seconds))
    return Attempt(int(row.attempt), accuracy or 0.0, unrounded, seconds, (*marks[row], *block))


def _kind(grain: Grain, row: TableRow) -> tuple[str, str]:
    """What the values of one data set and number of epochs were measured on, and how that is known."""
    known, impossible = len(grain.known), len(grain.impossible)
    of = f"{row.dataset} after {row.epochs} epoch{'s' * (row.epochs > 1)}"
    said = {
        "train": f"Training accuracy: {impossible} of the {known} unrounded values of {of} cannot come from 10,000 "
        f"test images{', and all could come from 50,000 training images' * grain.all_train}.",
        "test": f"Test accuracy: all {known} unrounded values of {of} fit 10,000 test images.",
        "not stated": "The study does not say which accuracy it gives.",
    }
    return grain.kind, said[grain.kind]
