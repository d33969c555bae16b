"""The documents that runs write: every key stays, each is of its type, and another schema is refused in a sentence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from winticket import results
from winticket.cli import app
from winticket.experiment import Experiment, compare, load_source, plan
from winticket.experiment.documents import read_comparison, read_document
from winticket.outside import Unreadable, converted, read_json
from winticket.report import draw_comparison
from winticket.results import SCHEMA, Checks, Comparison, Document, LearningCurve, OtherSchemaError, Question
from winticket.run import Store

from .conftest import SMALL, Search

FROZEN = Path(__file__).parent / "frozen"
EXACT = ("experiment", "data", "density", "model_density", "replicates", "arm", "equal", "method", "split")
"""Values that no processor changes; of all others the frozen documents fix the kind alone."""
FIVE = {"replicates": 5, "stack": 5}


def kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__


def lost(before: Any, now: Any, path: str = "") -> list[str]:
    """Where a document lacks a key of the one before, has another one, or has a value of another kind."""
    if before is None or now is None:  # a number may be missing on one processor and not on another
        return []
    if kind(before) != kind(now):
        return [f"{path} was {before!r} and is {now!r}"]
    if isinstance(before, dict):
        other = [f"{path}.{name} on one side alone" for name in before.keys() ^ now.keys()]
        shared = [name for name in before if name in now]
        exact = [
            f"{path}.{n}: {before[n]!r}, {now[n]!r}" for n in shared if n in EXACT and before[n] != now[n]
        ]
        return [*other, *exact, *(one for n in shared for one in lost(before[n], now[n], f"{path}.{n}"))]
    if isinstance(before, list):
        pairs = zip(before, now, strict=False)
        return [one for at, (old, new) in enumerate(pairs) for one in lost(old, new, f"{path}[{at}]")]
    return []


def test_every_key_of_a_search_is_written_as_before_and_the_schema_beside_it(search: Search) -> None:
    document: Any = json.loads(json.dumps(search(**FIVE).document))
    before = json.loads((FROZEN / "result.json").read_text())
    assert list(document)[:2] == ["winticket", "schema"]
    assert document.pop("schema") == SCHEMA == 1
    assert document.pop("processes")["count"] == 1  # it came later, and older documents lack it
    assert lost(before, document) == []
    assert len(document["levels"]) == len(before["levels"]) == 3


def test_every_key_of_a_comparison_is_written_as_before_and_the_schema_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("winticket.report.draw_comparison", draw_comparison)  # its files are among the keys
    choices = {name: value for name, value in SMALL.items() if name != "levels"}
    methods = ("imp", "at-init:snip", "edge-popup", "gradual")
    done = compare(
        "digits", methods, density=0.3, store=tmp_path / "s", out=tmp_path / "o", workers=0, **choices
    )
    document: Any = json.loads(json.dumps(done))
    before = json.loads((FROZEN / "compare.json").read_text())
    assert document.pop("schema") == SCHEMA
    assert lost(before, document) == []
    assert [row["method"] for row in document["rows"]] == [row["method"] for row in before["rows"]]
    assert read_document(tmp_path / "o" / "compare.json", Comparison)["schema"] == SCHEMA


def test_a_key_that_goes_is_noticed() -> None:
    before = json.loads((FROZEN / "result.json").read_text())
    document = json.loads((FROZEN / "result.json").read_text())
    assert lost(before, document) == []
    del document["levels"][1]["checks"]["pace"]["gap"]
    document["levels"][2]["density"] = 0.5
    document["costs"][0]["steps"] = "30"
    assert [one.partition(":")[0] for one in lost(before, document)] == [
        ".levels[1].checks.pace.gap on one side alone",
        ".levels[2].density",
        ".costs[0].steps was 30.0 and is '30'",
    ]


def test_what_is_written_is_of_its_type(search: Search) -> None:
    result = search(**FIVE, optimizer="sgd", lr=0.1)
    path = Path(result.document["results"])
    document = read_document(path, Document)
    assert document == json.loads(path.read_text())
    assert read_json(path.with_name("curves.json").read_bytes(), list[LearningCurve]) == result.curves
    first, *pruned = document["levels"]
    assert first["checks"] == {}
    assert all(level["checks"].keys() == Checks.__annotations__.keys() for level in pruned)
    unusual = {"loss", "metric", "class_weights", "unit", "relative_margin", "start", "redraw", "reading"}
    once = Question.__annotations__.keys() - {"carried", "source"} - unusual
    assert document["experiment"].keys() == once


def test_a_transfer_has_every_key_of_its_question(search: Search) -> None:
    from winticket.experiment import conduct, transferred

    source = Path(search(gate=False).document["results"])
    experiment, store = load_source(source)
    document = conduct(transferred(experiment, steps=20), store=store, workers=0).document
    unusual = {"loss", "metric", "class_weights", "unit", "relative_margin", "start", "redraw", "reading"}
    assert document["experiment"].keys() == Question.__annotations__.keys() - unusual
    assert read_document(document["results"], Document)["experiment"]["carried"] == [1, 2]


def test_documents_from_before_the_schema_are_read_as_the_first() -> None:
    assert read_document(FROZEN / "result.json", Document)["verdict"]["outcome"] == "inconclusive"
    assert len(read_document(FROZEN / "compare.json", Comparison)["rows"]) == 12
    broken = json.loads((FROZEN / "result.json").read_text())
    broken["levels"][1]["arms"]["ticket"]["accuracies"][0] = "high"
    with pytest.raises(Unreadable, match=r"Expected `float \| null`, got `str` - at `\$.levels\[1\]"):
        converted(broken, Document)


@pytest.mark.parametrize(
    ("schema", "words"),
    [(2, "winticket 9.1 wrote it with schema 2, .* reads schema 1; install a newer winticket"),
     (0, "winticket 9.1 wrote it with schema 0, .* run the command that wrote it again with another --out")],
)  # fmt: skip
def test_another_schema_is_refused_by_whatever_reads_a_document(
    schema: int, words: str, search: Search, tmp_path: Path
) -> None:
    from winticket.cli.stores import _keys

    path = tmp_path / "out" / "result.json"
    path.parent.mkdir()
    # Of another version nothing else is known: the number alone decides.
    path.write_text(json.dumps({"winticket": "9.1", "schema": schema, "levels": "elsewhere"}))
    readers: list[Callable[[], object]] = [
        lambda: load_source(path),
        lambda: _keys(path),
        lambda: search(gate=False, out=tmp_path / "out"),
        lambda: read_document(path, Document),
    ]
    for read in readers:
        with pytest.raises(ValueError, match=words):
            read()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "compare.json").write_text(json.dumps({"winticket": "9.1", "schema": schema}))
    choices = {name: value for name, value in SMALL.items() if name != "levels"}
    with pytest.raises(ValueError, match=words):
        compare("digits", ("imp",), density=0.3, store=tmp_path / "s", out=tmp_path / "c", **choices)


def test_a_schema_that_is_no_number_is_no_document(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"schema": "one", "keys": []}')
    with pytest.raises(ValueError, match="is not a result document of this version"):
        load_source(tmp_path)
    with pytest.raises(OtherSchemaError):
        results.require_schema(results.Written(schema=3))


def test_a_stored_stack_is_decoded_once(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three stacks of replicates at two levels, all in the store: everything that is written comes from one reading."""
    choices: dict[str, Any] = {"replicates": 5, "stack": 2}
    first = search(**choices)
    decoded: Counter[str] = Counter()
    get = Store.get

    def counted(store: Store, key: str) -> Any:
        decoded[key] += 1
        return get(store, key)

    monkeypatch.setattr(Store, "get", counted)
    again = search(**choices)
    tasks = plan(Experiment.of("digits", **{**SMALL, **choices})).tasks
    assert decoded == Counter(task.key for task in tasks.values())
    assert again.document["computed"] == 0
    assert again.ticket is not None
    assert first.ticket is not None
    assert again.ticket.about == first.ticket.about
    assert again.curves == first.curves


def test_a_comparison_without_its_dense_networks_is_refused_in_a_sentence(tmp_path: Path) -> None:
    document = json.loads((FROZEN / "compare.json").read_text())
    file = tmp_path / "compare.json"
    assert len(read_comparison(FROZEN / "compare.json")["rows"]) == 12
    for rows, equal in (
        ([], "density"),
        ([row for row in document["rows"] if row["equal"] == "density"], "cost"),
    ):
        file.write_text(json.dumps(document | {"rows": rows}))
        with pytest.raises(
            Unreadable, match=f"its rows lack the dense network at equal {equal}; run winticket compare"
        ):
            read_comparison(file)
        for arguments in (["show", str(file)], ["report", str(file)]):
            answer = CliRunner().invoke(app, arguments)
            assert isinstance(answer.exception, SystemExit), "no traceback"
            assert answer.exit_code == 2
            assert "its rows lack the dense network" in " ".join(answer.output.split())
