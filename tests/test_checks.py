"""The checks: each finds the error planted for it in a clean table, no other does, and clean tables stay clean."""

from collections import Counter
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest

from ndlib.evidence import checks, published, simulation
from ndlib.evidence.tables import ORIGINAL, TableRow

TEN, HUNDRED = "CIFAR-10", "CIFAR-100"


@pytest.fixture(scope="module")
def clean():
    return simulation.honest_table(3, steady=True)


def found(rows):
    return {name: outcome.findings for name, outcome in checks.check_rows(rows).items() if outcome.findings}


def runs(rows, *, dataset=TEN, architecture="network 4", epochs=100, method="BN"):
    cell = (dataset, architecture, epochs, method, "")
    return [r for r in rows if r.experiment == cell and r.attempt and not r.split]


def changed(rows, new):
    """The table with some rows replaced (by file and line), and with means of the cells that still are their means."""
    by_line = {r.line: r for r in new}
    rows = [by_line.get(r.line, r) for r in rows]
    cells = {r.experiment for r in new}
    for i, r in enumerate(rows):
        if r.experiment in cells and r.average is not None and r.line not in by_line:
            inside = [other for other in rows if other.experiment == r.experiment and other.attempt and not other.split]
            mean, time = (sum(getattr(o, name) for o in inside) / len(inside) for name in ("accuracy", "seconds"))
            rows[i] = replace(r, average=round(mean, 2), average_seconds=round(time, 2))
    return rows


def with_value(row, value):
    return replace(row, accuracy=round(value, 2), unrounded=round(value, 2).quantize(Decimal("0.001")))


def logged(rows, row, split):
    (line,) = [r for r in rows if r.experiment == row.experiment and r.attempt == row.attempt and r.split == split]
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
    others = [r for r in others if r.experiment != target.experiment]
    source = min(others, key=lambda r: abs(r.accuracy - target.accuracy))
    row = replace(target, **{name: getattr(source, name) for name in ("accuracy", "unrounded", "seconds")})
    return changed(rows, [row]), "copies", "copy", [row.line, source.line]


def wrong_mean(rows):
    (mean,) = [r for r in rows if r.experiment == runs(rows)[0].experiment and r.average is not None]
    return changed(rows, [replace(mean, average=mean.average - Decimal("0.02"))]), "averages", "average", [mean.line]


def wrong_mean_time(rows):
    (mean,) = [r for r in rows if r.experiment == runs(rows)[0].experiment and r.average is not None]
    mean = replace(mean, average_seconds=mean.average_seconds * Decimal("1.03"))
    return changed(rows, [mean]), "averages", "seconds", [mean.line]


def shifted_column(rows, quantity="average_seconds"):
    means = {r.experiment: r for r in rows if r.average is not None}
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
def test_planted_error_is_found_by_its_check_alone(clean, plant):
    rows, check, rule, lines = plant(clean)
    (findings,) = found(rows).values()
    assert found(rows).keys() == {check}
    assert {f.rule for f in findings} == {rule}
    assert sorted(r.line for f in findings for r in f.rows) == sorted(lines)


def test_averages_explains_a_slip_of_a_formula(clean):
    """Run 1 of ND in the place of run 3 of BN, copied down two rows of a column."""
    new = []
    for architecture in ("network 1", "network 2"):
        bn, nd = (runs(clean, architecture=architecture, method=method) for method in ("BN", "ND"))
        (mean,) = [r for r in clean if r.experiment == bn[0].experiment and r.average is not None]
        new.append(replace(mean, average=round((bn[0].accuracy + bn[1].accuracy + nd[0].accuracy) / 3, 2)))
    findings = checks.averages(changed(clean, new)).findings
    assert [f.rows for f in findings] == [(r,) for r in new]
    assert all(f.message.endswith("it is the mean with run 1 of ND in the place of run 3") for f in findings)


def test_every_check_has_a_planted_error(clean):
    assert {plant(clean)[1] for plant in ERRORS} == checks.CHECKS.keys()


