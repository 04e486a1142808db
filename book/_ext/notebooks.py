"""Clean notebooks of the chapters, for Colab and JupyterLab, and the buttons that open them there.

As a Sphinx extension it writes them beside the pages, to ``notebooks/``, and adds the buttons. As a program,
``python book/_ext/notebooks.py FOLDER``, it writes them without building the book, which is all that Binder needs.
A notebook has no outputs; what Colab and JupyterLab do not know of MyST becomes plain Markdown, and a reference to
another place of the book becomes a link to the published page.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jupytext
import nbformat
import yaml
from pybtex.database import Entry, parse_file

if TYPE_CHECKING:
    from sphinx.application import Sphinx

FOLDER = "notebooks"
BRANCH = "gh-pages"  # the branch that holds the published pages

ADMONITIONS = {"admonition", "attention", "caution", "danger", "dropdown", "error", "hint", "important", "margin"}
ADMONITIONS |= {"note", "seealso", "sidebar", "tip", "warning"}
UNTITLED = {"admonition", "dropdown", "margin", "sidebar"}  # their title, if any, is their argument

OPENING = re.compile(
    r"^(?P<fence>`{3,}|:{3,})(?:\{(?P<name>[\w:-]+)\}[ \t]*(?P<argument>.*)|[ \t]*(?P<language>\w*)[ \t]*)$"
)
LABEL = re.compile(r"^\((?P<label>[^)\n]+)\)=[ \t]*$", re.MULTILINE)
# What a line can hold; the first form that fits is taken: a role, code, a formula, a link or picture.
INLINE = re.compile(
    r"\{(?P<role>[a-z][\w:-]*)\}(?P<ticks>`+)(?P<content>.+?)(?P=ticks)(?!`)"
    r"|(?P<code>(?P<more>`+)(?!`).+?(?<!`)(?P=more)(?!`))"
    r"|(?P<formula>\$\$.+?\$\$(?:[ \t]*\([\w:-]+\))?|(?<!\\)\$[^$]+\$)"
    r"|(?P<link>(?P<picture>!?)\[(?P<text>[^\]\n]*)\]\((?P<target>[^)\s]+)\))",
    re.DOTALL,
)
EXPLICIT = re.compile(r"^(?P<text>.+?)\s*<(?P<target>[^<>]+)>$", re.DOTALL)
NOT_IN_AN_ID = re.compile(r"[^a-zA-Z0-9._]+")

INSTALL = """\
# Installs ndlib where it is missing, as on Colab, beside the torch that is there. Elsewhere this cell does nothing.
import importlib.metadata
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("ndlib") is None:
    there = {{dist.name.lower(): dist.version for dist in importlib.metadata.distributions() if dist.name}}
    kept = [f"{{name}}=={{there[name]}}" for name in ("torch", "torchvision", "numpy") if name in there]
    wanted = "{requirement}"
    done = subprocess.run([sys.executable, "-m", "pip", "install", *kept, wanted], capture_output=True, text=True)
    if done.returncode:
        raise ImportError(f"ndlib was not installed:\\n{{done.stdout}}{{done.stderr}}")
    importlib.invalidate_caches()
