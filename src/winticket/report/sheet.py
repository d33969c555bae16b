"""The page's style sheet. It covers light and dark, phone, desktop and print, and it loads nothing from outside."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("page.css")


@cache
def sheet() -> str:
    """Return the style sheet's text."""
    return _FILE.read_text(encoding="utf-8")
