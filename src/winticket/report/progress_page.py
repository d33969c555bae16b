"""The page and the screen of a run that has not finished: what there is so far, and never a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import cast

from rich.console import Group, RenderableType
from rich.text import Text

from winticket.report.curves import learning_curve_figure
from winticket.report.elements import section, table
from winticket.report.figures import accuracy_against_density
from winticket.report.glossary import linked, words_section
from winticket.report.glossary_metric import meanings
from winticket.report.inline import Draw, picture
from winticket.report.metric import Metric, metric_of
from winticket.report.page import framed
from winticket.report.question import asked, subject
from winticket.report.reading import (
    arm_name,
    density_percent,
    interval,
    plain,
)
from winticket.report.titles import spelt_out
from winticket.results import ArmSoFar, Document, LearningCurve, LevelSoFar, Unfinished
from winticket.text import cleaned

NO_VERDICT = (
    "There is no verdict yet: it is reached once, from all trainings together. Whoever looks at part of them and stops "
    "when they look good is wrong more often than the error rate says."
)


def progress_page(
    unfinished: Unfinished, curves: Sequence[LearningCurve], *, refresh: int | None = None
) -> str:
    """Return the page of an unfinished run as HTML. `refresh`: seconds after which a browser reloads it."""
    clean: Unfinished = cleaned(unfinished)
    document, question = as_document(clean), clean["experiment"]
    title = f"{headline(clean)} · {plain(question.get('model'))} on {plain(question.get('data'))}"
    over = [question.get(name) for name in ("model", "data", "method")]
    lines = [
        '<header class="verdict inconclusive">',
        f'<p class="over">{escape(" · ".join(["winticket", *(str(word) for word in over if word)]))}</p>',
        f"<h1>{escape(headline(clean))}</h1>",
        _bar(clean),
        *(
            f'<p class="words">{escape(line)}</p>'
            for line in spelt_out(asked(as_document(clean, planned=True)))
        ),
        f"<p>{escape(NO_VERDICT)}</p>",
        f'<p class="note">{escape(_signs(clean, refresh))}</p>',
        "</header>",
    ]
    rows = list(curves)
    body = "\n".join([*lines, *_figures(document, rows), _table(clean)])
    metric = metric_of(document)
    whole = linked(body, unit=metric.scale.unit)
    return framed(title, f"{whole}\n{words_section(whole, meanings(metric))}", refresh=refresh)


def finished_page(target: str | None) -> str:
    """Return the page that replaces a progress page when the run has finished: it leads to the report.

    `target` is None if the report could not be drawn; the page then says how to draw it.
    """
    if target is None:
        words = "The run has finished, but its report could not be drawn. The command winticket report draws it again."
        return framed("Finished", f"<section><h1>Finished</h1><p>{words}</p></section>")
    link = f'<p><a href="{escape(target)}">The run has finished: read its report.</a></p>'
    html = framed("Finished", f"<section><h1>Finished</h1>{link}</section>")
    return html.replace(
        "<title>", f'<meta http-equiv="refresh" content="0; url={escape(target)}">\n<title>', 1
    )


def headline(unfinished: Unfinished) -> str:
    """How far the run is, in a few words."""
    return f"Unfinished: {unfinished['finished']:,} of {unfinished['planned']:,} trainings"


def as_document(unfinished: Unfinished, *, planned: bool = False) -> Document:
    """What there is in the form of a result document, without checks and claims, for figures and words.

    Levels and arms of which nothing has finished are left out, unless all that are `planned` are wanted.
    """
    levels = [
        {
            "density": level["density"],
            "arms": {n: arm for n, arm in level["arms"].items() if planned or arm["accuracy"] is not None},
        }
        for level in unfinished["levels"]
    ]
    document = {
        "experiment": unfinished["experiment"],
        "data": unfinished["data"],
        "network": unfinished["network"],
        "levels": [level for level in levels if level["arms"]],
        "verdict": {"outcome": "inconclusive", "density": None, "reason": "", "claimed": []},
    }
    if "metric" in unfinished:
        document["metric"] = unfinished["metric"]
    return cast("Document", document)


def _bar(unfinished: Unfinished) -> str:
    # Rounded down: 100 % is for a run of which everything has finished.
    percent = 100 * unfinished["finished"] // max(unfinished["planned"], 1)
    return (
        f'<p><span class="bar" role="img" aria-label="{percent} % finished">'
        f'<i style="width:{percent}%"></i></span> {percent} %</p>'
    )


def _signs(unfinished: Unfinished, refresh: int | None) -> str:
    last = "No training has finished yet." if unfinished["last"] is None else (
        f"The last training finished at {unfinished['last']}."
    )  # fmt: skip
    again = "" if refresh is None else f" This page reloads itself every {refresh} seconds."
    return f"{last}{again} Folder: {unfinished['folder']}."


def _figures(document: Document, curves: list[LearningCurve]) -> list[str]:
    drawings: list[tuple[str, str, Draw]] = []
    if len(document["levels"]) > 1:
        drawings.append(
            (
                "accuracy-so-far",
                f"Test {metric_of(document).name} of the trainings that have finished",
                lambda layout: accuracy_against_density(document, layout=layout)[0],
            )
        )
    if any(curve["arm"] == "ticket" for curve in curves):
        drawings.append(
            (
                "curves-so-far",
                f"Validation {metric_of(document).name} of the trainings that have finished",
                lambda layout: learning_curve_figure(document, curves, layout=layout)[0],
            )
        )
    return [_figure(*drawing) for drawing in drawings]


def _figure(name: str, title: str, draw: Draw) -> str:
    try:
        drawn = picture(draw, name=name, words=title)
    except Exception as error:  # noqa: BLE001 - matplotlib may raise anything; the page must survive it
        return f"<section><p>Could not draw: {escape(f'{type(error).__name__}: {error}')}</p></section>"
    note = "Means of the replicates that have finished, with 95 % intervals. They will change."
    return (
        f"<section><figure><h2>{escape(title)}</h2>{drawn}<figcaption>{note}</figcaption></figure></section>"
    )


def _table(unfinished: Unfinished) -> str:
    present = list(dict.fromkeys(arm for level in unfinished["levels"] for arm in level["arms"]))
    metric = metric_of(unfinished)
    rows = [
        [escape(density_percent(level["density"])), *(escape(_cell(metric, level, arm)) for arm in present)]
        for level in unfinished["levels"]
    ]
    caption = (
        f"Replicates finished, of those planned; in brackets the mean test {_named(metric)} of those that have "
        "finished, ± half the width of its 95 % interval."
    )
    head = ["density", *map(arm_name, present)]
    return section("What there is and what is missing", table(head, rows, caption=caption))


def _named(metric: Metric) -> str:
    unit = "percent" if metric.scale.unit == "%" else metric.scale.unit
    return f"{metric.name} in {unit}" if unit else metric.name


def _cell(metric: Metric, level: LevelSoFar, arm: str) -> str:
    entry = level["arms"].get(arm)
    if entry is None:
        return "–"
    return _count(entry) + ("" if entry["accuracy"] is None else f" ({_value(metric, entry)})")


def _value(metric: Metric, entry: ArmSoFar) -> str:
    """Failures are counted beside, so they do not stand here again."""
    return metric.text(entry["accuracy"], interval(entry, "accuracy"))


def _count(entry: ArmSoFar) -> str:
    failed = f", {entry['failed']} failed" if entry["failed"] else ""
    return f"{entry['finished']} of {entry['planned']}{failed}"


def progress_screen(unfinished: Unfinished) -> RenderableType:
    """What `winticket show` prints of an unfinished run."""
    question = unfinished["experiment"]
    lines = [Text(f"{headline(unfinished)}.", style="bold yellow")]
    lines += [Text(line, style="dim") for line in subject(as_document(unfinished, planned=True))]
    lines.append(Text(NO_VERDICT))
    if unfinished["last"] is not None:
        lines.append(Text(f"The last training finished at {unfinished['last']}."))
    lines.append(Text("\nMissing:", style="bold"))
    lines += [Text(f"- {text}") for text in unfinished["missing"]] or [Text("- only the report")]
    again = "winticket find" if not question.get("source") else "winticket transfer"
    lines.append(Text(f"\nTo finish it, type the same {again} command again. Folder: {unfinished['folder']}"))
    return Group(*lines)
