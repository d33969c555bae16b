"""The summary page: a single HTML file that contains its figures and tables and needs no network, and no script."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from html import escape
from pathlib import Path

from winticket.analyse import ANALYSES
from winticket.report.advice import TITLE, advise, introduction
from winticket.report.analysed import Shown, anchor, section_of
from winticket.report.costs import costs_section
from winticket.report.elements import definitions, section, table
from winticket.report.evidence import about_confidences, evidence
from winticket.report.facts import facts
from winticket.report.figures import Drawing, figures
from winticket.report.glossary import linked, words_section
from winticket.report.glossary_metric import meanings
from winticket.report.inline import figure, scheme
from winticket.report.mask_view import mask_section
from winticket.report.method_section import method
from winticket.report.metric import Metric, metric_of
from winticket.report.pace import pace_sentence
from winticket.report.papers import papers_section
from winticket.report.question import asked
from winticket.report.reading import (
    about_classes,
    density_percent,
    lines_to_use,
    plain,
    question_of,
    saved_ticket,
    sentences,
)
from winticket.report.reproduce import reproduction
from winticket.report.results_table import all_numbers, results_section
from winticket.report.settings import settings
from winticket.report.sharing import each
from winticket.report.sheet import sheet
from winticket.report.soon import how_soon
from winticket.report.tables import Curves, margins
from winticket.report.titles import headline, not_won_at, spelt_out
from winticket.report.trouble_section import cautions, failed
from winticket.results import Document, Masks
from winticket.table import Value
from winticket.text import cleaned

# A line never breaks between a number and its percent sign.
_NUMBER_AND_SIGN = re.compile(r"(\d) %")
_CODE = re.compile(r"(<(script|style)\b.*?</\2>)", re.DOTALL)
_KINDS = {
    "winning ticket": "both the mask and the weights it starts from matter",
    "winning structure": "the mask matters, and the weights it starts from are not shown to",
    "matching": "a win over both controls is not shown",
    "matching, trivially sparse": "any mask of this density may work as well",
}
"""What the kinds of a result mean, as far as their names do not say it."""


_ABOUT_ANALYSES = (
    '<p class="note">Sentences are about the sparsest level, where effects are largest; it need not be a winning one. '
    "Most analyses look at a part of the replicates; their tables say at which.</p>"
)


def write_page(
    document: Document,
    curves: Curves,
    path: str | Path,
    *,
    masks: Masks | None = None,
    analyses: Sequence[Shown] = (),
) -> Path:
    """Write the summary page of a result document to `path` and return the path.

    The page shows the question, the verdict with its evidence, figures, tables, and how the verdict was reached. It is
    one file that needs nothing else. `curves` holds the learning curves of the run, `masks` what its tickets keep, and
    `analyses` what is known of why they win; without any of them the page has no section on it.

    Raises OSError if the file cannot be written, for example because its folder does not exist.
    """
    target = Path(path)
    target.write_text(page(cleaned(document), curves, masks=masks, analyses=analyses), encoding="utf-8")
    return target


def page(
    document: Document, curves: Curves, *, masks: Masks | None = None, analyses: Sequence[Shown] = ()
) -> str:
    """Return the summary page as HTML, with all text from the document escaped; arguments as for `write_page`.

    If a figure cannot be drawn, the page says so in the figure's position, with the error.
    """
    question = question_of(document)
    title = f"{headline(document)} · {plain(question.get('model'))} on {plain(question.get('data'))}"
    parts = [
        _verdict(document),
        results_section(document),
        *_figures(document, curves, masks),
        mask_section(masks),
        how_soon(document),
        _margins(document),
        analyses_section(document, analyses),
        cautions(document),
        _advice(document),
        _use(document),
        costs_section(document),
        method(document),
        reproduction(document),
        _surroundings(document),
        failed(document),
        all_numbers(document),
    ]
    metric = metric_of(document)
    body = linked("\n".join(part for part in parts if part), unit=metric.scale.unit)
    return framed(title, f"{body}\n{papers_section(body)}\n{words_section(body, meanings(metric))}")


def framed(title: str, body: str, *, refresh: int | None = None) -> str:
    """Return a whole page around a body, with the style sheet. `refresh`: seconds after which a browser reloads it."""
    again = "" if refresh is None else f'<meta http-equiv="refresh" content="{refresh}">\n'
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{again}'
        f"<title>{escape(title)}</title>\n<style>{sheet()}\n{scheme(body)}</style>\n</head>\n<body>\n<main>\n"
        + "".join(_unbroken(body))
        + "\n</main>\n</body>\n</html>\n"
    )


def _unbroken(html: str) -> Iterator[str]:
    """The parts of a page, in which numbers stay with their percent signs, but for scripts and styles."""
    for at, part in enumerate(_CODE.split(html)):
        if at % 3 == 2:  # the name of the element, which the pattern holds for its own end
            continue
        yield _NUMBER_AND_SIGN.sub("\\1\u00a0%", part) if at % 3 == 0 else part


def _verdict(document: Document) -> str:
    question = question_of(document)
    outcome = document["verdict"]["outcome"]
    over = ["winticket", question.get("model"), question.get("data"), question.get("method")]
    kind = document["verdict"].get("kind")
    asked_lines = asked(document)
    said = [*sentences(document), pace_sentence(document), *not_won_at(document)]
    spelt = spelt_out([*asked_lines, *(line for line in said if line)])
    question_lines, verdict_lines = spelt[: len(asked_lines)], spelt[len(asked_lines) :]
    lines = [
        f'<header class="verdict {escape(outcome.replace(" ", "-"))}">',
        f'<p class="over">{escape(" · ".join(str(word) for word in over if word is not None))}</p>',
        f"<h1>{escape(headline(document))}</h1>",
        *(["<h2>The question</h2>"] if question_lines else []),
        *(f'<p class="words">{escape(line)}</p>' for line in question_lines),
        "<h2>The verdict</h2>",
        *(f'<p class="words">{escape(line)}</p>' for line in verdict_lines),
        evidence(document),
    ]
    if note := about_confidences(document):
        lines.append(f'<p class="note">{escape(note)}</p>')
    if kind:
        meaning = f" ({_KINDS[kind]})" if kind in _KINDS else ""
        lines.append(f'<p class="note">Kind of result: {escape(str(kind))}{meaning}.</p>')
    return "\n".join([*(line for line in lines if line), "</header>"])


def _figures(document: Document, curves: Curves, masks: Masks | None) -> list[str]:
    unmade: list[str] = []

    def failed(name: str, error: Exception) -> None:
        unmade.append(_not_drawn(name, error))

    made = figures(document, curves, masks, failed=failed)
    drawn = each([partial(_figure, name, drawing) for name, drawing in made.items()])
    return [*unmade, *drawn]


def _figure(name: str, drawing: Drawing) -> str:
    words = f"{drawing.title}. {drawing.subtitle}. The tables of this page and {name}.csv give the numbers."
    above = f'<h2>{escape(drawing.title)}</h2><p class="note">{escape(drawing.subtitle)}</p>'
    drawn = figure(
        lambda layout: drawing.draw(layout)[0],
        name=name.replace("_", "-"), words=words, above=above, caption=drawing.caption,
    )  # fmt: skip
    return f"<section>{drawn}</section>"


def _not_drawn(name: str, error: Exception) -> str:
    why = escape(f"{type(error).__name__}: {error}")
    return f"<section><p>Could not draw the figure {name}: {why}</p></section>"


def analyses_section(document: Document, analyses: Sequence[Shown]) -> str:
    """The section of the analyses, with the names of those that were not made; empty without any."""
    if not analyses:
        return ""
    question = question_of(document)
    parts = [question.get("data"), question.get("model"), "mean, 95 % t interval"]
    subtitle = " · ".join(str(part) for part in parts if part is not None)
    links = [f'<li><a href="#{anchor(one)}">{escape(one.analysis.title)}</a></li>' for one in analyses]
    contents = f'<ul class="contents">{"".join(links)}</ul>' if len(links) > 2 else ""
    sections = each([partial(section_of, one, subtitle=subtitle) for one in analyses])
    others = sorted(ANALYSES.keys() - {one.analysis.name for one in analyses})
    unfit = (
        [] if about_classes(document) else [name for name in others if ANALYSES[name].answers == "classes"]
    )
    open_ones = [name for name in others if name not in unfit]
    left = f'<p class="note">Not analysed yet: {", ".join(open_ones)}.</p>' if open_ones else ""
    if unfit:
        left += f'<p class="note">Left out, since they need answers that are classes: {", ".join(unfit)}.</p>'
    return section("Understanding the ticket", _ABOUT_ANALYSES, contents, *sections, left)


def _margins(document: Document) -> str:
    verdicts = margins(document)
    if not verdicts.values:
        return ""
    metric = metric_of(document)
    rows = [
        (
            escape(_margin(metric, row["margin_pp"])),
            escape(plain(row["outcome"])),
            escape(density_percent(float(row["density"])) if row["density"] is not None else "–"),
        )
        for row in verdicts.rows()
    ]
    smallest = document["verdict"]["margins"].get("smallest_pp")
    used = question_of(document).get("margin_pp")
    note = (
        ""
        if smallest is None
        else f"The smallest margin at which any ticket wins is {_smallest(metric, smallest)}. "
    )
    note += (
        ""
        if used is None
        else f"The verdict uses the margin of {metric.margin(used)}, which was fixed before the run. The other rows "
        "show how "
        "much the verdict depends on that choice."
    )
    if document["verdict"].get("trained_enough") and used is not None:
        note += (
            " They leave out whether the dense network was trained enough, which is checked for "
            f"{metric.margin(used)} alone."
        )
    caption = "What the verdict would be with another margin δ"
    head = ("margin δ", "outcome", "smallest ticket")
    return section(
        "How much the margin matters",
        table(head, rows, caption=caption),
        f'<p class="note">{escape(note)}</p>',
    )


def _margin(metric: Metric, margin: Value) -> str:
    return f"{plain(margin)} %" if metric.relative else metric.with_points(plain(margin))


def _smallest(metric: Metric, points: float) -> str:
    return (
        f"{points:.2f} % of the dense network's {metric.name}" if metric.relative else metric.amount(points)
    )


def _advice(document: Document) -> str:
    tips = advise(document)
    if not tips:
        return ""
    listed = "<ol>" + "".join(f"<li>{escape(tip)}</li>" for tip in tips) + "</ol>"
    return section(TITLE, f"<p>{escape(introduction(document))}</p>", listed)


def _use(document: Document) -> str:
    code = lines_to_use(document)
    if not code:
        return ""
    model = (
        "This code builds the same model as the run. You can use any other network whose parameters have the same "
        "names and shapes."
    )
    return section(
        "Use the ticket",
        *([f"<p>{escape(saved)}</p>"] if (saved := saved_ticket(document)) else []),
        f"<pre><code>{escape(chr(10).join(code))}</code></pre>",
        f'<p class="note">{escape(model)}</p>',
    )


def _surroundings(document: Document) -> str:
    environment = document.get("environment") or {}
    machine = [(str(name), plain(value)) for name, value in environment.items() if value is not None]
    names = ("store", "results", "ticket", "report", "curves", "masks")
    files = [(name, str(document.get(name))) for name in names if document.get(name) is not None]
    return section(
        "Experiment, environment, files",
        facts(document),
        settings(document),
        "<h3>Environment</h3>" + definitions(machine, wide=True) if machine else "",
        "<h3>Files</h3>" + definitions(files, wide=True) if files else "",
    )
