"""Which widgets there are, when each has drawn, and what a reader does with them."""

import numpy as np
from PIL import Image
from visits import settled

from ndlib.bookwork.widgets import (
    BlurLab,
    Descent,
    EvidenceExplorer,
    KernelExplorer,
    LiveRace,
    NewtonSchulz,
    PatchMatrix,
    Pipeline,
    PixelPairs,
)

WIDGETS = {
    "newton-schulz": NewtonSchulz,
    "kernel-explorer": KernelExplorer,
    "pixel-pairs": PixelPairs,
    "patch-matrix": PatchMatrix,
    "blur-lab": BlurLab,
    "descent": Descent,
    "evidence-explorer": EvidenceExplorer,
    "live-race": LiveRace,
    "pipeline": Pipeline,
}
BUDGET = 300_000  # bytes of a page's own, compressed

DRAWN = {
    "newton-schulz": "document.querySelector('.nd-newton-schulz')?.gains?.length > 0",
    "kernel-explorer": "document.querySelector('.nd-kernel-explorer')?.milliseconds > 0"
    " && document.querySelector('.nd-compare canvas').width !== 300",  # 300: a canvas that nothing was drawn on
    "pixel-pairs": "document.querySelector('.nd-pixel-pairs')?.milliseconds > 0",
    "patch-matrix": "document.querySelector('.nd-patch-matrix')?.milliseconds > 0",
    "blur-lab": "document.querySelector('.nd-blur-lab')?.milliseconds > 0",
    "descent": "document.querySelector('.nd-descent')?.milliseconds > 0",
    "evidence-explorer": "document.querySelector('.nd-evidence-explorer')?.points?.length > 0",
    "pipeline": "document.querySelector('.nd-pipeline')?.milliseconds > 0",
    "live-race": "document.querySelector('.nd-live-race')?.arms.every((arm) => arm.records.length > 0)"
    " && document.querySelector('.nd-digits canvas').width === 28",
}


def wait(page, name):
    page.locator(f'[data-widget="{name}"]').scroll_into_view_if_needed()
    page.wait_for_function(DRAWN[name])
    settled(page)


def set_traits(page, name, **traits):
    script = "([name, traits]) => { const { model } = document.querySelector(`[data-widget='${name}']`);"
    page.evaluate(script + "for (const trait in traits) model.set(trait, traits[trait]); }", [name, traits])


def readout(page):
    settled(page)
    return page.locator(".nd-readout").inner_text()


def drag(page, selector, start, end):
    box = page.locator(selector).bounding_box()
    for step, (x, y) in enumerate((start, end)):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        if step == 0:
            page.mouse.down()
    page.mouse.up()


def swipe(page, start, end, steps=10):
    """A finger from one place of the window to another, which the browser takes for scrolling where it may."""
    session = page.context.new_cdp_session(page)

    def send(kind, *points):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})

    send("touchStart", start)
    for step in range(1, steps + 1):
        send("touchMove", tuple(a + (b - a) * step / steps for a, b in zip(start, end, strict=True)))
        page.evaluate("() => new Promise(requestAnimationFrame)")
    send("touchEnd")
    # A page that was pushed rolls on, until ten frames have found it at one place.
    page.evaluate("""async () => {
        let place = scrollY;
        for (let frames = 0; frames < 10; frames++) {
            await new Promise(requestAnimationFrame);
            if (scrollY !== place) frames = 0;
            place = scrollY;
        }
    }""")
    settled(page)


def picture_files(folder):
    gradient = np.linspace(0, 255, 90 * 70).reshape(70, 90).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 4), np.uint8)
    pictures = {
        "grey.png": (Image.fromarray(gradient), "It is grey"),
        "transparent.png": (Image.fromarray(noise), "transparent parts lie on white"),
        "constant.png": (Image.new("RGB", (90, 70), "teal"), "one colour only"),
        "tiny.png": (Image.new("RGB", (20, 70), "teal"), "too few"),
        "huge.jpg": (Image.effect_noise((8000, 6250), 60), "from 50 megapixels to"),
    }
    for name, (picture, message) in pictures.items():
        picture.save(folder / name)
        yield name, message
    (folder / "text.txt").write_text("no picture")
    yield "text.txt", "is not a picture"
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    yield "broken.png", "cannot be read"
