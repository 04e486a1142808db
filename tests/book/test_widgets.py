"""The widgets on pages without a kernel, in a real browser that reaches nothing else."""

import gzip
import re
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from contents import HTML, PAGES, ROOT
from PIL import Image

from ndlib import data
from ndlib.image_statistics import autocovariance, picture_statistics
from ndlib.kernels import block_toeplitz, decompose, deconvolution_kernel
from ndlib.widgets import KernelExplorer, NewtonSchulz

WIDGETS = {"newton-schulz": NewtonSchulz, "kernel-explorer": KernelExplorer}
BUDGET = 300_000  # bytes of a page's own, compressed

PAGE = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# Widgets

```{{code-cell}} ipython3
from ndlib import plotting
from ndlib.widgets import {widget}

plotting.use_style()
{widget}()
```
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A book of one page for each widget and one without any, built with the settings of the book."""
    root = tmp_path_factory.mktemp("widgets")
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    extensions = config["sphinx"]["local_extensions"]
    config["sphinx"]["local_extensions"] = {name: str(ROOT / folder) for name, folder in extensions.items()}
    config["bibtex_bibfiles"] = [str(ROOT / file) for file in config["bibtex_bibfiles"]]
    (root / "_config.yml").write_text(yaml.safe_dump(config))
    (root / "plain.md").write_text("# A page without widgets\n")
    cells = [PAGE.format(widget=widget.__name__).split("\n\n", 2) for widget in WIDGETS.values()]
    (root / "both.md").write_text("\n\n".join([*cells[0], cells[1][2]]))
    for name, widget in WIDGETS.items():
        (root / f"{name}.md").write_text(PAGE.format(widget=widget.__name__))
    pages = "".join(f"  - file: {name}\n" for name in ["both", *WIDGETS])
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: plain\nchapters:\n{pages}")
    build = [str(Path(sys.executable).with_name("jupyter-book")), "build", "-W", "-n", "--keep-going", str(root)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "_build" / "html"


@pytest.fixture(scope="session")
def own(site):
    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(site))

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def started(visit, own):
    """Opens the page of a widget and waits until it has drawn."""

    def start(name, **options):
        visited = visit(f"{own}/{name}.html", own, **options)
        wait(visited.page, name)
        return visited

    return start


DRAWN = {
    "newton-schulz": "document.querySelector('.nd-newton-schulz')?.gains?.length > 0",
    "kernel-explorer": "document.querySelector('.nd-kernel-explorer')?.milliseconds > 0"
    " && document.querySelector('.nd-compare canvas').width !== 300",  # 300: a canvas that nothing was drawn on
}


def wait(page, name):
    page.locator(f'[data-widget="{name}"]').scroll_into_view_if_needed()
    page.wait_for_function(DRAWN.get(name, "true"), timeout=10_000)


def settled(page):
    """Two frames later, and when no background work is under way."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_timeout(300)


def gains(page):
    settled(page)
    return np.array(page.evaluate("Array.from(document.querySelector('.nd-newton-schulz').gains)"))


def kernels(page):
    settled(page)
    script = "document.querySelector('.nd-kernel-explorer').kernels.map((kernel) => Array.from(kernel))"
    return np.array(page.evaluate(script))


def set_traits(page, name, **traits):
    script = "([name, traits]) => { const { model } = document.querySelector(`[data-widget='${name}']`);"
    page.evaluate(script + "for (const trait in traits) model.set(trait, traits[trait]); }", [name, traits])


# Every widget. ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("name", WIDGETS)
def test_widget_starts_fits_and_is_accessible(started, name, width, theme):
    visited = started(name, width=width, theme=theme)
    page = visited.page
    assert visited.problems == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    beyond = "[...w.querySelectorAll('.nd-widget *')].filter(e => e.getBoundingClientRect().right > innerWidth)"
    assert page.locator(".nd-mount").evaluate(f"w => {beyond}.map(e => e.outerHTML)") == []
    assert page.locator(".nd-problem:visible").count() == 0
    assert len(page.locator(".nd-readout").inner_text()) > 40
    # Ink and paper differ, whatever the theme.
    axe = Axe().run(page, context=".nd-mount")
    serious = [v for v in axe.response["violations"] if v["impact"] in ("serious", "critical")]
    assert serious == [], axe.generate_report()
    assert page.evaluate("document.getAnimations().length") == 0


