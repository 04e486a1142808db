import json
import re

import numpy as np
import pytest
from mounts import readout, set_traits, settled

from ndlib import files
from ndlib.bookwork.widgets import live_race, race, race_study

ARMS = "document.querySelector('.nd-live-race').arms"
RECORDS = f"{ARMS}.map((arm) => arm.records.map((r) => [r.step, r.seconds, r.loss, r.accuracy]))"


def records(page):
    """Of each network: step, seconds, loss and accuracy of its reports."""
    return page.evaluate(RECORDS)


def reaches(page, step, arm=0):
    page.wait_for_function(f"{ARMS}[{arm}].records.at(-1)?.step >= {step}")


def press(page, name):
    page.locator(".nd-live-race").get_by_role("button", name=name, exact=True).click()


@pytest.fixture
def calm(started):
    """The race where the reader wants no motion: it waits for the button."""
    return started("live-race").page


@pytest.fixture
def lively(new_context, own):
    """The race where it starts by itself."""
    page = new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.goto(f"{own}/live-race.html")
    page.locator(".nd-mount[data-ready]").wait_for()
    page.locator(".nd-course").scroll_into_view_if_needed()
    return page


def test_live_race_starts_when_it_is_seen_and_can_be_paused(lively):
    page = lively
    reaches(page, 3)
    press(page, "Pause")
    settled(page)
    before = records(page)
    assert readout(page).startswith("Paused. Step ")
    press(page, "Step")
    settled(page)
    after = records(page)
    assert [len(new) - len(old) for new, old in zip(after, before, strict=True)] == [1, 1, 1]
    press(page, "Restart")
    reaches(page, 1)
    press(page, "Pause")
    settled(page)
    found = records(page)
    for again, first in zip(found, before, strict=True):  # the same race, but for the time it takes
        shared = min(len(again), len(first))
        assert again[0][0] == 0
        np.testing.assert_array_equal(np.array(again)[:shared, [0, 3]], np.array(first)[:shared, [0, 3]])


def test_live_race_says_what_the_networks_report(calm):
    press(calm, "Play")
    reaches(calm, 20, arm=2)
    press(calm, "Pause")
    text = readout(calm)
    step = int(re.search(r"Step (\d+) of 100", text)[1])
    for name, reports in zip(live_race.ARMS, records(calm), strict=True):
        accuracy = next(a for s, _, _, a in reports if s == step)
        assert f"{name} {accuracy:.1f} %" in text
        reached = next((s for s, _, _, a in reports if a >= 88), None)
        assert (re.search(rf"reached after steps:.*{name} {reached}\b", text) is not None) == (reached is not None)
    values = [float(v) for v in re.findall(r"[A-Za-z]+ ([\d.]+) %", text)]
    assert values == sorted(values, reverse=True) and len(values) == 3


@pytest.mark.filterwarnings("ignore:.*rows for a covariance:UserWarning")
def test_live_race_is_the_one_in_torch(calm):
    set_traits(calm, "live-race", arms=["ND"], variant="recommended", nd_rate=0.1, seed=4, batch=32, block_size=8)
    reaches(calm, 10, arm=2)
    press(calm, "Pause")
    settled(calm)
    options = race_study.RECOMMENDED | {"block_size": 8}
    model, digits = race.network("nd", 4, **options), race.digits()
    losses = list(race.train(model, digits, 4, 0.1, 10, batch=32))
    tenth = next(r for r in records(calm)[2] if r[0] == 10)
    assert tenth[2] == pytest.approx(losses[-1], rel=5e-3)
    assert tenth[3] == pytest.approx(race.accuracy(model, digits), abs=1)


def test_live_race_sliders_start_their_networks_anew(calm):
    press(calm, "Play")
    reaches(calm, 10, arm=2)
    press(calm, "Pause")
    settled(calm)
    for name, anew, shown in (
        ("BN: rate", [False, True, False], "0.0354"),
        ("ND: block", [False, False, True], None),
        ("ND: root steps", [False, False, True], "6"),
        ("seed", [True, True, True], "2"),
    ):
        before = calm.evaluate(f"{ARMS}.forEach((arm) => (arm.mark = arm.records))")
        slider = calm.get_by_role("slider", name=name)
        slider.focus()
        calm.keyboard.press("ArrowLeft" if shown is None else "ArrowRight")
        press(calm, "Pause")
        settled(calm)
        assert before is None and calm.evaluate(f"{ARMS}.map((arm) => arm.mark !== arm.records)") == anew
        assert slider.get_attribute("aria-valuetext") == (shown or "8")
    calm.get_by_label("plain", exact=True).uncheck()
    assert "plain" not in readout(calm)


def test_live_race_presets(calm):
    for name, traits in live_race.presets().items():
        press(calm, name)
        press(calm, "Pause")
        settled(calm)
        state = calm.evaluate("document.querySelector('.nd-mount').model.state")
        assert {trait: state[trait] for trait in traits} == traits
        assert all(run[0][0] == 0 for run in records(calm))
    press(calm, "Reset")
    press(calm, "Pause")
    assert (
        calm.evaluate("document.querySelector('.nd-mount').model.get('nd_rate')")
        == live_race.study()["ND as published"].rate
    )


