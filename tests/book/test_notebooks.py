"""The chapters as notebooks: each was executed alone, and what is published of it is what was executed."""

import re
from functools import cache
from urllib.parse import urlsplit

import execute
import nbformat
import notebooks
import pytest
from contents import CHAPTERS, HTML, ROOT, html
from jupyter_cache import get_cache

BINDER = 2 * 2**30 - 2**28  # bytes of memory that a free Binder has, less what JupyterLab takes


@cache
def book():
    return notebooks.Book(ROOT)


@cache
def executed(name):
    """What the cache knows of a chapter, and the chapter with its outputs."""
    jupyter_cache = get_cache(str(ROOT / execute.CACHE))
    notebook = execute.source_notebook(book(), name)
    record = execute.record_of(jupyter_cache, notebook)
    if record is None:
        pytest.fail(f"{name}.md has changed since it was executed: run make book", pytrace=False)
    return record.data, jupyter_cache.merge_match_into_notebook(notebook)[1]


@cache
def published(name):
    return nbformat.read(HTML / notebooks.FOLDER / notebooks.stem(name), as_version=4)


def code(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def text(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_ran_alone_within_memory_and_without_warnings(name):
    data, notebook = executed(name)
    assert data["ndlib"] == str(ROOT / execute.WHEEL / "ndlib" / "__init__.py")
    assert data["left_behind"] == []
    assert not data["data_folder_made"]
    assert data["peak_bytes"] < BINDER
    printed = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", ()))
    checks = sum(len(re.findall(r"(?<![\w.])check\(", source)) for source in code(notebook))
    assert printed.count("Not answered yet.") == checks
    assert "Warning" not in printed


@pytest.mark.parametrize("name", CHAPTERS)
def test_published_notebook_is_what_was_executed(name):
    notebook = published(name)
    install, *rest = code(notebook)
    assert rest == code(executed(name)[1])
    assert f"git+{book().repository}@" in install
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_the_same_sources_make_the_same_notebooks(tmp_path):
    """And those of Binder, made without a build, are those of the site."""
    for file in notebooks.write(notebooks.Book(ROOT), tmp_path):
        assert file.read_bytes() == (HTML / notebooks.FOLDER / file.name).read_bytes()


@pytest.mark.parametrize("name", CHAPTERS)
def test_published_notebook_is_plain_markdown(name):
    prose = re.sub(r"^```\w*\n.*?^```$", "", text(published(name)), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"\{[a-z][a-z:]*\}`[^`]|^```|^:::|^\([\w-]+\)=$|^---$|&shy;", prose, re.MULTILINE) == []
    assert re.findall(r"\]\((?!https?://)", prose) == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_links_into_the_book_lead_somewhere(name):
    into_the_book = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\((" + re.escape(book().site) + r"[^)\s]*)\)")
    links = into_the_book.findall(text(published(name)))
    assert links
    for shown, address in links:
        parts = urlsplit(address.removeprefix(book().site).lstrip("/") or "index.html")
        assert (HTML / parts.path).exists(), address
        if parts.fragment:
            target = html(parts.path.removesuffix(".html")).find(id=parts.fragment)
            assert target is not None, address
            if parts.fragment.startswith("fig-"):  # and is called what the page calls it
                number = target.find(class_="caption-number") or target.parent.find(class_="caption-number")
                assert shown == number.get_text().strip()


@pytest.mark.parametrize("name", CHAPTERS)
def test_figures_have_the_captions_of_the_page(name):
    numbers = [n.get_text().strip() for n in html(name).select("figure .caption-number")]
    assert re.findall(r"^\*\*(Fig\. [\d.]*\d)\.\*\* \w", text(published(name)), re.MULTILINE) == numbers


TOY = {
    "_config.yml": """
title: Toy
repository: {url: https://github.com/Someone/toy.git, branch: trunk}
bibtex_bibfiles: [works.bib]
""",
    "_toc.yml": """
format: jb-book
root: start
parts:
  - {caption: One, numbered: 1, chapters: [{file: in/first}, {file: in/second}]}
  - {caption: Rest, chapters: [{file: terms}, {file: bibliography}]}
""",
    "works.bib": """
@article{one, author={Fern{\\"a}ndez, Ana}, year={2001}, title={A}}
@article{two, author={van der Berg, Al and Cho, Bo}, year={2002}, title={B}}
@article{three, author={Ito, C. and Ode, D. and Um, E.}, year={2003}, title={C}}
""",
    "ndlib/__init__.py": '__version__ = "3.2.1"\n',
    "terms.md": "# Terms\n\n```{glossary}\nWhite noise (1)\n    Hiss.\n```\n",
    "bibliography.md": "# Works\n\n```{bibliography}\n```\n",
    "start.md": "# Start\n",
    "in/first.md": "# The `first`\n\n(here)=\n## A place\n",
}
HEADER = """---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {display_name: P, language: python, name: python3}
---

"""
FIGURE = """```{code-cell} ipython3
---
tags: [hide-input]
mystnb: {figure: {name: NAME, caption: "See {numref}`fig-b`."}}
---
1
```
"""
SITE = "https://someone.github.io/toy"
CITE = f"{SITE}/bibliography.html#cite"


@pytest.fixture
def toy(tmp_path):
    def make(body):
        for name, content in TOY.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(content)
        figures = FIGURE.replace("NAME", "fig-a") + "\n" + FIGURE.replace("NAME", "fig-b")
        (tmp_path / "in/second.md").write_text(f"{HEADER}# Second\n\n{body}\n\n{figures}")
        return notebooks.Book(tmp_path)

    return make


@pytest.mark.parametrize(
    ("markup", "plain"),
    [
        ("{doc}`first`", f"[The `first`]({SITE}/in/first.html)"),
        ("{doc}`the start <../start>`", f"[the start]({SITE}/start.html)"),
        ("{doc}`/terms`", f"[Terms]({SITE}/terms.html)"),
        ("{numref}`fig-b`", f"[Fig. 2.2]({SITE}/in/second.html#fig-b)"),
        ("{numref}`Figure %s <fig-a>`", f"[Figure 2.1]({SITE}/in/second.html#fig-a)"),
        ("{ref}`here`", f"[A place]({SITE}/in/first.html#here)"),
        ("{term}`hiss <white noise (1)>`", f"[hiss]({SITE}/terms.html#term-White-noise-1)"),
        ("{cite}`one,three`", f"([Fernändez, 2001]({CITE}-one); [Ito et al., 2003]({CITE}-three))"),
        ("{cite:t}`two`", f"[van der Berg and Cho (2002)]({CITE}-two)"),
        ('`{doc}`, `f"{x}`"', '`{doc}`, `f"{x}`"'),
        ("$\\mathrm{Cov}`x`$", "$\\mathrm{Cov}`x`$"),
        ("[there](first.md#here)", f"[there]({SITE}/in/first.html#here)"),
        ("[data](../data/README.txt)", "[data](https://github.com/Someone/toy/blob/trunk/data/README.txt)"),
        ("![A dot](../dot.png)", f"![A dot]({SITE}/_images/dot.png)"),
        ("(lab)=\n### Next", "### Next"),
        ("$$\nx = 1\n$$ (one)", "$$\nx = 1\n$$"),
        ("% not for readers\nwords", "words"),
        ("```{note}\nMind {doc}`first`.\n```", f"> **Note**\n>\n> Mind [The `first`]({SITE}/in/first.html)."),
        (
            "````{admonition} Two *ways*\n:class: tip\n- one\n\n```python\nx = {1}\n```\n````",
            "> **Two *ways***\n>\n> - one\n>\n> ```python\n> x = {1}\n> ```",
        ),
        ("```{margin}\nAside.\n```", "> Aside."),
        (":::{dropdown} More\nText.\n:::", "> **More**\n>\n> Text."),
        ("```{figure} ../dot.png\n:alt: A dot\nThe *dot*.\n```", f"![A dot]({SITE}/_images/dot.png)\n\n*The *dot*.*"),
        ("```{code-block} python\n:linenos:\nx = 1\n```", "```python\nx = 1\n```"),
        ("```python\n{doc}`first`\n```", "```python\n{doc}`first`\n```"),
    ],
)
def test_myst_markup_becomes_plain_markdown(toy, markup, plain):
    cells = notebooks.published_notebook(toy(markup), "in/second").cells
    assert cells[2].source == f"# Second\n\n{plain}"


@pytest.mark.parametrize(
    "markup", ["```{mermaid}\nA\n```", "{func}`x`", "{doc}`nowhere`", "{cite}`nobody`", "{term}`x`"]
)
def test_markup_without_a_plain_form_is_an_error_that_names_the_page(toy, markup):
    with pytest.raises(notebooks.MarkupError, match="in/second"):
        notebooks.published_notebook(toy(markup), "in/second")


def test_notebook_cells_keep_code_and_hide_inputs(toy):
    cells = notebooks.published_notebook(toy("x"), "in/second").cells
    assert [cell.cell_type for cell in cells] == ["markdown", "code", "markdown", *["code", "markdown"] * 2]
    assert "version 3.2.1" in cells[0].source and f"({SITE}/in/second.html)" in cells[0].source
    assert "git+https://github.com/Someone/toy@trunk" in cells[1].source  # no git here: the branch
    assert cells[3].metadata == {"cellView": "form", "jupyter": {"source_hidden": True}}
    assert cells[4].source == f"**Fig. 2.1.** See [Fig. 2.2]({SITE}/in/second.html#fig-b)."
    assert cells[3].id != cells[5].id


def test_execution_notices_what_a_chapter_leaves():
    """That nothing is noticed where a chapter leaves nothing is what test_chapter_ran_alone_... shows."""
    source = "import os; os.mkdir(os.environ['NDLIB_DATA']); open('x', 'w').close()"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    data = execute.execute(notebook, ROOT / execute.WHEEL, 300)
    assert data["left_behind"] == ["x"] and data["data_folder_made"]
    assert len(notebook.cells) == 1