def test_two_widgets_on_a_page_do_not_meddle(visit, own):
    visited = visit(f"{own}/both.html", own)
    page = visited.page
    for name in WIDGETS:
        wait(page, name)
    ids = page.evaluate("[...document.querySelectorAll('.nd-mount [id]')].map(e => e.id)")
    assert len(ids) > 6 and len(ids) == len(set(ids))
    first, second = page.locator(".nd-newton-schulz"), page.locator(".nd-kernel-explorer")
    assert first.get_by_label("1/k", exact=True).is_checked() and second.get_by_label("grey").is_checked()
    first.get_by_role("slider", name="steps").focus()
    page.keyboard.press("ArrowRight")
    assert first.get_by_role("slider", name="steps").get_attribute("aria-valuetext") == "6"
    assert second.get_by_role("slider", name="steps").get_attribute("aria-valuetext") == "exact"
    assert visited.problems == []


@pytest.mark.parametrize("name", WIDGETS)
def test_page_loads_its_widget_and_no_other(site, name):
    text = (site / f"{name}.html").read_text()
    scripts = set(re.findall(r"_static/(widget[\w-]*\.js)", text))
    assert scripts == {"widget-host.js", f"widget-{name}.js"}
    assert "widget-state+json" not in text
    assert "widget-" not in (site / "plain.html").read_text()
    own = ["widget-host.js", f"widget-{name}.js", f"widget-{name}.css"]
    weight = sum(len(gzip.compress((site / "_static" / file).read_bytes())) for file in own)
    assert weight + len(gzip.compress(text.encode())) < BUDGET


@pytest.mark.parametrize("name", WIDGETS)
def test_widget_works_from_the_disk(visit, site, name):
    visited = visit((site / f"{name}.html").as_uri(), "file://")
    wait(visited.page, name)
    assert visited.problems == []


@pytest.mark.parametrize("name", WIDGETS)
def test_still_picture_without_scripts(browser, own, name):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{own}/{name}.html")
    picture = page.locator(".nd-mount svg.figure")
    assert picture.is_visible() and len(picture.get_attribute("aria-label")) > 60
    assert picture.bounding_box()["width"] > 300
    assert page.get_by_text("A still picture. With scripts switched on").is_visible()
    context.close()


@pytest.mark.parametrize("fault", ["missing", "throws"])
@pytest.mark.parametrize("name", WIDGETS)
def test_a_widget_that_fails_leaves_its_picture_and_says_so(browser, own, name, fault):
    page = browser.new_page()
    body = "" if fault == "missing" else "export default { render() { throw new Error('out of order') } }"
    script = f"ndWidgets.define('{name}', `{body}`)" if body else ""
    page.route(f"**/widget-{name}.js*", lambda r: r.fulfill(body=script, content_type="text/javascript"))
    page.goto(f"{own}/{name}.html")
    message = page.locator(".nd-mount .nd-problem")
    message.wait_for()
    reason = "no script for the widget" if fault == "missing" else "out of order"
    assert reason in message.inner_text() and "still" in message.inner_text()
    assert page.locator(".nd-mount svg.figure").is_visible()
    page.close()


def test_widgets_wait_until_they_are_near(visit, own):
    page = visit(f"{own}/plain.html", own).page
    page.route("**/newton-schulz.html", with_distance)
    page.goto(f"{own}/newton-schulz.html")
    page.wait_for_timeout(500)
    assert page.locator(".nd-mount[data-ready]").count() == 0
    assert page.locator(".nd-mount svg.figure").count() == 1
    page.locator(".nd-mount").scroll_into_view_if_needed()
    page.locator(".nd-mount[data-ready]").wait_for()


def with_distance(route):
    answer = route.fetch()
    far = '<div style="height: 5000px"></div><div class="nd-mount"'
    route.fulfill(response=answer, body=answer.text().replace('<div class="nd-mount"', far))


# Newton-Schulz. --------------------------------------------------------------------------------------------


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
    assert "right within a tenth for 576 of 576" in page.locator(".nd-readout").inner_text()


# Kernel explorer. ------------------------------------------------------------------------------------------


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
    page.get_by_role("button", name="Paper:").click()
    settled(page)
    assert "a clear centre and surround" in page.locator(".nd-readout").inner_text()
    page.get_by_role("button", name="Colours").click()
    settled(page)
    assert page.locator(".nd-kernel").count() == 3
    assert "oppose" in page.locator(".nd-readout").inner_text()


