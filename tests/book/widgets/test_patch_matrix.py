import numpy as np
import pytest
from mounts import drag, readout, set_traits, settled

from ndlib.bookwork.widgets import PatchMatrix


def drawn_matrices(page):
    settled(page)
    script = "(w) => [w.matrix, w.covariance, w.square, w.y].map((m) => Array.from(m))"
    return [np.array(values) for values in page.locator(".nd-patch-matrix").evaluate(script)]


def test_patch_matrix_draws_what_python_computes(started):
    page = started("patch-matrix").page
    python = PatchMatrix()
    for traits in (
        {},
        {"picture": "photograph", "w": "mean"},
        {"k": 5, "shown": "D", "w": "D", "rows": "centred"},
        {"picture": "numbers", "k": 2, "shown": "covariance"},
        {"w": "edge"},
    ):
        set_traits(page, "patch-matrix", **traits)
        for trait, value in traits.items():
            setattr(python, trait, value)
        last = python.whitening if python.shown == "D" else python.covariance
        for found, wanted in zip(
            drawn_matrices(page), (python.matrix, python.covariance, last, python.result), strict=True
        ):
            np.testing.assert_allclose(found, wanted.flatten(), atol=1e-5 * np.abs(wanted).max())


def test_patch_matrix_by_keyboard(started):
    page = started("patch-matrix").page
    assert "2 from the top, 3 from the left is row 6" in readout(page)
    page.locator(".nd-panel-picture .nd-cells").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowLeft"):  # the second step would leave the picture
        page.keyboard.press(key)
        settled(page)
    assert "3 from the top, 2 from the left is row 8" in readout(page)
    page.locator(".nd-panel-x .nd-cells").focus()
    page.keyboard.press("ArrowUp")
    assert "is row 7 of X" in readout(page)
    page.locator(".nd-panel-square .nd-cells").focus()
    page.keyboard.press("ArrowLeft")
    assert "Pixel 5 (row 2, column 2 of the window): mean 4.67, variance" in readout(page)
    page.get_by_role("button", name="Reset").focus()
    page.keyboard.press("Enter")
    # The window (4 3 2; 9 6 1; 5 8 2) has the sums 18, 17 and 5: y = (5 - 18) / 6.
    assert "is row 6 of X; with w it gives y = \N{MINUS SIGN}2.17. Pixels 5" in readout(page)
    page.locator(".nd-panel-y .nd-cells").focus()
    page.keyboard.press("ArrowUp")
    assert "1 from the top, 3 from the left is row 3" in readout(page)


def test_patch_matrix_by_mouse(started):
    page = started("patch-matrix").page
    drag(page, ".nd-panel-picture .nd-cells", (0.7, 0.5), (0.3, 0.3))
    assert "1 from the top, 1 from the left is row 1 of X" in readout(page)
    box = page.locator(".nd-panel-square .nd-cells").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 8.5 / 9, box["y"] + box["height"] * 0.5 / 9)
    assert "Pixels 1 (row 1, column 1 of the window) and 9 (row 3, column 3" in readout(page)
    x = page.locator(".nd-panel-x .nd-tap1").bounding_box()
    whole = page.locator(".nd-panel-x .nd-cells").bounding_box()
    assert x["x"] - whole["x"] == pytest.approx(whole["width"] * 8 / 9, abs=3)
    page.get_by_role("button", name="Whiten").click()
    assert "Entry of D with eps 0.001" in readout(page)
    page.get_by_role("radio").first.check(force=True)  # the numbers, on which no window of five fits
    settled(page)
    assert page.get_by_role("slider", name="window").input_value() == "4"


def test_patch_matrix_by_touch(phone):
    page = phone("patch-matrix")
    page.locator(".nd-panel-square .nd-cells").tap(position={"x": 5, "y": 5})
    assert "Pixel 1 (row 1, column 1 of the window)" in readout(page)
