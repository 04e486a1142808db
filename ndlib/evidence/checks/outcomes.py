"""What a check answers: what it looked at, what it found, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

from ..tables import TableRow

__all__ = ["SURE", "Finding", "Outcome"]

SURE = {
    "certain": "arithmetic: it cannot be otherwise if the columns are what they say",
    "likely": "chance does this in few honest tables",
    "look": "a reason to look; honest tables have it too",
}


@dataclass(frozen=True)
class Finding:
    """What a check found: a rule, the rows concerned, and how sure it is (a key of ``SURE``).

    ``numbers`` are the values that the message speaks of, as text.

    >>> row = TableRow(architecture="VGG-16", attempt="2")
    >>> Finding("copy", (row,), "value and time of VGG-16 BN, run 1", "likely", "93.2 %, 70.1 s").sure
    'likely'
    """

    rule: str
    rows: tuple[TableRow, ...]
    message: str
    sure: str
    numbers: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a check looked at and found; where it could not look, ``applicable`` is false and ``looked`` says why.

    >>> Outcome((), "needs times", applicable=False).findings
    ()
    """

    findings: tuple[Finding, ...]
    looked: str
    applicable: bool = True
