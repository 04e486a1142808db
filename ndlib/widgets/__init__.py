"""Interactive pictures: anywidget objects in a notebook, and the same pictures on a page without a kernel.

In a notebook, ``from ndlib.widgets import NewtonSchulz`` and then ``NewtonSchulz(steps=5)`` as the last line of a cell.
"""

from .kernel_explorer import KernelExplorer
from .newton_schulz import NewtonSchulz

__all__ = ["KernelExplorer", "NewtonSchulz"]