def test_kernel_explorer_by_touch(browser, own):
    context = browser.new_context(viewport={"width": 360, "height": 800}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(f"{own}/kernel-explorer.html")
    wait(page, "kernel-explorer")
    page.locator(".nd-kernel canvas").tap(position={"x": 4, "y": 4})
    settled(page)
    assert page.locator(".nd-value").inner_text().startswith("Weight 7 up, 7 left:")
    page.get_by_role("button", name="One image").tap()
    settled(page)
    assert page.get_by_label("images").get_attribute("aria-valuetext") == "1"
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


def test_kernel_explorer_without_workers(browser, own):
    context = browser.new_context()
    context.add_init_script("delete window.Worker")
    page = context.new_page()
    page.goto(f"{own}/kernel-explorer.html")
    wait(page, "kernel-explorer")
    assert len(kernels(page)[0]) == 225
    context.close()


@pytest.fixture
def photograph(tmp_path):
    """A small part of a photograph, as a file and as the tensor that it holds."""
    pixels = (data.photograph("cat")[:, 60:180, 100:280] * 255).round().byte()
    file = tmp_path / "cat.png"
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file)
    return file, pixels.double() / 255


def test_a_photograph_of_ones_own(started, photograph):
    file, pixels = photograph
    visited = started("kernel-explorer")
    page = visited.page
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_label("your photograph", exact=True).wait_for()
    page.wait_for_timeout(1500)
    for channel, channels, output in (("luminance", 1, 0), ("blue", 3, 2)):
        set_traits(page, "kernel-explorer", channel=channel)
        x = pixels if channels == 3 else data.luminance(pixels)
        spectrum = decompose(
            block_toeplitz(autocovariance(picture_statistics(x)), 15 if channels == 1 else 9), channels
        )
        wanted = deconvolution_kernel(spectrum, channel=output).flatten(1).numpy()
        settled(page)
        np.testing.assert_allclose(kernels(page), wanted, atol=1e-5 * np.abs(wanted).max())
    assert "your photograph" in page.locator(".nd-readout").inner_text()
    assert "never leaves this page" in page.locator(".nd-private").inner_text()
    assert page.get_by_label("images", exact=True).is_disabled()
    page.get_by_role("button", name="Reset").click()
    settled(page)
    assert "1,000 images" in page.locator(".nd-readout").inner_text()
    assert visited.problems == []


def picture_files(folder):
    gradient = np.linspace(0, 255, 90 * 70).reshape(70, 90).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 4), np.uint8)
    pictures = {
        "grey.png": (Image.fromarray(gradient), "It is grey"),
        "transparent.png": (Image.fromarray(noise), "transparent parts lie on white"),
        "constant.png": (Image.new("RGB", (90, 70), "teal"), "one colour only"),
        "tiny.png": (Image.new("RGB", (20, 70), "teal"), "too few"),
        "huge.jpg": (Image.effect_noise((8000, 5000), 60), "from 40 megapixels to"),
    }
    for name, (picture, message) in pictures.items():
        picture.save(folder / name)
        yield name, message
    (folder / "text.txt").write_text("no picture")
    yield "text.txt", "is not a picture"
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    yield "broken.png", "cannot be read"


def test_photographs_that_need_a_word(started, tmp_path):
    page = started("kernel-explorer").page
    for name, message in picture_files(tmp_path):
        page.locator("input[type=file]").set_input_files(tmp_path / name)
        page.get_by_text(re.compile(message)).wait_for(timeout=20_000)
        page.get_by_role("button", name="Reset").click()
        settled(page)
        assert page.locator(".nd-problem:visible").count() == 0
        assert page.get_by_text(re.compile(message)).count() == 0


# The book itself. ------------------------------------------------------------------------------------------


def mounts():
    for page in PAGES:
        file = HTML / f"{page}.html"
        if file.exists():
            for name in sorted(set(re.findall(r'data-widget="([\w-]+)"', file.read_text()))):
                yield page, name


@pytest.mark.parametrize(("page", "name"), [*mounts()])
def test_widgets_of_the_book(visit, address, page, name):
    visited = visit(f"{address}/{page}.html", address, width=360)
    visited.page.locator(f'[data-widget="{name}"]').first.scroll_into_view_if_needed()
    visited.page.locator(f'[data-widget="{name}"][data-ready]').first.wait_for()
    assert visited.problems == []
    assert visited.page.evaluate("document.documentElement.scrollWidth") <= 360
    text = (HTML / f"{page}.html").read_text()
    own = ["widget-host.js", *(f"widget-{n}.{end}" for p, n in mounts() if p == page for end in ("js", "css"))]
    weight = sum(len(gzip.compress((HTML / "_static" / file).read_bytes())) for file in own)
    assert weight + len(gzip.compress(text.encode())) < BUDGET