"""


HYPHEN = "&shy;"  # where a long word of a heading may break on a telephone


class MarkupError(ValueError):
    """A chapter uses markup that this module cannot write as plain Markdown."""


class Book:
    """What the sources of a book say: its pages, titles, figures, terms and works cited, and where it is published."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config: dict[str, Any] = yaml.safe_load((root / "_config.yml").read_text())
        self.pages: list[str] = []  # paths without suffix, in the order of reading
        self.numbers: dict[str, int] = {}  # of the chapters that have a number
        self._notebooks: dict[str, Any] = {}
        self._read_contents(yaml.safe_load((root / "_toc.yml").read_text()), numbered=False)

    def _read_contents(self, entry: Any, numbered: bool) -> None:
        if isinstance(entry, list):
            for each in entry:
                self._read_contents(each, numbered)
        elif isinstance(entry, dict):
            numbered = bool(entry.get("numbered", numbered))
            if page := entry.get("root") or entry.get("file"):
                page = page.removesuffix(".md")
                self.pages.append(page)
                if numbered and "file" in entry:
                    self.numbers[page] = len(self.numbers) + 1
            for part in ("parts", "chapters", "sections", "entries", "subtrees"):
                self._read_contents(entry.get(part, []), numbered and part != "sections")

    # Where the book is published.

    @property
    def repository(self) -> str:
        return str(self.config["repository"]["url"]).rstrip("/").removesuffix(".git")

    @property
    def branch(self) -> str:
        return str(self.config["repository"].get("branch", "main"))

    @property
    def owner_and_name(self) -> str:
        return urlsplit(self.repository).path.strip("/")

    @property
    def site(self) -> str:
        """Address of the published book, without a slash at its end: ``html: baseurl``, or else GitHub's pages."""
        if address := self.config.get("html", {}).get("baseurl"):
            return str(address).rstrip("/")
        owner, name = self.owner_and_name.split("/")
        host = f"{owner.lower()}.github.io"
        return f"https://{host}" if name.lower() == host else f"https://{host}/{name}"

    def url(self, page: str, anchor: str = "") -> str:
        return f"{self.site}/{page}.html" + (f"#{anchor}" if anchor else "")

    def colab(self, page: str) -> str:
        return f"https://colab.research.google.com/github/{self.owner_and_name}/blob/{BRANCH}/{FOLDER}/{stem(page)}"

    def binder(self, page: str) -> str:
        where = f"https://mybinder.org/v2/gh/{self.owner_and_name}/{self.branch}"
        return f"{where}?urlpath=lab/tree/{FOLDER}/{stem(page)}"

    @cached_property
    def commit(self) -> str:
        """The commit that is being built; where git does not know it, the branch."""
        try:
            done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=self.root, capture_output=True, text=True)
        except OSError:
            return self.branch
        return done.stdout.strip() or self.branch

    @cached_property
    def version(self) -> str:
        """The version of ndlib, which is that of the book; "" for a book without ndlib."""
        file = self.root / "ndlib" / "__init__.py"
        found = re.search(r'^__version__ = "(.+)"', file.read_text(), re.MULTILINE) if file.exists() else None
        return found[1] if found else ""

    @property
    def requirement(self) -> str:
        return f"network-deconvolution[book] @ git+{self.repository}@{self.commit}"

    # What the book holds.

    @cached_property
    def sources(self) -> dict[str, str]:
        files = {page: self.root / f"{page}.md" for page in self.pages}
        return {page: file.read_text() for page, file in files.items() if file.exists()}

    @property
    def chapters(self) -> list[str]:
        """The pages that are notebooks."""
        return [page for page, text in self.sources.items() if re.search(r"^kernelspec:", text, re.MULTILINE)]

    def title(self, page: str) -> str:
        prose = re.sub(r"^(```+).*?^\1", "", self.sources[page], flags=re.MULTILINE | re.DOTALL)
        found = re.search(r"^# +(.+?)[ \t]*$", prose, re.MULTILINE)
        return found[1].replace(HYPHEN, "") if found else page

    @cached_property
    def labels(self) -> dict[str, tuple[str, str]]:
        """For the label of each place: its page, and the title of the section that it names, if it names one."""
        found = {}
        for page, text in self.sources.items():
            for match in LABEL.finditer(text):
                heading = re.match(r"\s*#+ +(.+)", text[match.end() :])
                found[match["label"]] = (page, heading[1].strip() if heading else "")
        return found

    @cached_property
    def figures(self) -> dict[str, tuple[str, str]]:
        """For the name of each figure: its page and its number, as on the pages."""
        found, unnumbered = {}, 0
        for page in self.pages:
            for i, name in enumerate(_figures(self.notebook(page)) if page in self.chapters else (), 1):
                unnumbered += page not in self.numbers
                number = f"{self.numbers[page]}.{i}" if page in self.numbers else str(unnumbered)
                found[name] = (page, number)
        return found

    @cached_property
    def terms(self) -> dict[str, tuple[str, str]]:
        """For each term of the glossaries, in small letters: its page and its anchor."""
        found = {}
        for page, text in self.sources.items():
            for glossary in re.findall(
                r"^(?:```+|:::+)\{glossary\}\n(.*?)^(?:```|:::)", text, re.MULTILINE | re.DOTALL
            ):
                for term in re.findall(r"^(?!:)(\S.*?)[ \t]*$", glossary, re.MULTILINE):
                    found[term.lower()] = (page, anchor_of(f"term-{term}"))
        return found

    @cached_property
    def works(self) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for file in self.config.get("bibtex_bibfiles", []):
            found |= dict(parse_file(str(self.root / file)).entries)
        return found

    @cached_property
    def bibliography(self) -> str:
        """The page that lists the works cited."""
        return next((page for page, text in self.sources.items() if "```{bibliography}" in text), "bibliography")

    def notebook(self, page: str) -> Any:
        """The cells of a chapter and their options, as in its source."""
        if page not in self._notebooks:
            self._notebooks[page] = jupytext.reads(self.sources[page], fmt="md:myst")
        return self._notebooks[page]


