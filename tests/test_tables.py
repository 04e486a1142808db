"""Reading tables: what a column means, and what becomes of a line that cannot be read."""

from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pytest

from ndlib import files
from ndlib.evidence import checks, report, tables
from ndlib.evidence.tables import ORIGINAL
from ndlib.experiments import ledger


@pytest.mark.parametrize("file", sorted(p.name for p in files.path("published").glob("*.csv")))
def test_read_table_has_no_problem_with_published_tables(file):
    rows, problems = tables.read_table(files.path(f"published/{file}"))
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
def test_read_table_reports_problems_by_line(tmp_path, content, line, message):
    file = tmp_path / "table.csv"
    file.write_bytes(content)
    (problem,) = tables.read_table(file)[1]
    assert (problem.file, problem.line, problem.serious) == ("table.csv", line, True) and message in problem.message
    assert report.audit_files([file])[1] == 2


def test_read_table_reads_the_rest_of_a_damaged_file(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("\ufeffarch, dataset ,accuracy,colour\nA,CIFAR-10,88.516,red\n\nB,CIFAR-10,x,\nC,CIFAR-10,71.98,\n")
    rows, (unknown, damaged) = tables.read_table(file)
    assert [(r.line, r.architecture, r.accuracy) for r in rows] == [
        (2, "A", Decimal("88.516")),
        (5, "C", Decimal("71.98")),
    ]
    assert (unknown.line, unknown.serious) == (1, False) and "'colour' is not known" in unknown.message
    assert (damaged.line, damaged.serious) == (4, True)
    text, status = report.audit_files([file])
    assert status == 2 and "1 of 2 values cannot come from 10,000 test images" in text
    assert "table.csv, line 4" in text


def test_read_table_makes_rows_of_a_column_of_originals():
    rows, _ = tables.read_table(files.path("published/table2_imagenet.csv"))
    assert Counter(r.source for r in rows) == {"study": 14, ORIGINAL: 14}
    outcome = checks.deviation(rows)
    assert outcome.applicable and outcome.looked.startswith("14 experiments") and outcome.findings == ()


def test_checks_pass_our_ledgers_and_find_swapped_columns():
    for file in sorted(files.path("results").glob("*.jsonl")):
        records = ledger.read(file)
        assert len(records) > 0
        rows, problems = tables.read_table(file)
        assert problems == [] and len(rows) == len(records) and {r.source for r in rows} == {"study"}
        outcomes = checks.check_rows(rows)
        assert outcomes["granularity"].applicable and outcomes["copies"].applicable
        assert [f for outcome in outcomes.values() for f in outcome.findings if f.sure != "look"] == [], file
        swapped = [{**r, "test_best": r["train_best"]} for r in records]
        (finding, *_) = checks.granularity([replace(r, source="study") for r in tables.ledger_rows(swapped)]).findings
        assert finding.rule == "impossible"


KEYS = ("split", "width", "variant", "options", "train_images", "lr", "momentum", "weight_decay", "batch_size")


@pytest.mark.parametrize("key", KEYS)
def test_ledger_rows_keep_runs_apart_that_differ_in_a_setting(key):
    record, *_ = ledger.read(files.path("results/cifar10.jsonl"))
    other = {**record, key: {"split": "held-out"}.get(key, 7)}
    ours, theirs = tables.ledger_rows([record, other])
    assert ours.experiment != theirs.experiment
    assert f"{key}={other[key]}" in theirs.setting.split()
    assert ("split" in ours.setting, "options" in ours.setting) == (False, False)  # "test" and "" go without saying
    assert [pair.split("=")[0] for pair in theirs.setting.split()] == [
        name for name in KEYS if name == key or record[name] not in ("", "test")
    ]


def test_ledger_rows_have_the_values_of_a_record():
    record, *_ = ledger.read(files.path("results/cifar10.jsonl"))
    (row,) = tables.ledger_rows([record])
    assert row.experiment[:4] == tuple(record[name] for name in ("dataset", "arch", "epochs", "method"))
    assert (row.attempt, row.images, row.source) == (str(record["seed"]), record["test_images"], "")
    assert (float(row.accuracy), float(row.seconds)) == (record["test_best"], record["train_seconds"])
    for name in ("dataset", "seed", "test_images", "test_best", "train_seconds"):
        with pytest.raises(ValueError, match=f"there is no {name}$"):
            tables.ledger_rows([{key: value for key, value in record.items() if key != name}])


def test_read_table_reports_lines_that_are_no_ledger_records(tmp_path):
    file = tmp_path / "runs.jsonl"
    file.write_text('{"dataset": "x"}\nno json\n3\n')
    rows, problems = tables.read_table(file)
    assert rows == [] and [p.line for p in problems] == [1, 2, 3]
    assert "not a ledger record: there is no arch, epochs" in problems[0].message


def test_read_table_reports_a_line_nested_too_deeply(tmp_path):
    (tmp_path / "deep.jsonl").write_text("[" * 100_000 + "]" * 100_000 + "\n")
    rows, problems = tables.read_table(tmp_path / "deep.jsonl")
    assert rows == [] and "not read" in problems[0].message
