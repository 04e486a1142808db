"""The audit of files, written down for reading or as JSON. From the command line:

python -m ndlib audit RESULTS.csv [MEANS.csv LOGS.csv ...] --original PAPER.csv --independent OTHER.csv
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .checks import Finding, Outcome, check_rows, images_of, question_of
from .checks._shared import reported
from .tables import ORIGINAL, STUDY, Problem, TableRow, read_table

__all__ = ["audit_files", "audit_json", "audit_text"]

SHOWN = 4  # findings of each check in a report for reading


def audit_files(
    files: Sequence[Path],
    original: Path | None = None,
    independent: Sequence[Path] = (),
    as_json: bool = False,
    names: Mapping[str, str] | None = None,
) -> tuple[str, int]:
    """Audit the tables of one study: a report and an exit status.

    Args:
        files: the tables of the study, CSV or ledgers, see :func:`ndlib.evidence.tables.read_table`.
        original: the values that the study repeats.
        independent: values of other studies, one file each.
        as_json: report everything, as JSON; otherwise a text with the first findings of each check, whose first line
            says what was read and what is not checked.
        names: columns of ``files`` that go by other names, ``{"accuracy": "score"}``.

    Returns:
        The report, and 0 if nothing was found, 1 if something was, 2 if something could not be read.

    >>> from ndlib.files import path
    >>> report, status = audit_files([path("published/table1_rep_sbandati2021.csv")])
    >>> status, report.splitlines()[0]
    (0, '36 rows read; not checked: granularity, logs, copies, averages, shifts, misplaced, ...')
    """
    sources = [*((file, STUDY) for file in files), *((file, Path(file).stem) for file in independent)]
    rows: list[TableRow] = []
    problems: list[Problem] = []
    for file, source in [*sources, *([(original, ORIGINAL)] if original else [])]:
        found, wrong = read_table(file, source, names if source == STUDY else None)
        rows += found
        problems += wrong
    outcomes = check_rows(rows)
    status = int(any(outcome.findings for outcome in outcomes.values()))
    if any(problem.serious for problem in problems):
        status = 2
    if as_json:
        return audit_json(outcomes, problems), status
    return f"{_coverage(rows, outcomes)}\n{audit_text(outcomes, problems)}", status


def _coverage(rows: Sequence[TableRow], outcomes: dict[str, Outcome]) -> str:
    """How many rows were read, and what is not checked."""
    unchecked = [name for name, outcome in outcomes.items() if not outcome.applicable]
    of = {row.dataset or "without a name" for row in reported(rows) if not (row.images or images_of(row.dataset)[0])}
    if of and "granularity" not in unchecked:
        unchecked.append(f"granularity of {', '.join(sorted(of))}")
    if of:
        unchecked.append(f"(how many test images has {', '.join(sorted(of))}? a column images would say)")
    return f"{len(rows)} rows read" + (f"; not checked: {', '.join(unchecked)}" if unchecked else "; all checks apply")


def audit_text(outcomes: dict[str, Outcome], problems: Iterable[Problem] = ()) -> str:
    """Problems and outcomes as text, of each check the first four findings.

    >>> print(audit_text({"misplaced": Outcome((), "12 times")}, [Problem("t.csv", 3, "not read")]))
    t.csv, line 3: not read
    misplaced    0 found         Does a time repeat an accuracy of its own experiment?
                 (12 times)
    """
    lines = [f"{p.file}, line {p.line}: {p.message}" for p in problems]
    for name, outcome in outcomes.items():
        count = f"{len(outcome.findings)} found" if outcome.applicable else "not applicable"
        lines += [f"{name:12} {count:15} {question_of(name)}", f"{'':12} ({outcome.looked})"]
        for finding in outcome.findings[:SHOWN]:
            numbers = f" ({finding.numbers})" if finding.numbers else ""
            lines.append(f"{'':4}{finding.sure:7} {_place(finding)}: {finding.message}{numbers}")
        if len(outcome.findings) > SHOWN:
            lines.append(f"{'':4}... and {len(outcome.findings) - SHOWN} more; --json has them all")
    return "\n".join(lines)


def _place(finding: Finding) -> str:
    first, *others = finding.rows
    if not others:
        return f"{first} ({first.file}, line {first.line})" if first.file else str(first)
    shared = {f: getattr(first, f) for f in ("dataset", "epochs", "architecture", "method", "setting")}
    shared = {f: v for f, v in shared.items() if all(getattr(r, f) == v for r in others)}
    return str(TableRow(**shared)) or f"{len(finding.rows):,} rows"


def audit_json(outcomes: dict[str, Outcome], problems: Iterable[Problem] = ()) -> str:
    """Problems and outcomes with all findings and their rows, as JSON.

    >>> json.loads(audit_json({"misplaced": Outcome((), "12 times")}))["checks"][0]["looked"]
    '12 times'
    """
    keys = ("file", "line", "dataset", "architecture", "epochs", "method", "setting", "attempt")
    checks = [
        {
            "check": name,
            "meaning": question_of(name),
            "applicable": outcome.applicable,
            "looked": outcome.looked,
            "findings": [
                {
                    "rule": f.rule,
                    "sure": f.sure,
                    "message": f.message,
                    "numbers": f.numbers,
                    "rows": [{key: getattr(r, key) for key in keys} for r in f.rows],
                }
                for f in outcome.findings
            ],
        }
        for name, outcome in outcomes.items()
    ]
    return json.dumps({"problems": [p._asdict() for p in problems], "checks": checks}, indent=1)