def stem(page: str) -> str:
    return f"{PurePosixPath(page).name}.ipynb"


def anchor_of(text: str) -> str:
    """The id that Sphinx makes from a text."""
    return re.sub(r"^[-0-9._]+|-+$", "", NOT_IN_AN_ID.sub("-", " ".join(text.split())))


def _figures(notebook: Any) -> Iterator[str]:
    for cell in notebook.cells:
        figure = cell.metadata.get("mystnb", {}).get("figure")
        if figure is not None:
            yield figure.get("name", "")


class Writer:
    """Writes the Markdown of one page so that Colab and JupyterLab can show it."""

    def __init__(self, book: Book, page: str) -> None:
        self.book, self.page = book, page

    def markdown(self, text: str) -> str:
        """The same text without directives, roles and labels."""
        lines = text.split("\n")
        out: list[str] = []
        prose: list[str] = []

        def flush() -> None:
            out.append(self._prose("\n".join(prose)))
            prose.clear()

        i = 0
        while i < len(lines):
            indent = lines[i][: len(lines[i]) - len(lines[i].lstrip())]
            opening = OPENING.match(lines[i].strip())
            if opening is None or (opening["fence"][0] == ":" and not opening["name"]):
                prose.append(lines[i])
                i += 1
                continue
            flush()
            closing = re.compile(rf"^\s*{opening['fence'][0]}{{{len(opening['fence'])},}}\s*$")
            end = next((j for j in range(i + 1, len(lines)) if closing.match(lines[j])), len(lines))
            body = textwrap.dedent("\n".join(lines[i + 1 : end]))
            if opening["name"]:
                new = self._directive(opening["name"], opening["argument"].strip(), body)
                out.append(textwrap.indent(new, indent))
            else:
                out.append("\n".join(lines[i : end + 1]))
            i = end + 1
        flush()
        return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip("\n").replace(HYPHEN, "")

    def _directive(self, name: str, argument: str, body: str) -> str:
        options, body = _options(body)
        if name in ADMONITIONS:
            title = argument if name in UNTITLED else name.capitalize()
            head = f"**{self._inline(title)}**\n\n" if title else ""
            return (
                "\n" + textwrap.indent(head + self.markdown(body), "> ", lambda _: True).replace("> \n", ">\n") + "\n"
            )
        if name in {"code-block", "code", "sourcecode"}:
            return f"```{argument}\n{body}\n```"
        if name == "math":
            return f"$$\n{argument}{body}\n$$"
        if name in {"figure", "image"}:
            alt = options.get("alt", "")
            caption = f"\n\n*{self._inline(body)}*" if body.strip() else ""
            return f"![{alt}]({self.book.site}/_images/{PurePosixPath(argument).name}){caption}"
        raise MarkupError(f"{self.page}: the directive {{{name}}} has no form in a notebook yet")

    def _prose(self, text: str) -> str:
        lines = [line for line in LABEL.sub("", text).split("\n") if not line.startswith("% ")]
        return self._inline("\n".join(lines))

    def _inline(self, text: str) -> str:
        return INLINE.sub(self._element, text)

    def _element(self, found: re.Match[str]) -> str:
        if found["role"]:
            return self._role(found["role"], " ".join(found["content"].split()))
        if found["link"]:
            target = self._target(found["target"], picture=bool(found["picture"]))
            return f"{found['picture']}[{found['text']}]({target})"
        if found["formula"]:
            return re.sub(r"(\$\$)[ \t]*\([\w:-]+\)$", r"\1", found.group())  # the label of an equation
        return found.group()

    def _target(self, target: str, picture: bool) -> str:
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            return target
        if picture:
            return f"{self.book.site}/_images/{PurePosixPath(parts.path).name}"
        if not parts.path:
            page = self.book.labels.get(parts.fragment, (self.page, ""))[0]
            return self.book.url(page, parts.fragment)
        if parts.path.endswith((".md", ".html")):
            return self.book.url(self._page(parts.path.rsplit(".", 1)[0]), parts.fragment)
        return f"{self.book.repository}/blob/{self.book.branch}/{self._page(parts.path)}"

    def _page(self, relative: str) -> str:
        """The path from the root of the book that this page means by a path."""
        if relative.startswith("/"):
            return relative.lstrip("/")
        parts: list[str] = []
        for part in (PurePosixPath(self.page).parent / relative).parts:
            parts = parts[:-1] if part == ".." else [*parts, part]
        return "/".join(parts)

    def _role(self, name: str, content: str) -> str:
        explicit = EXPLICIT.match(content)
        text, target = (explicit["text"], explicit["target"]) if explicit else ("", content)
        writers: dict[str, Callable[[str, str], str]] = {
            "doc": self._doc,
            "ref": self._ref,
            "numref": self._numref,
            "term": self._term,
            "cite": lambda _, keys: f"({'; '.join(self._cite(k.strip(), '{}, {}') for k in keys.split(','))})",
            "cite:t": lambda _, keys: ", ".join(self._cite(k.strip(), "{} ({})") for k in keys.split(",")),
            "kbd": lambda _, key: f"<kbd>{key}</kbd>",
            "sub": lambda _, low: f"<sub>{low}</sub>",
            "sup": lambda _, high: f"<sup>{high}</sup>",
        }
        writers["cite:p"] = writers["cite"]
        if name not in writers:
            raise MarkupError(f"{self.page}: the role {{{name}}} has no form in a notebook yet")
        try:
            return writers[name](text, target)
        except KeyError as unknown:
            raise MarkupError(f"{self.page}: nothing is called {unknown} in {{{name}}}`{content}`") from unknown

    def _doc(self, text: str, target: str) -> str:
        page = self._page(target)
        return f"[{text or self.book.title(page)}]({self.book.url(page)})"

    def _ref(self, text: str, label: str) -> str:
        page, title = self.book.labels[label] if label in self.book.labels else self.book.figures[label]
        return f"[{text or title}]({self.book.url(page, anchor_of(label))})"

    def _numref(self, text: str, label: str) -> str:
        page, number = self.book.figures[label]
        shown = (text or "Fig. %s").replace("%s", number).replace("{number}", number)
        return f"[{shown}]({self.book.url(page, anchor_of(label))})"

    def _term(self, text: str, term: str) -> str:
        return f"[{text or term}]({self.book.url(*self.book.terms[term.lower()])})"

    def _cite(self, key: str, form: str) -> str:
        entry = self.book.works[key]
        people = entry.persons.get("author") or entry.persons["editor"]
        names = [" ".join(str(part) for part in [*p.rich_prelast_names, *p.rich_last_names]) for p in people]
        who = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
        address = self.book.url(self.book.bibliography, anchor_of(f"cite-{key}"))
        return f"[{form.format(who, entry.fields['year'])}]({address})"

    def caption(self, figure: dict[str, Any]) -> str:
        """The caption of a figure that the cell before it draws."""
        name = figure.get("name", "")
        number = f"**Fig. {self.book.figures[name][1]}.** " if name in self.book.figures else ""
        return number + self._inline(" ".join(str(figure.get("caption", "")).split()))


