"""One rule for the intervals of differences, wherever the same runs are compared."""

import math
import random
import re

import pytest

from ndlib import files
from ndlib.experiments import intervals, ledger


def arm(method, values, **settings):
    settings = {"arch": "made-up", "dataset": "none", "epochs": 1, **settings}
    return [{"method": method, "seed": seed, "test_last": value, **settings} for seed, value in enumerate(values)]


def results(file, **where):
    return ledger.select(ledger.read(files.path(f"results/{file}")), **where)


def test_difference_pools_the_scatter_of_its_arms():
    """Standard deviations 1 and 3 with 2 and 2 degrees of freedom, whose means do not matter; t of 4 is 2.776."""
    ours, theirs = arm("nd", (10.0, 12.0, 11.0)), arm("bn", (50.0, 53.0, 47.0))
    found = intervals.difference(ours, theirs)
    half = 2.776445 * math.sqrt((1 + 9) / 2 * (1 / 3 + 1 / 3))
    assert found == pytest.approx((-39.0, -39.0 - half, -39.0 + half, 3), abs=1e-4)
    assert found.half == pytest.approx(half, abs=1e-4)
    assert intervals.of_mean(ours).half == pytest.approx(4.302653 / 3**0.5, abs=1e-4)  # alone: 1, with 2 degrees


def test_unequal_numbers_of_seeds_count_each():
    """Squared deviations 0.5 and 2 (of 1, 2, 3) over 3 degrees of freedom; t of 3 is 3.182."""
    found = intervals.difference(arm("nd", (1.0, 2.0)), arm("bn", (1.0, 2.0, 3.0)))
    assert found.half == pytest.approx(3.182446 * math.sqrt((0.5 + 2) / 3 * (1 / 2 + 1 / 3)), abs=1e-4)
    assert found.n == 2


def test_arms_of_different_lengths_bring_their_own_scatter():
    """Welch: variances 1/3 and 9/3 with 2 degrees each have 2.47 together."""
    ours, theirs = arm("nd", (10.0, 12.0, 11.0), epochs=1), arm("bn", (50.0, 53.0, 47.0), epochs=2)
    total = 1 / 3 + 9 / 3
    freedom = total**2 / ((1 / 3) ** 2 / 2 + 3**2 / 2)
    from scipy import stats

    assert intervals.difference(ours, theirs).half == pytest.approx(stats.t.ppf(0.975, freedom) * total**0.5)
    assert 2 < freedom < 3


def test_seeds_are_paired_only_where_their_correlation_is_shown():
    random.seed(1)
    noise = lambda: [random.gauss(0, 1) for _ in range(6)]  # noqa: E731
    shared = [5 * value for value in noise()]
    alike = [[s + 0.1 * v for s, v in zip(shared, noise(), strict=True)] for _ in range(3)]
    found = intervals.seed_correlation([dict(enumerate(values)) for values in alike])
    assert found.shown and found.value > 0.99 and found.deviation < 0.2 and found.freedom == 10
    ours, theirs = arm("nd", alike[0]), arm("bn", alike[1])
    assert intervals.difference(ours, theirs).half < 1  # unpaired it would be wider than five
    assert intervals.difference(ours, theirs[:5]).half > 1  # other seeds: nothing to pair
    wide = intervals.of_mean(ours).half
    assert wide > 2  # a mean by itself keeps what the seeds share
    apart = intervals.seed_correlation([dict(enumerate(noise())) for _ in range(3)])
    assert not apart.shown and abs(apart.value) < 0.6
    assert not intervals.seed_correlation([{0: 1.0, 1: 2.0}]).shown  # one arm shows nothing


def test_correlation_that_is_shown_by_chance_is_rare():
    """Of 400 comparisons without any shared part about one in a hundred looks as if it had one."""
    random.seed(0)
    draw = lambda: [{seed: random.gauss(0, 1) for seed in range(3)} for _ in range(5)]  # noqa: E731
    shown = sum(intervals.seed_correlation(draw()).shown for _ in range(400))
    assert 0 <= shown <= 12


def test_ninety_five_in_a_hundred_intervals_hold_the_truth():
    random.seed(3)
    hits = 0
    for _ in range(400):
        values = [[random.gauss(mean, 1) for _ in range(3)] for mean in (0.0, 2.0)]
        found = intervals.difference(arm("nd", values[1]), arm("bn", values[0]))
        hits += found.low <= 2.0 <= found.high
    assert 0.92 < hits / 400 < 0.98


@pytest.mark.parametrize("broken", [[], arm("bn", (1.0, 2.0)) * 2])
def test_an_arm_needs_runs_and_each_seed_once(broken):
    with pytest.raises(ValueError, match="each seed once"):
        intervals.difference(arm("nd", (1.0, 2.0)), broken)


def test_single_runs_have_no_interval():
    with pytest.raises(ValueError, match="two or more seeds"):
        intervals.difference(arm("nd", (1.0,)), arm("bn", (2.0,)))


def test_the_same_runs_have_the_same_interval_in_two_ledgers():
    """The frozen first layer beside BN, which once read -3.1 to +11.5 in one chapter and +2.1 to +6.3 in another."""
    found = []
    rate = results("methods.jsonl")[0]["lr"]
    for file in ("methods.jsonl", "optimizers.jsonl"):
        arms = [
            results(file, arch="vgg-small", method=m, options="", optimizer="sgd", lr=rate) for m in ("bn-frozen", "bn")
        ]
        assert [len(runs) for runs in arms] == [3, 3]
        found.append(intervals.difference(*arms))
    assert found[0] == found[1] and f"{found[0].mean:.1f}" == "4.2"
    pool = intervals.comparison(arms[0][0])
    assert {r["optimizer"] for r in pool} == {"sgd", "adamw", "muon"} and intervals.scatter(pool).freedom == 34


def test_a_run_in_two_ledgers_counts_once():
    runs = intervals.recorded_runs()
    assert len(runs) == len({(*intervals._label(r, intervals._ARM), r["seed"]) for r in runs})
    twice = results("narrow.jsonl", arch="vgg16", method="nd", options="", lr=0.1, seed=0)
    twice += results("ten-networks.jsonl", arch="vgg16", method="nd", options="", seed=0)
    assert len(twice) == 2 and len({intervals._label(r, intervals._ARM) for r in twice}) == 1


def test_every_chapter_follows_the_rule():
    """No chapter computes an interval of our runs in another way."""
    root = files.path("results").parents[1]
    other = re.compile(r"paired_difference|pooled_half_width|stats\.t\.|ttest_rel")
    for page in sorted((root / "book").glob("*.md")):
        if page.name == "auditing.md":  # its exercise is about the published runs of others
            continue
        assert not other.search(page.read_text()), page.name
