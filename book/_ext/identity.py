"""Sphinx extension: the book's mark as logo and icon, and what a link to a page shows where it is shared.

``assets/mark.svg`` is the only drawing. The pictures of pixels that some programs want are made from it: an icon for
home screens, and the card that stands beside a shared link.
"""

from __future__ import annotations

import html
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from docutils import nodes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from notebooks import HYPHEN, Book
from sphinx.application import Sphinx

MARK = Path(__file__).parent / "assets" / "mark.svg"
CARD = (1200, 630)  # the size that every network shows whole
ICON = (180, 180)
LINE = "What it does, why it works, and whether it holds up"
LONGEST = 200  # characters of a description


def draw_mark(axes: Any, x: float, y: float, radius: float) -> None:
    """Draw the circles of the mark, in pixels of the picture, about a centre."""
    circles = [c.attrib for c in ElementTree.parse(MARK).getroot() if c.tag.endswith("circle")]
    scale = radius / float(circles[0]["r"])
    for circle in circles:
        axes.add_patch(Circle((x, y), scale * float(circle["r"]), facecolor=circle["fill"], edgecolor="none"))


def sheet(size: tuple[int, int]) -> tuple[Figure, Any]:
    """A white sheet of width and height in pixels; its coordinates are pixels from the lower left corner."""
    figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, size[0]), ylim=(0, size[1]))
    axes.set_axis_off()
    return figure, axes


def draw_card(title: str, file: Path) -> None:
    figure, axes = sheet(CARD)
    draw_mark(axes, 270, 315, 190)
    words = {"family": "DejaVu Sans", "ha": "left"}
    for i, line in enumerate(title.split(" ", 1)):
        axes.text(530, 380 - 105 * i, line, fontsize=53, weight="bold", color="#1A1A1A", **words)
    axes.text(533, 195, LINE, fontsize=16, color="#404040", **words)
    axes.text(533, 155, "An interactive book, and a PyTorch module", fontsize=16, color="#404040", **words)
    figure.savefig(file, metadata={"Software": None})


def draw_icon(file: Path) -> None:
    figure, axes = sheet(ICON)
    draw_mark(axes, ICON[0] / 2, ICON[1] / 2, 0.42 * ICON[0])
    figure.savefig(file, metadata={"Software": None})


def take_mark(app: Sphinx, config: Any) -> None:
    config.html_logo = config.html_favicon = str(MARK)
    config.html_theme_options.setdefault("logo", {})["text"] = config.html_title


def draw(app: Sphinx) -> None:
    static = Path(app.doctreedir) / "identity_static"
    static.mkdir(parents=True, exist_ok=True)
    draw_card(app.config.html_title, static / "card.png")
    draw_icon(static / "icon-180.png")
    app.config.html_static_path.append(str(static))


def description(doctree: nodes.document) -> str:
    """The first paragraph of a page that stands in no box and holds no formula, cut at the end of a word."""
    for paragraph in doctree.findall(nodes.paragraph):
        formulas = "".join(formula.astext() for formula in paragraph.findall(nodes.math))
        text = " ".join(paragraph.astext().split())
        if isinstance(paragraph.parent, nodes.section) and len(text) > 40 and not set(formulas) & set("\\^_{"):
            return text if len(text) <= LONGEST else text[: text.rindex(" ", 0, LONGEST)].rstrip(",;:") + " …"
    return ""


def describe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Add title, description, picture and address of a page as meta tags, for programs that show links to the page."""
    if doctree is None:
        return
    book = Book(Path(app.srcdir))
    heading = next(doctree.findall(nodes.title), None)
    title = heading.astext().replace(html.unescape(HYPHEN), "") if heading is not None else app.config.html_title
    about = description(doctree)
    name = app.config.html_title
    tags = [
        ("name", "description", about),
        ("property", "og:title", title),
        ("property", "og:description", about),
        ("property", "og:type", "website" if page == app.config.root_doc else "article"),
        ("property", "og:url", book.url(page)),
        ("property", "og:site_name", name),
        ("property", "og:image", f"{book.site}/_static/card.png"),
        ("property", "og:image:width", str(CARD[0])),
        ("property", "og:image:height", str(CARD[1])),
        ("property", "og:image:alt", f"A bright centre in a dark surround, and the title {name}"),
        ("name", "twitter:card", "summary_large_image"),
    ]
    lines = [f'<meta {kind}="{key}" content="{html.escape(value)}" />' for kind, key, value in tags if value]
    icon = context["pathto"]("_static/icon-180.png", 1)
    lines.append(f'<link rel="apple-touch-icon" href="{icon}" />')
    context["metatags"] = (context.get("metatags") or "") + "\n    " + "\n    ".join(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", take_mark)
    app.connect("builder-inited", draw)
    app.connect("html-page-context", describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
