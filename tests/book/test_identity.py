"""The mark, and what a link to a page shows where it is shared."""

import re
import xml.etree.ElementTree as ElementTree

import identity
import notebooks
import pytest
from contents import HTML, PAGES, ROOT, html
from PIL import Image

SITE = notebooks.Book(ROOT).site


@pytest.mark.parametrize("name", PAGES)
def test_page_has_title_description_and_card(name):
    page = html(name)
    said = {tag.get("property") or tag.get("name"): tag["content"] for tag in page.select("meta[content]")}
    assert said["og:url"] == f"{SITE}/{name}.html"
    assert said["og:image"] == f"{SITE}/_static/card.png"
    assert said["twitter:card"] == "summary_large_image"
    heading = page.select_one("article h1").get_text().removesuffix("#")
    assert said["og:title"] == re.sub(r"^\d+\. ", "", heading).replace("\u00ad", "").strip()
    if not name.endswith("bibliography"):
        assert 40 < len(said["description"]) <= identity.LONGEST + 2
        assert said["description"] == said["og:description"]
        assert not re.search(r"\{\w+\}`|\\\w+|<", said["description"])
    assert page.select_one('link[rel~="icon"]')["href"].endswith("mark.svg")
    assert page.select_one(".logo__image")["src"].endswith("mark.svg")


def test_descriptions_of_pages_differ():
    said = [tag["content"] for name in PAGES if (tag := html(name).select_one('meta[name="description"]'))]
    assert len(said) > 10 and len(set(said)) == len(said)


def test_preview_card_and_icons_have_their_sizes(tmp_path):
    card = HTML / "_static" / "card.png"
    assert card.stat().st_size < 60_000
    with Image.open(card) as picture:
        assert picture.size == identity.CARD
    with Image.open(HTML / "_static" / "icon-180.png") as picture:
        assert picture.size == identity.ICON
    identity.draw_icon(tmp_path / "icon.png")
    assert (tmp_path / "icon.png").read_bytes() == (HTML / "_static" / "icon-180.png").read_bytes()


def test_icon_is_visible_on_light_and_dark():
    """The surround, which bounds it, against white and against the dark paper; the centre against its ring."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one, other):
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    surround, ring, centre = (c.get("fill") for c in ElementTree.parse(identity.MARK).getroot() if c.get("r"))
    assert contrast(surround, "#FFFFFF") > 3 and contrast(surround, "#14181E") > 3
    assert contrast(centre, surround) > 2 and contrast(centre, ring) > 2
