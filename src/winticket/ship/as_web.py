"""A web page as a format of `winticket ship`; the page's networks are read back out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from winticket.atomic import replace_file
from winticket.ship.format import Format, Logits, Source, Written
from winticket.ship.interpret import run
from winticket.ship.web import network_of, to_web


def _write(source: Source, path: Path, values: str) -> Written:
    page = to_web(
        source.network, dense=source.dense, examples=source.examples, values=values, note=source.note
    )
    replace_file(path, page.encode())
    return Written()


def _logits(_: Source, path: Path, x: NDArray[Any]) -> Logits:
    return run(network_of(path.read_text("utf-8")), x)


def _use(_: Source, name: str) -> tuple[str, ...]:
    return ("import webbrowser", "", f"webbrowser.open({name!r})  # or open the file in any browser")


WEB = Format(
    "a web page, on which one tries it; its compact file is in the page",
    lambda name, values: f"{name}-{values}.html",
    _write,
    _logits,
    _use,
)
"""The format."""
