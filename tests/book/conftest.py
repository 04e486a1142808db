"""The built book on a local server, a browser that reaches nothing else, and visits to its pages."""

import contextlib
import functools
import http.server
import re
import threading

import chromium
import pytest
from contents import EVERY_PAGE, HTML
from playwright.sync_api import sync_playwright
from visits import FIRST_THEME, FIRST_WIDTH, SharedVisit, Visit, settled, watched
from xdist.scheduler import LoadScopeScheduling


class ByPage(LoadScopeScheduling):
    """All checks of a page are made by one process, which reads it once and visits it once at each width.

    Those with the book of widgets, which takes a while to build, are made by one too. Others go anywhere. Groups by
    xdist's marks would not do: with pytest 9.2 they have no effect.
    """

    def _split_scope(self, nodeid):
        if page := re.search(rf"\[(?:{'|'.join(EVERY_PAGE)})\b", nodeid):
            return page.group()
        return "widgets" if "tests/book/widgets/" in nodeid else nodeid


def pytest_xdist_make_scheduler(config, log):
    return ByPage(config, log)


def pytest_collection_modifyitems(items):
    """The checks of a page follow each other, and those of a visit.

    Those come first that see the page as it was loaded, and last those for which its widgets are started.
    """

    def place(item):
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        name, width = parameters.get("shared_visit") or (parameters.get("name"), 0)
        if name not in EVERY_PAGE:
            return (-1,)
        changed = parameters.get("theme", FIRST_THEME.get(width)) != FIRST_THEME.get(width)
        return EVERY_PAGE.index(name), width, "with_widgets" in item.fixturenames, changed

    items.sort(key=place)


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
        flags += " --disable-component-update --disable-sync --use-fake-device-for-media-stream"
        # Not by a route of Playwright, which would switch off the browser's cache and ask this process for each file.
        here_only = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        running = playwright.chromium.launch(
            executable_path=chromium.system_browser(), args=[*flags.split(), here_only]
        )
        yield running
        running.close()


@pytest.fixture
def new_context(browser):
    """Opens contexts, each with a cache and a memory of its own, which are closed after the test."""
    with contextlib.ExitStack() as opened:
        yield lambda **options: opened.enter_context(watched(browser, **options))


@pytest.fixture
def visit(new_context):
    """Opens a page for one test alone."""

    def open_page(url, own, *, width=1280, theme="light", **options):
        window = {"width": width, "height": 900}
        return Visit(new_context(viewport=window, color_scheme=theme, **options), url, own)

    return open_page


@pytest.fixture(scope="session")
def shared_visit(browser, address, request):
    name, width = request.param
    with watched(browser, viewport={"width": FIRST_WIDTH[width], "height": 900}) as context:
        yield SharedVisit(context, name, address, width)


@pytest.fixture
def visited(shared_visit):
    """The visit that this check shares with others. What goes wrong meanwhile, or while it begins, is told with it."""
    yield shared_visit
    problems, shared_visit.problems = shared_visit.problems, []
    assert problems == []


@pytest.fixture(scope="session")
def with_widgets(shared_visit):
    """Has all widgets of the visited page started: each starts when it comes into view."""
    page = shared_visit.page
    for mount in page.locator(".nd-mount").all():
        mount.scroll_into_view_if_needed()
        page.wait_for_function("m => m.matches('[data-ready], [data-failed]')", arg=mount.element_handle())
    page.evaluate("scrollTo({ top: 0, behavior: 'instant' })")
    settled(page)


@pytest.fixture
def telephone(new_context):
    """Opens an address on a telephone, where it is touched."""

    def start(address, **options):
        device = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
        page = new_context(**device, **options).new_page()
        page.goto(address)
        settled(page)
        return page

    return start
