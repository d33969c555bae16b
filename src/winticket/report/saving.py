"""Saves figures as PNG and SVG, and the table of each figure as CSV."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from winticket.report.drawing import mpl
from winticket.report.figures import figures
from winticket.report.ink import LIGHT, Ink
from winticket.report.tables import Curves
from winticket.results import Document
from winticket.table import Table

FIGURE_NAMES = (
    "accuracy_against_density",
    "pace_against_density",
    "early_stop_against_density",
    "learning_curves",
)
FIGURE_KINDS = ("png", "svg", "csv")


def draw_all(
    document: Document,
    curves: Curves,
    folder: str | Path,
    *,
    failed: Callable[[str, Exception], None] | None = None,
) -> list[Path]:
    """Save every figure in `folder` (created if missing) as PNG (200 dpi) and SVG, and its table as CSV.

    Returns the paths written, figure by figure. The same document gives the same SVG and CSV bytes. If a
    figure cannot be drawn, `failed` receives its name and the error, and the other figures are drawn.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, draw in figures(document, curves).items():
        try:
            written += _draw(draw, target, name)
        except Exception as error:
            if failed is None or isinstance(error, OSError):
                raise
            failed(name, error)
    return written


def _draw(draw: Callable[[Ink], tuple[Figure, Table]], folder: Path, name: str) -> list[Path]:
    figure, table = draw(LIGHT)
    paths = [folder / f"{name}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        path.write_bytes(image(figure, path.suffix[1:]))
    return [*paths, table.to_csv(folder / f"{name}.csv")]


def image(figure: Figure, kind: str, *, letters: bool = False) -> bytes:
    """A figure as the bytes of a `png` (200 dpi), or of a `svg` or `pdf` (no date inside).

    With `letters`, a SVG holds its text as text instead of outlines, which is a fraction as large.
    """
    buffer = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "winticket", "svg.fonttype": "none" if letters else "path"}):
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
    return buffer.getvalue()
