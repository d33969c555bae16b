"""The summary page: a single HTML file that contains its figures and tables and needs no script or network."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from winticket.report.advice import TITLE, advise, introduction
from winticket.report.analysed import Shown, section_of
from winticket.report.captions import captions
from winticket.report.elements import definitions, plain_table, scrolled, section, table
from winticket.report.facts import accuracy_text, facts
from winticket.report.figures import figures
from winticket.report.glossary import linked, words_section
from winticket.report.ink import DARK, LIGHT
from winticket.report.pace import goal, judged_fraction, pace_sentence
from winticket.report.reading import (
    arm_name,
    arms,
    claimed,
    dense_arm,
    density_percent,
    interval,
    is_in,
    levels,
    lines_to_use,
    mark,
    plain,
    plus_minus,
    pruned_levels,
    question_of,
    reason,
    replicates,
    saved_ticket,
    speed,
    warnings_by_bearing,
)
from winticket.report.saving import image
from winticket.report.settings import settings
from winticket.report.sheet import SHEET
from winticket.report.soon import how_soon
from winticket.report.tables import Curves, emptied_layers, failures, margins
from winticket.report.titles import headline, not_won_at
from winticket.results import Arm, CheckName, Document, Level
from winticket.table import Table
from winticket.text import cleaned

# A line never breaks between a number and its percent sign.
_NUMBER_AND_SIGN = re.compile(r"(\d) %")
_CHECKS: dict[CheckName, str] = {
    "accuracy": "matches dense",
    "beats_reinit": "beats re-init",
    "beats_random": "beats random mask",
}
_KINDS = {
    "winning ticket": "both the mask and its start weights matter",
    "winning structure": "the mask matters, and its start weights are not shown to",
    "matching": "a win over both controls is not shown",
    "matching, trivially sparse": "any mask of this density may work as well",
}
"""What the kinds of a result mean, as far as their names do not say it."""


def write_page(
    document: Document, curves: Curves, path: str | Path, *, analyses: Sequence[Shown] = ()
) -> Path:
    """Write the summary page of a result document to `path` and return the path.

    The page shows the verdict, the facts of the run, figures, tables, and how the verdict was reached. It is one
    file that needs nothing else: it embeds each figure as SVG in a light and a dark version. `curves` holds the
    learning curves of the run; without them the page has no learning-curve figure. `analyses` have a section each.

    Raises OSError if the file cannot be written, for example because its folder does not exist.
    """
    target = Path(path)
    target.write_text(page(cleaned(document), curves, analyses=analyses), encoding="utf-8")
    return target


def page(document: Document, curves: Curves, *, analyses: Sequence[Shown] = ()) -> str:
    """Return the summary page as HTML, with all text from the document escaped.

    If a figure cannot be drawn, the page says so in the figure's position, with the error.
    """
    question = question_of(document)
    title = f"{headline(document)} · {plain(question.get('model'))} on {plain(question.get('data'))}"
    parts = [
        _verdict(document),
        facts(document),
        *_figures(document, curves),
        _levels(document),
        how_soon(document),
        _analyses(document, analyses),
        _margins(document),
        _trouble(document),
        _advice(document),
        _decided(document),
        _use(document),
        _details(document),
        _surroundings(document),
    ]
    body = linked("\n".join(part for part in parts if part))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{SHEET}</style>\n</head>\n<body>\n<main>\n"
        + _NUMBER_AND_SIGN.sub("\\1\u00a0%", f"{body}\n{words_section(body)}")
        + "\n</main>\n</body>\n</html>\n"
    )


def _analyses(document: Document, analyses: Sequence[Shown]) -> str:
    if not analyses:
        return ""
    question = question_of(document)
    subtitle = f"{plain(question.get('data'))} · {plain(question.get('model'))} · mean, 95 % t interval"
    return section("Understanding the ticket", *(section_of(one, subtitle=subtitle) for one in analyses))


def _verdict(document: Document) -> str:
    question = question_of(document)
    outcome = document["verdict"]["outcome"]
    over = [
        "winticket",
        question.get("model"),
        question.get("data"),
        question.get("method"),
    ]
    kind = document["verdict"].get("kind")
    lines = [
        f'<header class="verdict {escape(outcome.replace(" ", "-"))}">',
        f'<p class="over">{escape(" · ".join(str(word) for word in over if word is not None))}</p>',
        f"<h1>{escape(headline(document))}</h1>",
        *(
            f"<p>{escape(line)}</p>"
            for line in (reason(document), pace_sentence(document), *not_won_at(document))
            if line
        ),
    ]
    if kind:
        meaning = f" ({_KINDS[kind]})" if kind in _KINDS else ""
        lines.append(f'<p class="note">Kind of result: {escape(str(kind))}{meaning}.</p>')
    return "\n".join([*lines, "</header>"])


def _figures(document: Document, curves: Curves) -> list[str]:
    sections, below = [], captions(document)
    for name, draw in figures(document, curves).items():
        try:
            drawn = [(ink, draw(ink)[0]) for ink in (LIGHT, DARK)]
            light, dark = (b64encode(image(figure, "svg")).decode("ascii") for _, figure in drawn)
        except Exception as error:  # noqa: BLE001 - matplotlib may raise anything; the page must survive it
            why = escape(f"{type(error).__name__}: {error}")
            sections.append(f"<section><p>Could not draw the figure {name}: {why}</p></section>")
            continue
        words = " ".join(text.get_text().replace("\n", " ") for text in drawn[0][1].texts)
        alt = f"{words}. {below[name]} The tables of this page and {name}.csv give the numbers."
        picture = scrolled(
            f'<picture><source media="(prefers-color-scheme: dark)" srcset="data:image/svg+xml;base64,{dark}">'
            f'<img alt="{escape(alt)}" src="data:image/svg+xml;base64,{light}"></picture>'
        )
        sections.append(
            f"<section><figure{' class=wide' if name == 'learning_curves' else ''}>{picture}"
            f"<figcaption>{escape(below[name])}</figcaption></figure></section>"
        )
    return sections


def _mark(document: Document, level: Level, check: CheckName) -> str:
    answer = mark(document, level, check)
    return answer if answer == "yes" else f'<span class="no">{answer}</span>'


def _levels(document: Document) -> str:
    dense, won = dense_arm(document), claimed(document)
    shown = [arm for arm in arms(document) if arm != "dense"]
    shown_levels = pruned_levels(document)
    if not shown_levels:
        return ""
    checks = [name for name in _CHECKS if name == "accuracy" or name.removeprefix("beats_") in shown]
    rows, sure = [], []
    for level in shown_levels:
        entries = level["arms"]
        cells = [escape(density_percent(level["density"]))]
        cells += [escape(accuracy_text(entries.get(arm), "accuracy")) for arm in shown]
        cells += [_mark(document, level, name) for name in checks]
        cells.append(escape(speed(level) or "–"))
        rows.append(cells)
        sure.append(is_in(level["density"], won))
    fraction = judged_fraction(document)
    last = "early stop" if fraction is None else f"to {100 * fraction:g} % of dense"
    head = ["density", *(f"{arm_name(arm)} %" for arm in shown), *(_CHECKS[name] for name in checks), last]
    caption = (
        f"Dense network: {accuracy_text(dense, 'accuracy')} %. The accuracy columns give the mean test accuracy after "
        "the last training step, ± half the width of its 95 % interval over replicates, or the interval's two ends if "
        "it is not symmetric. Winning tickets have shaded rows. Yes means that a test shows what the heading says, no "
        "that a test shows the opposite, and open that neither is shown. The last column compares how soon the "
        f"ticket and the dense network reach {goal(fraction)}{_unjudged(document)}."
    )
    return section("Results at every density", table(head, rows, caption=caption, sure=sure))


def _unjudged(document: Document) -> str:
    return "" if all(map(speed, pruned_levels(document))) else " (–: not judged)"


def _margins(document: Document) -> str:
    verdicts = margins(document)
    if not verdicts.values:
        return ""
    rows = [
        (
            f"{plain(row['margin_pp'])} pp",
            escape(plain(row["outcome"])),
            escape(density_percent(float(row["density"])) if row["density"] is not None else "–"),
        )
        for row in verdicts.rows()
    ]
    smallest = document["verdict"]["margins"].get("smallest_pp")
    used = question_of(document).get("margin_pp")
    note = "" if smallest is None else f"The smallest margin at which any ticket wins is {smallest:.2f} pp. "
    note += (
        ""
        if used is None
        else f"The verdict uses the margin of {used:g} pp, which was fixed before the run. The other rows show how "
        "much the verdict depends on that choice."
    )
    if document["verdict"].get("trained_enough") and used is not None:
        note += f" They leave out whether the dense network was trained enough, which is checked for {used:g} pp alone."
    caption = "What the verdict would be with another margin δ"
    head = ("margin δ", "outcome", "smallest ticket")
    return section(
        "How much the margin matters",
        table(head, rows, caption=caption),
        f'<p class="note">{escape(note)}</p>',
    )


def _trouble(document: Document) -> str:
    bearing, _ = warnings_by_bearing(document)
    body = [_list(bearing)] if bearing else []
    failed, empty = failures(document), emptied_layers(document)
    if failed.values:
        caption = (
            "Failed training runs. Means omit them, and tests take the accuracy that is worst for the ticket."
        )
        rows = [
            (arm, density, int(replicate or 0) + 1, *rest) for arm, density, replicate, *rest in failed.values
        ]
        body.append(plain_table(Table(failed.columns, tuple(rows)), caption=caption))
    if empty.values:
        body.append(
            plain_table(empty, caption="Layers that lost all their weights in at least one replicate")
        )
    if not body:
        body = ["<p>There are no failed training runs, no emptied layers and no notes.</p>"]
    return section("Notes and failures", *body)


def _list(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def _advice(document: Document) -> str:
    tips = advise(document)
    if not tips:
        return ""
    listed = "<ol>" + "".join(f"<li>{escape(tip)}</li>" for tip in tips) + "</ol>"
    return section(TITLE, f"<p>{escape(introduction(document))}</p>", listed)


def _decided(document: Document) -> str:
    margin, alpha = question_of(document).get("margin_pp"), question_of(document).get("alpha")
    delta = "the margin δ" if margin is None else f"the margin δ = {margin:g} pp"
    level, spent = ("α", "α") if alpha is None else (f"α = {alpha:g}", f"{alpha:g}")
    paragraphs = [
        "A replicate is one random initialisation with its own mask search. The dense network, the ticket and the "
        "controls of a replicate share the test set and the order of the training data, so the tests compare them in "
        "pairs.",
        "A ticket matches the dense network if a one-sided paired t test shows that its accuracy falls short of the "
        f"dense network's by less than {delta}, after the same number of training steps. A ticket beats the controls "
        "if tests show that it is more accurate than the same mask with re-initialised weights, and more accurate than "
        "a random mask with the same number of weights in every layer.",
        "A ticket wins at a density if it matches the dense network and beats both controls. The tests for matching "
        "run from the densest level down and stop at the first failure. Holm's procedure corrects the tests "
        "against the controls for all densities together: one test for each density, of the smaller advantage of "
        "the two. An advantage over one control alone is shown if it passes the same limit. If you add replicates "
        f"or levels and judge again, that is another look at the same networks. All looks share {level}: the first "
        "may use nine tenths of it, and the later ones share the rest. At each look, half goes to matching and "
        "half to the controls. A bound's confidence is 1 minus the level of its test. For matching at the first "
        f"look, this level is 0.9 × {spent} / 2. For a control, Holm's procedure sets it. "
        f"So the chance of any false win, over all densities and all looks, stays within {level}.",
        "With fewer than five replicates the verdict is always inconclusive.",
    ]
    gate = document["verdict"].get("trained_enough")
    body = [f"<p>{escape(text)}</p>" for text in paragraphs]
    if gate is not None:
        body.append(f"<p>{escape(gate['sentence'])}</p>")
    if others := warnings_by_bearing(document)[1]:
        count = "1 note that does" if len(others) == 1 else f"{len(others)} notes that do"
        body.append(f"<details><summary>{count} not affect the verdict</summary>{_list(others)}</details>")
    return section("How the verdict was reached", *body)


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


def _details(document: Document) -> str:
    rows = []
    for level in levels(document):
        for name, arm in level["arms"].items():
            steps = plus_minus(
                arm.get("early_stop_step"), interval(arm, "early_stop_step"), scale=1, digits=0
            )
            counts = (str(replicates(arm)), plain(arm.get("failed")))
            whole: Arm = {**arm, "failed": 0}  # failures have a column of their own
            accuracies = (accuracy_text(whole, "accuracy"), accuracy_text(whole, "accuracy_at_early_stop"))
            model = level.get("model_density")
            densities = (density_percent(level["density"]), "–" if model is None else density_percent(model))
            rows.append([escape(cell) for cell in (*densities, arm_name(name), *accuracies, steps, *counts)])
    head = (
        "density",
        "of the whole model",
        "arm",
        "accuracy %",
        "at early stop %",
        "early-stop step",
        "n",
        "failed",
    )
    caption = (
        "Mean ± half the width of its 95 % interval. The first column counts the eligible weights only, and the "
        "second column counts all parameters."
    )
    numbers = table(head, rows, caption=caption)
    return f"<section><details><summary>All numbers, including early stops</summary>{numbers}</details></section>"


def _surroundings(document: Document) -> str:
    environment = document.get("environment") or {}
    machine = [(str(name), plain(value)) for name, value in environment.items() if value is not None]
    paths = {
        "store": document.get("store"),
        "results": document.get("results"),
        "ticket": document.get("ticket"),
        "report": document.get("report"),
    }
    files = [(name, path) for name, path in paths.items() if path is not None]
    return section(
        "Experiment, environment, files",
        settings(document),
        "<h3>Environment</h3>" + definitions(machine, wide=True) if machine else "",
        "<h3>Files</h3>" + definitions(files, wide=True) if files else "",
    )
