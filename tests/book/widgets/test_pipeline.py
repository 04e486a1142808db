import numpy as np
import pytest
from mounts import readout, set_traits, settled

from ndlib.bookwork.widgets import Pipeline


def drawn(page):
    settled(page)
    names = ["pixels", "covariance", "root", "folded", "y"]
    script = "(w, names) => names.map((name) => Array.from(w.flow[name]))"
    return [np.array(values) for values in page.locator(".nd-pipeline").evaluate(script, names)]


def traits(page, *names):
    settled(page)
    return page.locator(".nd-mount").evaluate("(m, names) => names.map((n) => m.model.get(n))", list(names))


def lit(page, stage):
    """The middles of what is lit in a stage of the strip, as shares of its side."""
    marks = """(label) => [...label.querySelectorAll(".nd-mark:not([hidden])")].map(({ style }) =>
        ["left", "top", "width", "height"].map((side) => parseFloat(style[side]) / 100))"""
    found = page.locator(f".nd-strip label:has([value={stage}])").evaluate(marks)
    return [(x + w / 2, y + h / 2) for x, y, w, h in found]


def test_pipeline_draws_what_python_computes(started):
    page = started("pipeline").page
    python = Pipeline()
    for values in ({}, {"k": 7, "w": "edge"}, {"blur": 0.8, "steps": 5}, {"photograph": "page", "noise": 0.05}):
        set_traits(page, "pipeline", **values)
        for trait, value in values.items():
            setattr(python, trait, value)
        wanted = python.image, python.covariance, python.whitening, python.folded, python.result
        for found, stage in zip(drawn(page), wanted, strict=True):
            np.testing.assert_allclose(found, stage.flatten(), atol=1e-5 * np.abs(stage).max())


def test_what_is_pointed_at_in_one_stage_is_lit_in_the_others(started):
    page = started("pipeline").page
    page.get_by_role("radio", name="Covariance").check(force=True)
    settled(page)
    box = page.locator(".nd-large canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 5.5 / 25, box["y"] + box["height"] * 8.5 / 25)  # row 9, column 6
    assert traits(page, "column", "other") == [8, 5]
    assert lit(page, "d") == lit(page, "cov") == [pytest.approx((5.5 / 25, 8.5 / 25))]
    # Pixel 9 is in the second row of the window, the fourth from the left; pixel 6 begins that row.
    assert lit(page, "dw") == lit(page, "window")
    assert lit(page, "dw") == [pytest.approx((3.5 / 5, 1.5 / 5)), pytest.approx((0.5 / 5, 1.5 / 5))]
    assert [x for x, _ in lit(page, "x")][1:] == pytest.approx([8.5 / 25, 5.5 / 25])
    window, *taps = lit(page, "picture")
    row, column = divmod(1820, 60)
    assert window == pytest.approx(((column + 2.5) / 64, (row + 2.5) / 64))
    assert taps == [pytest.approx(((column + x + 0.5) / 64, (row + 1.5) / 64)) for x in (3, 0)]
    assert "Covariance of pixels 9 and 6" in readout(page)
    thumb = page.locator(".nd-strip label:has([value=y]) canvas").bounding_box()
    page.mouse.move(thumb["x"] + thumb["width"] / 2, thumb["y"] + thumb["height"] / 2)
    assert traits(page, "row") == [30 * 60 + 30]


def test_every_stage_opens_to_the_numbers_of_one_entry(started):
    page = started("pipeline").page
    python = Pipeline()
    cov, root, folded = python.covariance, python.whitening, python.folded
    said = {
        "picture": "is row 1821 of X",
        "window": f"Pixel 13 of the window: {python.matrix[1820, 12]:.2g}",
        "x": f"Row 1821, column 13: {python.matrix[1820, 12]:.3g}",
        "cov": f"Covariance of pixels 13 and 14: {cov[12, 13]:.3g}",
        "spectrum": f"Direction 1 of 25 has the variance {python.variances[0]:.3g}",
        "d": f"D of pixels 13 and 14: {root[12, 13]:.3g}",
        "w": "The weight of pixel 13 is 1.",
        "dw": f"Dw of pixel 13 is {folded[12]:.3g}",
        "y": f"Here y = {python.result[1820]:.3g}",
    }
    for stage, words in said.items():
        set_traits(page, "pipeline", stage=stage)  # a mouse on the strip would light something else
        assert page.locator(f".nd-strip [value={stage}]").is_checked()
        assert words.replace("-", "\N{MINUS SIGN}") in readout(page)
        page.locator(".nd-large").focus()
        for key in ("ArrowLeft", "ArrowRight"):  # there and back
            page.keyboard.press(key)
            settled(page)
    digits = page.locator(".nd-large .nd-digits span")
    page.locator(".nd-strip [value=dw]").check(force=True)
    settled(page)
    assert len(digits.all()) == 25


def test_blur_is_undone_and_noise_is_not(started):
    page = started("pipeline").page
    for name, values, words in (
        ("Blur it first", {"blur": 0.8}, "D undoes the blur"),
        ("Blur, then noise", {"blur": 0.8, "noise": 0.05}, "D cannot undo this"),
    ):
        page.get_by_role("button", name=name).click()
        like = np.corrcoef(Pipeline(eps=1e-8).result, Pipeline(eps=1e-8, **values).result)[0, 1]
        assert f"a correlation of {like:.2f}: {words}" in readout(page)
        assert page.get_by_text("if sharp").is_visible()
    page.get_by_role("button", name="Sharp").click()
    assert "correlation" not in readout(page)
    assert not page.get_by_text("if sharp").is_visible()


TO_THE_LINE = """part => scrollTo({
    top: scrollY + part.getBoundingClientRect().top - 0.76 * innerHeight, behavior: "instant",
})"""


def test_scrolling_through_the_text_drives_the_picture(phone):
    page = phone("pipeline")
    seen = []
    for part in page.locator(".nd-story li").all():
        part.evaluate(
            "e => scrollTo({ top: scrollY + e.getBoundingClientRect().top - 0.76 * innerHeight, behavior: 'instant' })"
        )
        settled(page)
        seen += traits(page, "stage")
        assert page.locator(".nd-large canvas").evaluate("e => e.getBoundingClientRect().top") > 40
    assert seen == ["picture", "window", "x", "cov", "spectrum", "d", "w", "dw", "y"]
