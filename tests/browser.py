"""A browser for the tests of pages: Chromium, driven by playwright."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
_MISSING = [
    name
    for name, there in (
        ("Chromium (a program of the system; or name it in CHROMIUM)", CHROMIUM),
        ("playwright (of the extra dev)", importlib.util.find_spec("playwright")),
    )
    if not there
]
needs_browser = pytest.mark.skipif(bool(_MISSING), reason=f"pages need {' and '.join(_MISSING)}")


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM)
        try:
            yield started
        finally:
            started.close()
