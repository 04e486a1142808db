"""What a conversion says about the layers of a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["BARE", "Action", "LayerReport", "Norm", "Report"]

Action = Literal["converted", "dropped", "kept"]
Norm = Literal["", "batch", "other"]
BARE = "left without normalisation"


@dataclass(frozen=True)
class LayerReport:
    """What became of one layer, and why. ``kind``: its class, with the module that it comes from unless that is torch.
    ``norm``: ``"batch"`` or ``"other"`` of a normalisation, else empty.
    """

    name: str
    kind: str
    action: Action
    why: str
    norm: Norm = ""


@dataclass
class Report:
    """What :func:`.convert` or :func:`.convert_pretrained` did, a row for each convolution, linear layer and
    normalisation; ``print`` shows it as a table with a summary. Where normalisation stays beside whitening, or goes
    where nothing whitens, the first line says so.

    >>> bn = LayerReport("bn", "BatchNorm2d", "dropped", "", "batch")
    >>> print(Report([LayerReport("stem", "Conv2d", "converted", ""), bn]))
    layer  kind         action     why
    stem   Conv2d       converted  -
    bn     BatchNorm2d  dropped    -
    1 converted, 1 dropped, 0 kept
    """

    rows: list[LayerReport] = field(default_factory=list)

    def count(self, action: Action, kind: str = "") -> int:
        """Rows with this action, of layers whose kind, without the module that it comes from, begins so."""
        return sum(r.action == action and r.kind.rpartition(".")[2].startswith(kind) for r in self.rows)

    def verdict(self) -> str:
        """What is not as one would wish; empty if all is.

        >>> bn = LayerReport("bn", "BatchNorm2d", "kept", "no layer takes its output", "batch")
        >>> Report([LayerReport("stem", "Conv2d", "converted", ""), bn]).verdict()
        'Mind: 1 of 1 batch normalisations stay beside whitening.'
        """
        whiten, batch = self.count("converted"), [r for r in self.rows if r.norm == "batch"]
        kept = [r for r in self.rows if r.norm and r.action == "kept"]
        stay, other = (sum(r.norm == norm for r in kept) for norm in ("batch", "other"))
        bare = sum(BARE in r.why for r in self.rows)
        said = [
            f"{stay} of {len(batch)} batch normalisations stay beside whitening." if stay and whiten else "",
            f"{other} other normalisations stay beside whitening." if other and whiten else "",
            f"{bare} plain layers may be {BARE}." if bare else "",
            "" if whiten or any("whitens already" in r.why for r in self.rows) else "no layer was converted.",
        ]
        return " ".join(["Mind:", *filter(None, said)]) if any(said) else ""

    def __str__(self) -> str:
        cells = [("layer", "kind", "action", "why"), *((r.name, r.kind, r.action, r.why or "-") for r in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(3)]
        lines = ["  ".join([*(c.ljust(w) for c, w in zip(row[:3], widths, strict=True)), row[3]]) for row in cells]
        summary = f"{self.count('converted')} converted, {self.count('dropped')} dropped, {self.count('kept')} kept"
        if not any(r.norm == "batch" for r in self.rows):
            summary += "; the network has no batch normalisation on its path"
        return "\n".join([*filter(None, [self.verdict()]), *lines, summary])
