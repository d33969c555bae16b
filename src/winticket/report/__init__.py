"""The report of a run: tables, figures, the summary page, the final screen, and advice on what to try next."""

from __future__ import annotations

from winticket.report.drawing import mpl as _mpl  # noqa: F401 - must come before any import of matplotlib

# isort: split
from winticket.report.advice import advise
from winticket.report.comparison import comparison, comparison_figure, comparison_screen, draw_comparison
from winticket.report.curves import learning_curve_figure
from winticket.report.differences import difference_figure
from winticket.report.figures import accuracy_against_density, early_stop_against_density, pace_against_density
from winticket.report.layers import layer_densities, layer_figure
from winticket.report.pace import steps_to_accuracy
from winticket.report.page import page, write_page
from winticket.report.progress import Watch
from winticket.report.saving import FIGURE_KINDS, FIGURE_NAMES, draw_all
from winticket.report.screen import final_screen
from winticket.report.tables import (
    accuracy_at_early_stop_by_density,
    accuracy_by_density,
    checks_by_density,
    early_stop_by_density,
    emptied_layers,
    failures,
    learning_curves,
    margins,
)
from winticket.table import Table

__all__ = [
    "FIGURE_KINDS",
    "FIGURE_NAMES",
    "Table",
    "Watch",
    "accuracy_against_density",
    "accuracy_at_early_stop_by_density",
    "accuracy_by_density",
    "advise",
    "checks_by_density",
    "difference_figure",
    "comparison",
    "comparison_figure",
    "comparison_screen",
    "draw_all",
    "draw_comparison",
    "early_stop_against_density",
    "early_stop_by_density",
    "emptied_layers",
    "failures",
    "final_screen",
    "layer_densities",
    "layer_figure",
    "learning_curve_figure",
    "learning_curves",
    "margins",
    "pace_against_density",
    "page",
    "steps_to_accuracy",
    "write_page",
]
