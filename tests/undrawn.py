"""Searches without drawing: figures and page have tests of their own and take longer than a small search."""

from __future__ import annotations

import pytest

COMMAND = """
import winticket.report as report
from winticket.cli import main

report.draw_all = lambda *_, **__: []
report.write_page = lambda *_, **__: None
main()
"""
"""The program of the command that writes neither figures nor page, for a process of its own."""


def undraw(patch: pytest.MonkeyPatch) -> None:
    """Write neither figures nor page, of a search or of a comparison."""
    patch.setattr("winticket.report.draw_all", lambda *_, **__: [])
    patch.setattr("winticket.report.write_page", lambda *_, **__: None)
    patch.setattr("winticket.report.draw_comparison", lambda *_: [])
    patch.setattr("winticket.report.write_comparison_page", lambda _, path: path)
