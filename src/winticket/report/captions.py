"""What stands below each figure of the page: what is drawn, how to read it, and why a point may be missing."""

from __future__ import annotations

from winticket.report.pace import goal, judged_fraction
from winticket.report.reading import question_of
from winticket.results import Document


def captions(document: Document) -> dict[str, str]:
    """The caption of every figure, by the figure's name."""
    margin = question_of(document).get("margin_pp")
    match = (
        ""
        if margin is None
        else " To match, it is not enough that a ticket's mean is above the dotted line: the confidence bound of its "
        f"difference to the dense network must be above -{margin:g} pp."
    )
    return {
        "accuracy_against_density": "Test accuracy after the last training step. Filled markers show the densities at "
        f"which the verdict claims a winning ticket.{match}",
        "pace_against_density": "Median number of steps until the validation accuracy first reaches "
        f"{goal(judged_fraction(document))}. The bands, which need six replicates, are 95 % intervals. "
        "Lower means sooner. A marker is missing if half of the replicates or more never reach that accuracy; the band "
        "then ends at the last step.",
        "early_stop_against_density": "Training step at which the validation loss is lowest. Lower means sooner. The "
        "title's sooner and later come from a test paired by replicate, not from whether bands overlap. A marker is "
        "missing if, in most replicates, the loss was lowest at the last step.",
        "learning_curves": "Validation accuracy during training. The lower part of the axis is cut off. Left: tickets "
        "and the dense network. Right: the same tickets (solid) and their masks with re-initialised weights (dashed); "
        "shades and markers mean the same densities as on the left. Test data, which are other examples, decide the "
        "verdict.",
    }
