"""Find a Chromium for the page tests; run as a program, install one where there is none."""

import os
import shutil
import subprocess
import sys

from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def system_browser() -> str | None:
    """A browser on the PATH, or None: then Playwright's own is meant."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def install() -> None:
    with sync_playwright() as playwright:
        if system_browser() or os.path.exists(playwright.chromium.executable_path):  # noqa: PTH110
            return
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"], check=True)
    else:
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=True)


if __name__ == "__main__":
    install()