LOOKED = {
    "granularity": "360 values",
    "logs": "120 values",
    "copies": "360 runs; chance would make ",
    "averages": "120 mean accuracies, 120 mean times",
    "shifts": "24 columns",
    "misplaced": "360 times",
    "times": "80 ratios",
    "above": "120 experiments",
    "deviation": "120 experiments; averaged squared deviations 0.00 to 0.00",
}


def test_outcomes_say_what_was_looked_at(clean):
    outcomes = checks.check_rows(clean)
    assert outcomes.keys() == LOOKED.keys()
    for name, outcome in outcomes.items():
        assert outcome.looked.startswith(LOOKED[name]), name


def test_averages_does_not_explain_what_two_slips_explain(clean):
    """Runs 1 and 2 of ND are equal: the mean that is printed for BN may have come from either."""
    bn, nd = (runs(clean, method=method) for method in ("BN", "ND"))
    second = with_value(nd[1], nd[0].accuracy)
    (mean,) = [r for r in clean if r.experiment == bn[0].experiment and r.average is not None]
    wrong = replace(mean, average=round((bn[0].accuracy + bn[1].accuracy + nd[0].accuracy) / 3, 2))
    (finding,) = checks.averages(changed(clean, [second, wrong])).findings
    assert finding.rows == (wrong,) and finding.message.endswith(f"three runs, {sum(r.accuracy for r in bn) / 3:.2f}")


@pytest.mark.parametrize(("factor", "count"), [("0.981", 0), ("0.979", 1), ("1.019", 0), ("1.021", 1)])
def test_averages_allows_two_per_cent_of_a_mean_time(clean, factor, count):
    experiment = runs(clean)[0].experiment
    (mean,) = [r for r in clean if r.experiment == experiment and r.average is not None]
    exact = sum(r.seconds for r in runs(clean)) / 3
    rows = changed(clean, [replace(mean, average_seconds=round(exact * Decimal(factor), 2))])
    assert len(checks.averages(rows).findings) == count


def test_shifts_needs_three_rows(clean):
    rows, _, _, lines = shifted_column(clean)
    for kept in (2, 3):
        undone = [r for r in clean if r.line in lines[kept:]]
        assert len(checks.shifts(changed(rows, undone)).findings) == (kept == 3)


@pytest.mark.parametrize("seed", range(6))
def test_checks_find_nothing_in_steady_honest_tables(seed):
    outcomes = checks.check_rows(simulation.honest_table(seed, steady=True))
    assert all(outcome.applicable for outcome in outcomes.values())
    assert {name for name, outcome in outcomes.items() if outcome.findings} == set()


def test_honest_table_is_repeatable_and_has_all_sources():
    rows = simulation.honest_table(1)
    assert rows == simulation.honest_table(1) != simulation.honest_table(2)
    assert Counter(r.source for r in rows) == {"study": 360 + 240 + 120, ORIGINAL: 120, "another study": 120}
    assert len({r.line for r in rows}) == len(rows) == 960


# Single checks. --------------------------------------------------------------------------------------------


def run(architecture="A", attempt="1", *, accuracy="80", unrounded=None, seconds="10", **more):
    given = {"accuracy": accuracy, "unrounded": unrounded, "seconds": seconds}
    values = {name: Decimal(value) for name, value in given.items() if value is not None}
    return TableRow(dataset=TEN, epochs=20, method="BN", architecture=architecture, attempt=attempt, **values, **more)


def test_possible_percentage_and_fewest_images():
    for k in (1, 4_999, 44_258, 59_999):  # numbers of images, of 60,000: no finite decimals
        percent = Fraction(100 * k, 60_000)
        value = Decimal(round(percent * 10_000)) / 10_000
        assert checks.possible_percentage(value, 60_000, 4) and not checks.possible_percentage(
            value + Decimal("0.0008"), 60_000, 4
        )
    values = [Decimal(v) for v in ("93.38", "88.516", "71.98", "99.858", "84.5")]
    assert [checks.possible_percentage(v, 10_000, 3) for v in values] == [True, False, True, False, True]
    assert all(checks.possible_percentage(v, 50_000, 3) for v in values)
    assert checks.fewest_images(values) == 50_000 and checks.fewest_images(values[:1]) == 5_000
    assert checks.fewest_images([Decimal(0), Decimal(100)]) == 1


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
    outcome = checks.granularity(rows)
    assert outcome.applicable == applicable and sum(len(f.rows) for f in outcome.findings) == count
    assert not checks.granularity([replace(r, dataset="unknown") for r in rows]).applicable
    assert not checks.granularity([replace(r, unrounded=None) for r in rows]).applicable
    few = checks.granularity([replace(r, dataset="unknown", images=200) for r in rows])  # a step of half a point
    assert few.applicable and [len(f.rows) for f in few.findings] == [len(rows)]


