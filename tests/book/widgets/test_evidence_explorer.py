import re

import pytest
from mounts import readout, set_traits, settled

from ndlib.bookwork.widgets import EvidenceExplorer
from ndlib.evidence import published
from ndlib.evidence.published import JIANG, OBADAGE, PAPER, RECOVERED, SBANDATI

RECORDS = published.all_results()
PAPERS = {r.cell: r.accuracy for r in RECORDS if r.source == PAPER}


def place(**conditions):
    """Index of the one record of these conditions."""
    (record,) = published.select_results(**conditions)
    return RECORDS.index(record)


def drawn(page):
    settled(page)
    return page.locator(".nd-evidence-explorer").evaluate("w => w.points")


def about(page):
    """The sentence about the number that is picked, and what unfolds below it."""
    settled(page)
    return page.locator(".nd-about").text_content()


def unfolded(page):
    page.locator(".nd-which summary").click()
    return page


def test_evidence_draws_the_records(started):
    page = unfolded(started("evidence-explorer").page)
    python = EvidenceExplorer()
    for traits in (
        {},
        {"dataset": "CIFAR-10", "epochs": 100},
        {"only_test": True},
        {"dataset": "CIFAR-100", "epochs": 20, "recovered": True},
        {"sources": [OBADAGE, PAPER], "epochs": 1, "only_test": False},
        {"view": "gain"},
        {"view": "difference"},
        {"only_test": True, "recovered": True, "epochs": 20},
        {"sources": [SBANDATI]},
        {"sources": [JIANG]},
        {"sources": []},
    ):
        set_traits(page, "evidence-explorer", **traits)
        for trait, value in traits.items():
            setattr(python, trait, value)
        points = drawn(page)
        if python.view == "accuracy":
            assert [RECORDS[p["index"]] for p in points] == python.shown
            wanted = [r.accuracy for r in python.shown]
        elif python.view == "difference":
            assert [RECORDS[p["index"]] for p in points] == python.shown
            wanted = [r.accuracy - PAPERS[r.cell] for r in python.shown]
            halves = {d.result: d.half for d in published.differences(python.shown)}
            assert [p["half"] for p in points] == [
                pytest.approx(halves[r]) if r in halves else None for r in python.shown
            ]
            assert page.locator(".nd-dots .nd-interval").count() == len(halves)
        else:
            pairs = published.bn_nd_pairs(python.shown)
            assert [(RECORDS[p["partner"]], RECORDS[p["index"]]) for p in points] == pairs
            wanted = [nd.accuracy - bn.accuracy for bn, nd in pairs]
        assert [p["value"] for p in points] == pytest.approx(wanted, abs=1e-9)
        assert [p["suspicious"] for p in points] == [RECORDS[p["index"]].suspicious for p in points]
        assert page.locator(".nd-dots g").count() == len(points)
        assert page.locator(".nd-dots .nd-cross").count() == sum(p["suspicious"] for p in points)
        # Equal steps of the value are equal steps on the page, within the picture.
        if points:
            least, most = min(points, key=lambda p: p["value"]), max(points, key=lambda p: p["value"])
            slope = (most["left"] - least["left"]) / (most["value"] - least["value"])
            for p in points:
                assert p["left"] == pytest.approx(least["left"] + slope * (p["value"] - least["value"]), abs=0.01)
            assert slope > 0 and least["left"] > 100
        for source, (agree, total) in python.agreement.items() if python.view == "difference" else ():
            assert f"the paper's value lies within the interval in {agree} of {total} cells" in readout(page), source
        for source, total, ahead, gain in python.leads if python.view != "difference" else ():
            names = {
                PAPER: "paper",
                SBANDATI: "2021 reproduction by Sbandati",
                JIANG: "2021 reproduction by Jiang",
                OBADAGE: "the 2024",
                RECOVERED: "logs of the 2024",
            }
            # What is counted and what it is measured in are said with the first.
            said = readout(page).replace(" architectures", "").replace(" points on average", "")
            assert re.search(f"in {ahead} of {total} in .*{names[source]}.*, by {gain:.1f}", said)
    assert "Nothing is left to show" in readout(page)


