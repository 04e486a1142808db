import numpy as np
import pytest
from mounts import drag, readout, set_traits, settled

from ndlib.bookwork.widgets import Descent


def drawn(page):
    settled(page)
    script = "(w) => ['none', 'nd'].map((m) => [w.paths[m], w.fall[m]])"
    return page.locator(".nd-descent").evaluate(script)


def test_descent_draws_what_python_computes(started):
    page = started("descent").page
    python = Descent()
    fast = {"rate": 1.1, "correlation": -0.9}
    for traits in ({}, fast, {"scale": 0.4, "w1": 2.5, "w2": -1.2}, {"rate": 1.0, "correlation": 0.95}):
        set_traits(page, "descent", **traits)
        for trait, value in traits.items():
            setattr(python, trait, value)
        wanted = (python.path, python.losses), (python.deconvolved_path, python.deconvolved_losses)
        for (path, fall), (points, losses) in zip(drawn(page), wanted, strict=True):
            np.testing.assert_allclose(path, points, rtol=1e-5, atol=1e-12)
            np.testing.assert_allclose(fall, losses / losses[0], rtol=1e-5, atol=1e-20)


def test_descent_paths_stay_within_their_pictures(started):
    page = started("descent").page
    page.get_by_role("button", name="Too fast").click()
    assert "Plain gradient descent diverges" in readout(page)
    inside = """svg => [...svg.querySelectorAll("path")].every((path) => {
        const [line, frame] = [path.getBBox(), svg.viewBox.baseVal];
        return line.x > 40 && line.x + line.width < frame.width && line.y >= 0 && line.y + line.height < frame.height;
    })"""
    for box in (".nd-valley", ".nd-losses"):
        lines = page.locator(f"{box} svg")
        assert lines.evaluate(inside)
        assert lines.locator("path").count() > 8


def test_descent_presets(started):
    page = started("descent").page
    first = readout(page)
    for name, words in (
        ("Independent", "condition number is 1, the best rate 1.00, the largest stable one 2.00"),
        ("Neighbours", "condition number is 39, the best rate 1.00, the largest stable one 1.03"),
        ("One step", "Deconvolved it needs 1 step to a hundredth"),
        ("Too fast", "Plain gradient descent diverges: the condition number"),
        ("Unequal scales", "condition number is 25, the best rate 1.92"),
        ("Reset", first),
    ):
        page.get_by_role("button", name=name).click()
        assert words in readout(page)


def test_descent_by_keyboard(started):
    page = started("descent").page
    before = readout(page)
    for name, key, text in (
        ("correlation", "ArrowLeft", "0.94"),
        ("rate", "End", "2.20"),
        ("scales", "Home", "1 : 0.20"),
    ):
        slider = page.get_by_role("slider", name=name)
        slider.focus()
        page.keyboard.press(key)
        assert slider.get_attribute("aria-valuetext") == text
    assert readout(page).count("diverges") == 2
    page.locator(".nd-valley").focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    (path, _), (other, _) = drawn(page)
    np.testing.assert_allclose([path[0], other[0]], [[-0.2, 3.5]] * 2)
    page.locator(".nd-inputs").focus()
    page.keyboard.press("ArrowUp")
    assert page.get_by_role("slider", name="correlation").get_attribute("aria-valuetext") == "0.95"
    page.get_by_role("button", name="Reset").focus()
    page.keyboard.press("Enter")
    assert readout(page) == before


def test_descent_by_mouse(started):
    page = started("descent").page
    box = page.locator(".nd-valley svg").bounding_box()
    left, right, bottom = 46, box["width"] - 12, box["height"] - 40

    def place(w1, w2):
        unit = (bottom - 24) / 6  # pixels, in both directions
        x, y = (left + right) / 2 + (w1 - 1) * unit, bottom - (w2 + 2) * unit
        return x / box["width"], y / box["height"]

    drag(page, ".nd-valley svg", place(-0.4, 3.6), place(3, -1))
    (path, _), _ = drawn(page)
    assert path[0] == pytest.approx([3, -1], abs=0.05)
    page.locator(".nd-inputs svg").scroll_into_view_if_needed()
    drag(page, ".nd-inputs svg", (0.6, 0.5), (0.5 + 0.02, 0.47))  # towards the middle of the cloud
    squeezed = float(page.get_by_role("slider", name="correlation").input_value())
    drag(page, ".nd-inputs svg", (0.6, 0.5), (0.85, 0.75))  # and away from it
    opened = float(page.get_by_role("slider", name="correlation").input_value())
    assert opened < 0.3 < 0.9 < squeezed


def test_descent_by_touch(phone):
    page = phone("descent")
    box = page.locator(".nd-valley svg").bounding_box()
    page.locator(".nd-valley svg").tap(position={"x": 46, "y": box["height"] - 40})  # the corner
    (path, _), _ = drawn(page)
    assert path[0] == pytest.approx([-2, -2], abs=0.05)
    page.get_by_role("button", name="One step").tap()
    assert "it needs 1 step to" in readout(page)
    page.locator(".nd-inputs svg").tap(position={"x": 150, "y": 170})
    assert float(page.get_by_role("slider", name="correlation").input_value()) < 0.8


def test_descent_walks_along_its_paths(started):
    page = started("descent", reduced_motion="no-preference").page
    assert page.locator(".nd-descent").evaluate("w => w.walked") == 60  # it has been seen, and walked
    page.evaluate("""() => {
        const widget = document.querySelector(".nd-descent");
        window.seen = [];
        const valley = widget.querySelector(".nd-valley svg");
        const look = () => {
            seen.push([widget.walked, valley.innerHTML.length]);
            requestAnimationFrame(look);
        };
        look();
    }""")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("seen.at(-1)[0] < 30")
    page.wait_for_function("seen.at(-1)[0] === 60")
    steps, drawn = zip(*page.evaluate("seen"), strict=True)
    begun = steps.index(min(steps))
    assert list(steps[begun:]) == sorted(steps[begun:]) and len(set(steps[begun:])) > 5
    assert drawn[begun] < drawn[-1]


def test_descent_names_the_ends_of_its_paths(started):
    page = started("descent").page
    names = page.locator(".nd-valley .nd-name")
    assert {"plain", "deconvolved"} <= set(names.all_text_contents())
    page.get_by_role("button", name="Too fast").click()
    settled(page)
    assert "plain leaves" in names.all_text_contents()
