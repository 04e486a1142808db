"""What the race trains with, and how well each arm then does: what the page says beside its live curves.

    python -m ndlib.bookwork.widgets.race_study digits    # writes data/live-race-digits.bin, from MNIST
    python -m ndlib.bookwork.widgets.race_study           # writes data/live-race.jsonl; some ten minutes of one core

Choices are made on other held-out digits than those of the page, with other seeds than those reported, and by the mean
accuracy over all evaluations: batch and momentum as they suit batch normalisation best, so that the baseline is a good
one; then a learning rate for each arm. One JSON line for each run; ``phase`` says what it was for.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import ndlib

from ... import files
from ...experiments import datasets
from . import race

# The recommended setting; a run ends with the steps that are all measured, whatever update_every says.
RECOMMENDED: dict[str, Any] = {name: value for name, value in ndlib.RECOMMENDED.items() if name != "update_every"}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("none", {}),
    "BN": ("bn", {}),
    "ND as published": ("nd", {}),
    "ND as recommended": ("nd", RECOMMENDED),
}
NAMES = {"block_size": "blockSize", "eps": "eps", "running": "running"}  # of options in race.mjs
SETTINGS = [(batch, momentum) for batch in (32, 64) for momentum in (0.0, 0.9)]
__all__: list[str] = []  # a program

RATES = [0.1 * 2.0**power for power in range(-4, 3)]
CHOOSING, REPORTED = range(101, 103), range(1, 21)  # seeds
STEPS = [1, 2, 5, 10, 15, 20, 30, 40, 50, 60, 80, 100]
OTHER_DIGITS = 500


def in_javascript(arm: str) -> dict[str, Any]:
    """An arm as race.mjs takes it."""
    method, options = ARMS[arm]
    return {"method": method, "options": {NAMES[name]: value for name, value in options.items()}}


def write_digits(folder: Path) -> None:
    """The first training and test digits in the canonical order of ``datasets.load``, packed."""
    mnist = datasets.load("mnist").subset(race.TRAINED, race.HELD_OUT)
    images, labels = (
        torch.cat([mnist.train_images, mnist.test_images]),
        torch.cat([mnist.train_labels, mnist.test_labels]),
    )
    packed = race.pack(images[:, 0].numpy(), labels.numpy())
    (folder / "live-race-digits.bin").write_bytes(packed)
    print(f"{len(images)} digits, {len(packed)} bytes")


def run(digits: race.Digits, arm: str, batch: int, momentum: float, rate: float, seed: int) -> dict[str, Any]:
    """One run; a network whose numbers overflow is at chance from then on."""
    method, options = ARMS[arm]
    model = race.network(method, seed, **options)
    curve: list[float] = []
    try:
        for step, _ in enumerate(race.train(model, digits, seed, rate, STEPS[-1], batch, momentum), 1):
            if step in STEPS:
                curve.append(round(race.accuracy(model, digits), 2))
    except FloatingPointError:
        curve += [10.0] * (len(STEPS) - len(curve))
    chosen = {"arm": arm, "options": options, "batch": batch, "momentum": momentum, "rate": rate, "seed": seed}
    return chosen | {"steps": STEPS, "held_out": curve}


def study() -> Iterator[dict[str, Any]]:
    page = race.digits()
    mnist = datasets.load("mnist").subset(race.TRAINED + OTHER_DIGITS, 1)
    others = mnist.train_images[race.TRAINED :], mnist.train_labels[race.TRAINED :]
    choosing = page._replace(held_out=race.standardised(others[0]), held_out_labels=others[1])
    means: dict[tuple[str, int, float, float], float] = defaultdict(float)

    def choose(phase: str, arm: str, batch: int, momentum: float) -> Iterator[dict[str, Any]]:
        for rate in RATES:
            for seed in CHOOSING:
                record = run(choosing, arm, batch, momentum, rate, seed)
                means[arm, batch, momentum, rate] += sum(record["held_out"]) / len(STEPS) / len(CHOOSING)
                yield {"phase": phase, **record}

    for setting in SETTINGS:
        yield from choose("setting", "BN", *setting)
    _, batch, momentum, _ = max(means, key=lambda key: means[key])
    for arm in ARMS:
        if arm != "BN":
            yield from choose("rate", arm, batch, momentum)
    for arm in ARMS:
        rate = max(RATES, key=lambda rate: means[arm, batch, momentum, rate])
        for seed in REPORTED:
            yield {"phase": "reported", **run(page, arm, batch, momentum, rate, seed)}


def main() -> None:
    folder = files.path("README.md").parent
    if sys.argv[1:] == ["digits"]:
        write_digits(folder)
        return
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", ".*rows for a covariance")  # of the linear layer; the page shows what comes of it
    with (folder / "live-race.jsonl").open("w") as file:
        for record in study():
            file.write(json.dumps(record) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