def test_granularity_tests_a_single_unrounded_value():
    rows = [run(attempt=str(n), accuracy="88.51") for n in range(40)]
    assert not checks.granularity(rows).applicable
    outcome = checks.granularity([*rows, run(attempt="40", accuracy="88.516")])
    assert outcome.looked == "1 value" and [r.attempt for f in outcome.findings for r in f.rows] == ["40"]


def test_grain_kind_by_share_of_impossible_values():
    """Most values impossible: training accuracies. None: test accuracies. Between: not stated."""
    for impossible, kind in ((0, "test"), (1, "not stated"), (3, "not stated"), (4, "train")):
        rows = [run(attempt=str(n), unrounded="80.002" if n < impossible else "80.010") for n in range(6)]
        (grain,) = checks.grains(rows).values()
        assert grain.kind == kind and len(grain.impossible) == impossible
        assert grain.all_train
    (grain,) = checks.grains([run(unrounded="80.001")]).values()
    assert grain.kind == "train" and not grain.all_train


def test_copies_find_the_owner_in_the_logs():
    rows = [run("A", str(n), accuracy=f"8{n}.5", seconds=f"{n}.25") for n in range(6)]
    copy = replace(rows[2], architecture="B")
    spoilt = [*rows, copy]
    assert {f.rows[0].architecture for f in checks.copies(spoilt).findings} == {"A", "B"}  # nothing tells which
    lines = [replace(r, split=s, accuracy=a) for r in rows for s, a in (("test", r.accuracy), ("train", Decimal(99)))]
    lines += [replace(r, architecture="B", accuracy=Decimal(70)) for r in lines]
    (finding,) = checks.copies([*spoilt, *lines]).findings
    assert finding.rows == (copy,) and finding.message == "value and time of A BN, run 2"
    assert checks.copies([*rows, replace(copy, architecture="A", attempt="9")]).findings == ()  # within a cell


def test_copies_is_not_applicable_to_coarse_numbers():
    rows = [run(str(n), accuracy=str(80 + n % 2), seconds=str(5 + n % 3)) for n in range(12)]
    outcome = checks.copies(rows)
    assert not outcome.applicable and "too coarse" in outcome.looked


@pytest.mark.parametrize(
    ("accuracies", "seconds", "applicable", "expected"),
    [
        ("80 80 82 83", "5 5 5 6", True, "0.5"),  # 1 and 3 equal pairs, of 6
        ("80 80 82 83 84", "5 5 5 5 6", False, "0.6"),  # 1 and 6 equal pairs, of 10
    ],
)
def test_copies_is_not_applicable_from_half_an_expected_pair(accuracies, seconds, applicable, expected):
    numbers = zip(accuracies.split(), seconds.split(), strict=True)
    rows = [run(str(n), accuracy=a, seconds=s) for n, (a, s) in enumerate(numbers)]
    outcome = checks.copies(rows)
    assert outcome.applicable == applicable
    assert f"{expected} equal pairs" in outcome.looked


def timed(architecture, epochs, seconds, **more):
    return replace(run(architecture, seconds=str(seconds)), epochs=epochs, **more)


