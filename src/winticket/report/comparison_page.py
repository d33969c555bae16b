"""The page of a comparison of methods."""

from __future__ import annotations

from html import escape
from pathlib import Path

from winticket.report.comparison import (
    EQUAL,
    cells,
    comparison_figure,
    comparison_subtitle,
    comparison_title,
    head,
    legend,
)
from winticket.report.elements import definitions, section, table
from winticket.report.glossary import linked, words_section
from winticket.report.glossary_metric import meanings
from winticket.report.inline import figure
from winticket.report.metric import metric_of
from winticket.report.page import framed
from winticket.report.reading import density_percent, plain
from winticket.report.trouble_section import listed
from winticket.results import Comparison
from winticket.text import cleaned


def write_comparison_page(document: Comparison, path: str | Path) -> Path:
    """Write the page of a comparison, and return its path. OSError if it cannot be written."""
    target = Path(path)
    target.write_text(comparison_page(cleaned(document)), encoding="utf-8")
    return target


def comparison_page(document: Comparison) -> str:
    """Return the page of a comparison of methods as HTML: figure, tables, warnings, environment."""
    title = comparison_title(document)
    words = (
        f"{title}. {comparison_subtitle(document)}. The tables of this page and compare.csv give the numbers."
    )
    name = metric_of(document).name
    caption = (
        f"Points: mean test {name}, with its 95 % interval. The line with its band is the dense network."
    )
    drawn = figure(
        lambda layout: comparison_figure(document, layout=layout)[0],
        name="comparison", words=words, caption=caption,
    )  # fmt: skip
    environment = [
        (name, plain(value)) for name, value in document["environment"].items() if value is not None
    ]
    warnings = document.get("warnings") or []
    body = "\n".join(
        [
            f"<section><p class=over>{escape(comparison_subtitle(document))}</p><h1>{escape(title)}</h1>"
            f"<p>{escape(legend(document))}</p></section>",
            f"<section>{drawn}</section>",
            *(_budget(document, equal, heading) for equal, heading in EQUAL.items()),
            section("Cautions", listed(warnings)) if warnings else "",
            section("Environment", definitions(environment, wide=True)),
        ]
    )
    metric = metric_of(document)
    whole = linked(body, unit=metric.scale.unit)
    return framed(title, f"{whole}\n{words_section(whole, meanings(metric))}")


def _budget(document: Comparison, equal: str, heading: str) -> str:
    rows = [
        [escape(cell) for cell in cells(row, metric_of(document))]
        for row in document["rows"]
        if row["equal"] == equal
    ]
    caption = f"{heading}, at a density of {density_percent(document['density'])}"
    return section(heading, table(head(document), rows, caption=caption, worded=True))