def test_evidence_explains_what_is_picked(started):
    page = unfolded(started("evidence-explorer").page)
    assert "VGG-16, the 2024 reproduction: ND 88.43 %" in about(page) and "test 71.98" in about(page)
    for words, conditions in {
        "value and time of ResNext-29 BN, run 3": ("CIFAR-100", 20, "ResNet-18", "ND"),
        "not the mean of the three runs, 94.80": ("CIFAR-10", 100, "MobileNet v2", "BN"),
        "Test accuracy: all 60 unrounded values": ("CIFAR-10", 1, "VGG-16", "BN"),
    }.items():
        dataset, epochs, architecture, method = conditions
        cell = {"dataset": dataset, "epochs": epochs, "architecture": architecture, "method": method}
        picked = place(source=OBADAGE, **cell)
        set_traits(page, "evidence-explorer", dataset=dataset, epochs=epochs, picked=picked)
        assert words in about(page) and "table1_rep_obadage2024_averages.csv" in about(page)
        assert page.locator(".nd-ring").count() == 1
    set_traits(page, "evidence-explorer", view="gain")
    (bn, nd), *_ = published.bn_nd_pairs(published.select_results(source=OBADAGE, dataset="CIFAR-10", epochs=1))
    assert f"+{nd.accuracy - bn.accuracy:.2f} points" in about(page) and page.locator(".nd-ring").count() == 1
    set_traits(page, "evidence-explorer", epochs=20)  # where the picked one is not
    assert "Point at a dot" in about(page) and page.locator(".nd-ring").count() == 0


def test_evidence_presets_and_controls(started):
    page = unfolded(started("evidence-explorer").page)
    first = readout(page), about(page)
    for name, words in (
        ("Only test accuracies", "Left out: the values of the 2024 reproduction (training accuracies)"),
        ("As published", "by 11.3 (training accuracies)"),
        ("CIFAR-100 after 20 epochs, corrected", "10 of 10 in the logs of the 2024 reproduction, by 7.0"),
        ("Where ND loses", "in 7 of 10 in the 2024 reproduction"),
    ):
        page.get_by_role("button", name=name).click()
        assert words in readout(page)
    page.get_by_label("CIFAR-10", exact=True).check(force=True)
    page.get_by_label("1", exact=True).check(force=True)
    assert page.get_by_label("test means from the logs").is_disabled()
    page.get_by_label("only test accuracies").check()
    assert "the 2021 reproduction by Sbandati (it does not say what they are)" in readout(page)
    page.get_by_label("paper", exact=True).uncheck()
    assert "paper" not in readout(page)
    assert {RECORDS[p["index"]].source for p in drawn(page)} == {OBADAGE}
    page.get_by_role("button", name="Reset").click()
    assert (readout(page), about(page)) == first
    assert page.get_by_label("paper", exact=True).is_checked()


def test_evidence_beside_the_paper(started):
    page = unfolded(started("evidence-explorer").page)
    page.get_by_role("button", name="Beside the paper, corrected").click()
    assert "In the 2021 reproduction by Sbandati the paper's value lies within" in readout(page)
    assert "in the logs of the 2024 reproduction the paper's value lies within" in readout(page)
    assert page.locator(".nd-legend").inner_text().count("interval") == 1
    cell = {"dataset": "CIFAR-100", "epochs": 20, "architecture": "PNASNetA"}
    set_traits(page, "evidence-explorer", picked=place(source=RECOVERED, method="BN", **cell))
    (d,) = published.differences(published.select_results(source=RECOVERED, method="BN", **cell))
    said = about(page).replace("\u2212", "-")
    assert f"PNASNetA, the logs of the 2024 reproduction: BN {d.value:+.2f} points" in said
    assert f"beside {d.paper.accuracy:.2f} % in the paper" in said
    assert f"95 % interval is {d.value - d.half:+.2f} to {d.value + d.half:+.2f}, from 3 runs" in said
    set_traits(
        page, "evidence-explorer", picked=place(source=SBANDATI, method="BN", **cell | {"architecture": "VGG-16"})
    )
    assert "with one run it is too short" in about(page)
    reach = "svg => [...svg.querySelectorAll('.nd-interval')].map((p) => p.getBBox()).map((b) => [b.x, b.x + b.width])"
    for left, right in page.locator(".nd-dots > svg").evaluate(reach):
        assert left >= 0 and right <= page.locator(".nd-dots > svg").bounding_box()["width"]
    page.get_by_label("test means from the logs").uncheck()
    page.get_by_label("only test accuracies").uncheck()
    set_traits(page, "evidence-explorer", picked=place(source=OBADAGE, method="ND", **cell))
    assert "no interval, as it is not known to be a test accuracy" in about(page)
    for source in (SBANDATI, JIANG):
        page.get_by_label(source, exact=True).uncheck()
    assert "None of the values shown is known to be a test accuracy" in readout(page)