def _options(body: str) -> tuple[dict[str, str], str]:
    """The options at the head of a directive, and the text that follows them."""
    options: dict[str, str] = {}
    if body.startswith("---\n"):
        head, body = body[4:].split("\n---", 1)
        return yaml.safe_load(head) or {}, body.lstrip("\n")
    lines = body.split("\n")
    while lines and (option := re.match(r"^:([\w-]+):[ \t]*(.*)$", lines[0])):
        options[option[1]] = option[2]
        lines.pop(0)
    return options, "\n".join(lines).strip("\n")


def published_notebook(book: Book, page: str) -> Any:
    """The notebook of a chapter to publish: no outputs, plain Markdown, and a first cell that installs ndlib."""
    writer, source = Writer(book, page), book.notebook(page)
    cells = [nbformat.v4.new_markdown_cell(_opening(book, page)), nbformat.v4.new_code_cell(_install(book))]
    for cell in source.cells:
        if cell.cell_type != "code":
            text = writer.markdown(cell.source)
            cells += [nbformat.v4.new_markdown_cell(text)] if text else []
            continue
        options = cell.metadata.get("mystnb", {})
        new = nbformat.v4.new_code_cell(cell.source)
        if set(cell.metadata.get("tags", [])) & {"hide-input", "hide-cell", "remove-input", "remove-cell"}:
            new.metadata = {"cellView": "form", "jupyter": {"source_hidden": True}}  # for Colab, for JupyterLab
        cells.append(new)
        if options.get("figure"):
            cells.append(nbformat.v4.new_markdown_cell(writer.caption(options["figure"])))
    seen: dict[str, int] = {}
    for cell in cells:
        digest = hashlib.sha256(f"{page}\n{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata: dict[str, Any] = {"kernelspec": kernel, "language_info": {"name": "python"}}
    if "accelerator" in source.metadata:  # Colab then opens the page on such a machine
        metadata |= {"accelerator": source.metadata["accelerator"], "colab": {"gpuType": "T4"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    notebook.nbformat_minor = 5
    nbformat.validate(notebook)
    return notebook


def _opening(book: Book, page: str) -> str:
    name = book.config.get("title", "")
    version = f", version {book.version}" if book.version else ""
    return (
        f"*This notebook is the page [{book.title(page)}]({book.url(page)}) of [{name}]({book.site}/){version}. "
        "There it can be read with its figures; here it can be run and changed.*"
    )


def _install(book: Book) -> str:
    return INSTALL.format(requirement=book.requirement).rstrip("\n")


def write(book: Book, folder: Path) -> list[Path]:
    """Write the notebooks of all chapters to a folder, and remove all other notebooks from it."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / stem(page) for page in book.chapters]
    for page, file in zip(book.chapters, files, strict=True):
        file.write_text(nbformat.writes(published_notebook(book, page)) + "\n")
    for old in set(folder.glob("*.ipynb")) - set(files):
        old.unlink()
    return files


def write_notebooks(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.name == "html":
        write(Book(Path(app.srcdir)), Path(app.outdir) / FOLDER)


def add_buttons(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give each page that is a notebook buttons that open it in Colab and on Binder, and one that downloads it."""
    if "kernelspec" not in app.env.metadata.get(page, {}):
        return
    book = Book(Path(app.srcdir))
    launch = [
        {"type": "link", "text": name, "url": url, "tooltip": f"Open this page as a notebook on {name}"}
        for name, url in (("Colab", book.colab(page)), ("Binder", book.binder(page)))
    ]
    buttons = context.setdefault("header_buttons", [])
    group = {"type": "group", "tooltip": "Launch", "icon": "fas fa-rocket", "label": "launch-buttons"}
    buttons.insert(0, group | {"buttons": launch})
    address = context["pathto"](f"{FOLDER}/{stem(page)}", 1)
    download = {"type": "link", "text": ".ipynb", "url": address, "icon": "fas fa-code"}
    download |= {"tooltip": "Download notebook file", "label": "download-notebook-button"}
    for group in buttons:
        if group.get("label") == "download-buttons":
            group["buttons"].insert(0, download)


def say_version(app: Sphinx, config: Any) -> None:
    """Name the version at the foot of each page, and the commit if git knows it."""
    book = Book(Path(app.srcdir))
    if book.version:
        commit = "" if book.commit == book.branch else f", built from commit {book.commit[:9]}"
        options = config.html_theme_options
        options["extra_footer"] = f"{options.get('extra_footer') or ''}<p>Version {book.version}{commit}</p>"


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", say_version)
    app.connect("html-page-context", add_buttons, priority=900)
    app.connect("build-finished", write_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for file in write(Book(Path(__file__).parents[2]), target):
        print(file)
