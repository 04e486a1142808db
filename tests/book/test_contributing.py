"""A chapter begun with make new-chapter already keeps the habits of all chapters, and runs."""

import re
import shutil
import subprocess

import execute
import nbformat
import notebooks
import pytest
import test_chapters
from contents import ROOT


@pytest.fixture
def begun(tmp_path):
    """A book of one new chapter and of the pages that it refers to."""
    (tmp_path / "book").mkdir()
    for name in (
        "Makefile",
        "_config.yml",
        "book/_template.md",
        "book/references.bib",
        "book/from-picture-to-matrix.md",
    ):
        shutil.copyfile(ROOT / name, tmp_path / name)
    make = ["make", "--silent", "--directory", str(tmp_path), "new-chapter"]
    subprocess.run([*make, "NAME=new"], check=True, capture_output=True)
    (tmp_path / "_toc.yml").write_text("root: book/from-picture-to-matrix\nchapters:\n- file: book/new\n")
    for again in ([*make, "NAME=new"], make):
        done = subprocess.run(again, capture_output=True, text=True)
        assert done.returncode and re.search("is there already|NAME=my-chapter", done.stderr)
    return tmp_path


def test_new_chapter_from_the_template_builds_and_passes(begun, monkeypatch):
    monkeypatch.setattr(test_chapters, "ROOT", begun)
    test_chapters.test_code_that_is_shown_fits_the_column("book/new")
    test_chapters.test_figures_have_alt_text_caption_and_name("book/new")
    test_chapters.test_chapters_have_their_parts("book/new")
    book = notebooks.Book(begun)
    notebook = execute.source_notebook(book, "book/new")
    data = execute.execute(notebook, ROOT / execute.WHEEL, 300)
    assert data["left_behind"] == []
    assert str(notebook).count("Not answered yet.") == 2
    nbformat.validate(notebooks.published_notebook(book, "book/new"))
