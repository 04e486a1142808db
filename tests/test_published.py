"""The published numbers, and what the checks of ndlib.evidence.checks mark in them."""

import csv
import statistics
from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pytest

from ndlib import files
from ndlib.evidence import checks, marking, published, sources
from ndlib.evidence.published import JIANG, OBADAGE, PAPER, RECOVERED, SBANDATI

RESULTS = published.all_results()


def attempts(rule, **conditions):
    """The runs that carry a mark: (result, attempt)."""
    found = published.select_results(source=OBADAGE, **conditions)
    return [(r, a) for r in found for a in r.attempts if any(mark.rule == rule for mark in a.marks)]


def rows(file):
    with files.path(f"published/{file}").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_all_results_have_the_values_of_the_files():
    assert Counter(r.source for r in RESULTS) == {
        PAPER: 120,
        SBANDATI: 36,
        JIANG: 24,
        OBADAGE: 120,
        RECOVERED: 20,
    }
    assert len(published.architectures()) == 10 and published.architectures()[0] == "VGG-16"
    for source, file, column in (
        (PAPER, "table1_original_ye2020.csv", "accuracy_percent"),
        (SBANDATI, "table1_rep_sbandati2021.csv", "accuracy_percent"),
        (JIANG, "table1_rep_jiang2021.csv", "accuracy_percent"),
        (OBADAGE, "table1_rep_obadage2024_averages.csv", "reported_average_accuracy_percent"),
    ):
        for row in rows(file):
            key = {k: row[k] for k in ("dataset", "architecture", "method")}
            found = published.select_results(source=source, epochs=int(row["epochs"]), **key)
            if row["architecture"] == "VGG-11":  # which is not in Table 1
                assert source == JIANG and not found
                continue
            (result,) = found
            assert result.accuracy == float(row[column]) and result.file == file
    runs = {(*r.cell, a.number): a for r in published.select_results(source=OBADAGE) for a in r.attempts}
    raw = rows("table1_rep_obadage2024_raw.csv")
    assert len(runs) == len(raw) == 360
    for row in raw:
        a = runs[row["dataset"], row["architecture"], int(row["epochs"]), row["method"], int(row["attempt"])]
        assert (a.accuracy, a.train_seconds) == (float(row["reported_accuracy_percent"]), float(row["train_seconds"]))
    for row in rows("table89_train_seconds_obadage2024.csv"):
        key = {k: row[k] for k in ("dataset", "architecture", "method")}
        (result,) = published.select_results(source=OBADAGE, epochs=int(row["epochs"]), **key)
        assert result.seconds == float(row["published_mean_train_seconds"])


def test_marks_of_the_logs_on_runs_of_twenty_epochs():
    assert len(attempts("equals-test", dataset="CIFAR-10")) == len(attempts("equals-test")) == 60
    assert len(attempts("equals-train", dataset="CIFAR-100")) == len(attempts("equals-train")) == 56
    slipped = {(r.architecture, r.method, a.number): a.marks for r, a in attempts("another-run")}
    owners = {
        ("ResNet-18", "BN", 3): "ResNet-18 ND, run 3",
        ("ResNet-18", "ND", 3): "ResNext-29 BN, run 3",
        ("EfficientNet", "BN", 1): "EfficientNet BN, run 2",
        ("EfficientNet", "BN", 2): "EfficientNet BN, run 3",
    }
    assert slipped.keys() == owners.keys()
    for run, marks in slipped.items():
        (reason,) = [mark.reason for mark in marks if mark.rule == "another-run"]
        assert owners[run] in reason
    assert (
        "test 71.98"
        in published.select_results(source=OBADAGE, dataset="CIFAR-100", epochs=20, architecture="VGG-16", method="ND")[
            0
        ].explain()
    )


def test_explain_leaves_out_impossible_where_the_logs_have_the_value():
    traced = [
        result
        for result in published.select_results(source=OBADAGE, dataset="CIFAR-100", epochs=20)
        if all({mark.rule for mark in a.marks} & {"equals-train", "another-run"} for a in result.attempts)
    ]
    assert traced
    for result in traced:
        assert "no multiple of 0.01" not in result.explain()


