"""A picture of the reader's own: from the camera, which is on as long as its button says, or drawn."""

import pytest
from mounts import readout, set_traits, wait

OWN = {  # how a widget says that it shows the reader's picture
    "kernel-explorer": "model.get('source') === 'photograph'",
    "blur-lab": "model.get('photograph') === 'own'",
    "pipeline": "model.get('photograph') === 'own'",
}
WATCHED = """
    window.tracks = [];
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => {
        const stream = await ask(wanted);
        tracks.push(...stream.getTracks());
        return stream;
    };
    null;
"""


def shows_own(page, name):
    page.wait_for_function(f"document.querySelector('.nd-mount').{OWN[name]}")


def in_numbers(page, name):
    """Has the readout of each widget depend on the picture."""
    if name == "pipeline":
        set_traits(page, name, stage="cov")


@pytest.mark.parametrize("name", OWN)
def test_camera_is_on_from_its_button_to_stop(started, name):
    visited = started(name, permissions=["camera"])
    page = visited.page
    in_numbers(page, name)
    page.evaluate(WATCHED)
    assert page.evaluate("tracks.length") == 0
    page.get_by_role("button", name="Camera").click()
    shows_own(page, name)
    first = readout(page)
    page.wait_for_function("text => document.querySelector('.nd-readout').textContent !== text", arg=first)  # it moves
    assert page.evaluate("tracks.map((t) => t.readyState)") == ["live"]
    page.get_by_role("button", name="Stop camera").click()
    page.wait_for_function("tracks.every((t) => t.readyState === 'ended')")
    assert page.get_by_role("button", name="Camera").get_attribute("aria-pressed") == "false"
    shows_own(page, name)
    page.get_by_role("button", name="Camera").click()
    page.wait_for_function("tracks.length === 2")
    page.get_by_role("button", name="Reset").click()  # which switches it off too
    page.wait_for_function("tracks.every((t) => t.readyState === 'ended')")
    page.wait_for_timeout(500)
    assert not page.evaluate(f"document.querySelector('.nd-mount').{OWN[name]}")  # nothing comes after it
    assert visited.problems == []


@pytest.mark.parametrize("name", OWN)
def test_no_camera_is_said_and_a_drawing_does_as_well(started, new_context, own, name):
    page = started(name).page  # where nobody has allowed it
    in_numbers(page, name)
    page.get_by_role("button", name="Camera").click()
    page.get_by_text("The camera was refused").wait_for()
    page.evaluate("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    page.get_by_role("button", name="Camera").click()
    page.get_by_text("This page has no camera").wait_for()
    page.get_by_role("button", name="Draw").click()
    paper = page.locator(".nd-pad canvas").bounding_box()
    page.mouse.move(paper["x"] + 20, paper["y"] + 20)
    page.mouse.down()
    page.mouse.move(paper["x"] + 120, paper["y"] + 90, steps=5)
    page.mouse.up()
    shows_own(page, name)
    drawn = readout(page)
    page.get_by_role("button", name="stripes").click()
    page.wait_for_function("text => document.querySelector('.nd-readout').textContent !== text", arg=drawn)
    wait(page, name)


def test_finger_draws_and_does_not_scroll(phone):
    page = phone("blur-lab")
    page.get_by_role("button", name="Draw").tap()
    page.locator(".nd-pad canvas").tap(position={"x": 60, "y": 50})
    shows_own(page, "blur-lab")
    assert page.locator(".nd-pad canvas").evaluate("e => getComputedStyle(e).touchAction") == "none"
