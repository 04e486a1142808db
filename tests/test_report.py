"""The report of an audit, and the command that writes it."""

import json
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal

from ndlib import files
from ndlib.evidence import checks, report, sources
from ndlib.evidence.checks import Finding, Outcome
from ndlib.evidence.tables import Problem, TableRow

ROW = TableRow(dataset="CIFAR-10", architecture="A", epochs=1, method="BN", accuracy=Decimal(50))


def test_audit_text_counts_findings_and_shows_the_first_four():
    rows = [replace(ROW, attempt=str(n), file="t.csv", line=n) for n in range(1, 7)]
    findings = [Finding("time", (row,), "a message", "likely", "50" * (row.line == 1)) for row in rows]
    text = report.audit_text({"misplaced": Outcome(tuple(findings), "6 times")}, [Problem("t.csv", 9, "not read")])
    assert text.splitlines() == [
        "t.csv, line 9: not read",
        "misplaced    6 found         Does a time repeat an accuracy of its own experiment?",
        "             (6 times)",
        "    likely  CIFAR-10, 1 epoch, A BN, run 1 (t.csv, line 1): a message (50)",
        *(f"    likely  CIFAR-10, 1 epoch, A BN, run {n} (t.csv, line {n}): a message" for n in (2, 3, 4)),
        "    ... and 2 more; --json has them all",
    ]
    assert "more" not in report.audit_text({"misplaced": Outcome(tuple(findings[:4]), "6 times")})


def test_audit_text_says_where_a_check_is_not_applicable():
    text = report.audit_text({"times": Outcome((), "needs times", applicable=False)})
    assert text.splitlines()[0].startswith("times        not applicable  Do more epochs take longer")
    assert "0 found" in report.audit_text({"times": Outcome((), "5 ratios")})


def test_audit_text_names_what_the_rows_of_a_finding_share():
    def place(*rows):
        text = report.audit_text({"times": Outcome((Finding("epochs", rows, "message", "look"),), "")})
        return text.splitlines()[-1].removeprefix("    look    ").removesuffix(": message")

    assert place(ROW, replace(ROW, attempt="2")) == "CIFAR-10, 1 epoch, A BN"
    assert place(ROW, replace(ROW, architecture="B", epochs=20)) == "CIFAR-10, BN"
    assert place(ROW, TableRow()) == "2 rows"
    assert place(ROW) == "CIFAR-10, 1 epoch, A BN"


def command(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "ndlib", "audit", *map(str, arguments)], capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    return done


def test_audit_command_reports_the_study_of_2024(tmp_path):
    raw, means, logs, seconds = (files.path(f"published/{file}") for file in sources.STUDY_FILES)
    paper, *reports = (files.path(f"published/{file}") for file in (sources.TABLE, *sources.SINGLE.values()))
    done = command(raw, means, logs, seconds, "--original", paper, "--independent", *reports)
    assert done.returncode == 1 and done.stderr == ""
    assert "48 of 60 values cannot come from 10,000 test images; all fit 50,000 training images" in done.stdout
    assert "value and time of ResNext-29 BN, run 3 (84.48 %, 909.25 s)" in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 260

    done = command(raw, means, logs, seconds, "--original", paper, "--independent", *reports, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1 and found["problems"] == []
    assert [check["check"] for check in found["checks"]] == [*checks.CHECKS]
    assert all(check["meaning"].endswith("?") and check["applicable"] for check in found["checks"])
    (copy,) = found["checks"][2]["findings"]
    assert copy["sure"] in checks.SURE and copy["rows"][0]["line"] == 67

    clean = tmp_path / "clean.csv"
    clean.write_text("architecture,accuracy\nA,93.1\nB,94.2\n")
    assert command(clean).returncode == 0
    assert command(tmp_path / "nowhere.csv").returncode == 2
    assert command().returncode == 2
