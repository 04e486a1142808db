"""What a conversion says about the layers of a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["LayerReport", "Report"]

Action = Literal["converted", "dropped", "kept"]


@dataclass(frozen=True)
class LayerReport:
    """What became of one layer, and why."""

    name: str
    kind: str
    action: Action
    why: str


@dataclass
class Report:
    """What :func:`.convert` or :func:`.convert_pretrained` did, a row for each convolution, linear layer and
    normalisation; ``print`` shows it as a table with a summary.

    >>> print(Report([LayerReport("stem", "Conv2d", "converted", ""), LayerReport("bn", "BatchNorm2d", "dropped", "")]))
    layer  kind         action     why
    stem   Conv2d       converted  -
    bn     BatchNorm2d  dropped    -
    1 converted, 1 dropped, 0 kept
    """

    rows: list[LayerReport] = field(default_factory=list)

    def count(self, action: Action, kind: str = "") -> int:
        """Rows with this action, of layers whose kind begins so."""
        return sum(r.action == action and r.kind.startswith(kind) for r in self.rows)

    def __str__(self) -> str:
        cells = [("layer", "kind", "action", "why"), *((r.name, r.kind, r.action, r.why or "-") for r in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(3)]
        lines = ["  ".join([*(c.ljust(w) for c, w in zip(row[:3], widths, strict=True)), row[3]]) for row in cells]
        summary = f"{self.count('converted')} converted, {self.count('dropped')} dropped, {self.count('kept')} kept"
        if not any("BatchNorm" in r.kind for r in self.rows):
            summary += "; the network has no batch normalisation on its path"
        return "\n".join([*lines, summary])