def test_live_race_by_seconds(calm):
    press(calm, "By the clock")
    reaches(calm, 10, arm=2)
    press(calm, "Pause")
    text = readout(calm)
    end = float(re.search(r"After ([\d.]+) s of training each", text)[1])
    runs = records(calm)
    assert end == pytest.approx(min(run[-1][1] for run in runs), abs=0.06)
    for name, run in zip(live_race.ARMS, runs, strict=True):
        there = [a for _, s, _, a in run if s <= min(r[-1][1] for r in runs)][-1]
        assert f"{name} {there:.1f} %" in text
    assert "seconds of training" in calm.locator(".nd-course").inner_html()
    calm.get_by_label("by steps").check()
    assert "Step " in readout(calm)


def test_live_race_rests_while_nobody_looks(lively):
    page = lively
    hide = """(hidden) => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    reaches(page, 2)
    page.evaluate(hide, True)
    settled(page)  # nothing is under way any more
    assert readout(page).startswith("Paused. ")
    count = len(records(page)[0])
    page.evaluate(hide, False)
    reaches(page, count)
    page.add_style_tag(content="body { padding-bottom: 3000px; }")
    page.evaluate("scrollTo({ top: document.body.scrollHeight, behavior: 'instant' })")
    settled(page)
    count = len(records(page)[0])
    page.locator(".nd-course").scroll_into_view_if_needed()
    reaches(page, count)
    press(page, "Pause")


def test_live_race_without_workers(new_context, own):
    context = new_context()
    context.add_init_script("delete window.Worker")
    page = context.new_page()
    page.goto(f"{own}/live-race.html")
    page.locator(".nd-mount[data-failed]").wait_for()
    assert "the networks learn in workers" in page.locator(".nd-problem").inner_text()
    still = page.locator(".nd-mount svg.figure:visible")
    assert live_race.finding() in still.get_attribute("aria-label")


def test_live_race_goes_on_without_a_network_that_fails(calm):
    calm.evaluate(f"() => void ({ARMS}[1].worker.run = () => Promise.reject(new Error('out of memory')))")
    press(calm, "Restart")
    reaches(calm, 10)
    press(calm, "Pause")
    settled(calm)
    assert calm.locator(".nd-problem").inner_text() == "BN stopped: out of memory. The others go on."
    assert records(calm)[0][-1][0] >= 10 and records(calm)[2][-1][0] >= 10


def test_live_race_draws_results_alone_where_no_motion_is_wanted(calm):
    assert [len(run) for run in records(calm)] == [1, 1, 1]
    assert "Press Play" in readout(calm)
    press(calm, "Play")
    reaches(calm, 20)
    press(calm, "Pause")
    assert [r[0] for r in records(calm)[0]][:3] == [0, 10, 20]


SHARE = """() => {
    const { top, bottom, height } = document.querySelector(".nd-live-race .nd-picture").getBoundingClientRect();
    const header = document.querySelector(".bd-header-article").getBoundingClientRect().bottom;
    return (Math.min(innerHeight, bottom) - Math.max(header, top)) / height;
}"""


def test_live_race_stays_in_view_on_a_telephone(phone):
    page = phone("live-race", reduced_motion="reduce")
    page.set_viewport_size({"width": 360, "height": 640})
    for button in page.locator(".nd-live-race .nd-presets button").all():
        button.scroll_into_view_if_needed()
        button.tap()
        assert page.evaluate(SHARE) > 0.6, button.inner_text()
    for slider in page.locator(".nd-live-race .nd-slider input").all():
        slider.scroll_into_view_if_needed()
        assert page.evaluate(SHARE) > 0.6
    sizes = """w => [...w.querySelectorAll("*")]
        .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
        .map((e) => parseFloat(getComputedStyle(e).fontSize))"""
    assert min(page.locator(".nd-live-race").evaluate(sizes)) >= 11


def test_live_race_fits_the_window_of_a_laptop(calm):
    calm.set_viewport_size({"width": 1366, "height": 660})
    settled(calm)
    place = "s => { const r = document.querySelector(s).getBoundingClientRect(); return [r.top, r.bottom]; }"
    (top, _), (_, bottom) = (calm.evaluate(place, f".nd-live-race .nd-{part}") for part in ("picture", "controls"))
    header = calm.evaluate("document.querySelector('.bd-header-article').getBoundingClientRect().height")
    assert bottom - top <= 660 - header


def test_the_study_below_the_race_is_the_one_in_the_file(calm):
    lines = files.path("live-race.jsonl").read_text().splitlines()
    reported = [r for r in map(json.loads, lines) if r["phase"] == "reported"]
    mean = lambda arm, step: np.mean(  # noqa: E731
        [r["held_out"][r["steps"].index(step)] for r in reported if r["arm"] == arm]
    )
    text = calm.locator(".nd-study p").first.inner_text()
    for name, arm in (("ND", "ND as published"), ("BN", "BN"), ("plain", "plain")):
        assert len(re.findall(rf"{name}(?: has)? {mean(arm, 10):.1f} %", text)) == 1
        assert len(re.findall(rf"{name}(?: has)? {mean(arm, 100):.1f} %", text)) == 1
    ahead = [step for step in race_study.STEPS if mean("ND as published", step) > mean("BN", step)]
    assert f"ND is ahead up to step {ahead[-1]}," in text and ahead == race_study.STEPS[: len(ahead)]
    rows = calm.locator(".nd-study tr").all_inner_texts()
    columns = [int(step) for step in rows[0].split("\t")[1:]]
    for arm, row in zip(race_study.ARMS, rows[1:], strict=True):
        name, *values = row.split("\t")
        assert name.startswith(f"{arm}, rate ")
        assert [float(v) for v in values] == pytest.approx([mean(arm, s) for s in columns], abs=0.051)
