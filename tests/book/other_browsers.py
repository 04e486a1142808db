"""Whether the widgets of a built book say in Firefox and in WebKit what they say in Chromium, step by step.

    pip install selenium marionette-driver      # beside Debian's firefox-esr, webkit2gtk-driver and xvfb
    xvfb-run python tests/book/other_browsers.py [FOLDER]

Each preset of each widget is pressed, a picture is given to those that take one, and the readouts are compared. Run
every week, by .github/workflows/weekly.yml.
"""

import argparse
import functools
import http.server
import itertools
import re
import sys
import threading
import time
from pathlib import Path

import chromium
from playwright.sync_api import sync_playwright

MINI_BROWSER = "/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser"
# Of a ResizeObserver that was not done in one frame browsers speak as of an error.
WATCH = """window.faults ??= (
    addEventListener("error", ({ message }) => message.includes("ResizeObserver") || faults.push(message)),
    addEventListener("unhandledrejection", (e) => faults.push(String(e.reason))), []);"""
SHOW = """document.querySelectorAll(".nd-mount")[%d].scrollIntoView();"""
READY = """return document.querySelectorAll(".nd-mount")[%d].matches("[data-ready], [data-failed]");"""
PRESETS = """return [...document.querySelectorAll(".nd-mount")[%d].querySelectorAll(".nd-presets button")]
    .map((b) => b.textContent).filter((t) => !/Camera|Draw|Save|Play|Pause|Step|Restart|rate/.test(t));"""
PRESS = """[...document.querySelectorAll(".nd-mount")[%d].querySelectorAll(".nd-presets button")]
    .find((b) => b.textContent === %r).click();"""
READOUT = """return document.querySelectorAll(".nd-mount")[%d].querySelector(".nd-readout")?.textContent ?? "failed";"""
# Noise of 600 x 400 pixels, made alike everywhere, as a file that a reader chose.
GIVE = """const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: 600, height: 400 });
    const image = new ImageData(600, 400);
    for (let i = 0, seed = 1; i < image.data.length; i++) {
        seed = (16807 * seed) %% 2147483647;
        image.data[i] = i %% 4 === 3 ? 255 : (seed & 127) + (Math.floor(i / 9600) & 1) * 120;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    canvas.toBlob((blob) => {
        const chosen = new DataTransfer();
        chosen.items.add(new File([blob], "noise.png", { type: "image/png" }));
        const input = document.querySelectorAll(".nd-mount")[%d].querySelector("input[type=file]");
        input.files = chosen.files;
        input.dispatchEvent(new Event("change"));
    });"""


class Chromium:
    def __init__(self):
        self.playwright = sync_playwright().start()
        flags = ["--no-sandbox", "--disable-gpu"]
        self.browser = self.playwright.chromium.launch(executable_path=chromium.system_browser(), args=flags)
        self.page = self.browser.new_page(viewport={"width": 1280, "height": 900})
        self.open = self.page.goto

    def run(self, script):
        return self.page.evaluate(f"() => {{ {script} }}")

    def close(self):
        self.browser.close()
        self.playwright.stop()


class Firefox:
    def __init__(self):
        from marionette_driver.marionette import Marionette

        self.driver = Marionette(bin="/usr/bin/firefox-esr", headless=True, gecko_log="-")
        self.driver.start_session()
        self.open = self.driver.navigate
        self.run = functools.partial(self.driver.execute_script, sandbox=None, new_sandbox=False)

    def close(self):
        self.driver.quit()


class WebKit:
    def __init__(self):
        from selenium import webdriver

        options = webdriver.WebKitGTKOptions()
        options.binary_location = MINI_BROWSER
        options.add_argument("--automation")
        service = webdriver.webkitgtk.service.Service("/usr/bin/WebKitWebDriver")
        self.driver = webdriver.WebKitGTK(options=options, service=service)
        self.open, self.run, self.close = self.driver.get, self.driver.execute_script, self.driver.quit


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def settled(browser, number, seconds=0.4):
    """The readout when it has not changed for a while."""
    said = None
    while True:
        time.sleep(seconds)
        now = browser.run(READOUT % number)
        if now == said:
            return now
        said = now


def steps(browser, address, number):
    """What the widget says at first, after each preset, and with a picture: pairs of step and readout."""
    browser.open(address)
    browser.run(WATCH)
    browser.run(SHOW % number)
    while not browser.run(READY % number):
        time.sleep(0.2)
    yield "at first", settled(browser, number)
    for text in browser.run(PRESETS % number):
        browser.run(PRESS % (number, text))
        yield text, settled(browser, number)
    if browser.run(READOUT % number) != "failed" and "nd-file" in browser.run("return document.body.innerHTML;"):
        before = browser.run(READOUT % number)
        browser.run(GIVE % number)
        patience = time.monotonic() + 30
        while browser.run(READOUT % number) == before and time.monotonic() < patience:
            time.sleep(0.2)
        yield "a picture", settled(browser, number)
    faults = browser.run("return window.faults;")
    yield "faults", " ".join(faults)


def pages_with_widgets(folder):
    for file in sorted(folder.rglob("*.html")):
        for number, name in enumerate(re.findall(r'data-widget="([\w-]+)"', file.read_text())):
            if name != "live-race":  # its readout depends on the speed
                yield file, number, name


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parents[2] / "_build" / "html")
    parser.add_argument("--browsers", nargs="+", default=["Firefox", "WebKit"])
    args = parser.parse_args()
    handler = functools.partial(Quiet, directory=str(args.folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = {}
    for kind in ["Chromium", *args.browsers]:
        browser = globals()[kind]()
        found[kind] = {}
        for file, number, name in pages_with_widgets(args.folder):
            address = f"http://127.0.0.1:{server.server_port}/{file.relative_to(args.folder)}"
            for step, said in steps(browser, address, number):
                found[kind][file.stem, name, step] = said
        browser.close()
    alike = True
    for kind in args.browsers:
        pairs = [(key, said, found[kind].get(key)) for key, said in found["Chromium"].items()]
        other = [pair for pair in pairs if pair[1] != pair[2]]
        print(f"{kind}: {len(pairs) - len(other)} of {len(pairs)} steps as in Chromium")
        for key, ours, theirs in itertools.islice(other, 20):
            print(f"  {' / '.join(key)}\n    Chromium: {ours}\n    {kind}: {theirs}")
        alike = alike and not other
    return 0 if alike else 1


if __name__ == "__main__":
    sys.exit(main())
