"""The browser that tests look with."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
WITHOUT_GPU = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
PATIENCE_MS = 240_000  # for what hangs, on a machine that is busy
AS_STORED = ("--force-color-profile=srgb", "--force-device-scale-factor=1", "--disable-lcd-text")


@contextmanager
def open_browser(*arguments: str) -> Iterator[Any]:
    """Open a Chromium; for no longer than a module, as a process can have just one open with this interface."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = {"executable_path": CHROMIUM, "timeout": PATIENCE_MS}
        browser = playwright.chromium.launch(args=["--no-sandbox", *arguments], **options)
        yield browser
        browser.close()
