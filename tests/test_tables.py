"""Reading tables: what a column means, and what becomes of a line that cannot be read."""

import math
import statistics
import tempfile
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndlib import cli, files
from ndlib.evidence import checks, report, sources, tables
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
        (b"accuracy\n90\n\xff\xfe\n", 3, "accuracy is no number: '\xff\xfe'"),
        (b"accuracy\n90\n\x81\n", 1, "not read from here on: 'charmap' codec"),
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


# Honest tables, printed in every way that is read. -----------------------------------------------------------

WAYS = {  # how an accuracy is printed, given as a fraction of 1
    "per cent": lambda x: f"{100 * x:.2f}",
    "per cent, one decimal": lambda x: f"{100 * x:.1f}",
    "with a sign": lambda x: f"{100 * x:.2f} %",
    "fraction": lambda x: f"{x:.4f}",
    "fraction, cut off": lambda x: f"{math.floor(1000 * x) / 1000:.3f}",
    "per cent, cut off": lambda x: f"{math.floor(1000 * x) / 10:.1f}",
    "double precision": lambda x: repr(100 * float(x)),
    "double precision, other sums": lambda x: repr(sum([float(x)] * 100)),
    "fraction in double precision": lambda x: repr(float(x)),
    "single precision": lambda x: f"{np.float32(100 * float(x)):.9g}",
    "single precision, shortest": lambda x: str(np.float32(100 * float(x))),
    "fraction in single precision": lambda x: f"{np.float32(float(x)):.9g}",
    "fraction in single precision, in per cent": lambda x: str(np.float32(float(x)) * 100),
    "16 bits": lambda x: str(np.float16(100 * float(x))),
    "fraction in 16 bits": lambda x: str(np.float16(float(x))),
    "brain float": lambda x: f"{torch.tensor(100 * float(x)).bfloat16().item():.4f}",
    "bold": lambda x: f"**{100 * x:.2f}**",
    "exponent": lambda x: f"{100 * x:.4e}",
}
LAYOUTS = {
    "commas": lambda cells: ",".join(cells),
    "semicolons and decimal commas": lambda cells: ";".join(cell.replace(".", ",") for cell in cells),
    "tabs": lambda cells: "\t".join(cells),
    "Markdown": lambda cells: f"| {' | '.join(cells)} |",
}
DATASETS = {"cifar10": 10_000, "CIFAR-100": 10_000, "ImageNet": 50_000, "fashion_mnist": 10_000, "svhn": 26_032}


def printed_table(seed, way, layout, attempts=True):
    """An honest table: networks with accuracies that are counts of test images, in one way of printing."""
    rng = np.random.default_rng(seed)
    dataset = list(DATASETS)[seed % len(DATASETS)]
    images = DATASETS[dataset]
    lines = [["Dataset", "Model", "Epochs", "Run", "Top-1"][: None if attempts else 5]]
    for number in range(4):
        level = rng.uniform(0.3, 0.97)
        for attempt in "123":
            count = int(rng.binomial(images, level))
            lines.append([dataset, f"net {number}", "20", attempt, WAYS[way](Decimal(count) / images)])
    rows = [LAYOUTS[layout](cells) for cells in lines]
    if layout == "Markdown":
        rows.insert(1, "|---|---|--:|--:|--:|")
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("way", WAYS)
def test_a_hundred_honest_tables_are_read_and_never_certainly_wrong(tmp_path, way, layout):
    for seed in range(100):
        file = tmp_path / "table.txt"
        content = printed_table(seed, way, layout)
        file.write_bytes(content.encode(("utf-8", "utf-16", "utf-8-sig")[seed % 3]))
        rows, problems = tables.read_table(file)
        assert len(rows) == 12 and not [p for p in problems if p.serious], (seed, problems)
        assert all(10 < row.accuracy < 100 for row in rows)
        certain = [f for o in checks.check_rows(rows).values() for f in o.findings if f.sure == "certain"]
        assert certain == [], (seed, certain[0].message, certain[0].numbers)


def test_means_of_honest_runs_are_never_certainly_wrong(tmp_path):
    """With and without their spread, and beside their runs in every way of printing."""
    for seed in range(100):
        rng = np.random.default_rng(seed)
        runs = [[int(rng.binomial(10_000, 0.9)) / 1e4 for _ in range(3)] for _ in range(5)]
        lines = ["dataset,arch,accuracy"]
        for n, three in enumerate(runs):
            mean, spread = statistics.fmean(three), statistics.stdev(three)
            lines.append(f"cifar10,net {n},{(f'{100 * mean:.4f} ± {100 * spread:.2f}', f'{100 * mean}')[seed % 2]}")
        (tmp_path / "means.csv").write_text("\n".join(lines))
        rows, problems = tables.read_table(tmp_path / "means.csv")
        assert len(rows) == 5 and problems == []
        assert [f for f in checks.granularity(rows).findings if f.sure == "certain"] == []
        way = WAYS[list(WAYS)[seed % len(WAYS)]]
        lines = ["dataset;arch;run;accuracy;average"]
        for n, three in enumerate(runs):
            lines += [f"cifar10;net {n};{i};{way(Decimal(str(x)))};" for i, x in enumerate(three, 1)]
            lines.append(f"cifar10;net {n};;;{way(Decimal(statistics.fmean(three)))}")
        (tmp_path / "both.csv").write_text("\n".join(lines))
        rows, problems = tables.read_table(tmp_path / "both.csv")
        assert not [p for p in problems if p.serious]
        certain = [f for o in checks.check_rows(rows).values() for f in o.findings if f.sure == "certain"]
        assert certain == [], (seed, list(WAYS)[seed % len(WAYS)], certain[0])


def test_impossible_values_of_the_study_of_2024_stay_certain():
    outcome = checks.granularity(sources.study_rows())
    assert {f.sure for f in outcome.findings} == {"certain"}
    assert sum(len(f.rows) for f in outcome.findings) == 189


def test_columns_are_mapped_and_what_is_not_checked_stands_first(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("Set,Net,Score\nmy pictures,A,0.9264\nmy pictures,B,0.9302\n")

    def audit(*words):
        with pytest.raises(SystemExit) as stop:
            cli.main(["audit", str(tmp_path / "t.csv"), *words])
        return stop.value.code

    assert audit() == 2
    assert "--column accuracy=..." in capsys.readouterr().out
    assert cli.main(["audit", str(tmp_path / "t.csv"), "--column", "accuracy=Score", "--column", "dataset=Set"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert (
        first.startswith("2 rows read; not checked: granularity") and "how many test images has my pictures?" in first
    )
    assert any("column 'accuracy' is read as fractions" in line for line in rest)
    assert audit("--column", "accuracy=missing") == 2
    assert "there is no column 'missing' to take for accuracy" in capsys.readouterr().out


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120) | st.text(max_size=120).map(lambda text: f"accuracy,dataset\n{text}".encode()))
def test_any_bytes_are_a_table_or_problems(content):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "t.csv")
        file.write_bytes(content)
        rows, problems = tables.read_table(file)
    assert rows or problems
    for row in rows:
        assert row.value is None or 0 <= row.value <= 100
    checks.check_rows(rows)
