import numpy as np
import pytest
from mounts import set_traits, settled

from ndlib.bookwork.widgets import NewtonSchulz


def gains(page):
    settled(page)
    return np.array(page.evaluate("Array.from(document.querySelector('.nd-newton-schulz').gains)"))


def test_newton_schulz_draws_what_python_computes(started):
    page = started("newton-schulz").page
    python = NewtonSchulz()
    for traits in ({}, {"steps": 0}, {"steps": 20, "eps": 1e-3}, {"spectrum": "photographs"}, {"spectrum": "flat"}):
        set_traits(page, "newton-schulz", **traits)
        for trait, value in traits.items():
            setattr(python, trait, value)
        np.testing.assert_allclose(gains(page), python.gains, rtol=1e-5)


def test_newton_schulz_by_keyboard(started):
    page = started("newton-schulz").page
    before = gains(page)
    slider = page.get_by_label("steps", exact=True)
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "6"
    assert (gains(page)[-1] / before[-1]) == pytest.approx(1.5, rel=0.1)
    page.get_by_label("1/k", exact=True).focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("1/k²").is_checked()
    page.get_by_role("button", name="Reset").focus()
    page.keyboard.press("Enter")
    np.testing.assert_allclose(gains(page), before)
    assert page.get_by_label("1/k", exact=True).is_checked()


def test_newton_schulz_by_mouse(started):
    page = started("newton-schulz").page
    box = page.locator(".nd-pick svg").first.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 100, steps=4)
    page.mouse.up()
    assert page.get_by_role("slider", name="direction").get_attribute("aria-valuetext") == "no. 1"
    page.get_by_role("button", name="15 steps").click()
    settled(page)
    assert page.get_by_label("steps", exact=True).input_value() == "15"
    assert page.locator(".nd-readout").inner_text().startswith("576 of 576 directions are white")


def test_newton_schulz_counts_what_is_white(started):
    """With much eps hardly a direction ends up white, however many steps there are: the readout says so."""
    page = started("newton-schulz").page
    for name, traits in {"20 steps, large eps": {"steps": 20, "eps": 1e-2}, "As published": {}}.items():
        page.get_by_role("button", name=name).click()
        settled(page)
        python = NewtonSchulz(**traits)
        white = int((np.abs(python.gains**2 * python.eigenvalues - 1) <= 0.1).sum())
        assert 5 < white < 100
        said = page.locator(".nd-readout").inner_text()
        assert said.startswith(f"{white} of 576 directions are white")
        assert f"The median variance is {np.median(python.gains**2 * python.eigenvalues):.2f}" in said