def test_marks_of_impossible_values_and_blocks():
    found = Counter((r.dataset, r.epochs) for r, _ in attempts("impossible"))
    assert found == {("CIFAR-10", 100): 48, ("CIFAR-100", 1): 46, ("CIFAR-100", 20): 49, ("CIFAR-100", 100): 46}
    assert found.total() == 189
    # By whole numbers, without the module's arithmetic.
    thousandths = [
        round(1000 * float(row["first_version_accuracy_percent"]))
        for row in rows("table1_rep_obadage2024_raw.csv")
        if row["first_version_accuracy_percent"]
    ]
    assert len(thousandths) == 358 and sum(value % 10 != 0 for value in thousandths) == 189
    assert all(value % 2 == 0 for value in thousandths)
    in_block = Counter((r.dataset, r.epochs) for r, _ in attempts("block"))
    assert in_block == dict.fromkeys(found, 60) and in_block.total() == 240


def test_marks_of_averages_copies_and_times():
    wrong = {r.cell: r for r in RESULTS if any(mark.rule == "average" for mark in r.marks)}
    names = ("ResNet-18", "Preact-18", "MobileNet v2", "PNASNetA", "EfficientNet")
    assert wrong.keys() == {("CIFAR-10", name, 100, "BN") for name in names}
    mobile = wrong["CIFAR-10", "MobileNet v2", 100, "BN"]
    assert "96.34, is not the mean of the three runs, 94.80" in mobile.explain()
    for result in wrong.values():  # one slip of the formula explains them all
        assert "run 2 of ND in the place of run 3" in result.explain()
        nd = published.select_results(source=OBADAGE, dataset="CIFAR-10", epochs=100, architecture=result.architecture)[
            1
        ]
        mixed = [*result.attempts[:2], nd.attempts[1]]
        assert result.accuracy == pytest.approx(statistics.mean(a.accuracy for a in mixed), abs=0.01)
    ((copied, run),) = attempts("copy")
    assert (*copied.cell, run.number) == ("CIFAR-100", "ResNet-18", 20, "ND", 3)
    assert "ResNext-29 BN, run 3" in copied.explain() and run.accuracy == 84.48 and run.train_seconds == 909.25
    ((result, run),) = attempts("time")
    assert (*result.cell, run.number, run.train_seconds) == ("CIFAR-100", "EfficientNet", 20, "BN", 3, 63.504)
    assert sum(any(mark.rule == "seconds" for mark in r.marks) for r in RESULTS) == 19
    shifted = published.select_results(source=OBADAGE, dataset="CIFAR-100", epochs=20, method="ND")
    assert all("has in 10 of 10 rows those of BN, CIFAR-100, 100 epochs" in r.explain() for r in shifted)


def test_a_wrong_average_alone_makes_a_result_suspicious():
    (result,) = published.select_results(
        source=OBADAGE, dataset="CIFAR-10", epochs=100, architecture="MobileNet v2", method="BN"
    )
    assert replace(result, attempts=()).suspicious


def test_kind_of_the_results_of_each_source():
    blocks = {(r.source, r.dataset, r.epochs): r.kind for r in RESULTS}
    assert all(blocks[r.source, r.dataset, r.epochs] == r.kind for r in RESULTS)
    obadage = {block[1:]: kind for block, kind in blocks.items() if block[0] == OBADAGE}
    test = {("CIFAR-10", 1), ("CIFAR-10", 20)}
    assert obadage == {block: "test" if block in test else "train" for block in obadage} and len(obadage) == 6
    assert {kind for block, kind in blocks.items() if block[0] in (PAPER, RECOVERED)} == {"test"}
    for (source, _, epochs), kind in blocks.items():
        if source in (SBANDATI, JIANG):
            assert kind == ("not stated" if epochs == 1 else "test")
    assert {r.source for r in RESULTS if r.suspicious} == {OBADAGE}
    assert Counter((r.dataset, r.epochs) for r in RESULTS if r.suspicious) == dict.fromkeys(set(obadage) - test, 20)


