"""The page of an unfinished run: how much has finished, and of what data, before any ticket is saved."""

from __future__ import annotations

from typing import Any

import pytest

from winticket.experiment import Experiment
from winticket.report import finished_page, progress_page
from winticket.report.progress_page import as_document
from winticket.report.question import data_words

TEXT: Any = {
    "fingerprint": "0", "input_shape": [64], "classes": 65, "split": "shared", "tokens": True, "train": 15685,
    "validation": 871, "test": 870,
}  # fmt: skip


def unfinished(finished: int, planned: int, **data: Any) -> Any:
    return {
        "experiment": Experiment.of("digits", replicates=5).describe(),
        "data": {**TEXT, **data},
        "network": {
            "parameters": 10,
            "eligible": 8,
            "layers": [{"name": "a", "shape": [2, 4], "size": 8}],
            "kept": [8],
        },
        "store": "runs",
        "folder": "out",
        "finished": finished,
        "planned": planned,
        "last": None,
        "levels": [],
        "missing": [],
    }


@pytest.mark.parametrize(
    ("finished", "planned", "percent"),
    [(0, 1000, 0), (9, 1000, 0), (10, 1000, 1), (29, 100, 29), (997, 1000, 99), (999, 1000, 99), (1000, 1000, 100)],
)  # fmt: skip
def test_only_what_has_finished_is_100_percent(finished: int, planned: int, percent: int) -> None:
    page = progress_page(unfinished(finished, planned), []).replace("\N{NO-BREAK SPACE}", " ")
    assert f'aria-label="{percent} % finished"' in page
    assert f"</span> {percent} %</p>" in page


def test_a_text_is_told_as_one_before_a_ticket_is_saved() -> None:
    document = as_document(unfinished(0, 10), planned=True)
    assert data_words(document) == (
        "windows of 64 characters in 65 classes; 15,685 training, 871 validation and 870 test examples"
    )
    page = progress_page(unfinished(0, 10), [])
    assert "windows of 64 characters" in page
    assert "examples of 64 values" not in page


@pytest.mark.parametrize("tokens", [True, False])
def test_older_documents_tell_by_their_saved_ticket(tokens: bool) -> None:
    document: Any = as_document(unfinished(0, 10))
    told = {True: "windows of 64 characters", False: "examples of 64 values"}
    del document["data"]["tokens"]
    assert data_words(document).startswith(told[False])  # type: ignore[union-attr]
    document["saved_ticket"] = {"build": {"tokens": tokens}}
    assert data_words(document).startswith(told[tokens])  # type: ignore[union-attr]
    document["data"]["tokens"] = not tokens
    assert data_words(document).startswith(told[not tokens])  # type: ignore[union-attr]


def test_the_last_page_leads_to_the_report_or_says_how_to_draw_it() -> None:
    assert '<a href="report.html">' in finished_page("report.html")
    undrawn = finished_page(None)
    assert "winticket report draws it again" in undrawn
    assert "href" not in undrawn.partition("<section>")[2].partition("</section>")[0]
