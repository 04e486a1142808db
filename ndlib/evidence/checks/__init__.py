"""Nine checks on tables of results: does a value fit what its column says it is?

Each check is a function from rows to an :class:`.Outcome`, and the first line of its documentation is the question that
it asks. ``CHECKS`` lists them all. A finding is a question to whoever made the table, not a verdict on anybody.
"""

from __future__ import annotations

from collections.abc import Callable

from ..tables import TableRows
from .image_counts import IMAGES, Grain, fewest_images, grains, granularity, images_of, possible_percentage
from .outcomes import SURE, Finding, Outcome
from .plausibility import above, deviation, misplaced, squared_deviation, times
from .printed_means import PrintedMean, averages, not_the_mean, printed_means, shifts
from .training_logs import Trace, copies, logs, traces

__all__ = [
    "CHECKS",
    "IMAGES",
    "SURE",
    "Finding",
    "Grain",
    "Outcome",
    "PrintedMean",
    "Trace",
    "above",
    "averages",
    "check_rows",
    "copies",
    "deviation",
    "fewest_images",
    "grains",
    "granularity",
    "images_of",
    "logs",
    "misplaced",
    "not_the_mean",
    "possible_percentage",
    "printed_means",
    "question_of",
    "shifts",
    "squared_deviation",
    "times",
    "traces",
]

CHECKS: dict[str, Callable[[TableRows], Outcome]] = {
    "granularity": granularity,
    "logs": logs,
    "copies": copies,
    "averages": averages,
    "shifts": shifts,
    "misplaced": misplaced,
    "times": times,
    "above": above,
    "deviation": deviation,
}


def check_rows(rows: TableRows) -> dict[str, Outcome]:
    """The outcome of every check on the rows of a study, by the name of the check.

    >>> from ndlib.evidence.sources import study_rows
    >>> {name: len(outcome.findings) for name, outcome in check_rows(study_rows()).items() if outcome.applicable}
    {'granularity': 4, 'logs': 60, 'copies': 1, 'averages': 14, 'shifts': 1, 'misplaced': 1, 'times': 5}
    """
    return {name: function(rows) for name, function in CHECKS.items()}


def question_of(check: str) -> str:
    """The question that a check asks.

    >>> question_of("misplaced")
    'Does a time repeat an accuracy of its own experiment?'
    """
    return (CHECKS[check].__doc__ or "").splitlines()[0]