@pytest.mark.parametrize("more", [{"method": "ND"}, {"setting": "b"}, {"dataset": HUNDRED}])
def test_times_compares_runs_of_one_experiment_alone(more):
    rows = [timed(name, epochs, 10 * epochs) for name in "ABCDE" for epochs in (1, 20)]
    assert checks.times(rows).looked == "5 ratios"
    assert checks.times([*rows, timed("A", 20, 999, **more)]).looked == "5 ratios"
    outcome = checks.times([*rows, timed("A", 1, 3, **more), timed("A", 20, 999, **more)])
    (finding,) = outcome.findings
    assert outcome.looked == "6 ratios" and finding.rows[0].epochs == 20
    assert finding.message == "20 epochs take 3.3e+02 times as long as 1; in the median experiment it is 20 times"
    assert not checks.times(rows[2:]).applicable


def test_times_allows_a_factor_of_one_and_a_half_and_five_deviations():
    rows = [timed(name, epochs, 100 * epochs) for name in "ABCDEF" for epochs in (1, 20)]
    for seconds, count in ((2900, 0), (3100, 1), (1400, 0), (1300, 1)):
        assert len(checks.times([*rows[:-1], timed("F", 20, seconds)]).findings) == count
    scattered = [timed(name, 20, s) for name, s in zip("ABCDE", (1500, 1750, 2000, 2300, 2650), strict=True)]
    ones = [timed(name, 1, 100) for name in "ABCDEF"]
    for seconds, count in ((9800, 0), (10100, 1)):
        assert len(checks.times([*ones, *scattered, timed("F", 20, seconds)]).findings) == count


def test_thresholds_of_deviation_and_above():
    assert checks.squared_deviation([60.0, 40.0, 50.0], 50.0) == pytest.approx(0.01)
    original = replace(run(accuracy="50", seconds=None, attempt=""), source=ORIGINAL)
    for value, count in (("55", 0), ("55.1", 1), ("45", 0), ("44.9", 1)):
        assert len(checks.deviation([run(accuracy=value), original]).findings) == count
    assert not checks.deviation([run()]).applicable
    for value, count in (("55", 0), ("55.1", 1), ("44", 0)):
        assert len(checks.above([run(accuracy=value), original]).findings) == count


# The published study. --------------------------------------------------------------------------------------


def test_checks_of_the_study_of_2024():
    outcomes = checks.check_rows([*published.study_rows(), *published.other_rows()])
    rules = Counter(f.rule for outcome in outcomes.values() for f in outcome.findings)
    assert rules["equals-train"] == 56 and rules["another-run"] == 4 and rules["unlogged"] == 0
    assert rules["average"] == 5 and rules["copy"] == rules["time"] == rules["shift"] == 1 and rules["seconds"] == 9
    impossible = {f.rows[0].experiment[0::2][:2]: len(f.rows) for f in outcomes["granularity"].findings}
    assert impossible == {(TEN, 100): 48, (HUNDRED, 1): 46, (HUNDRED, 20): 49, (HUNDRED, 100): 46}
    printed = [replace(r, unrounded=None) for r in published.study_rows()]
    (left,) = checks.granularity(printed).findings  # as printed all but one value have two decimals
    assert left.numbers == "DenseNet-121 ND: 99.958" and checks.granularity(printed).looked == "1 value"
    (shift,) = outcomes["shifts"].findings
    assert "ND, CIFAR-100, 20 epochs has in 10 of 10 rows those of BN, CIFAR-100, 100 epochs" in shift.message
    odd = {f.rows[0].experiment[:4] for f in outcomes["times"].findings}
    assert len(odd) == 5 and (TEN, "ResNet-18", 100, "BN") in odd
    assert all(dataset == TEN for dataset, *_ in odd)


def test_squared_deviations_have_the_printed_ranges():
    """CIFAR-10 0.00 to 0.23 and CIFAR-100 0.00 to 0.11, says its text; so they are, divided by two and not by three."""
    original = {r.cell: r for r in published.select_results(source=published.PAPER)}
    for dataset, most in ((TEN, 0.23), (HUNDRED, 0.11)):
        squares = [
            checks.squared_deviation([a.accuracy for a in r.attempts], original[r.cell].accuracy)
            for r in published.select_results(source=published.OBADAGE, dataset=dataset)
        ]
        assert round(max(squares), 2) == most and round(min(squares), 2) == 0
        assert round(max(squares) * 2 / 3, 2) != most
