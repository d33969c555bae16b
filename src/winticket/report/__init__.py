"""The report of a run: tables, figures, the summary page, the final screen, and advice on what to try next."""

from __future__ import annotations

from winticket.report.drawing import mpl as _mpl  # noqa: F401 - must come before any import of matplotlib

# isort: split
from winticket.report.advice import advise
from winticket.report.comparison import comparison, comparison_figure, comparison_screen, draw_comparison
from winticket.report.comparison_page import write_comparison_page
from winticket.report.curves import learning_curve_figure
from winticket.report.differences import difference_figure
from winticket.report.figures import (
    accuracy_against_density,
    early_stop_against_density,
    pace_against_density,
)
from winticket.report.layers import layer_densities, layer_figure
from winticket.report.pace import steps_to_accuracy
from winticket.report.page import page, write_page
from winticket.report.progress import Watch
from winticket.report.progress_page import finished_page, progress_page, progress_screen
from winticket.report.saving import FIGURE_KINDS, FIGURE_NAMES, draw_all
from winticket.report.screen import final_screen
from winticket.report.side_by_side import side_by_side, write_side_by_side
from winticket.report.side_by_side_rows import Named, is_comparison
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
    "Named",
    "Table",
    "Watch",
    "accuracy_against_density",
    "accuracy_at_early_stop_by_density",
    "accuracy_by_density",
    "advise",
    "checks_by_density",
    "comparison",
    "comparison_figure",
    "comparison_screen",
    "difference_figure",
    "draw_all",
    "draw_comparison",
    "early_stop_against_density",
    "early_stop_by_density",
    "emptied_layers",
    "failures",
    "final_screen",
    "finished_page",
    "is_comparison",
    "layer_densities",
    "layer_figure",
    "learning_curve_figure",
    "learning_curves",
    "margins",
    "pace_against_density",
    "page",
    "progress_page",
    "progress_screen",
    "side_by_side",
    "steps_to_accuracy",
    "write_comparison_page",
    "write_page",
    "write_side_by_side",
]