def test_recovered_results_beside_the_paper():
    means = {(r.architecture, r.method): round(r.accuracy, 1) for r in published.select_results(source=RECOVERED)}
    assert {r.cell[::2] for r in published.select_results(source=RECOVERED)} == {("CIFAR-100", 20)}
    wanted = {"VGG-16": (61.2, 71.7), "ResNet-18": (57.4, 59.7), "DPN-92": (65.7, 75.3), "EfficientNet": (55.0, 61.4)}
    for architecture, pair in wanted.items():
        assert (means[architecture, "BN"], means[architecture, "ND"]) == pair
    paper = {(*r.cell,): r.accuracy for r in published.select_results(source=PAPER)}
    off = {r.architecture: r.accuracy - paper[r.cell] for r in published.select_results(source=RECOVERED, method="ND")}
    assert sum(abs(value) <= 0.9 for value in off.values()) == 8
    assert off["EfficientNet"] == pytest.approx(3.8, abs=0.05) and off["ResNet-18"] == pytest.approx(-16.9, abs=0.05)


def test_select_results_and_bn_nd_pairs():
    (bn, nd), *_ = published.bn_nd_pairs(published.select_results(source=PAPER, dataset="CIFAR-10", epochs=1))
    assert (bn.architecture, bn.method, nd.method) == ("VGG-16", "BN", "ND")
    assert nd.accuracy - bn.accuracy == pytest.approx(60.06)
    assert len(published.bn_nd_pairs(RESULTS)) == len(RESULTS) / 2
    assert published.bn_nd_pairs(published.select_results(method="ND")) == []
    assert published.select_results(source="nobody") == []
    with pytest.raises(AttributeError):
        published.select_results(colour="blue")


def test_recovered_table_is_the_file_in_data():
    file = files.path("published/recovered_test_means_20_epochs.csv")
    assert file.read_text() == published.recovered_table()
    means = {(r["architecture"], r["method"]): r for r in rows(file.name)}
    assert len(means) == 20
    logs = [r for r in rows(sources.LOGS) if r["split"] == "test" and r["dataset"] == "CIFAR-100"]
    for (architecture, method), row in means.items():
        values = [
            float(r["max_top1_percent"]) for r in logs if (r["architecture"], r["method"]) == (architecture, method)
        ]
        assert int(row["runs"]) == len(values) == 3
        assert float(row["recovered_test_mean_percent"]) == pytest.approx(statistics.mean(values), abs=6e-4)
        assert float(row["standard_deviation_percent"]) == pytest.approx(statistics.stdev(values), abs=6e-4)


def test_differences_have_both_parts_of_the_interval():
    """Every test accuracy of a reproduction has one; both parts of the interval are there."""
    found = published.differences()
    blocks = Counter((d.result.source, d.result.dataset, d.result.epochs) for d in found)
    assert blocks == {
        (OBADAGE, "CIFAR-10", 1): 20,
        (OBADAGE, "CIFAR-10", 20): 20,
        (RECOVERED, "CIFAR-100", 20): 20,
        **{(SBANDATI, dataset, epochs): 6 for dataset in published.DATASETS for epochs in (20, 100)},
        **{(JIANG, dataset, 20): 6 for dataset in published.DATASETS},
    }
    for d in found:
        assert d.result.kind == d.paper.kind == "test" and d.result.cell == d.paper.cell and d.paper.source == PAPER
        assert d.value == pytest.approx(d.result.accuracy - d.paper.accuracy)
        assert d.half > d.binomial if d.result.attempts else d.half == d.binomial
    # Two accuracies of 50 % on 10,000 images differ by 2 * 1.96 / sqrt(2) * 0.5 points by chance, and three runs of
    # 49, 50 and 51 % and a fourth by 4.303 * sqrt(4/3).
    half = published.PublishedResult(PAPER, "CIFAR-10", "VGG-16", 1, "BN", 50.0, "test", "", "")
    runs = tuple(published.Attempt(n, 48.0 + n, None, None) for n in (1, 2, 3))
    ours = replace(half, source=OBADAGE, attempts=runs)
    true = next(r for r in RESULTS if r.cell == half.cell and r.source == PAPER)
    (d,) = published.differences([ours])
    assert d.paper is true
    shares = [0.5 * 0.5, true.accuracy / 100 * (1 - true.accuracy / 100)]
    assert d.binomial == pytest.approx(1.96 * sum(shares) ** 0.5, rel=1e-3)
    assert d.half == pytest.approx((d.binomial**2 + 4.3027**2 * 4 / 3) ** 0.5, rel=1e-3)


