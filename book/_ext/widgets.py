"""Sphinx extension: widgets that respond on pages without a kernel. A page loads the widgets that it shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from ndlib.bookwork.widgets import bundle

MOUNT = re.compile(r'<div class="nd-mount" data-widget="([\w-]+)">')
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


def write_modules(app: Sphinx) -> None:
    """Write each widget to the static files: a script that hands its module to the host, and a style sheet.

    A module proper could not be loaded by a page that is opened from a disk.
    """
    static = Path(app.doctreedir) / "widget_static"
    static.mkdir(parents=True, exist_ok=True)
    for name in bundle.names():
        arguments = f"{json.dumps(name)}, {json.dumps(bundle.module(name), ensure_ascii=False)}"
        (static / f"widget-{name}.js").write_text(f"ndWidgets.define({arguments});\n")
        (static / f"widget-{name}.css").write_text(bundle.style(name))
    app.config.html_static_path.append(str(static))


def load_modules(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Add to each page the scripts of the widgets that it shows, and no others."""
    shown = sorted(set(MOUNT.findall(context.get("body") or "")))
    if shown:
        app.add_js_file("widget-host.js", loading_method="defer")
    for name in shown:
        app.add_js_file(f"widget-{name}.js", loading_method="defer")
        app.add_css_file(f"widget-{name}.css")
    # The notebook's own copy of the state, modules included, is for a widget manager, which this book does not load.
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if (getattr(script, "attributes", None) or {}).get("type") != WIDGET_STATE
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_modules)
    app.connect("html-page-context", load_modules, priority=800)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
