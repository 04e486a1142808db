"""One self-contained ES module for each widget: the text of every module that it imports is copied into it."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

__all__ = ["module", "names", "style"]

FOLDER = Path(__file__).parent

IMPORT = re.compile(
    r'^import (?P<what>\{[^}]*\}|\w+) from "\./(?P<file>[\w-]+)\.mjs(?P<text>\?text)?";\n', re.MULTILINE
)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const) (?P<name>\w+))", re.MULTILINE)


def names() -> list[str]:
    """The names of all widgets, which are those of their modules.

    >>> "newton-schulz" in names(), "draw" in names()  # draw.mjs helps the others to draw and is no widget
    (True, False)
    """
    return sorted(p.stem for p in FOLDER.glob("*.mjs") if re.search(r"^export default", p.read_text(), re.MULTILINE))


@cache
def module(name: str) -> str:
    """The source of the ES module of a widget (or of a worker), without imports.

    A module that it imports becomes a function called once, which returns what it exports, so that two modules may
    use one name for different things; with ``?text`` at the end of its name, it becomes a string, for a worker.

    Raises:
        ValueError: an import or an export is written in a way that this function does not know.

    >>> source = module("newton-schulz")
    >>> "\\nimport " in source, "\\nexport default { render };" in source
    (False, True)
    """
    parts: dict[str, str] = {}
    source = _inline(FOLDER / f"{name}.mjs", parts)
    shared = "".join(parts.values())
    for text, forbidden in ((shared, "import|export"), (source, "import")):
        if unknown := re.search(rf"^({forbidden})\b.*", text, re.MULTILINE):
            raise ValueError(
                f"{name}.mjs: cannot bundle {unknown.group()!r}; ndlib/bookwork/widgets/bundle.py says what it knows"
            )
    return shared + source


def style(name: str) -> str:
    """The style sheet of a widget: the rules that all widgets share, then its own rules if it has a file of them.

    >>> style("blur-lab").startswith((FOLDER / "widgets.css").read_text())
    True
    """
    own = FOLDER / f"{name}.css"
    return (FOLDER / "widgets.css").read_text() + (own.read_text() if own.exists() else "")


def _inline(path: Path, parts: dict[str, str]) -> str:
    """The text of a module with its imports resolved; the modules that it needs come before it in ``parts``."""

    def resolve(found: re.Match[str]) -> str:
        what, file = found["what"], found["file"]
        if found["text"]:
            return f"const {what} = {json.dumps(module(file))};\n"
        variable = f"module_{file.replace('-', '_')}"
        if file not in parts:
            source = _inline(path.parent / f"{file}.mjs", parts)
            exported = ", ".join(name["name"] for name in EXPORT.finditer(source))
            body = f"{EXPORT.sub('', source)}return {{ {exported} }};\n"
            parts[file] = f"const {variable} = (() => {{\n{body}}})();\n"
        return f"const {what} = {variable};\n"

    return IMPORT.sub(resolve, path.read_text())
