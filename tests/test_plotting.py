"""Figures as pages take them: two forms, one for a telephone, and the figure itself left as it was."""

import re
import xml.dom.minidom

import matplotlib.pyplot as plt
import pytest

from ndlib.bookwork import plotting


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        plotting.use_style()
        yield
    plt.close("all")


def viewboxes(html):
    return [
        tuple(map(float, found.split()[2:])) for found in re.findall(r'<svg class="figure[^>]*viewBox="([^"]*)"', html)
    ]


def side_by_side():
    fig, axes = plt.subplots(1, 2, figsize=(plotting.WIDTH, 3), sharey=True)
    for ax in axes:
        ax.plot([1, 2])
    axes[0].set_ylabel("accuracy")
    return fig, axes


def test_inline_figure_stacks_panels_on_a_telephone():
    fig, _ = side_by_side()
    html = plotting.inline_figure(plotting.figure_svg(fig), "p-", "Two lines.")
    assert re.findall(r'<svg class="figure (\w*)"', html) == ["wide", "narrow"]
    (wide, low), (narrow, high) = viewboxes(html)
    assert wide > 480 and low < 230 and 280 < narrow < 320 and high > 350  # points
    assert html.count("<!-- accuracy -->") == 3  # the lower panel says again what it shares


def test_figure_svg_leaves_the_figure_as_it_was():
    fig, axes = side_by_side()
    before = plotting.figure_svg(fig)
    assert plotting.figure_svg(fig) == before
    assert tuple(fig.get_size_inches()) == (plotting.WIDTH, 3) and axes[1].get_ylabel() == ""


def test_inline_figure_keeps_room_for_named_rows():
    heights = []
    for count in (4, 12):
        fig, axes = plt.subplots(1, 2, figsize=(plotting.WIDTH, 9), sharey=True)
        axes[0].set_yticks(range(count), [f"row {number}" for number in range(count)])
        heights.append(viewboxes(plotting.inline_figure(plotting.figure_svg(fig), "p-", "Rows."))[1][1])
    assert heights[1] > heights[0] + 90


def test_inline_figure_stores_a_picture_once():
    fig, ax = plt.subplots()
    ax.imshow([[0.0, 1.0]])
    html = plotting.inline_figure(plotting.figure_svg(fig), "p-", "A picture.")
    assert html.count("<svg") == html.count("data:image/png") == 1


def test_inline_figure_has_unique_names_and_is_well_formed():
    fig, _ = side_by_side()
    svg = plotting.figure_svg(fig)
    assert svg.count('display="none"') == 1
    xml.dom.minidom.parseString(svg)
    html = plotting.inline_figure(svg, "p-", "Two lines.")
    names = re.findall(r'\bid="([^"]*)"', html)
    assert len(names) == len(set(names))
    assert all(name.startswith(("p-", "DejaVu")) for name in names)  # letters are the same in all figures
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', html)) <= set(names)
