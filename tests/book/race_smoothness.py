"""How long the page's own thread is busy while the race runs in a built book: its tasks and its frames over 20 seconds.

    python tests/book/race_smoothness.py [PAGE] [--seconds 20] [--telephone]

A task is what the browser's main thread does in one go, in seconds of the clock and of the processor; on a machine that
has other work to do the first are longer. PAGE is a file, _build/html/welcome.html if no other.
"""

import argparse
import json
import statistics
from pathlib import Path

import chromium
from playwright.sync_api import sync_playwright

PLAYED = """async (seconds) => {
  const root = document.querySelector(".nd-live-race");
  const press = (name) => [...root.querySelectorAll("button")].find((b) => b.textContent === name)?.click();
  const frames = [];
  const end = performance.now() + 1000 * seconds;
  for (let last = performance.now(); last < end; ) {
    const now = await new Promise(requestAnimationFrame);
    frames.push(now - last);
    last = now;
    press("Play");  // again, when a race is over
  }
  return frames;
}"""


def quantiles(values):
    ordered = sorted(values)
    at = lambda share: ordered[min(len(ordered) - 1, int(share * len(ordered)))]  # noqa: E731
    return f"median {statistics.median(ordered):.1f}, 95 % {at(0.95):.1f}, 99 % {at(0.99):.1f}, most {ordered[-1]:.1f}"


def tasks_of(trace):
    """Tasks of the page's main thread that took a tenth of a millisecond and more: clock and processor, ms."""
    main = {
        (e["pid"], e["tid"]) for e in trace if e["name"] == "thread_name" and e["args"].get("name") == "CrRendererMain"
    }
    tasks = [
        e for e in trace if e["name"].endswith("RunTask") and (e["pid"], e["tid"]) in main and e.get("dur", 0) > 100
    ]
    return [e["dur"] / 1000 for e in tasks], [e.get("tdur", e["dur"]) / 1000 for e in tasks]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", nargs="?", default=Path(__file__).parents[2] / "_build" / "html" / "welcome.html")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--telephone", action="store_true")
    args = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.system_browser(), args=["--no-sandbox", "--disable-gpu"]
        )
        size = {"width": 360, "height": 640} if args.telephone else {"width": 1366, "height": 660}
        page = browser.new_page(viewport=size)
        page.goto(Path(args.page).resolve().as_uri())
        page.locator('[data-widget="live-race"]').scroll_into_view_if_needed()
        page.locator('[data-widget="live-race"][data-ready]').wait_for()
        page.locator(".nd-live-race .nd-course").scroll_into_view_if_needed()
        page.wait_for_function("document.querySelector('.nd-live-race').arms.every((arm) => arm.records.length > 1)")
        browser.start_tracing(page=page, categories=["toplevel", "__metadata", "disabled-by-default-devtools.timeline"])
        frames = page.evaluate(PLAYED, args.seconds)
        trace = json.loads(browser.stop_tracing())["traceEvents"]
        clock, processor = tasks_of(trace)
        print(f"{len(clock)} tasks of 0.1 ms and more in {args.seconds:g} s")
        print(f"  by the clock, ms: {quantiles(clock)}; {sum(d > 16 for d in clock)} above 16")
        print(f"  of the processor, ms: {quantiles(processor)}; {sum(d > 16 for d in processor)} above 16")
        print(f"{len(frames)} frames, ms from one to the next: {quantiles(frames)}")
        browser.close()


if __name__ == "__main__":
    main()
