"""Interactive pictures: anywidget objects in a notebook, and the same pictures on a page without a kernel.

In a notebook, write a widget as the last line of a cell:

>>> from ndlib.bookwork.widgets import NewtonSchulz
>>> NewtonSchulz(steps=5).steps
5
"""

from .blur_lab import BlurLab
from .descent import Descent
from .evidence_explorer import EvidenceExplorer
from .kernel_explorer import KernelExplorer
from .live_race import LiveRace
from .newton_schulz import NewtonSchulz
from .patch_matrix import PatchMatrix
from .pipeline import Pipeline
from .pixel_pairs import PixelPairs

__all__ = [
    "BlurLab",
    "Descent",
    "EvidenceExplorer",
    "KernelExplorer",
    "LiveRace",
    "NewtonSchulz",
    "PatchMatrix",
    "Pipeline",
    "PixelPairs",
]
