"""What stands below each figure of the page: what is drawn, how to read it, and why a point may be missing."""

from __future__ import annotations

from collections.abc import Sequence

from winticket.report.pace import goal, judged_fraction
from winticket.report.reading import pace, pruned_levels, question_of, time_outcome
from winticket.report.validation import against_the_verdict
from winticket.results import Document, LearningCurve

ALONE = (
    " Each density is tested alone, by an exact signed-rank test{level} that is not corrected for the number of "
    "densities: where there is no effect, about one test in twenty shows one by chance."
)


def captions(document: Document, curves: Sequence[LearningCurve] = ()) -> dict[str, str]:
    """The caption of every figure, by the figure's name."""
    question = question_of(document)
    margin, alpha = question.get("margin_pp"), question.get("alpha")
    alone = ALONE.format(level="" if alpha is None else f" at {100 * alpha:g} %")
    tried = pruned_levels(document)
    of_pace = alone if any(pace(level) is not None for level in tried) else ""
    of_stops = (
        " The title's sooner and later come from a test paired by replicate, not from whether bands overlap."
        + alone
        if any(time_outcome(level) is not None for level in tried)
        else ""
    )
    match = (
        ""
        if margin is None
        else " To match, it is not enough that a ticket's mean is above the dotted line: the bound of its paired "
        f"difference to the dense network must be above −{margin:g} percentage points, as the next figure shows."
    )
    return {
        "accuracy_against_density": "Test accuracy after the last training step. Filled markers show the densities at "
        "which the verdict claims a winning ticket. An arrow such as ↓92 says that a line continues below the axis, to "
        f"92 %.{match}",
        "difference_against_density": "The verdict rests on these tests. Points: mean over replicates of the "
        "difference of test accuracies, formed within each replicate and before rounding. The line below each point "
        "ends at the bound that its test compares with the dotted line: at the test's confidence, the true mean is "
        "above it. Filled: the whole line is above the dotted one, so what the panel asks for is shown. Open: it is "
        "not shown, or the opposite is.",
        "pace_against_density": "Median number of steps until the validation accuracy first reaches "
        f"{goal(judged_fraction(document))}. The bands, which need six replicates, are 95 % intervals. "
        "Lower means sooner. A marker is missing if half of the replicates or more never reach that accuracy; the band "
        f"then ends at the last step.{of_pace}",
        "early_stop_against_density": "Training step at which the validation loss is lowest. Lower means sooner."
        f"{of_stops} A marker is missing if, in most replicates, the loss was lowest at the last step.",
        "learning_curves": "Validation accuracy during training, with 95 % bands. One panel for each density; the "
        "dense network is the same in all. The axis of steps is logarithmic, and equal distances on the axis of "
        "accuracies "
        "are equal ratios of errors: 98 against 97 % is as far as 80 against 70 %. Lower accuracies are cut off. "
        f"{against_the_verdict(document, curves)}".strip(),
        "layer_densities": "Share of each layer's weights that the tickets keep, against the share in the whole "
        "network. A layer on the dotted line keeps as large a share as the whole network; one above it keeps more.",
    }
