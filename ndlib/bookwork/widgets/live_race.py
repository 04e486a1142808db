"""The widget in which small networks learn on the page: plain, with batch normalisation, and with deconvolution."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import traitlets
from matplotlib.figure import Figure

from ... import files
from .. import plotting
from . import bundle, race, race_study
from .base import BookWidget

__all__ = ["LiveRace", "Studied", "finding", "presets", "study"]

ARMS = ["plain", "BN", "ND"]
PAPER_RATE = 0.1
LOWEST, HIGHEST = 0.1 / 16, 0.4  # rates
VARIANTS = {"published": "ND as published", "recommended": "ND as recommended"}  # names in the study
METHODS = {"plain": "none", "BN": "bn", "ND as published": "nd", "ND as recommended": "nd"}


class Studied(NamedTuple):
    """What the committed study found of an arm: mean and standard deviation of the accuracy, percent, after steps.

    >>> study()["BN"].n
    20
    """

    rate: float
    n: int
    steps: list[int]
    mean: list[float]
    deviation: list[float]


@cache
def study() -> dict[str, Studied]:
    """The reported runs of data/live-race.jsonl by arm, each at its best rate.

    >>> sorted(study())
    ['BN', 'ND as published', 'ND as recommended', 'plain']
    """
    lines = files.path("live-race.jsonl").read_text().splitlines()
    reported = [r for r in map(json.loads, lines) if r["phase"] == "reported"]
    found = {}
    for arm in race_study.ARMS:
        runs = [r for r in reported if r["arm"] == arm]
        curves = np.array([r["held_out"] for r in runs])
        mean, deviation = curves.mean(0).round(2).tolist(), curves.std(0, ddof=1).round(2).tolist()
        found[arm] = Studied(runs[0]["rate"], len(runs), runs[0]["steps"], mean, deviation)
    return found


def finding() -> str:
    """The study in two sentences, whichever way it falls.

    >>> finding().endswith(".")
    True
    """
    found = study()
    bn, nd, plain = found["BN"], found["ND as published"], found["plain"]
    ahead = [step for step, a, b in zip(nd.steps, nd.mean, bn.mean, strict=True) if a > b]
    behind = [step for step in nd.steps if step not in ahead]
    early, last = nd.steps.index(10), nd.steps[-1]
    if not behind:
        lead = "ND is ahead throughout"
    elif not ahead:
        lead = "BN is ahead throughout"
    elif max(ahead) < min(behind):
        lead = f"ND is ahead up to step {max(ahead)}, BN from step {min(behind)} on"
    else:
        lead = f"ND is ahead after {', '.join(map(str, ahead))} steps, BN after {', '.join(map(str, behind))}"
    return (
        f"In {nd.n} runs of each network at its best rate {lead}. After 10 steps ND has {nd.mean[early]:.1f} %, BN "
        f"{bn.mean[early]:.1f} % and plain {plain.mean[early]:.1f} %; after {last}, ND has {nd.mean[-1]:.1f} %, BN "
        f"{bn.mean[-1]:.1f} % and plain {plain.mean[-1]:.1f} %."
    )


def presets() -> dict[str, dict[str, Any]]:
    """Settings by the names of their buttons.

    >>> presets()["Paper's rate"]["bn_rate"]
    0.1
    """
    best = {arm: found.rate for arm, found in study().items()}
    rates = {"plain_rate": best["plain"], "bn_rate": best["BN"]}
    published = {"nd_rate": best[VARIANTS["published"]], "variant": "published", "block_size": 16, "n_iter": 5}
    recommended = published | {"nd_rate": best[VARIANTS["recommended"]], "variant": "recommended"}
    recommended |= {"block_size": race_study.RECOMMENDED["block_size"]}
    start = {"batch": race.BATCH, "by": "steps", "arms": ARMS}
    paper = {"plain_rate": PAPER_RATE, "bn_rate": PAPER_RATE, "nd_rate": PAPER_RATE}
    return {
        "Best rates": start | rates | published,
        "Paper's rate": start | published | paper,
        "By the clock": start | rates | published | {"by": "seconds"},
        "ND as published": published,
        "ND as recommended": recommended,
    }


class LiveRace(BookWidget):
    """Three small convolutional networks that learn handwritten digits side by side, in the page.

    Each has two convolutions and a linear layer, 600 digits of MNIST to learn and 200 others that it is tested on. All
    arms begin with the same weights and see the same batches.

    >>> w = LiveRace(preset="Paper's rate")
    >>> w.bn_rate, w.seed = 0.025, 3  # Python can do what the reader can do
    >>> len(w.study["BN"].mean) == len(w.study["BN"].steps)  # mean of 20 runs in torch after each of these steps
    True

    Args:
        preset: the name of a button, for what is not said otherwise.
        arms: those that run, some of ``"plain"``, ``"BN"``, ``"ND"``.
        plain_rate, bn_rate, nd_rate: learning rates, 0.00625 to 0.4.
        batch: pictures of a training step, 8 to 200.
        variant: eps and running averages of deconvolution as ``"published"`` or as ``"recommended"``.
        block_size: channels that are whitened together, 1 to 16; the page's networks have no larger blocks.
        n_iter: steps of the iteration for the root, 1 to 15.
        seed: of first weights and batches, 1 to 20.
        by: what the curves are drawn against, ``"steps"`` or ``"seconds"``.
    """

    _name = "live-race"
    _esm = bundle.module(_name)
    _css = bundle.style(_name)

    digits = traitlets.Bytes(read_only=True).tag(sync=True)
    facts = traitlets.Dict(read_only=True).tag(sync=True)  # what the page says and does not let the reader change

    arms = traitlets.List(traitlets.Enum(ARMS), ARMS).tag(sync=True)
    plain_rate = traitlets.Float(min=LOWEST, max=HIGHEST).tag(sync=True)
    bn_rate = traitlets.Float(min=LOWEST, max=HIGHEST).tag(sync=True)
    nd_rate = traitlets.Float(min=LOWEST, max=HIGHEST).tag(sync=True)
    batch = traitlets.Int(race.BATCH, min=8, max=200).tag(sync=True)
    variant = traitlets.Enum(list(VARIANTS), "published").tag(sync=True)
    block_size = traitlets.Int(16, min=1, max=16).tag(sync=True)
    n_iter = traitlets.Int(5, min=1, max=15).tag(sync=True)
    seed = traitlets.Int(1, min=1, max=20).tag(sync=True)
    by = traitlets.Enum(["steps", "seconds"], "steps").tag(sync=True)

    def __init__(self, preset: str = "Best rates", **traits: Any) -> None:
        known = presets()
        if preset not in known:
            raise ValueError(f"preset must be one of {list(known)}, got {preset!r}")
        super().__init__(**next(iter(known.values())) | known[preset] | traits)
        self.set_trait("digits", files.path("live-race-digits.bin").read_bytes())
        self.set_trait("facts", _facts())

    @property
    def study(self) -> dict[str, Studied]:
        """What each arm did in torch at its best rate, on the digits of the page."""
        return study()

    def describe(self) -> str:
        return f"Accuracy on {race.HELD_OUT} held-out digits against training steps, three small networks. {finding()}"

    def still(self) -> Figure:
        fig, ax = plt.subplots(figsize=(plotting.WIDTH, 3.4))
        for arm, name in (("plain", "plain"), ("BN", "BN"), ("ND as published", "ND")):
            found, method = self.study[arm], METHODS[arm]
            color, mean, deviation = plotting.COLORS[method], np.array(found.mean), np.array(found.deviation)
            ax.fill_between(found.steps, mean - deviation, mean + deviation, color=color, alpha=0.15, linewidth=0)
            ax.plot(found.steps, mean, marker=plotting.MARKERS[method], markersize=4, color=color)
            at = found.steps.index(5)
            plotting.label_line(ax, 5, mean[at], name, color, va="top", xytext=(6, -4))
        ax.set(xlabel="training step", ylabel="held-out digits right, %", xlim=(0, None), ylim=(0, 100))
        plt.close(fig)
        return fig


def _facts() -> dict[str, Any]:
    return {
        "trained": race.TRAINED,
        "count": race.TRAINED + race.HELD_OUT,
        "momentum": race.MOMENTUM,
        "decay": race.DECAY,
        "options": {v: race_study.in_javascript(arm)["options"] for v, arm in VARIANTS.items()},
        "study": {arm: found._asdict() for arm, found in study().items()},
        "finding": finding(),
        "presets": presets(),
    }
