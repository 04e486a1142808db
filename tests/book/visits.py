"""Visits to pages. A test waits until a page is at rest, never for a time: on a busy machine none is enough."""

import pytest
from contents import PAGES

PATIENCE = 120_000  # milliseconds; only what never comes takes as long

# Counts what a page has under way, and adds up how far it moved by itself.
WATCH = """
(() => {
    const { requestAnimationFrame: ask, cancelAnimationFrame: cancel, createImageBitmap: decode } = window;
    const frames = new Set();
    const workers = new Set();
    let pictures = 0;
    window.requestAnimationFrame = (callback) => {
        const id = ask((time) => (frames.delete(id), callback(time)));
        frames.add(id);
        return id;
    };
    window.cancelAnimationFrame = (id) => (frames.delete(id), cancel(id));
    window.createImageBitmap = (...values) => (pictures++, decode(...values).finally(() => pictures--));
    window.Worker = class extends Worker {
        awaited = 0;
        constructor(...values) {
            super(...values);
            workers.add(this);
            this.addEventListener("message", () => this.awaited--);
            this.addEventListener("error", () => (this.awaited = 0));
        }
        postMessage(...values) {
            this.awaited++;
            super.postMessage(...values);
        }
    };
    const moves = (a) => a.playState === "running" && a.effect.getComputedTiming().endTime < Infinity;
    const underWay = () => ({
        frames: frames.size,
        answers: [...workers].reduce((sum, worker) => sum + worker.awaited, pictures),
        movements: document.getAnimations().filter(moves).length,
    });

    // Three frames with nothing under way: what observes places and sizes is called after the first.
    window.atRest = async (patience) => {
        const end = Date.now() + patience;
        await window.MathJax?.startup?.promise;
        await document.fonts.ready;
        for (let quiet = 0; quiet < 3; ) {
            await new Promise((next) => ask(() => setTimeout(next)));
            const found = underWay();
            quiet = Object.values(found).some(Boolean) ? 0 : quiet + 1;
            if (Date.now() > end) throw new Error(`the page does not come to rest: ${JSON.stringify(found)}`);
        }
    };

    let shift = 0;
    const add = (entries) => entries.forEach((entry) => (shift += entry.hadRecentInput ? 0 : entry.value));
    const observer = new PerformanceObserver((list) => add(list.getEntries()));
    observer.observe({ type: "layout-shift", buffered: true });
    window.shifted = () => (add(observer.takeRecords()), shift);
})();
"""


def watched(browser, **options):
    """A context whose pages can be waited for, with a cache and a memory of its own."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE)
    context.add_init_script(WATCH)
    return context


def settled(page):
    """Waits until formulas and fonts are there, and nothing is drawn, computed or moved any more."""
    page.evaluate("patience => atRest(patience)", PATIENCE)


class Visit:
    """A page that was opened, what it loaded, and what went wrong."""

    def __init__(self, context, url, own):
        self.problems, self.loaded = [], set()
        self.own = own
        self.page = context.new_page()
        self.page.on("pageerror", lambda error: self.problems.append(f"script error: {error}"))
        self.page.on("console", lambda m: m.type in ("error", "warning") and self.problems.append(m.text))
        self.page.on("request", lambda request: self._request(request.url))
        self.page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url}"))
        self.page.on("response", lambda r: r.status >= 400 and self.problems.append(f"{r.status}: {r.url}"))
        self.page.goto(url)
        settled(self.page)

    def _request(self, url):
        if url.startswith(self.own):
            self.loaded.add(url)
        elif not url.startswith(("data:", "blob:")):
            self.problems.append(f"other host: {url}")


class SharedVisit(Visit):
    """A visit that serves all checks of a page at a width: each says in which theme it wants to see the page."""

    def __init__(self, context, name, own, width):
        super().__init__(context, f"{own}/{name}.html", own)
        self.name, self.width = name, width
        self.first_loaded, self.first_shift = sorted(self.loaded), self.page.evaluate("shifted()")
        self.shown = ("light", FIRST_WIDTH[width])
        if FIRST_THEME[width] == "dark":  # not only changed to, but loaded in
            self.page.emulate_media(color_scheme="dark")
            self.page.reload()
            settled(self.page)
        self.show(FIRST_THEME[width])

    def show(self, theme, width=None):
        """The page in a theme, at the width of the visit if at no other, and at rest."""
        wanted = (theme, width or self.width)
        if wanted != self.shown:
            self.page.set_viewport_size({"width": wanted[1], "height": 900})
            self.page.emulate_media(color_scheme=theme)
            self.page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme)
            settled(self.page)
            self.shown = wanted
        return self.page


# A wide page is loaded in the narrowest window where the theme shows all of its columns, and then widened.
FIRST_WIDTH = {1280: 1200, 360: 360}
FIRST_THEME = {1280: "light", 360: "dark"}


def visits(*widths, pages=PAGES):
    """A check of these pages at these widths, made with the fixture ``visited``."""
    cases = [pytest.param((name, width), id=f"{name}-{width}") for name in pages for width in widths]
    return pytest.mark.parametrize("shared_visit", cases, indirect=True)


def themes(*names):
    return pytest.mark.parametrize("theme", names)
