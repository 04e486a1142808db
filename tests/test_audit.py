"""Each check finds the error planted for it in a clean table, no other check does, and clean tables stay clean."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest

from ndlib import files
from ndlib.evidence import audit, published
from ndlib.evidence.audit import ORIGINAL, Row
from ndlib.experiments import ledger

TEN, HUNDRED = "CIFAR-10", "CIFAR-100"


@pytest.fixture(scope="module")
def clean():
    return audit.honest_table(3, steady=True)


def found(rows):
    return {name: outcome.findings for name, outcome in audit.check(rows).items() if outcome.findings}


def runs(rows, *, dataset=TEN, architecture="network 4", epochs=100, method="BN"):
    cell = (dataset, architecture, epochs, method, "")
    return [r for r in rows if r.cell == cell and r.attempt and not r.split]


def changed(rows, new):
    """The table with some rows replaced (by file and line), and with means of the cells that still are their means."""
    by_line = {r.line: r for r in new}
    rows = [by_line.get(r.line, r) for r in rows]
    cells = {r.cell for r in new}
    for i, r in enumerate(rows):
        if r.cell in cells and r.average is not None and r.line not in by_line:
            inside = [other for other in rows if other.cell == r.cell and other.attempt and not other.split]
            mean, time = (sum(getattr(o, name) for o in inside) / len(inside) for name in ("accuracy", "seconds"))
            rows[i] = replace(r, average=round(mean, 2), average_seconds=round(time, 2))
    return rows


def with_value(row, value):
    return replace(row, accuracy=round(value, 2), unrounded=round(value, 2).quantize(Decimal("0.001")))


def logged(rows, row, split):
    (line,) = [r for r in rows if r.cell == row.cell and r.attempt == row.attempt and r.split == split]
    return line


# Errors. Each returns the table with the error, the check and rule that must find it, and the lines concerned.


def of_fifty_thousand(rows):
    row = replace(run := runs(rows)[1], unrounded=run.unrounded + Decimal("0.002"))
    return changed(rows, [row]), "granularity", "impossible", [row.line]


def training_accuracy(rows):
    run = runs(rows, epochs=20)[0]
    row = with_value(run, logged(rows, run, "train").accuracy)
    return changed(rows, [row]), "logs", "equals-train", [row.line]


def training_accuracy_of_another_run(rows):
    first, second, _ = runs(rows, epochs=20)
    line = logged(rows, second, "train")
    line = replace(line, accuracy=round(line.accuracy, 2))
    row = with_value(first, line.accuracy)
    return changed(rows, [row, line]), "logs", "another-run", [row.line]


def not_in_the_logs(rows):
    row = with_value(run := runs(rows, epochs=20)[0], run.accuracy - 1)
    return changed(rows, [row]), "logs", "unlogged", [row.line]


def copied_run(rows):
    target = runs(rows)[2]
    others = [
        r for r in rows if r.attempt and not r.split and r.epochs == 100 and r.dataset == TEN and r.method == "BN"
    ]
    others = [r for r in others if r.cell != target.cell]
    source = min(others, key=lambda r: abs(r.accuracy - target.accuracy))
    row = replace(target, **{name: getattr(source, name) for name in ("accuracy", "unrounded", "seconds")})
    return changed(rows, [row]), "copies", "copy", [row.line, source.line]


def wrong_mean(rows):
    (mean,) = [r for r in rows if r.cell == runs(rows)[0].cell and r.average is not None]
    return changed(rows, [replace(mean, average=mean.average - Decimal("0.02"))]), "averages", "average", [mean.line]


def wrong_mean_time(rows):
    (mean,) = [r for r in rows if r.cell == runs(rows)[0].cell and r.average is not None]
    mean = replace(mean, average_seconds=mean.average_seconds * Decimal("1.03"))
    return changed(rows, [mean]), "averages", "seconds", [mean.line]


def shifted_column(rows, quantity="average_seconds"):
    means = {r.cell: r for r in rows if r.average is not None}
    new = []
    for (dataset, architecture, epochs, method, setting), row in means.items():
        if (dataset, epochs, method) == (HUNDRED, 20, "ND"):
            other = means[dataset, architecture, 100, "BN", setting]
            new.append(replace(row, **{quantity: getattr(other, quantity)}))
    return changed(rows, new), "shifts", "shift", [r.line for r in new]


def shifted_column_of_accuracies(rows):
    return shifted_column(rows, "average")


def time_that_is_an_accuracy(rows):
    row = replace(run := runs(rows)[1], seconds=run.accuracy)
    return changed(rows, [row]), "misplaced", "time", [row.line]


def short_hundred_epochs(rows):
    new = [replace(r, seconds=round(r.seconds / 5, 2)) for r in runs(rows)]
    return changed(rows, new), "times", "epochs", [r.line for r in new]


def too_good(rows):
    new = [with_value(r, r.accuracy + Decimal("6.5")) for r in runs(rows)]
    return changed(rows, new), "above", "above", [r.line for r in new]


def far_below(rows):
    new = [with_value(r, r.accuracy * Decimal("0.85")) for r in runs(rows)]
    return changed(rows, new), "deviation", "deviation", [r.line for r in new]


ERRORS = [
    of_fifty_thousand,
    training_accuracy,
    training_accuracy_of_another_run,
    not_in_the_logs,
    copied_run,
    wrong_mean,
    wrong_mean_time,
    shifted_column,
    shifted_column_of_accuracies,
    time_that_is_an_accuracy,
    short_hundred_epochs,
    too_good,
    far_below,
]


@pytest.mark.parametrize("plant", ERRORS)
def test_a_planted_error_is_found_by_its_check_alone(clean, plant):
    rows, check, rule, lines = plant(clean)
    (findings,) = found(rows).values()
    assert found(rows).keys() == {check}
    assert {f.rule for f in findings} == {rule}
    assert sorted(r.line for f in findings for r in f.rows) == sorted(lines)


def test_a_slip_of_a_formula_is_explained(clean):
    """Run 1 of ND in the place of run 3 of BN, copied down two rows of a column."""
    new = []
    for architecture in ("network 1", "network 2"):
        bn, nd = (runs(clean, architecture=architecture, method=method) for method in ("BN", "ND"))
        (mean,) = [r for r in clean if r.cell == bn[0].cell and r.average is not None]
        new.append(replace(mean, average=round((bn[0].accuracy + bn[1].accuracy + nd[0].accuracy) / 3, 2)))
    findings = audit.averages(changed(clean, new)).findings
    assert [f.rows for f in findings] == [(r,) for r in new]
    assert all(f.message.endswith("it is the mean with run 1 of ND in the place of run 3") for f in findings)


def test_every_check_has_an_error_planted(clean):
    assert {plant(clean)[1] for plant in ERRORS} == audit.CHECKS.keys()


@pytest.mark.parametrize("seed", range(6))
def test_clean_tables_stay_clean(seed):
    outcomes = audit.check(audit.honest_table(seed, steady=True))
    assert all(outcome.applicable for outcome in outcomes.values())
    assert {name for name, outcome in outcomes.items() if outcome.findings} == set()


def test_honest_tables_are_what_they_say():
    rows = audit.honest_table(1)
    assert rows == audit.honest_table(1) != audit.honest_table(2)
    assert Counter(r.source for r in rows) == {"study": 360 + 240 + 120, ORIGINAL: 120, "another study": 120}
    assert len({r.line for r in rows}) == len(rows) == 960


# Single checks. --------------------------------------------------------------------------------------------


def run(architecture="A", attempt="1", *, accuracy="80", unrounded=None, seconds="10", **more):
    given = {"accuracy": accuracy, "unrounded": unrounded, "seconds": seconds}
    values = {name: Decimal(value) for name, value in given.items() if value is not None}
    return Row(dataset=TEN, epochs=20, method="BN", architecture=architecture, attempt=attempt, **values, **more)


def test_what_fits_how_many_images():
    for k in (1, 4_999, 44_258, 59_999):  # numbers of images, of 60,000: no finite decimals
        percent = Fraction(100 * k, 60_000)
        value = Decimal(round(percent * 10_000)) / 10_000
        assert audit.fits(value, 60_000, 4) and not audit.fits(value + Decimal("0.0008"), 60_000, 4)
    values = [Decimal(v) for v in ("93.38", "88.516", "71.98", "99.858", "84.5")]
    assert [audit.fits(v, 10_000, 3) for v in values] == [True, False, True, False, True]
    assert all(audit.fits(v, 50_000, 3) for v in values)
    assert audit.smallest(values) == 50_000 and audit.smallest(values[:1]) == 5_000
    assert audit.smallest([Decimal(0), Decimal(100)]) == 1


@pytest.mark.parametrize(
    ("values", "applicable", "count"),
    [
        (["88.51", "71.98"], False, 0),  # two decimals cannot tell
        (["88.516", "71.98"], True, 1),  # zeros at the end may be left out
        (["88.510", "71.98"], True, 0),
        (["88.51", None], False, 0),
    ],
)
def test_granularity_needs_more_decimals_than_the_step(values, applicable, count):
    rows = [run(attempt=str(n), accuracy="1", unrounded=v) for n, v in enumerate(values) if v]
    outcome = audit.granularity(rows)
    assert outcome.applicable == applicable and sum(len(f.rows) for f in outcome.findings) == count
    assert not audit.granularity([replace(r, dataset="unknown") for r in rows]).applicable
    assert not audit.granularity([replace(r, unrounded=None) for r in rows]).applicable
    few = audit.granularity([replace(r, dataset="unknown", images=200) for r in rows])  # a step of half a point
    assert few.applicable and [len(f.rows) for f in few.findings] == [len(rows)]


def test_one_value_that_was_left_unrounded_is_tested_alone():
    rows = [run(attempt=str(n), accuracy="88.51") for n in range(40)]
    assert not audit.granularity(rows).applicable
    outcome = audit.granularity([*rows, run(attempt="40", accuracy="88.516")])
    assert outcome.looked == "1 value" and [r.attempt for f in outcome.findings for r in f.rows] == ["40"]


def test_the_kind_of_a_block():
    """Most values impossible: training accuracies. None: test accuracies. Between: not stated."""
    for impossible, kind in ((0, "test"), (1, "not stated"), (3, "not stated"), (4, "train")):
        rows = [run(attempt=str(n), unrounded="80.002" if n < impossible else "80.010") for n in range(6)]
        (grain,) = audit.grains(rows).values()
        assert grain.kind == kind and len(grain.impossible) == impossible
        assert grain.all_train
    (grain,) = audit.grains([run(unrounded="80.001")]).values()
    assert grain.kind == "train" and not grain.all_train


def test_copies_know_their_owner_by_the_logs():
    rows = [run("A", str(n), accuracy=f"8{n}.5", seconds=f"{n}.25") for n in range(6)]
    copy = replace(rows[2], architecture="B")
    spoilt = [*rows, copy]
    assert {f.rows[0].architecture for f in audit.copies(spoilt).findings} == {"A", "B"}  # nothing tells which
    lines = [replace(r, split=s, accuracy=a) for r in rows for s, a in (("test", r.accuracy), ("train", Decimal(99)))]
    lines += [replace(r, architecture="B", accuracy=Decimal(70)) for r in lines]
    (finding,) = audit.copies([*spoilt, *lines]).findings
    assert finding.rows == (copy,) and finding.message == "value and time of A BN, run 2"
    assert audit.copies([*rows, replace(copy, architecture="A", attempt="9")]).findings == ()  # within a cell


def test_coarse_numbers_are_no_copies():
    rows = [run(str(n), accuracy=str(80 + n % 2), seconds=str(5 + n % 3)) for n in range(12)]
    outcome = audit.copies(rows)
    assert not outcome.applicable and "too coarse" in outcome.looked


def test_averaged_squared_deviation_and_the_threshold():
    assert audit.squared_deviation([60.0, 40.0, 50.0], 50.0) == pytest.approx(0.01)
    original = replace(run(accuracy="50", seconds=None, attempt=""), source=ORIGINAL)
    for value, count in (("55", 0), ("55.1", 1), ("45", 0), ("44.9", 1)):
        assert len(audit.deviation([run(accuracy=value), original]).findings) == count
    assert not audit.deviation([run()]).applicable
    for value, count in (("55", 0), ("55.1", 1), ("44", 0)):
        assert len(audit.above([run(accuracy=value), original]).findings) == count


# The published study. --------------------------------------------------------------------------------------


def test_the_audit_of_the_study():
    outcomes = audit.check([*published.study_rows(), *published.other_rows()])
    rules = Counter(f.rule for outcome in outcomes.values() for f in outcome.findings)
    assert rules["equals-train"] == 56 and rules["another-run"] == 4 and rules["unlogged"] == 0
    assert rules["average"] == 5 and rules["copy"] == rules["time"] == rules["shift"] == 1 and rules["seconds"] == 9
    impossible = {f.rows[0].cell[0::2][:2]: len(f.rows) for f in outcomes["granularity"].findings}
    assert impossible == {(TEN, 100): 48, (HUNDRED, 1): 46, (HUNDRED, 20): 49, (HUNDRED, 100): 46}
    printed = [replace(r, unrounded=None) for r in published.study_rows()]
    (left,) = audit.granularity(printed).findings  # as printed all but one value have two decimals
    assert left.numbers == "DenseNet-121 ND: 99.958" and audit.granularity(printed).looked == "1 value"
    (shift,) = outcomes["shifts"].findings
    assert "ND, CIFAR-100, 20 epochs has in 10 of 10 rows those of BN, CIFAR-100, 100 epochs" in shift.message
    odd = {f.rows[0].cell[:4] for f in outcomes["times"].findings}
    assert len(odd) == 5 and (TEN, "ResNet-18", 100, "BN") in odd
    assert all(dataset == TEN for dataset, *_ in odd)


def test_the_squared_deviations_are_those_that_the_study_prints():
    """CIFAR-10 0.00 to 0.23 and CIFAR-100 0.00 to 0.11, says its text; so they are, divided by two and not by three."""
    original = {r.cell: r for r in published.select(source=published.PAPER)}
    for dataset, most in ((TEN, 0.23), (HUNDRED, 0.11)):
        squares = [
            audit.squared_deviation([a.accuracy for a in r.attempts], original[r.cell].accuracy)
            for r in published.select(source=published.OBADAGE, dataset=dataset)
        ]
        assert round(max(squares), 2) == most and round(min(squares), 2) == 0
        assert round(max(squares) * 2 / 3, 2) != most


# Files. ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted(p.name for p in files.path("published").glob("*.csv")))
def test_every_published_table_is_read_without_a_problem(file):
    rows, problems = audit.read(files.path(f"published/{file}"))
    assert rows and problems == []


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"", 1, "no column of values"),
        (b"dataset,epochs\nA,1\n", 1, "no column of values"),
        (b"accuracy\n", 2, "there are no rows"),
        (b"accuracy,accuracy_percent\n1,2\n", 1, "more than one column for accuracy"),
        (b"accuracy,epochs\n90,20\n90\n", 3, "1 fields under 2 columns"),
        (b"accuracy\n90\nabc\n", 3, "accuracy is no number: 'abc'"),
        (b"accuracy\n90\n100.01\n", 3, "a percentage between 0 and 100, got 100.01"),
        (b"accuracy\nnan\n", 2, "a percentage between 0 and 100, got nan"),
        (b"accuracy,seconds\n90,-1\n", 2, "a time in seconds, got -1"),
        (b"accuracy,epochs\n90,0\n", 2, "epochs must be a whole number of at least 1, got '0'"),
        (b"accuracy,split\n90,val\n", 2, "split must be train, test or empty, got 'val'"),
        (b"accuracy,epochs\n,20\n", 2, "the row has no value"),
        (b'accuracy,arch\n90,A\n90,"B\n', 3, "not read from here on: unexpected end of data"),
        (b"accuracy\n90\n\xff\xfe\n", 1, "not read from here on: 'utf-8' codec"),
    ],
)
def test_what_cannot_be_read_is_reported_by_line(tmp_path, content, line, message):
    file = tmp_path / "table.csv"
    file.write_bytes(content)
    (problem,) = audit.read(file)[1]
    assert (problem.file, problem.line, problem.serious) == ("table.csv", line, True) and message in problem.message
    assert audit.run([file])[1] == 2


def test_the_rest_of_a_damaged_table_is_read(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("\ufeffarch, dataset ,accuracy,colour\nA,CIFAR-10,88.516,red\n\nB,CIFAR-10,x,\nC,CIFAR-10,71.98,\n")
    rows, (unknown, damaged) = audit.read(file)
    assert [(r.line, r.architecture, r.accuracy) for r in rows] == [
        (2, "A", Decimal("88.516")),
        (5, "C", Decimal("71.98")),
    ]
    assert (unknown.line, unknown.serious) == (1, False) and "'colour' is not known" in unknown.message
    assert (damaged.line, damaged.serious) == (4, True)
    report, status = audit.run([file])
    assert status == 2 and "1 of 2 values cannot come from 10,000 test images" in report
    assert "table.csv, line 4" in report


def test_a_column_of_originals_is_another_source():
    rows, _ = audit.read(files.path("published/table2_imagenet.csv"))
    assert Counter(r.source for r in rows) == {"study": 14, ORIGINAL: 14}
    outcome = audit.deviation(rows)
    assert outcome.applicable and outcome.looked.startswith("14 experiments") and outcome.findings == ()


def test_our_own_ledgers_pass_and_swapped_columns_do_not():
    for file in sorted(files.path("results").glob("*.jsonl")):
        records = ledger.read(file)
        assert len(records) > 0
        rows, problems = audit.read(file)
        assert problems == [] and len(rows) == len(records) and {r.source for r in rows} == {"study"}
        outcomes = audit.check(rows)
        assert outcomes["granularity"].applicable and outcomes["copies"].applicable
        assert [f for findings in found(rows).values() for f in findings if f.sure != "look"] == [], file
        swapped = [{**r, "test_best": r["train_best"]} for r in records]
        (finding, *_) = audit.granularity([replace(r, source="study") for r in audit.from_ledger(swapped)]).findings
        assert finding.rule == "impossible"


def test_a_file_that_is_no_ledger(tmp_path):
    file = tmp_path / "runs.jsonl"
    file.write_text('{"dataset": "x"}\nno json\n3\n')
    rows, problems = audit.read(file)
    assert rows == [] and [p.line for p in problems] == [1, 2, 3]
    assert "not a ledger record: there is no arch, epochs" in problems[0].message


# The command. ----------------------------------------------------------------------------------------------


def command(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "ndlib", "audit", *map(str, arguments)], capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    return done


def test_the_command_tells_what_it_found(tmp_path):
    raw, means, logs, seconds = (files.path(f"published/{file}") for file in published.STUDY)
    paper, report = (files.path(f"published/{file}") for file in (published.TABLE, published.REPORT))
    done = command(raw, means, logs, seconds, "--original", paper, "--independent", report)
    assert done.returncode == 1 and done.stderr == ""
    assert "48 of 60 values cannot come from 10,000 test images; all fit 50,000 training images" in done.stdout
    assert "value and time of ResNext-29 BN, run 3 (84.48 %, 909.25 s)" in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 260

    done = command(raw, means, logs, seconds, "--original", paper, "--independent", report, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1 and found["problems"] == []
    assert [check["check"] for check in found["checks"]] == [*audit.CHECKS]
    assert all(check["meaning"].endswith("?") and check["applicable"] for check in found["checks"])
    (copy,) = found["checks"][2]["findings"]
    assert copy["sure"] in audit.SURE and copy["rows"][0]["line"] == 67

    clean = tmp_path / "clean.csv"
    clean.write_text("architecture,accuracy\nA,93.1\nB,94.2\n")
    assert command(clean).returncode == 0
    assert command(tmp_path / "nowhere.csv").returncode == 2
    assert command().returncode == 2


def test_a_line_that_is_nested_too_deeply_is_a_problem_like_others(tmp_path):
    (tmp_path / "deep.jsonl").write_text("[" * 100_000 + "]" * 100_000 + "\n")
    rows, problems = audit.read(tmp_path / "deep.jsonl")
    assert rows == [] and "not read" in problems[0].message
