"""The words of the glossary whose meaning names the metric, for metrics other than accuracy."""

from __future__ import annotations

from collections.abc import Mapping

from winticket.report.glossary import WORDS
from winticket.report.metric import Metric, falls_short


def meanings(metric: Metric) -> Mapping[str, str]:
    """Each word with its meaning, as `WORDS`, in terms of the metric that judges.

    >>> from winticket.objective import Scale
    >>> meanings(Metric(Scale("RMSE", "lower", "mm", 0.0)))["trained enough"].partition(" if ")[2]
    'training it twice as long is shown to improve its RMSE by less than the margin.'
    """
    if metric.is_accuracy:
        return WORDS
    name, points = metric.name, metric.scale.points
    unit = f", in {metric.spelt}" if metric.spelt else ", in its own unit"
    if metric.relative:
        unit = f", in percent of the dense network's {name}"
    better = "higher" if metric.higher else "lower"
    of = (
        "is the first network's minus the second's"
        if metric.higher
        else "is the second network's minus the first's"
    )
    changed = {
        "control": "A network that differs from the ticket in its mask or in its start. If a control trains as well as "
        f"the ticket, this difference does not explain the ticket's {name}.",
        "margin": f"To match the dense network, a ticket's {name} may be worse by less than this{unit}. It is also "
        "written δ. It is fixed before the run.",
        "percentage point": f"The unit of differences of {metric.plural}, pp: from 97 % to 98 % is 1 percentage point.",
        "difference": f"How far the {name} of one network is better than that of another ({better} is better): it "
        f"{of}, "
        "formed within each replicate and averaged. It is computed before rounding, so it may differ in the last "
        "digit from the difference of two rounded means.",
        "t test": "Student's one-sided paired t test of the differences. It decides every claim about "
        f"{metric.plural}.",
        "not won": "At every density, the data show the opposite: the ticket is worse than the dense network by more "
        "than the margin, or it is worse than a control.",
        "matches dense": f"The ticket's {name} is shown to be worse than the dense network's by less than the margin, "
        "after the same number of training steps."
        if not metric.higher
        else f"The ticket's {name} is shown to {falls_short(metric).replace('falls', 'fall')} the dense network's by "
        "less than the margin, after the same number of training steps.",
        "trained enough": "The dense network counts as trained enough if training it twice as long is shown to improve "
        f"its {name} by less than the margin.",
        "supermask": "A mask that makes an untrained network good merely by removing weights (Zhou et al. 2019).",
        "to 95 % of dense": f"The number of steps until the validation {name} has come 95 % of the way from the best "
        "constant answer to the final value of the same replicate's dense network. It measures how soon a network "
        "learns.",
        "failed": "A training that ended with an error, for example because the loss was no longer finite. Means leave "
        f"it out, and tests take the {name} that is worst for the ticket.",
        "collapsed": f"A replicate whose {name} is worse than the median of its arm by more than four margins and more "
        "than eight robust standard deviations (1.48 times the median distance from the median). Tests of means cannot "
        "see rare collapses, so winticket looks for them one by one.",
    }
    left = {} if points == "pp" else {"percentage point"}
    return {word: changed.get(word, meaning) for word, meaning in WORDS.items() if word not in left}