def test_evidence_of_training_times(started):
    page = unfolded(started("evidence-explorer").page)
    page.get_by_role("button", name="What ND costs").click()
    assert "training takes 1.0 to 4.5 times as long with ND as with BN" in readout(page)
    times = EvidenceExplorer(dataset="CIFAR-10", epochs=100).times
    points = drawn(page)
    assert [RECORDS[p["index"]].architecture for p in points] == list(times)
    assert [p["value"] for p in points] == pytest.approx(list(times.values()), rel=1e-12)
    assert page.locator(".nd-cross").count() == 0  # training accuracies have good times
    zero = page.locator("path.nd-zero").bounding_box()["x"]
    efficient = points[list(times).index("EfficientNet")]
    left = page.locator(".nd-dots > svg").bounding_box()["x"] + efficient["left"]
    assert abs(left - zero) < 4  # its ratio is 1.02
    cell = {"dataset": "CIFAR-10", "epochs": 100, "architecture": "VGG-16", "method": "ND"}
    set_traits(page, "evidence-explorer", picked=place(source=OBADAGE, **cell))
    assert f"{times['VGG-16']:.2f} times as long" in about(page)
    seconds = [f"{a.train_seconds:.0f}" for a in RECORDS[place(source=OBADAGE, **cell)].attempts]
    assert f"Training took {', '.join(seconds)} seconds with ND" in about(page)
    page.get_by_label(OBADAGE, exact=True).uncheck()
    assert "Only the 2024 reproduction gives the times" in readout(page)
    page.get_by_label(OBADAGE, exact=True).check()
    set_traits(page, "evidence-explorer", only_test=True)
    assert len(drawn(page)) == 10


def test_evidence_offers_what_the_view_has(started):
    page = unfolded(started("evidence-explorer").page)
    boxes = ("paper", SBANDATI, JIANG, OBADAGE, "only test accuracies", "test means from the logs")
    for view, dead in (
        ("accuracy", ()),
        ("gain", ()),
        ("difference", ("paper",)),
        ("time", ("paper", SBANDATI, JIANG, "only test accuracies", "test means from the logs")),
    ):
        set_traits(page, "evidence-explorer", view=view)
        settled(page)
        for name in boxes:
            box = page.get_by_label(name, exact=True)
            assert box.is_disabled() == (name in dead), (view, name)
            assert bool(box.locator("xpath=..").get_attribute("title")) == (name in dead)
    assert "pays least" in page.locator(".nd-try").inner_text()
    set_traits(page, "evidence-explorer", view="accuracy")
    settled(page)
    assert "far to the right" in page.locator(".nd-try").inner_text()


CROSSED = """svg => {
    const names = [...svg.querySelectorAll(".nd-label")].slice(0, 10).map(e => e.getBoundingClientRect());
    const found = [];
    for (const line of svg.querySelectorAll(".nd-zero, .nd-grid")) {
        const x = line.getBoundingClientRect().left;
        for (const [, top, bottom] of line.getAttribute("d").matchAll(/ ([\\d.]+)V([\\d.]+)/g)) {
            const [a, b] = [top, bottom].map((y) => svg.getBoundingClientRect().top + Number(y));
            for (const { left, right, top: t, bottom: e } of names)
                if (left < x && x < right && t + 2 < b && a < e - 4) found.push([x, a, b]);
        }
    }
    return found;
}"""


@pytest.mark.parametrize("view", ["accuracy", "gain", "difference", "time"])
def test_evidence_keeps_lines_off_the_names_and_the_legend_whole(phone, view):
    page = unfolded(phone("evidence-explorer"))
    set_traits(page, "evidence-explorer", view=view)
    settled(page)
    assert page.locator(".nd-dots > svg").evaluate(CROSSED) == []
    edge = page.locator(".nd-legend").evaluate("e => e.getBoundingClientRect().right")
    parts = page.locator(".nd-legend *").evaluate_all("all => all.map(e => e.getBoundingClientRect().right)")
    assert max(parts) <= edge + 1


def note_is_at(page, index):
    """The note is shown, says what is picked, and lies near its dot, within the picture."""
    settled(page)
    note = page.locator(".nd-note")
    assert note.is_visible()
    assert page.locator(".nd-about strong").inner_text() == note.locator("strong").inner_text()
    x, y = spot(page, index)
    box, frame = note.bounding_box(), page.locator(".nd-dots > svg").bounding_box()
    assert frame["x"] - 1 <= box["x"] and box["x"] + box["width"] <= frame["x"] + frame["width"] + 1
    assert frame["y"] - 1 <= box["y"] and box["y"] + box["height"] <= frame["y"] + frame["height"] + 1
    assert box["x"] - 1 <= x <= box["x"] + box["width"] + 1
    assert 8 < max(box["y"] - y, y - box["y"] - box["height"]) < 30


