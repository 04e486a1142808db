"""Sphinx extension: pages that need no other server, and pictures that dark mode leaves alone."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ASSETS = Path(__file__).parent / "assets"
MATHJAX = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")  # 2 MB of the wheel's 24
FIGURE = re.compile(r'<img alt="(?P<alt>[^"]*)" src="[^"]*_images/(?P<name>[^"/]+\.svg)"[^>]*/?>')


def copy_mathjax(app: Sphinx) -> None:
    """Put the parts of MathJax that pages load, from the wheel sphinx-mathjax-offline, among the static files."""
    wheel = importlib.metadata.distribution("sphinx-mathjax-offline")
    source = Path(str(wheel.locate_file("sphinx-mathjax-offline/static/mathjax")))
    static = Path(app.doctreedir) / "offline_static"
    for part in MATHJAX:
        target = static / "mathjax" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / part).is_dir():
            shutil.copytree(source / part, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source / part, target)
    app.config.html_static_path += [str(static), str(ASSETS)]


def inline_figures(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Put SVG figures into the page itself, where they can take the colours of its theme."""
    sources = {name: Path(app.srcdir) / path for path, name in app.builder.images.items()}

    def replace(found: re.Match[str]) -> str:
        source = sources.get(found["name"])
        if source is None:
            return found.group()
        svg = source.read_text()
        svg = svg[svg.index("<svg ") + len("<svg ") :]
        # A page may not name two things alike, and every figure has an axes_1.
        svg = re.sub(r'(id="|href="#|url\(#)', rf"\1f{found['name'][:8]}-", svg)
        return f'<svg class="figure" role="img" aria-label="{found["alt"]}" {svg}'

    if "body" in context:
        context["body"] = FIGURE.sub(replace, context["body"])


def drop_unused_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Leave out inline scripts that the theme adds twice and the loader of Thebe, which this book does not use."""
    seen, kept = set(), []
    for script in context.get("script_files", []):
        body = (getattr(script, "attributes", None) or {}).get("body")
        if body is not None and (body in seen or "THEBE" in body):
            continue
        seen.add(body)
        kept.append(script)
    context["script_files"] = kept


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", copy_mathjax)
    app.connect("html-page-context", inline_figures)
    app.connect("html-page-context", drop_unused_scripts, priority=900)
    app.add_css_file("book.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
