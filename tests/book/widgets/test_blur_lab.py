import re

import numpy as np
import pytest
from mounts import drag, picture_files, readout, set_traits, settled

from ndlib.bookwork.widgets import BlurLab
from ndlib.pictures import photographs


def pictures(page):
    settled(page)
    script = "(w => [w.blurred, w.restored].map((m) => m && Array.from(m)))(document.querySelector('.nd-blur-lab'))"
    return [values and np.array(values).reshape(128, 128) for values in page.evaluate(script)]


def test_blur_lab_draws_what_python_computes(started):
    page = started("blur-lab").page
    python = BlurLab()
    for traits in (
        {},
        {"sigma": 1.5, "k": 0.0},
        {"photograph": "page", "noise": 0.0, "sigma": 1.0},
        {"k": 0.01, "noise": 0.1},
    ):
        set_traits(page, "blur-lab", **traits)
        for trait, value in traits.items():
            setattr(python, trait, value)
        for found, wanted in zip(pictures(page), (python.blurred, python.restored), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
    # What stands on the canvas are these values, and nothing else.
    script = "c => Array.from(c.getContext('2d').getImageData(0, 0, 128, 128).data).filter((_, i) => i % 4 === 0)"
    shown = np.array(page.locator(".nd-canvas canvas").last.evaluate(script)).reshape(128, 128)
    assert np.abs(shown - 255 * np.clip(python.restored, 0, 1)).max() < 1


def error(values):
    return np.sqrt(np.square(values - BlurLab().picture).mean())


def test_blur_lab_says_what_the_filter_does(started):
    page = started("blur-lab").page
    for name, traits, words in (
        ("No noise", {"sigma": 1, "noise": 0, "k": 0}, "it is as good as the original"),
        ("A little noise", {"k": 0}, "that is more than from black to white, ruined"),
        ("The same, Wiener", {}, "that takes away {} % of the error"),
        ("Too much blur", {"sigma": 4, "k": 0.001}, "that takes away {} % of the error. Beyond 0.12 cycles"),
    ):
        page.get_by_role("button", name=name).click()
        python = BlurLab(**traits)
        before, after = error(python.blurred), error(python.restored)
        said = readout(page)
        assert words.format(round(100 * (1 - after / before))) in said
        levels = float(re.search(r"leave the picture off by ([\d.]+) grey levels", said)[1])
        assert levels == pytest.approx(255 * before, rel=0.05)
    # A circle of radius 0.12 in a square of side 1 leaves out 1 - pi 0.12^2 = 95 %.
    lost = re.search(
        r"0\.12 cycles per pixel, (\d+) % of all frequencies, noise drowns the picture: lost for good", said
    )
    assert float(lost[1]) == pytest.approx(100 * (1 - np.pi * 0.12**2), abs=1)
    before = error(pictures(page)[1])
    page.get_by_role("button", name="Best K").click()
    assert error(pictures(page)[1]) < before
    set_traits(page, "blur-lab", k=0)
    assert "has no inverse" in readout(page)
    assert page.get_by_text(re.compile("wipes out [0-9,]+ of 16,384 frequencies")).is_visible()
    assert not page.locator(".nd-canvas canvas").last.is_visible()


def test_blur_lab_by_keyboard(started):
    page = started("blur-lab").page
    before = pictures(page)[1]
    for name, key, text in (("blur", "ArrowRight", "1.05 px"), ("noise", "Home", "none"), ("K", "Home", "0: inverse")):
        slider = page.get_by_role("slider", name=name)
        slider.focus()
        page.keyboard.press(key)
        assert slider.get_attribute("aria-valuetext") == text
    page.get_by_label("cat", exact=True).focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("pagoda").is_checked()
    assert "as good as the original" in readout(page)
    page.get_by_role("button", name="Reset").focus()
    page.keyboard.press("Enter")
    np.testing.assert_allclose(pictures(page)[1], before)


def test_blur_lab_by_mouse(started):
    page = started("blur-lab").page
    shown = page.get_by_role("slider", name="blur")
    drag(page, ".nd-canvas .nd-drag", (0.2, 0.5), (0.8, 0.5))
    assert 2 < float(shown.input_value()) < 5
    page.get_by_role("button", name="Reset").click()
    settled(page)
    box = page.locator(".nd-pick svg").bounding_box()
    grip = (46 + (box["width"] - 58) * 9 / 16, 50)  # the mark at sigma = 1 pixel
    page.mouse.move(box["x"] + grip[0], box["y"] + grip[1])
    page.mouse.down()
    page.mouse.move(box["x"] + 46 + (box["width"] - 58) * 11 / 16, box["y"] + 50, steps=4)
    page.mouse.up()
    assert float(shown.input_value()) == pytest.approx(3, abs=0.1)
    drag(page, ".nd-gains svg", (0.9, 0.4), (0.9, 0.95))  # the line of K, to the bottom
    assert float(page.get_by_label("K", exact=True).input_value()) <= -24


def test_blur_lab_by_touch(phone):
    page = phone("blur-lab")
    page.get_by_role("button", name="A little noise").tap()
    assert "ruined" in readout(page)
    page.locator(".nd-pick svg").tap(position={"x": 200, "y": 60})
    assert page.get_by_role("slider", name="blur").input_value() != "1"


def test_blur_lab_with_a_photograph_of_ones_own(started, photograph, tmp_path):
    file, pixels = photograph
    visited = started("blur-lab")
    page = visited.page
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_label("your own", exact=True).wait_for()
    assert page.get_by_label("your own", exact=True).is_checked()
    set_traits(page, "blur-lab", noise=0, k=0)
    # 120 x 180 pixels: the middle square is enlarged to 128, which keeps its mean.
    grey = photographs.luminance(pixels)[:, 30:150]
    assert pictures(page)[1].mean() == pytest.approx(float(grey.mean()), abs=1e-6)
    assert "never leaves this page" in page.locator(".nd-private").inner_text()
    for text in page.locator(".nd-presets button").all_inner_texts()[:5]:
        page.get_by_role("button", name=text, exact=True).click()
        assert page.get_by_label("your own", exact=True).is_checked()  # a preset keeps the picture
    page.get_by_role("button", name="Reset").click()
    settled(page)
    assert page.get_by_label("cat", exact=True).is_checked()
    assert not page.get_by_label("your own", exact=True).is_visible()
    for name, message in picture_files(tmp_path):
        page.locator("input[type=file]").set_input_files(tmp_path / name)
        page.get_by_text(re.compile(message)).wait_for()
        page.get_by_role("button", name="Reset").click()
        settled(page)
        assert page.locator(".nd-problem:visible").count() == 0
    assert visited.problems == []
