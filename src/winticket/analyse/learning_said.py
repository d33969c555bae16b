"""What learning did and which gradient it met, in sentences."""

from __future__ import annotations

from winticket.analyse.summary import kept_percent, said, summarised
from winticket.table import Table

WORDS = {"ticket": "tickets", "reinit": "re-initialised tickets", "random": "random masks"}


def learning_says(table: Table) -> list[str]:
    """How many signs training changes, in the dense network and in tickets; survivors against pruned weights."""
    ends = table.where(at_end=True)
    if not ends.values:
        return ["No training has finished."]
    means = summarised(ends.where(group="all"), "sign_agreement", ["arm", "density"])
    dense = means.where(arm="dense").rows()
    lines = []
    if dense:
        lines.append(
            f"After training, {said(dense[0], 'sign_agreement', share=True)} of the dense network's weights have the "
            f"sign "
            "that they started with."
        )
    for arm, words in WORDS.items():
        rows = means.where(arm=arm).sort("density").rows()
        if rows:
            lines.append(
                f"At a density of {kept_percent(float(rows[0]['density'] or 0))}, so do "
                f"{said(rows[0], 'sign_agreement', share=True)} of the kept weights of {words}."
            )
    groups = {
        str(r["group"]): r for r in summarised(ends.where(arm="dense"), "sign_agreement", ["group"]).rows()
    }
    if {"kept", "pruned next"} <= groups.keys():
        lines.append(
            f"Of the dense network's weights that the first level keeps, "
            f"{said(groups['kept'], 'sign_agreement', share=True)} keep their sign; of those that it prunes, "
            f"{said(groups['pruned next'], 'sign_agreement', share=True)}."
        )
    return lines


def gradients_says(table: Table) -> list[str]:
    """The gradient at the start of the sparsest tickets and controls, against the dense network's."""
    if not table.values:
        return ["No training has finished."]
    means = summarised(table, "gradient_norm", ["arm", "density"])
    parts_of = [f"dense {said(row, 'gradient_norm')}" for row in means.where(arm="dense").rows()[:1]]
    sparsest = min(float(str(d)) for d in table.column("density"))
    for arm, words in WORDS.items():
        parts_of += [
            f"{words} {said(row, 'gradient_norm')}" for row in means.where(arm=arm, density=sparsest).rows()
        ]
    return [
        f"Length of the gradient at the start, at a density of {kept_percent(sparsest)}: {', '.join(parts_of)}. A "
        f"larger "
        "one does not by itself mean better training."
    ]
