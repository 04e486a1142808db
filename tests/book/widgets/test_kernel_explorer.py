import re

import numpy as np
import pytest
from mounts import picture_files, set_traits, settled, wait
from PIL import Image

from ndlib.bookwork.widgets import KernelExplorer
from ndlib.pictures import photographs
from ndlib.pictures.image_statistics import autocovariance, picture_statistics
from ndlib.pictures.kernels import block_toeplitz, decompose, deconvolution_kernel


def kernels(page):
    settled(page)
    script = "document.querySelector('.nd-kernel-explorer').kernels.map((kernel) => Array.from(kernel))"
    return np.array(page.evaluate(script))


def test_kernel_explorer_draws_what_python_computes(started):
    page = started("kernel-explorer").page
    python = KernelExplorer()
    few = python.counts[3]
    for traits in (
        {},
        {"steps": 5},
        {"count": few},
        {"patch_size": 7, "eps": 1e-3},
        {"channel": "green", "steps": None},
    ):
        set_traits(page, "kernel-explorer", **traits)
        for trait, value in traits.items():
            setattr(python, trait, value)
        wanted = python.kernel.reshape(len(kernels(page)), -1)
        np.testing.assert_allclose(kernels(page), wanted, atol=1e-5 * np.abs(wanted).max())
        own = wanted[("red", "green", "blue").index(python.channel) if len(wanted) == 3 else 0]
        centre = own[len(own) // 2]
        said = page.locator(".nd-readout").inner_text().replace("\N{MINUS SIGN}", "-")
        numbers = re.search(r"the centre weighs ([\d.]+), the least weight is (-?[\d.]+) of that", said)
        assert float(numbers[1]) == pytest.approx(centre, rel=0.01)
        assert float(numbers[2]) == pytest.approx(own.min() / centre, rel=0.06)


def test_kernel_explorer_by_keyboard(started):
    page = started("kernel-explorer").page
    kernel = kernels(page)[0].reshape(15, 15)
    page.locator(".nd-kernels").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    settled(page)
    value = page.locator(".nd-value").inner_text()
    assert value.startswith("Weight 1 up, 2 right:")
    assert float(value.split(":")[1].replace("\N{MINUS SIGN}", "-")) == pytest.approx(kernel[6, 9], rel=0.01)
    page.get_by_label("steps", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    assert page.get_by_label("steps", exact=True).get_attribute("aria-valuetext") == "20"
    page.get_by_label("Divider").focus()
    before = page.locator(".nd-compare").get_attribute("style")
    page.keyboard.press("ArrowRight")
    assert page.locator(".nd-compare").get_attribute("style") != before


def test_kernel_explorer_by_mouse(started):
    page = started("kernel-explorer").page
    box = page.locator(".nd-kernel canvas").bounding_box()
    page.mouse.move(box["x"] + 0.5, box["y"] + box["height"] - 1)
    settled(page)
    assert page.locator(".nd-value").inner_text().startswith("Weight 7 down, 7 left:")
    page.get_by_role("button", name="5 steps").click()
    settled(page)
    assert "hardly any surround" in page.locator(".nd-readout").inner_text()
    page.get_by_role("button", name="Exact root").click()
    settled(page)
    assert "a clear centre and surround" in page.locator(".nd-readout").inner_text()
    page.get_by_role("button", name="Colours").click()
    settled(page)
    assert page.locator(".nd-kernel").count() == 3
    assert "oppose" in page.locator(".nd-readout").inner_text()


def test_kernel_explorer_by_touch(phone):
    page = phone("kernel-explorer")
    page.locator(".nd-kernel canvas").tap(position={"x": 4, "y": 4})
    settled(page)
    assert page.locator(".nd-value").inner_text().startswith("Weight 7 up, 7 left:")
    page.get_by_role("button", name="One image").tap()
    settled(page)
    assert page.get_by_label("images").get_attribute("aria-valuetext") == "1"
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_kernel_explorer_without_workers(new_context, own):
    context = new_context()
    context.add_init_script("delete window.Worker")
    page = context.new_page()
    page.goto(f"{own}/kernel-explorer.html")
    wait(page, "kernel-explorer")
    assert len(kernels(page)[0]) == 225


def test_kernel_explorer_takes_an_own_photograph(started, photograph):
    file, pixels = photograph
    visited = started("kernel-explorer")
    page = visited.page
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_label("your picture", exact=True).wait_for()
    for channel, channels, output in (("luminance", 1, 0), ("blue", 3, 2)):
        set_traits(page, "kernel-explorer", channel=channel)
        x = pixels if channels == 3 else photographs.luminance(pixels)
        spectrum = decompose(
            block_toeplitz(autocovariance(picture_statistics(x)), 15 if channels == 1 else 9), channels
        )
        wanted = deconvolution_kernel(spectrum, channel=output).flatten(1).numpy()
        settled(page)
        np.testing.assert_allclose(kernels(page), wanted, atol=1e-5 * np.abs(wanted).max())
    assert "your picture" in page.locator(".nd-readout").inner_text()
    assert "never leaves this page" in page.locator(".nd-private").inner_text()
    assert page.get_by_label("images", exact=True).is_disabled()
    for text in ("5 steps", "Colours", "Exact root"):
        page.get_by_role("button", name=text).click()
        assert page.get_by_label("your picture", exact=True).is_checked()  # a preset keeps the picture
    assert not page.get_by_role("button", name="One image").is_visible()
    page.get_by_role("button", name="Reset").click()
    settled(page)
    assert "1,000 images" in page.locator(".nd-readout").inner_text()
    assert visited.problems == []


def test_kernel_explorer_answers_unsuitable_photographs_in_words(started, tmp_path):
    page = started("kernel-explorer").page
    for name, message in picture_files(tmp_path):
        page.locator("input[type=file]").set_input_files(tmp_path / name)
        page.get_by_text(re.compile(message)).wait_for()
        page.get_by_role("button", name="Reset").click()
        settled(page)
        assert page.locator(".nd-problem:visible").count() == 0
        assert page.get_by_text(re.compile(message)).count() == 0


def test_kernel_explorer_averages_the_areas_of_a_large_photograph(started, tmp_path):
    """Browsers make a picture smaller in ways of their own, which would give a kernel of its own in each."""
    pixels = np.random.default_rng(0).integers(0, 256, (500, 700), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    page = started("kernel-explorer").page
    page.locator("input[type=file]").set_input_files(tmp_path / "large.png")
    page.get_by_label("your picture", exact=True).wait_for()
    page.get_by_text("It was scaled from 0.35 megapixels to 278 × 198.").wait_for()  # noqa: RUF001
    down, across = (shares(length, to) for length, to in ((500, 198), (700, 278)))
    small = down @ (pixels / 255) @ across.T
    floats = "m => Array.from(new Float64Array(m.model.get('own_luminance').buffer.slice(0, 8 * 3)))"
    found = page.locator(".nd-mount").evaluate(floats)  # the variance, and the covariances one and two to the right
    centred = small - small.mean()
    wanted = [(centred[:, : 278 - lag] * centred[:, lag:]).mean() for lag in range(3)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def shares(length, to):
    """Of which pixels, and by how much, each of fewer pixels is the mean."""
    edges = np.arange(to + 1) * length / to
    inside = np.minimum(edges[1:, None], np.arange(1, length + 1)) - np.maximum(edges[:-1, None], np.arange(length))
    return inside.clip(0) * to / length


CORNER = "c => Array.from(c.getContext('2d').getImageData(0, 0, 1, 1).data.slice(0, 3))"


def test_kernel_has_the_paper_of_its_page_and_a_scale_that_can_be_held(started):
    page = started("kernel-explorer").page
    canvas = page.locator(".nd-kernel canvas")
    assert min(canvas.evaluate(CORNER)) > 200  # nearly zero: white
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_function(f"Math.max(...({CORNER})(document.querySelector('.nd-kernel canvas'))) < 60")
    ends = page.locator(".nd-scale .nd-ends")
    first = ends.inner_text()
    page.get_by_label("hold the colours").check()
    page.get_by_role("button", name="5 steps").click()
    settled(page)
    assert ends.inner_text() == first
    page.get_by_label("hold the colours").uncheck()
    settled(page)
    assert ends.inner_text() != first
