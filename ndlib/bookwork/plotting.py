"""One look for every figure of the book: colours that colour-blind readers can tell apart, lines labelled in place."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from ..experiments.ledger import display_name

__all__ = [
    "BACKGROUND",
    "COLORS",
    "DIVERGING",
    "GRID",
    "INK",
    "MARKERS",
    "WIDTH",
    "accuracy_curves",
    "figure_svg",
    "inline_figure",
    "label_line",
    "panels",
    "show_picture",
    "show_signed",
    "take_letters",
    "use_style",
]

COLORS = {"none": "#777777", "bn": "#E69F00", "nd": "#0072B2", "bn-frozen": "#009E73"}
MARKERS = {"none": "s", "bn": "o", "nd": "D", "bn-frozen": "^"}
DIVERGING = "RdBu_r"  # for kernels and covariances, always centred on zero: red positive, blue negative
WIDTH = 7.2  # inches, the width of the text

# Colours that a page may replace, so that figures suit its light and its dark theme (see figure_svg).
INK, GRID, BACKGROUND = "#333333", "#E5E5E5", "#FFFFFF"
_COLOURED_TEXT = re.compile(
    r'(<g id="text_\d+">\s*<!--[^>]*-->\s*<g style="fill: )'
    r"(#0072b2|#e69f00|#d55e00|#009e73|#cc79a7|#56b4e9|#777777)"
)


def use_style() -> None:
    """Set the book's style for all figures that follow in this notebook or script.

    >>> with plt.rc_context():  # so that figures outside keep their style
    ...     use_style()
    ...     plt.rcParams["figure.figsize"]
    [7.2, 3.2]
    """
    plt.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.2),
            "figure.dpi": 100,
            "figure.facecolor": BACKGROUND,
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "text.color": INK,
            "axes.facecolor": "none",
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.labelcolor": INK,
            "axes.edgecolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.grid": True,
            "grid.color": GRID,
            "axes.axisbelow": True,
            "lines.linewidth": 2,
            "lines.markersize": 5,
            "legend.frameon": False,
            "image.cmap": "gray",
            "image.interpolation": "none",
            "svg.hashsalt": "network-deconvolution",  # the same figure gives the same bytes
        }
    )
    try:
        from IPython.core.getipython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    shell: Any = get_ipython()
    if shell is not None:
        set_matplotlib_formats("svg")
        shell.display_formatter.formatters["image/svg+xml"].for_type(Figure, figure_svg)


def figure_svg(fig: Figure) -> str:
    """A figure as SVG whose ink, grid and paper a page can set: --figure-ink, --figure-grid, --figure-paper in CSS.

    Photographs and kernels inside keep their colours; grey ones are stored as grey, in a third of the size. A figure of
    lines and text alone also holds a hidden form for the width of a telephone: see :func:`inline_figure`.

    >>> with plt.rc_context():
    ...     use_style()
    ...     svg = figure_svg(plt.figure(figsize=(3, 2)))
    >>> plt.close()
    >>> svg.startswith("<svg "), "var(--figure-paper" in svg, svg.count("<svg ")
    (True, True, 2)
    """
    wide = _svg(fig)
    if any(ax.images for ax in fig.axes):
        return wide
    with _narrow(fig):
        return wide.rstrip().removesuffix("</svg>") + _NARROW + _svg(fig).removeprefix("<svg ") + "</svg>\n"


def inline_figure(svg: str, prefix: str, description: str) -> str:
    """A figure as HTML, for a page that holds the drawing itself: both forms beside each other; CSS shows one of them.

    Args:
        svg: what :func:`figure_svg` returned.
        prefix: put before all names inside, because two things on a page may not have the same name and every figure
            has an axes_1. Letters keep their names: DejaVuSans-41 is the same drawing in every figure.
        description: for readers who do not see the figure, with its markup escaped.

    >>> inline_figure('<svg width="9"><g id="axes_1"/></svg>', "fig-one-", "A line.")
    '<svg class="figure " role="img" aria-label="A line." width="9"><g id="fig-one-axes_1"/></svg>'
    """
    wide, *narrow = svg[svg.index("<svg ") :].rstrip().split(_NARROW)
    forms = {"wide": wide + "</svg>", "narrow": "<svg " + narrow[0].removesuffix("</svg>")} if narrow else {"": wide}
    made = ""
    for form, drawing in forms.items():
        drawing = re.sub(r'(id="|href="#|url\(#)(?!DejaVu)', rf"\1{prefix}{form}", drawing)
        made += f'<svg class="figure {form}" role="img" aria-label="{description}" ' + drawing.removeprefix("<svg ")
    made, letters = take_letters(made)
    return made.replace(">", ">" + letters, 1)


def take_letters(page: str) -> tuple[str, str]:
    """Take the outlines of letters, which every figure and form repeats, out of a page.

    Returns:
        The page without them, and each outline once, in an element that defines them for the whole page.

    >>> letter = '<path id="DejaVuSans-41" d="M 0 0"/>'
    >>> take_letters(f"<svg>{letter}</svg><svg>{letter}</svg>")
    ('<svg></svg><svg></svg>', '<defs><path id="DejaVuSans-41" d="M 0 0"/></defs>')
    """
    outlines = {found["name"]: found.group() for found in _LETTER.finditer(page)}
    return _LETTER.sub("", page), f"<defs>{''.join(outlines.values())}</defs>" if outlines else ""


_LETTER = re.compile(r'<path id="(?P<name>DejaVu[^"]*)"[^>]*/>\s*')  # the outline of one, as Matplotlib defines it
_COORDINATES, _DECIMALS = re.compile(r' (?:d|x|y)="[^"]*"'), re.compile(r"(?<=\.\d\d)\d+")  # of a point, the third on
_NARROW = '<svg class="narrow" display="none" '
_NARROW_WIDTH = 4.2  # inches: on a telephone letters are then three quarters as large as those of the text


@contextmanager
def _narrow(fig: Figure) -> Iterator[None]:
    """Inside the context the figure is one for a telephone: narrower, its panels below instead of beside each other."""
    width, height = fig.get_size_inches()
    axes = [ax for ax in fig.axes if ax.get_subplotspec() is not None]
    specs: list[Any] = [ax.get_subplotspec() for ax in axes]
    hidden, unlabelled = [], []
    new_height = height
    if len(axes) > 1 and all(spec.get_gridspec().nrows == 1 for spec in specs):
        lines = max(sum(1 + label.get_text().count("\n") for label in ax.get_yticklabels()) for ax in axes)
        new_height = len(axes) * min(height, max(2.9, 0.3 * lines))
        column = fig.add_gridspec(len(axes), 1)
        for ax, spec in zip(axes, specs, strict=True):
            ax.set_subplotspec(column[spec.colspan.start])
            if not ax.yaxis.get_tick_params()["labelleft"]:  # its labels were those of the panel to its left
                hidden.append(ax)
                ax.tick_params(labelleft=True)
                if not ax.get_ylabel():
                    unlabelled.append(ax)
                    ax.set_ylabel(axes[0].get_ylabel())
    fig.set_size_inches(_NARROW_WIDTH, new_height)
    try:
        yield
    finally:
        fig.set_size_inches(width, height)
        for ax, spec in zip(axes, specs, strict=True):
            ax.set_subplotspec(spec)
        for ax in hidden:
            ax.tick_params(labelleft=False)
        for ax in unlabelled:
            ax.set_ylabel("")


def _svg(fig: Figure) -> str:
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    svg = _COORDINATES.sub(lambda found: _DECIMALS.sub("", found.group()), buffer.getvalue())
    # Matplotlib writes one rule for all elements, *{...}, which would style the whole page that holds the figure.
    svg = re.sub(r"<style[^>]*>\*\{[^}]*\}</style>", "", svg[svg.index("<svg ") :])
    svg = svg.replace("<svg ", '<svg stroke-linejoin="round" stroke-linecap="butt" ', 1)
    for name, color in (("ink", INK), ("grid", GRID), ("paper", BACKGROUND)):
        svg = svg.replace(color.lower(), f"var(--figure-{name}, {color})")
    # On the background of either theme text needs more contrast than lines and marks of the same colour.
    svg = _COLOURED_TEXT.sub(rf"\1color-mix(in srgb, \2 55%, var(--figure-ink, {INK}))", svg)
    return re.sub(r"(?<=data:image/png;base64,)[^\"]+", _shrink_png, svg)


def _shrink_png(found: re.Match[str]) -> str:
    picture: Image.Image = Image.open(io.BytesIO(base64.b64decode(found.group())))
    pixels = np.asarray(picture.convert("RGBA"))
    if (pixels[..., 3] == 255).all():
        grey = (pixels[..., :1] == pixels[..., 1:3]).all()
        picture = picture.convert("L" if grey else "RGB")
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def panels(rows: int, columns: int, *, height: float | None = None, **options: Any) -> tuple[Figure, np.ndarray]:
    """A text-wide figure and its array of axes, shape (rows, columns); square panels unless a height is given.

    Args:
        height: inches. options: of ``plt.subplots``.

    >>> fig, axes = panels(1, 3, height=2.0)
    >>> axes.shape, fig.get_size_inches().tolist()
    ((1, 3), [7.2, 2.0])
    >>> plt.close(fig)
    """
    height = height or WIDTH / columns * rows + 0.3
    fig, axes = plt.subplots(rows, columns, figsize=(WIDTH, height), squeeze=False, **options)
    return fig, axes


def show_picture(ax: Axes, picture: Tensor, title: str = "") -> AxesImage:
    """Show a picture of shape (H, W) or (3, H, W) with values in [0, 1]; values outside are clipped, never rescaled.

    >>> fig, axes = panels(1, 1)
    >>> show_picture(axes[0, 0], torch.tensor([[0.2, 1.5]])).get_array().max().item()
    1.0
    >>> plt.close(fig)
    """
    pixels = picture.detach().clamp(0, 1).numpy()
    image = ax.imshow(pixels if pixels.ndim == 2 else pixels.transpose(1, 2, 0), vmin=0, vmax=1)
    _bare(ax, title)
    return image


def show_signed(ax: Axes, values: Tensor, title: str = "", *, limit: float | None = None) -> AxesImage:
    """Show a kernel or a covariance, shape (h, w), in the diverging colours with zero in the middle.

    Args:
        limit: value of full colour; the largest magnitude if not given. Pass one limit to all panels of a figure.

    >>> fig, axes = panels(1, 1)
    >>> show_signed(axes[0, 0], torch.tensor([[-0.5, 2.0]])).get_clim()
    (-2.0, 2.0)
    >>> plt.close(fig)
    """
    values = values.detach()
    limit = float(values.abs().max()) if limit is None else limit
    image = ax.imshow(values.numpy(), cmap=DIVERGING, vmin=-limit, vmax=limit)
    _bare(ax, title)
    return image


def _bare(ax: Axes, title: str) -> None:
    ax.set_title(title)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set(visible=True, color="#BBBBBB", linewidth=0.6)


def label_line(ax: Axes, x: float, y: float, text: str, color: str, **options: Any) -> None:
    """Write the name of a line beside it and in its colour, instead of in a legend.

    Args:
        x, y: a point of the line, in the units of the axes. options: of ``Axes.annotate``.

    >>> fig, axes = panels(1, 1)
    >>> label_line(axes[0, 0], 1, 2, "ND", COLORS["nd"])
    >>> axes[0, 0].texts[0].get_text()
    'ND'
    >>> plt.close(fig)
    """
    options = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", **options}
    ax.annotate(text, (x, y), color=color, annotation_clip=False, **options)


def accuracy_curves(
    ax: Axes,
    curves: dict[str, Sequence[Sequence[dict[str, float]]]],
    *,
    split: str = "test",
    against: str = "epoch",
) -> None:
    """Draw the accuracy of each method: every run is a thin line, their mean a thick one with its name at the end.

    Args:
        curves: for each method (a slug of the ledger) the ``curve`` of each run, all of equal length.
        split: ``"test"`` or ``"train"``.
        against: ``"epoch"``, or ``"seconds"`` of training (mean over the runs).

    >>> run = [{"epoch": 1, "test": 40.0}, {"epoch": 2, "test": 60.0}]
    >>> fig, axes = panels(1, 1)
    >>> accuracy_curves(axes[0, 0], {"nd": [run, run]})
    >>> [line.get_ydata().tolist() for line in axes[0, 0].lines][-1], axes[0, 0].texts[0].get_text()
    ([40.0, 60.0], 'ND')
    >>> plt.close(fig)
    """
    for method, runs in curves.items():
        values = torch.tensor([[e[split] for e in run] for run in runs])
        if against == "epoch":
            x = torch.tensor([e["epoch"] for e in runs[0]])
        else:
            x = torch.tensor([[e["train_seconds"] for e in run] for run in runs]).cumsum(1).mean(0)
        style: dict[str, Any] = {"color": COLORS[method], "marker": MARKERS[method]}
        for run in values:
            ax.plot(x, run, linewidth=0.8, alpha=0.4, markersize=0, **style)
        ax.plot(x, values.mean(0), **style)
        label_line(ax, float(x[-1]), float(values.mean(0)[-1]), display_name(method), COLORS[method])
    ax.set(
        xlabel="epoch" if against == "epoch" else "seconds of training",
        ylabel={"test": "test accuracy (%)", "train": "training accuracy (%)"}[split],
    )
    if against == "epoch":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
