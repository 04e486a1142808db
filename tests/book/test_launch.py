"""What is published beside the pages, and the buttons that lead to it."""

import re
import tomllib
from pathlib import PurePosixPath

import notebooks
import pytest
import yaml
from contents import CHAPTERS, HTML, PAGES, ROOT, html

import ndlib

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
OWNER_AND_NAME = CONFIG["repository"]["url"].removeprefix("https://github.com/")


def buttons(name):
    """Address of each button that launches or downloads a page, by its text."""
    menus = html(name).select(".dropdown-launch-buttons, .dropdown-download-buttons")
    return {link.get_text().strip(): link["href"] for menu in menus for link in menu.select("a[href]")}


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapters_have_launch_buttons(name):
    shown, file = buttons(name), f"{PurePosixPath(name).name}.ipynb"
    assert (HTML / "notebooks" / file).exists()
    # Colab reads the branch that the workflow publishes; the site is its root.
    colab = f"https://colab.research.google.com/github/{OWNER_AND_NAME}/blob/gh-pages/notebooks/{file}"
    branch = CONFIG["repository"]["branch"]
    binder = f"https://mybinder.org/v2/gh/{OWNER_AND_NAME}/{branch}?urlpath=lab/tree/notebooks/{file}"
    assert (shown["Colab"], shown["Binder"]) == (colab, binder)
    assert ((HTML / f"{name}.html").parent / shown[".ipynb"]).resolve() == HTML / "notebooks" / file


@pytest.mark.parametrize("name", [page for page in PAGES if page not in CHAPTERS])
def test_other_pages_have_no_launch_buttons(name):
    assert not {"Colab", "Binder", ".ipynb"} & set(buttons(name))


def test_every_published_notebook_has_its_page():
    assert {file.stem for file in (HTML / "notebooks").iterdir()} == {PurePosixPath(name).name for name in CHAPTERS}


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("https://github.com/Some-One/book", "https://some-one.github.io/book"),
        ("https://github.com/Some-One/book.git", "https://some-one.github.io/book"),
        ("https://github.com/Some-One/Some-One.github.io/", "https://some-one.github.io"),
    ],
)
def test_site_address_follows_the_configuration(address, site, tmp_path):
    (tmp_path / "_config.yml").write_text(yaml.safe_dump({"repository": {"url": address}}))
    (tmp_path / "_toc.yml").write_text("root: a\n")
    made = notebooks.Book(tmp_path)
    assert made.site == site
    assert made.branch == "main"
    made.config["html"] = {"baseurl": "https://example.org/nd/"}
    assert made.url("a", "b") == "https://example.org/nd/a.html#b"


def test_binder_has_what_the_notebooks_need():
    """torch from the wheels for CPUs, what writes the notebooks, and by postBuild ndlib with its extra ``book``."""
    lines = (ROOT / ".binder" / "requirements.txt").read_text().split("\n")
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in lines
    packages = {line for line in lines if re.match(r"\w", line)}
    assert packages == {"torch", "torchvision", "jupytext", "pybtex"}
    script = ROOT / ".binder" / "postBuild"
    assert script.stat().st_mode & 0o100
    assert "'.[book]'" in script.read_text() and f"notebooks.py {notebooks.FOLDER}\n" in script.read_text()
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["book"]
    assert {"anywidget", "ipywidgets", "matplotlib"} <= {re.split("[^a-z-]", one)[0] for one in extra}


@pytest.mark.parametrize("name", PAGES)
def test_page_foot_names_version_and_commit(name):
    assert f"Version {ndlib.__version__}" in html(name).select_one(".extra_footer").get_text()


def test_changelog_has_the_newest_version():
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## (\S+)", changes, re.MULTILINE)[1] == ndlib.__version__ == notebooks.Book(ROOT).version
