"""Interactive pictures: anywidget objects in a notebook, and the same pictures on a page without a kernel.

In a notebook, ``from ndlib.bookwork.widgets import NewtonSchulz``, and then ``NewtonSchulz(steps=5)`` as the last line
of a cell.
"""

from .blur_lab import BlurLab
from .descent import Descent
from .evidence_explorer import EvidenceExplorer
from .kernel_explorer import KernelExplorer
from .newton_schulz import NewtonSchulz
from .patch_matrix import PatchMatrix
from .pixel_pairs import PixelPairs

__all__ = ["BlurLab", "Descent", "EvidenceExplorer", "KernelExplorer", "NewtonSchulz", "PatchMatrix", "PixelPairs"]
