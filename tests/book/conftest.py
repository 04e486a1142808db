"""The built book on a local server, and a browser that reaches nothing else."""

import functools
import http.server
import threading

import chromium
import pytest
from contents import HTML
from playwright.sync_api import sync_playwright


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def address():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(HTML))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        flags = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        flags += " --disable-component-update --disable-sync"
        running = playwright.chromium.launch(executable_path=chromium.system_browser(), args=flags.split())
        yield running
        running.close()


class Visit:
    """A page opened with every request to another host refused, and what went wrong while it loaded."""

    def __init__(self, context, url, own):
        self.problems = []
        self.page = context.new_page()
        self.page.on("pageerror", lambda error: self.problems.append(f"script error: {error}"))
        self.page.on("console", lambda m: m.type in ("error", "warning") and self.problems.append(m.text))
        self.page.on("requestfailed", lambda r: self.problems.append(f"failed: {r.url}"))
        self.page.on("response", lambda r: r.status >= 400 and self.problems.append(f"{r.status}: {r.url}"))
        context.route(
            lambda address: not address.startswith((own, "data:", "blob:")),
            lambda route: (self.problems.append(f"other host: {route.request.url}"), route.abort()),
        )
        self.page.goto(url, wait_until="load")
        self.page.evaluate("() => window.MathJax?.startup?.promise")
        self.page.wait_for_timeout(200)


@pytest.fixture
def visit(browser):
    contexts = []

    def open_page(url, own, *, width=1280, theme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        contexts.append(context)
        return Visit(context, url, own)

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def telephone(browser):
    """Opens an address on a telephone, where it is touched."""
    contexts = []

    def start(address, **options):
        device = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
        contexts.append(browser.new_context(**device, **options))
        page = contexts[-1].new_page()
        page.goto(address)
        return page

    yield start
    for context in contexts:
        context.close()
