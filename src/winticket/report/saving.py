"""Saves figures as PNG, SVG and PDF, and the table of each figure as CSV."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from winticket.report.drawing import mpl
from winticket.report.figures import Drawing, figures
from winticket.report.layout import FILE
from winticket.report.sharing import each
from winticket.report.tables import Curves
from winticket.results import Document, Masks

FIGURE_NAMES = (
    "accuracy_against_density",
    "metric_against_density",
    "difference_against_density",
    "learning_curves",
    "pace_against_density",
    "early_stop_against_density",
    "layer_densities",
)
PICTURES = ("png", "svg", "pdf")
FIGURE_KINDS = (*PICTURES, "csv")


def draw_all(
    document: Document,
    curves: Curves,
    folder: str | Path,
    *,
    masks: Masks | None = None,
    failed: Callable[[str, Exception], None] | None = None,
) -> list[Path]:
    """Save every figure in `folder` (created if missing) as PNG (200 dpi), SVG and PDF, and its table as CSV.

    Returns the paths written, figure by figure. The same document gives the same bytes. If a figure cannot be drawn,
    `failed` receives its name and the error, and the other figures are drawn.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    drawings = figures(document, curves, masks, failed=failed)
    written: list[Path] = []
    made = each([partial(_tried, drawing, target, name) for name, drawing in drawings.items()])
    for name, paths in zip(drawings, made, strict=True):
        if not isinstance(paths, Exception):
            written += paths
        elif failed is None or isinstance(paths, OSError):
            raise paths
        else:
            failed(name, paths)
    return written


def _tried(drawing: Drawing, folder: Path, name: str) -> list[Path] | Exception:
    try:
        return _draw(drawing, folder, name)
    except Exception as error:  # noqa: BLE001 - the other figures are drawn first
        return error


def _draw(drawing: Drawing, folder: Path, name: str) -> list[Path]:
    figure, table = drawing.draw(FILE)
    paths = [folder / f"{name}.{kind}" for kind in PICTURES]
    for path in paths:
        path.write_bytes(image(figure, path.suffix[1:]))
    return [*paths, table.to_csv(folder / f"{name}.csv")]


def image(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of a `png` (200 dpi), or of a `svg` or `pdf` (no date inside)."""
    buffer = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "winticket"}):
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
    return buffer.getvalue()
