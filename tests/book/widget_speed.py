"""How fast the widgets of a built book answer, and what they weigh, measured in a real browser.

python tests/book/widget_speed.py [FOLDER]      of pages, if not those in _build/html
"""

import gzip
import re
import statistics
import sys
from pathlib import Path

import chromium
from playwright.sync_api import sync_playwright

FIRST_PAINT = """(name) => new Promise((done) => {
  const mount = document.querySelector(`[data-widget="${name}"]`);
  const began = performance.now();
  mount.scrollIntoView();
  const look = () => {
    const root = mount.querySelector(".nd-widget");
    if (root?.milliseconds > 0) requestAnimationFrame(() => done(performance.now() - began));
    else requestAnimationFrame(look);
  };
  look();
})"""

# Sets traits, one after the other, and collects a time that the widget keeps when it has drawn.
COLLECT = """async ([name, trait, values, kept]) => {
  const mount = document.querySelector(`[data-widget="${name}"]`);
  const root = mount.querySelector(".nd-widget");
  const times = [];
  for (const value of values) {
    root[kept] = null;
    mount.model.set(trait, value);
    while (root[kept] === null) await new Promise(requestAnimationFrame);
    times.push(root[kept]);
  }
  return times;
}"""

COUNTS = """document.querySelector('[data-widget="kernel-explorer"]').model.get("counts")"""
EPS = [10 ** (-6 + i / 10) for i in range(40)]
STEPS_AND_EPS = [("another eps", "eps", EPS), ("other steps", "steps", list(range(1, 21)))]
SWEEPS = {
    "blur-lab": [
        ("another blur", "sigma", [0.5 + i / 20 for i in range(60)]),
        ("other noise", "noise", [i / 2550 for i in range(40)]),
        ("another K", "k", EPS),
        ("another photograph", "photograph", ["page", "cat", "pagoda"] * 8),
    ],
    "descent": [
        ("another correlation", "correlation", [i / 30 for i in range(-29, 30)]),
        ("another scale", "scale", [0.2 + i / 50 for i in range(40)]),
        ("another learning rate", "rate", [i / 20 for i in range(1, 44)]),
        ("another start", "w1", [i / 10 - 2 for i in range(60)]),
    ],
    "evidence-explorer": [
        ("other epochs", "epochs", [1, 100, 20] * 10),
        ("another data set", "dataset", ["CIFAR-10", "CIFAR-100"] * 10),
        ("another dot", "picked", list(range(180))),
        ("gains and accuracies", "view", ["gain", "accuracy"] * 10),
    ],
    "pixel-pairs": [
        ("another distance", "distance", [i % 17 for i in range(2, 60)]),
        ("another direction", "direction", ["down", "diagonal", "right"] * 8),
    ],
    "pipeline": [
        ("another row", "row", list(range(0, 3600, 60))),
        ("another stage", "stage", ["cov", "dw", "y", "picture"] * 8),
        ("another eps", "eps", EPS[20:]),
        ("another blur", "blur", [i / 10 for i in range(1, 21)]),
        ("another window", "k", [7, 3, 5] * 6),
    ],
    "patch-matrix": [
        ("another row", "row", [6, 7, 8] * 8),
        ("a photograph", "picture", ["photograph"]),
        ("another entry", "other", list(range(9)) * 4),
        ("another window", "k", [4, 5, 2, 3] * 8 + [5]),
        ("D, 25 x 25", "shown", ["D"]),
        ("another eps", "eps", EPS[10:]),
    ],
}


def pages_with_widgets(folder):
    for file in sorted(folder.rglob("*.html")):
        names = sorted(set(re.findall(r'data-widget="([\w-]+)"', file.read_text())))
        if names:
            yield file, names


def compressed(file):
    return len(gzip.compress(file.read_bytes())) / 1000


def report(what, times):
    best, middle, worst = min(times), statistics.median(times), max(times)
    print(f"    {what:42} best {best:6.1f}   median {middle:6.1f}   worst {worst:6.1f} ms   n = {len(times)}")


def main(folder):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.system_browser(), args=["--no-sandbox", "--disable-gpu"]
        )
        print(f"Chromium {browser.version}")
        for file, names in pages_with_widgets(folder):
            static = folder / "_static"
            scripts = [static / "widget-host.js", *(static / f"widget-{n}.{e}" for n in names for e in ("js", "css"))]
            weight = compressed(file) + sum(map(compressed, scripts))
            print(f"{file.relative_to(folder)}: {weight:.0f} kB compressed, {compressed(file):.0f} kB of it the page")
            for name in names:
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                page.goto(file.as_uri())
                print(f"  {name}: drawn {page.evaluate(FIRST_PAINT, name):.0f} ms after it was asked for")

                def collect(trait, values, kept="milliseconds", name=name, page=page):
                    return page.evaluate(COLLECT, [name, trait, values, kept])

                for what, trait, values in SWEEPS.get(name, STEPS_AND_EPS):
                    report(what, collect(trait, values))
                if name == "kernel-explorer":
                    counts = page.evaluate(COUNTS)
                    report("15 x 15 of another count, in the worker", collect("count", counts[:-1], "decomposition"))
                    collect("channel", ["red"], "milliseconds")
                    report("9 x 9 in colour, in the worker", collect("count", counts[:-2], "decomposition"))
                    report("another eps, in colour", collect("eps", EPS))
                page.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2] / "_build" / "html").resolve())