def test_table_rows_name_the_line_of_a_damaged_table(monkeypatch, tmp_path):
    (tmp_path / "broken.csv").write_text("accuracy\nx\n")
    monkeypatch.setattr(sources, "path", lambda file: tmp_path / "broken.csv")
    with pytest.raises(ValueError, match=r"broken\.csv, line 2: .* 'x'"):
        sources.table_rows("broken.csv")


def test_median_seconds_time_ratios_and_hours():
    bn, nd = (
        published.select_results(
            source=published.OBADAGE, dataset="CIFAR-10", epochs=100, architecture="VGG-16", method=m
        )
        for m in ("BN", "ND")
    )
    seconds = {m[0].method: sorted(a.train_seconds for a in m[0].attempts) for m in (bn, nd)}
    assert published.median_seconds(nd[0]) == seconds["ND"][1]
    assert published.time_ratios("CIFAR-10", 100)["VGG-16"] == seconds["ND"][1] / seconds["BN"][1]
    assert published.hours("1d 2h 30m 36s") == pytest.approx(26.51)
    assert published.hours("90m") == pytest.approx(1.5)


def test_one_value_far_from_the_known_test_accuracies_leaves_its_block_open(monkeypatch):
    """EfficientNet's values lie near the test accuracies that were logged in 2024, and not nearer to the paper's."""
    (nd,) = published.select_results(
        source=JIANG, dataset="CIFAR-10", epochs=20, architecture="EfficientNet", method="ND"
    )
    assert nd.kind == "test" and "87.77" in nd.explain() and "88.96" in nd.explain()
    known = sources.table_rows(sources.SINGLE[JIANG], JIANG)
    moved = [replace(r, accuracy=Decimal("88.3")) if r.accuracy == Decimal("87.85") else r for r in known]
    monkeypatch.setattr(marking, "table_rows", lambda file, source: tuple(moved))
    found = list(
        marking.single_results(JIANG, *([r for r in RESULTS if r.source == name] for name in (PAPER, OBADAGE)))
    )
    kinds = {(r.dataset, r.epochs): r.kind for r in found}
    assert kinds["CIFAR-10", 20] == "not stated" and kinds["CIFAR-100", 20] == "test"


def test_every_check_reads_every_study():
    """The two reports of 2021 print rounded single values: only the comparisons with others apply to them."""
    for source, findings in ((SBANDATI, {"above": 1, "deviation": 5}), (JIANG, {"above": 0, "deviation": 9})):
        outcomes = checks.check_rows([*published.study_rows(source), *published.other_rows(source)])
        assert outcomes.keys() == checks.CHECKS.keys()
        assert {n: len(o.findings) for n, o in outcomes.items() if o.applicable} == findings
        assert {r.epochs for o in outcomes.values() for f in o.findings for r in f.rows} == {1}
        assert source not in {r.source for r in published.other_rows(source)}


def test_printed_time_ratios_are_those_of_the_report():
    found = published.printed_time_ratios()
    assert len(found) == 8
    assert found["CIFAR-10", "VGG-11"] == pytest.approx(42.9 / 16.3)
    assert found["CIFAR-100", "MobileNet v2"] == pytest.approx(158 / 49.3)
    assert all(ratio < 1.05 for (_, name), ratio in found.items() if name == "EfficientNet")


def test_tables_of_the_second_report_agree_with_each_other():
    """Its Table 4 repeats values of its Table 2 (SGD, cross-entropy, blocks of 64)."""
    main = {(r["dataset"], r["epochs"], r["method"], r["architecture"]): r for r in rows(sources.SINGLE[JIANG])}
    for row in rows("other_rep_jiang2021.csv"):
        if row["table"] == "4" and row["setting"] == "optimizer=SGD":
            assert row["accuracy_percent"] == main["CIFAR-10", "20", "ND", row["architecture"]]["accuracy_percent"]
