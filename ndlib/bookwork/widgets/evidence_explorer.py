"""The widget of the published numbers: Table 1 by source, data set and epochs, with suspicious values marked."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...evidence import published
from ...evidence.published import (
    DATASETS,
    EPOCHS,
    JIANG,
    OBADAGE,
    PAPER,
    RECOVERED,
    SBANDATI,
    SOURCES,
    PublishedResult,
)
from .. import plotting
from . import bundle
from .base import BookWidget

__all__ = ["EvidenceExplorer", "Lead"]

SOURCE_TITLES = {
    PAPER: "the paper",
    SBANDATI: "the 2021 reproduction by Sbandati",
    JIANG: "the 2021 reproduction by Jiang",
    OBADAGE: "the 2024 reproduction",
    RECOVERED: "the logs of the 2024 reproduction",
}
PRINTED = (PAPER, SBANDATI, JIANG, OBADAGE)  # what a reader switches on and off


class Lead(NamedTuple):
    """ND compared with BN in one source.

    ND has the higher accuracy in ``ahead`` of ``total`` architectures. ``gain`` is the mean of ND minus BN over all
    of them, in points.

    >>> Lead("paper", total=10, ahead=9, gain=1.5).ahead
    9
    """

    source: str
    total: int
    ahead: int
    gain: float


def _columns() -> dict[str, Any]:
    """The results as the browser gets them: a list for each column, and each text once."""
    results = published.all_results()
    texts = list(dict.fromkeys(r.explain() for r in results))
    files = list(dict.fromkeys(r.file for r in results))
    architectures = published.architectures()
    paper = {r.cell: r.accuracy for r in results if r.source == PAPER}
    half = {(d.result.source, d.result.cell): d.half for d in published.differences()}
    return {
        "sources": list(SOURCES),
        "names": list(SOURCE_TITLES.values()),
        "architectures": architectures,
        "texts": texts,
        "files": files,
        "source": [SOURCES.index(r.source) for r in results],
        "dataset": [r.dataset for r in results],
        "architecture": [architectures.index(r.architecture) for r in results],
        "epochs": [r.epochs for r in results],
        "method": [r.method for r in results],
        "accuracy": [r.accuracy for r in results],
        "paper": [paper[r.cell] for r in results],
        "half": [half.get((r.source, r.cell)) for r in results],
        "kind": [r.kind for r in results],
        "suspicious": [int(r.suspicious) for r in results],
        "attempts": [[a.accuracy for a in r.attempts] for r in results],
        "seconds": [[a.train_seconds for a in r.attempts if r.source == OBADAGE] for r in results],
        "text": [texts.index(r.explain()) for r in results],
        "file": [files.index(r.file) for r in results],
    }


class EvidenceExplorer(BookWidget):
    """Table 1 of the paper and of its reproductions, one row for each architecture, with suspicious values marked.

    Args:
        dataset: ``"CIFAR-10"`` or ``"CIFAR-100"``.
        epochs: 1, 20 or 100.
        sources: some of ``"paper"``, ``"Sbandati 2021"``, ``"Jiang 2021"``, ``"Obadage 2024"``.
        only_test: leave out the training accuracies, and those of which no source says what they are.
        recovered: show the test means from the logs of the 2024 study instead of the values that it printed, where the
            logs have them.
        view: ``"accuracy"``, ``"gain"`` for ND minus BN, ``"difference"`` for reproduction minus paper, with the
            intervals of :func:`ndlib.evidence.published.differences`, or ``"time"`` for the training time of ND
            over that of BN, medians of the runs, where a study gives them.
        picked: the result that is explained, an index into ``ndlib.evidence.published.all_results()``; -1 for none.

    ``shown`` is the list of results that are drawn (:class:`ndlib.evidence.marking.PublishedResult`), and ``leads``
    says for each source in how many architectures ND is ahead of BN, and by how much.

    >>> w = EvidenceExplorer(dataset="CIFAR-100", epochs=20)
    >>> len(w.shown)
    52
    >>> [(lead.source, lead.ahead, lead.total) for lead in w.leads]
    [('paper', 10, 10), ('Sbandati 2021', 3, 3), ('Jiang 2021', 3, 3), ('Obadage 2024', 10, 10)]
    """

    _name = "evidence-explorer"
    _esm = bundle.module(_name)
    _css = bundle.style(_name)

    table = traitlets.Dict(read_only=True).tag(sync=True)
    dataset = traitlets.Enum(DATASETS, "CIFAR-100").tag(sync=True)
    epochs = traitlets.Enum(EPOCHS, 20).tag(sync=True)
    sources = traitlets.List(traitlets.Enum(PRINTED), list(PRINTED)).tag(sync=True)
    only_test = traitlets.Bool(False).tag(sync=True)
    recovered = traitlets.Bool(False).tag(sync=True)
    view = traitlets.Enum(["accuracy", "gain", "difference", "time"], "accuracy").tag(sync=True)
    picked = traitlets.Int(min=-1).tag(sync=True)

    @traitlets.default("picked")
    def _a_suspicious_one(self) -> int:
        there = {"source": OBADAGE, "dataset": "CIFAR-100", "epochs": 20, "architecture": "VGG-16", "method": "ND"}
        return published.all_results().index(published.select_results(**there)[0])

    @traitlets.validate("picked")
    def _there_is_one(self, proposal: Any) -> int:
        if proposal["value"] >= len(published.all_results()):
            raise traitlets.TraitError(f"picked must be below {len(published.all_results())}, got {proposal['value']}")
        return int(proposal["value"])

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self.set_trait("table", _columns())

    @property
    def shown(self) -> list[PublishedResult]:
        """The results that are drawn: for gains and times as pairs, for differences without the paper's own."""
        inside = published.select_results(dataset=self.dataset, epochs=self.epochs)
        if self.view == "time":
            return [r for r in inside if r.source == OBADAGE and OBADAGE in self.sources]
        known = {r.cell for r in inside if r.source == RECOVERED} if self.recovered else set()
        shown = []
        for r in inside:
            if r.source == RECOVERED:
                wanted = OBADAGE in self.sources and r.cell in known
            else:
                wanted = r.source in self.sources and not (r.source == OBADAGE and r.cell in known)
            if r.source == PAPER and self.view == "difference":
                continue
            if wanted and (r.kind == "test" or not self.only_test):
                shown.append(r)
        return shown

    @property
    def leads(self) -> list[Lead]:
        """ND compared with BN in each source that is shown."""
        gains: dict[str, list[float]] = {}
        for bn, nd in published.bn_nd_pairs(self.shown):
            gains.setdefault(bn.source, []).append(nd.accuracy - bn.accuracy)
        return [
            Lead(source, len(found), sum(gain > 0 for gain in found), statistics.mean(found))
            for source, found in gains.items()
        ]

    @property
    def agreement(self) -> dict[str, tuple[int, int]]:
        """For each source: the cells in which the interval of its difference to the paper holds zero, and all cells."""
        found: dict[str, list[bool]] = {}
        for d in published.differences(self.shown):
            found.setdefault(d.result.source, []).append(abs(d.value) <= d.half)
        return {source: (sum(agree), len(agree)) for source, agree in found.items()}

    @property
    def times(self) -> dict[str, float]:
        """For each architecture, training time with ND over that with BN: medians of the runs of the 2024 study."""
        return published.time_ratios(self.dataset, self.epochs)

    def describe(self) -> str:
        if self.view == "time":
            ratios = self.times.values() if self.shown else []
            where = f"{self.dataset}, {_after(self.epochs)}, one row an architecture"
            if not ratios:
                return f"Training times, {where}. Only the 2024 reproduction gives those of its runs."
            span = f"{min(ratios):.1f} to {max(ratios):.1f}"
            return f"Training time with ND in units of that with BN, {where}: {span} in {SOURCE_TITLES[OBADAGE]}."
        if self.view == "difference":
            cells = [
                f"{agree} of {total} in {SOURCE_TITLES[source]}" for source, (agree, total) in self.agreement.items()
            ]
            within = f"The paper's value lies within the interval in {'; '.join(cells)}." if cells else ""
            start = f"Accuracy on {self.dataset} after {_after(self.epochs)} minus the paper's"
            return f"{start}, one row an architecture. {within or 'No value shown is known to be a test accuracy.'}"
        said = [
            f"in {ahead} of {total} architectures in {SOURCE_TITLES[source]}, by {gain:.1f} points on average"
            for source, total, ahead, gain in self.leads
        ]
        trained = list(dict.fromkeys(SOURCE_TITLES[r.source] for r in self.shown if r.kind == "train"))
        also = f" The values of {', '.join(trained)} are training accuracies and crossed out." if trained else ""
        ahead = f"Network deconvolution is ahead {'; '.join(said)}." if said else "Nothing is shown."
        return f"Accuracies on {self.dataset} after {_after(self.epochs)}, one row an architecture. {ahead}{also}"

    def still(self) -> Figure:
        rows = published.architectures()
        lanes = [source for source in SOURCES if any(r.source == source for r in self.shown)]
        looks = {
            PAPER: ("o", "none"),
            SBANDATI: ("D", "left"),
            JIANG: ("v", "left"),
            OBADAGE: ("s", "full"),
            RECOVERED: ("^", "full"),
        }
        fig, ax = plt.subplots(figsize=(plotting.WIDTH, 5.6))
        if self.view == "difference":
            return self._still_differences(fig, ax)
        if self.view == "time":
            return self._still_times(fig, ax)
        for bn, nd in published.bn_nd_pairs(self.shown):
            lane = lanes.index(bn.source) - (len(lanes) - 1) / 2
            y = rows.index(bn.architecture) + 0.22 * lane
            marker, fill = looks[bn.source]
            line = ":" if bn.suspicious or nd.suspicious else "-"
            ax.plot([bn.accuracy, nd.accuracy], [y, y], line, color="#BBBBBB", linewidth=1.2, zorder=1)
            for r, method in ((bn, "bn"), (nd, "nd")):
                ax.plot(r.accuracy, y, marker, markersize=6, **_look(fill, plotting.COLORS[method]))
                if r.suspicious:
                    ax.plot(r.accuracy, y, "x", color=plotting.INK, markersize=6, markeredgewidth=1)
        for source in lanes:
            marker, fill = looks[source]
            ax.plot([], [], marker, label=source, **_look(fill, plotting.COLORS["none"]))
        for method in ("bn", "nd"):
            ax.plot([], [], color=plotting.COLORS[method], linewidth=4, label=method.upper())
        if any(r.suspicious for r in self.shown):
            ax.plot([], [], "x", color=plotting.INK, label="no test accuracy")
        ax.set(yticks=range(len(rows)), yticklabels=rows, xlabel=f"accuracy (%), {self.dataset}, {_after(self.epochs)}")
        ax.invert_yaxis()
        ax.legend(loc="upper center", bbox_to_anchor=(0.4, -0.14), ncols=2, fontsize=9)
        plt.close(fig)
        return fig

    def _still_differences(self, fig: Figure, ax: Axes) -> Figure:
        rows, places = published.architectures(), {"BN": -0.15, "ND": 0.15}
        paper = {r.cell: r.accuracy for r in published.select_results(source=PAPER)}
        half = {(d.result.source, d.result.cell): d.half for d in published.differences(self.shown)}
        for r in self.shown:
            value, color = r.accuracy - paper[r.cell], plotting.COLORS[r.method.lower()]
            y = rows.index(r.architecture) + places[r.method] + {SBANDATI: -0.07, JIANG: 0.07}.get(r.source, 0.0)
            marker = {SBANDATI: "D", JIANG: "v", OBADAGE: "s", RECOVERED: "^"}[r.source]
            ax.plot(value, y, marker, color=color, markersize=5)
            if (r.source, r.cell) in half:
                ax.hlines(y, value - half[r.source, r.cell], value + half[r.source, r.cell], color=color)
            if r.suspicious:
                ax.plot(value, y, "x", color=plotting.INK)
        ax.axvline(0, color=plotting.INK, linewidth=1)
        label = f"reproduction minus paper (points), {self.dataset}, {_after(self.epochs)}"
        ax.set(yticks=range(len(rows)), yticklabels=rows, xlabel=label)
        ax.invert_yaxis()
        plt.close(fig)
        return fig

    def _still_times(self, fig: Figure, ax: Axes) -> Figure:
        rows = published.architectures()
        for name, ratio in self.times.items() if self.shown else ():
            ax.plot([1, ratio], [rows.index(name)] * 2, color="#BBBBBB", linewidth=1.2, zorder=1)
            ax.plot(ratio, rows.index(name), "s", color=plotting.COLORS["nd"], markersize=6)
        ax.axvline(1, color=plotting.COLORS["bn"], linewidth=1.5)
        label = f"training time with ND, BN = 1, {self.dataset}, {_after(self.epochs)}"
        ax.set(yticks=range(len(rows)), yticklabels=rows, xlabel=label, ylim=(len(rows) - 0.5, -0.5))
        plt.close(fig)
        return fig


def _look(fill: str, color: str) -> dict[str, Any]:
    light = {"markerfacecolor": f"{color}55"} if fill == "full" else {}
    return {"color": color, "fillstyle": fill, **light}


def _after(epochs: int) -> str:
    return f"{epochs} epoch{'s' * (epochs > 1)}"
