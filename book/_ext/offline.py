"""Sphinx extension: pages that need no other server and load little, and pictures that dark mode leaves alone."""

from __future__ import annotations

import base64
import importlib.metadata
import io
import re
import shutil
from pathlib import Path
from typing import Any

import pydata_sphinx_theme
from fontTools import subset
from fontTools.ttLib import TTFont
from sphinx.application import Sphinx

from ndlib.bookwork.plotting import inline_figure, take_letters

ASSETS = Path(__file__).parent / "assets"
MATHJAX = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")  # 2 MB of the wheel's 24
THEME = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
# The icons that pages show. The theme has 2,000, in 270 kB of fonts and once more in a script of 1.5 MB.
ICONS = {
    ("solid", 900): (
        "angle-down angle-left angle-right arrow-up arrow-right bars bell bolt check-circle circle-exclamation "
        "circle-half-stroke circle-info code download exclamation-triangle expand external-link fire file file-pdf "
        "hand-point-right info-circle lightbulb link list magnifying-glass moon pencil rocket sun xmark"
    ),
    ("brands", 400): "github",
}
ICON_VARIABLE = re.compile(r'--pst-icon-[\w-]+:\s*"(.)"')  # the icons of notes and warnings
NOT_LOADED = ("**/*.map", "vendor/fontawesome", "sphinx-thebe.*")  # files of the theme that no page loads
SEARCH_TOOL = re.compile(r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js"></script>')
FORMULA = 'class="math '  # as Sphinx marks what MathJax is to typeset
FIGURE = re.compile(r'<img alt="(?P<alt>[^"]*)" src="[^"]*_images/(?P<name>[^"/]+\.svg)"[^>]*/?>')


def copy_mathjax(app: Sphinx) -> None:
    """Copy the parts of MathJax that pages load from the wheel sphinx-mathjax-offline to the static files."""
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


def icon_font(style: str, codes: set[int]) -> bytes:
    """The theme's icon font, reduced to these characters."""
    (file,) = (THEME / "vendor" / "fontawesome" / "webfonts").glob(f"fa-{style}-*.ttf")
    font = TTFont(file)
    subsetter = subset.Subsetter(subset.Options(flavor="woff", hinting=False, name_IDs=[0, 1, 2, 13, 14]))
    subsetter.populate(unicodes=codes)
    subsetter.subset(font)
    font.flavor = "woff"
    small = io.BytesIO()
    font.save(small)
    return small.getvalue()


def icon_style() -> str:
    """A style sheet whose fonts stand before those of the theme, for the characters of the icons in use.

    A browser loads a font only for a character that falls into its range, so that those of the theme are not loaded.
    """
    theme = (THEME / "styles" / "pydata-sphinx-theme.css").read_text()
    rules = ["/* Icons of Font Awesome Free (https://fontawesome.com), SIL Open Font License 1.1 */"]
    for (style, weight), names in ICONS.items():
        codes = set()
        for name in names.split():
            found = re.search(rf'\.fa-{name}:before[^{{]*\{{content:"\\([0-9a-f]+)"', theme)
            if found is None:
                raise LookupError(f"the theme has no icon {name}")
            codes.add(int(found[1], 16))
        if style == "solid":
            codes |= {ord(icon) for icon in ICON_VARIABLE.findall(theme)}
        family = "Font Awesome 6 Brands" if style == "brands" else "Font Awesome 6 Free"
        data = base64.b64encode(icon_font(style, codes)).decode()
        span = ", ".join(f"U+{code:X}" for code in sorted(codes))
        rules.append(
            f'@font-face {{\n  font-family: "{family}";\n  font-weight: {weight};\n  font-display: block;\n'
            f'  unicode-range: {span};\n  src: url(data:font/woff;base64,{data}) format("woff");\n}}'
        )
    return "\n".join(rules) + "\n"


def write_icons(app: Sphinx) -> None:
    """Write the small icon fonts to the static files, and an empty file over the script that would draw the icons."""
    static = Path(app.doctreedir) / "icon_static"
    (static / "scripts").mkdir(parents=True, exist_ok=True)
    (static / "icons.css").write_text(icon_style())
    (static / "scripts" / "fontawesome.js").write_text("/* The icons are in icons.css. */\n")
    app.config.html_static_path.append(str(static))


def remove_unloaded(app: Sphinx, exception: Exception | None) -> None:
    static = Path(app.outdir) / "_static"
    for pattern in NOT_LOADED:
        for path in list(static.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove_search_tools(app: Sphinx, exception: Exception | None) -> None:
    """Take the search index, and what reads it, out of all pages but that of the search.

    The theme loads them everywhere for a search that answers while one types, which this book has switched off.
    """
    for page in Path(app.outdir).rglob("*.html"):
        if page.name != "search.html":
            text = page.read_text()
            lighter = SEARCH_TOOL.sub("", text)
            if lighter != text:  # a page that was not built again stays as it is
                page.write_text(lighter)


def inline_figures(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Put SVG figures into the page itself, where they can take the colours of its theme."""
    sources = {name: Path(app.srcdir) / path for path, name in app.builder.images.items()}

    def replace(found: re.Match[str]) -> str:
        source = sources.get(found["name"])
        if source is None:
            return found.group()
        return inline_figure(source.read_text(), f"f{found['name'][:8]}-", found["alt"])

    if "body" in context:
        body, letters = take_letters(FIGURE.sub(replace, context["body"]))
        if letters:  # once for the page, which makes its figures a third smaller
            body = f'<svg width="0" height="0" style="position: absolute" aria-hidden="true">{letters}</svg>\n{body}'
        # Docutils gives the entries of a bibliography a role that ARIA has given up and that a list must not hold.
        context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')


def drop_unused_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Leave out the second copy of inline scripts, the loader of Thebe, and MathJax on a page without a formula."""
    context["css_files"] = [file for file in context.get("css_files", []) if "thebe" not in str(file.filename)]
    unused = ["thebe"] if FORMULA in (context.get("body") or "") else ["thebe", "mathjax"]
    seen, kept = set(), []
    for script in context.get("script_files", []):
        if any(name in str(getattr(script, "filename", "")) for name in unused):
            continue
        body = (getattr(script, "attributes", None) or {}).get("body")
        if body is not None and (body in seen or any(name in body.lower() for name in unused)):
            continue
        seen.add(body)
        kept.append(script)
    context["script_files"] = kept


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", copy_mathjax)
    app.connect("builder-inited", write_icons)
    app.connect("html-page-context", inline_figures)
    app.connect("html-page-context", drop_unused_scripts, priority=900)
    app.connect("build-finished", remove_unloaded)
    app.connect("build-finished", remove_search_tools)
    app.add_css_file("icons.css")
    app.add_css_file("book.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
