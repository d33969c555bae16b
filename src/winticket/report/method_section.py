"""The page's section on how the verdict was reached: which tests, by which levels, and what they share."""

from __future__ import annotations

from html import escape

from winticket.report.elements import section
from winticket.report.metric import falls_short, metric_of
from winticket.report.question import draws_own_split, varied
from winticket.report.reading import question_of
from winticket.results import Document


def method(document: Document) -> str:
    """The section on the procedure of the verdict, in words."""
    margin, alpha = question_of(document).get("margin_pp"), question_of(document).get("alpha")
    metric = metric_of(document)
    delta = "the margin δ" if margin is None else f"the margin δ = {metric.margin(margin)}"
    level, spent = ("α", "α") if alpha is None else (f"α = {alpha:g}", f"{alpha:g}")
    parts = " and its own split of the data into training, validation and test examples"
    split = parts if draws_own_split(document) else ""
    better = "more accurate than" if metric.is_accuracy else f"better by its {metric.name} than"
    paragraphs = [
        f"A replicate is one {varied(document)} with its own mask search{split}. The dense network, the ticket and "
        "the controls of a replicate see the same examples in the same order, so the tests compare them in pairs: a "
        "difference is formed within each replicate, before anything is rounded.",
        f"A ticket matches the dense network if a one-sided paired t test shows that its {metric.name} "
        f"{falls_short(metric)} the "
        f"dense network's by less than {delta}, after the same number of training steps. A ticket beats the controls "
        f"if tests show that it is {better} the same mask with re-initialised weights, and {better} "
        "a random mask with the same number of weights in every layer.",
        "A ticket wins at a density if it matches the dense network and beats both controls. The tests for matching "
        "run from the densest level down and stop at the first failure. At each density the ticket has to beat both "
        "controls, so the control that it beats less clearly decides. Many densities are many chances of a false win, "
        "so Holm's procedure asks more of each test the more densities there are. Whether the ticket beats one of the "
        "controls is tested against the same limit.",
        "If you add replicates or levels and judge again, that is another look at the same networks. All looks share "
        f"{level}: the first may use nine tenths of it, and the later ones share the rest. At each look, half goes to "
        "matching and half to the controls. A bound's confidence is 1 minus the level of its test: for matching at the "
        f"first look, this level is 0.9 × {spent} / 2, and for a control Holm's procedure sets it. So the chance of "
        f"any false win, over all densities and all looks, stays within {level}. Intervals after ± and the statement "
        "on collapses have a confidence of 95 % each.",
        "Two other tests cross-check each t test that decides: the trimmed-mean test and the sign-flip test. If they "
        "disagree with it, the cautions say so.",
        "With fewer than five replicates the verdict is always inconclusive.",
    ]
    gate = document["verdict"].get("trained_enough")
    body = [f"<p>{escape(text)}</p>" for text in paragraphs]
    if gate is not None:
        body.append(f"<p>{escape(gate['sentence'])}</p>")
    return section("How the verdict was reached", *body)