@pytest.mark.parametrize("view", ["accuracy", "gain", "difference", "time"])
def test_evidence_says_at_the_dot_what_it_is(phone, view):
    page = unfolded(phone("evidence-explorer"))
    set_traits(page, "evidence-explorer", view=view)
    settled(page)
    assert not page.locator(".nd-note").is_visible()
    for point in (drawn(page)[0], drawn(page)[len(drawn(page)) // 2], drawn(page)[-1]):
        page.locator(".nd-dots > svg").tap(position={"x": point["left"], "y": point["top"]})
        settled(page)
        note_is_at(page, page.evaluate("document.querySelector('.nd-mount').model.get('picked')"))
    page.locator(".nd-readout").tap()
    assert not page.locator(".nd-note").is_visible()


def test_evidence_note_by_mouse_and_keyboard(started):
    page = unfolded(started("evidence-explorer").page)
    page.locator(".nd-dots").scroll_into_view_if_needed()
    index = place(source=PAPER, method="ND", dataset="CIFAR-100", epochs=20, architecture="PNASNetA")
    page.mouse.move(*spot(page, index))
    note_is_at(page, index)
    page.mouse.move(2, 2)
    assert not page.locator(".nd-note").is_visible()
    page.locator(".nd-dots").focus()
    for key in ("Home", "End"):
        page.keyboard.press(key)
        settled(page)
        note_is_at(page, page.evaluate("document.querySelector('.nd-mount').model.get('picked')"))
    page.keyboard.press("Escape")
    settled(page)
    assert not page.locator(".nd-note").is_visible()


def test_evidence_by_keyboard(started):
    page = unfolded(started("evidence-explorer").page)
    dots = page.locator(".nd-dots")
    assert page.locator(".nd-picture [tabindex]").count() == 1  # not one for each dot
    dots.focus()
    for key, words in (
        ("Home", "VGG-16, the 2021 reproduction by Sbandati: BN 60.40 %"),  # the leftmost dot of the first row
        ("ArrowRight", "VGG-16, the 2021 reproduction by Jiang: BN 60.47 %"),
        ("ArrowRight", "VGG-16, the paper: BN 63.22 %"),
        ("ArrowDown", "ResNet-18, the paper: BN 72.67 %"),
        ("ArrowUp", "VGG-16, the paper: BN 63.22 %"),
        ("ArrowLeft", "VGG-16, the 2021 reproduction by Jiang: BN 60.47 %"),
        ("ArrowLeft", "VGG-16, the 2021 reproduction by Sbandati: BN 60.40 %"),
        ("ArrowLeft", "VGG-16, the 2021 reproduction by Sbandati: BN 60.40 %"),
        ("ArrowDown", "DenseNet-121, the 2021 reproduction by Sbandati: BN 75.53 %"),
        ("End", "EfficientNet, the 2024 reproduction: ND 66.83 %"),
    ):
        page.keyboard.press(key)
        assert words in about(page)
    page.get_by_label("gain ND − BN").focus()  # noqa: RUF001
    page.keyboard.press("Space")
    dots.focus()
    assert "EfficientNet, the 2024 reproduction: +4.69 points" in about(page)
    page.keyboard.press("ArrowUp")
    assert "SENet-18, the 2024 reproduction: +6.25 points" in about(page)
    page.get_by_label("only test accuracies").focus()
    page.keyboard.press("Space")
    assert "Left out" in readout(page)


def spot(page, index):
    (point,) = [p for p in drawn(page) if p["index"] == index]
    box = page.locator(".nd-dots > svg").bounding_box()
    return box["x"] + point["left"], box["y"] + point["top"]


def test_evidence_by_mouse(started):
    page = unfolded(started("evidence-explorer").page)
    page.locator(".nd-dots").scroll_into_view_if_needed()
    cell = {"dataset": "CIFAR-100", "epochs": 20, "architecture": "PNASNetA"}
    page.mouse.move(*spot(page, place(source=OBADAGE, method="BN", **cell)))
    assert "PNASNetA, the 2024 reproduction: BN 35.67 %" in about(page)
    page.mouse.move(*spot(page, place(source=PAPER, method="ND", **cell)))
    assert "PNASNetA, the paper: ND 55.65 %" in about(page)
    x, y = spot(page, place(source=PAPER, method="ND", **cell))
    page.mouse.move(x + 120, y)  # far from every dot
    assert "PNASNetA, the paper: ND 55.65 %" in about(page)


def test_evidence_by_touch(phone):
    page = unfolded(phone("evidence-explorer"))
    page.locator(".nd-dots").scroll_into_view_if_needed()
    index = place(dataset="CIFAR-100", epochs=20, source=OBADAGE, architecture="Preact-18", method="ND")
    (point,) = [p for p in drawn(page) if p["index"] == index]
    page.locator(".nd-dots > svg").tap(position={"x": point["left"] + 10, "y": point["top"] + 4})
    assert "Preact-18, the 2024 reproduction: ND 94.71 %" in about(page)
    assert all(0 < p["left"] < 330 for p in drawn(page))
    page.get_by_role("button", name="Where ND loses").tap()
    assert "7 of 10" in readout(page)
