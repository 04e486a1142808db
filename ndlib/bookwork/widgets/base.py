"""What all widgets share: a Python object in a notebook, and a still picture with data on a page without a kernel."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from typing import Any, ClassVar

import anywidget
import numpy as np
import traitlets
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..plotting import figure_svg, inline_figure

__all__ = ["Array", "BookWidget"]


class Array(traitlets.TraitType[NDArray[np.floating[Any]], Any]):
    """A trait that holds a NumPy array of one type and sends its bytes to the browser, so that no digit is lost.

    Args:
        dtype: the type of the numbers. A value of another type is converted when it is set.
        options: as of any trait of traitlets.

    Raises:
        traitlets.TraitError: when a value is set that is not finite.

    >>> class Curve(traitlets.HasTraits):
    ...     heights = Array(np.float64)
    >>> Curve(heights=[1, 2]).heights
    array([1., 2.])
    """

    def __init__(self, dtype: type[np.floating[Any]], **options: Any) -> None:
        self.dtype = np.dtype(dtype)
        super().__init__(default_value=np.zeros(0, dtype), **options)
        self.tag(
            sync=True,
            to_json=lambda value, _: value.tobytes(),
            from_json=lambda value, _: np.frombuffer(value, self.dtype).copy(),
        )

    def validate(self, obj: Any, value: Any) -> NDArray[np.floating[Any]]:
        array = np.array(value, self.dtype)
        if not np.isfinite(array).all():
            raise traitlets.TraitError(f"{self.name} must be finite, got {array}")
        array.flags.writeable = False  # a change inside would not be noticed: set a new array instead
        return array


class BookWidget(anywidget.AnyWidget):
    """A widget whose ES module also runs on a static page, on the host that the book's extension puts there.

    A subclass names its module in ``_name`` and sets ``_esm = bundle.module(_name)``, ``_css = bundle.style(_name)``.
    ``still`` draws the picture that a page shows where scripts are off, and ``describe`` puts that picture into words.

    >>> from ndlib.bookwork.widgets import NewtonSchulz
    >>> issubclass(NewtonSchulz, BookWidget), NewtonSchulz().page_html()[:48]
    (True, '<div class="nd-mount" data-widget="newton-schulz')
    """

    _name: ClassVar[str]

    def still(self) -> Figure:
        """The widget as it now stands, as a figure."""
        raise NotImplementedError

    def describe(self) -> str:
        """What the still picture shows, in words: its alternative text."""
        raise NotImplementedError

    def page_html(self) -> str:
        """HTML for a page without a kernel: the still picture, and the state as data, which no browser runs."""
        base = set(anywidget.AnyWidget.class_trait_names(sync=True))
        state = {k: _plain(v) for k, v in self.get_state().items() if k not in base and not k.startswith("_")}
        # Inside a script element nothing but "</script" and "<!--" has a meaning, and neither can stand without "<".
        data = json.dumps(state, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        prefix = f"nd-{hashlib.sha256(data.encode()).hexdigest()[:8]}-"
        still = inline_figure(figure_svg(self.still()), prefix, html.escape(self.describe()))
        return (
            f'<div class="nd-mount" data-widget="{self._name}">\n<div class="nd-still">{still}\n'
            "<p>A still picture. With scripts switched on, it can be played with.</p></div>\n"
            f'<script type="application/json">{data}</script>\n</div>'
        )

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle = super()._repr_mimebundle_(**options)
        if bundle is None:
            return None
        data, metadata = bundle
        return {**data, "text/html": self.page_html()}, metadata


def _plain(value: Any) -> Any:
    """Bytes as JSON can hold them; the host turns them back into a DataView, which is what Jupyter's widgets get."""
    if isinstance(value, bytes | memoryview):
        return {"base64": base64.b64encode(value).decode()}
    return value
