"""Texts of several documents: read, held out whole, cut into windows, and drawn as what intervals are over."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from typer.testing import CliRunner

from lm.models import write_model, write_text, write_tokenizer
from winticket import data
from winticket.cli import app
from winticket.data import Reading
from winticket.data.tokens import parted_documents
from winticket.documents import read_documents
from winticket.lm.perplexity import estimate, ratio
from winticket.lm.text import Tokens, even_windows, parted

COMMANDS = CliRunner()


def test_documents_of_files_lines_and_folders(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("a b\n\nc")
    assert read_documents(tmp_path / "one.txt") == ["a b\n\nc"]
    lines = [
        json.dumps({"text": "erste Zeile\nzweite", "id": 3}),
        "",
        json.dumps({"text": " "}),
        '{"text": "ü"}',
    ]
    (tmp_path / "many.jsonl").write_text("\n".join(lines) + "\n")
    assert read_documents(tmp_path / "many.jsonl") == ["erste Zeile\nzweite", "ü"]
    for name in ("b/2.txt", "b/1.txt", "a.txt", "b/readme.md"):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_text(name)
    assert read_documents(tmp_path / "folder") == ["a.txt", "b/1.txt", "b/2.txt"]


def test_whole_documents_are_held_out() -> None:
    tokens = Tokens(torch.arange(100), (30, 30, 19, 1, 20))
    first, second = parted(tokens)
    assert (first.lengths, second.lengths) == ((30, 30, 19, 1), (20,))
    assert torch.equal(torch.cat([first.ids, second.ids]), tokens.ids)
    first, second = parted(Tokens(torch.arange(100), (99, 1)))  # never all of them
    assert (first.lengths, second.lengths) == ((99,), (1,))
    first, second = parted(Tokens(torch.arange(10), (10,)))
    assert (first.lengths, second.lengths) == ((8,), (2,))


def test_windows_lie_within_documents_and_spread_over_them() -> None:
    lengths = (7, 2, 12, 3, 9)
    starts = np.cumsum([0, *lengths])
    tokens = Tokens(torch.arange(sum(lengths)), lengths)
    windows = even_windows(tokens, most=100, length=3)
    assert len(windows.ids) == sum(length // 3 for length in lengths)
    for window, number in zip(windows.ids, windows.documents, strict=True):
        assert window.diff().eq(1).all()
        assert starts[number] <= window[0] <= window[-1] < starts[number + 1]
    assert len(set(windows.ids.flatten().tolist())) == windows.ids.numel()
    few = even_windows(tokens, most=4, length=3)
    assert few.documents == (0, 2, 2, 4)
    with pytest.raises(
        ValueError, match="the longest document of the text has 12 tokens, fewer than one window of 13"
    ):
        even_windows(tokens, most=4, length=13)


def test_the_interval_is_students_over_windows_or_over_documents_of_one_window_each() -> None:
    values = np.random.default_rng(0).normal(3, 0.5, 12).tolist()
    low, high = stats.t.interval(0.95, 11, np.mean(values), stats.sem(values))
    for documents in (None, [4] * 12, list(range(12))):
        assert estimate(values, documents)["interval"] == pytest.approx([math.exp(low), math.exp(high)])
    assert estimate(values[:1], [0])["interval"] is None
    after = [v + d for v, d in zip(values, [0.1, 0.3] * 6, strict=True)]
    paired = ratio(after, values, list(range(12)))
    low, high = stats.t.interval(0.95, 11, 0.2, stats.sem([0.1, 0.3] * 6))
    assert paired["interval"] == pytest.approx([math.exp(low), math.exp(high)])


def test_over_documents_the_interval_covers_as_often_as_it_says() -> None:
    """40 documents of 1 to 6 windows, whose losses share what their document is like; 2000 times over."""
    generator = np.random.default_rng(3)
    covered = {"documents": 0, "windows": 0}
    for _ in range(2000):
        counts = generator.integers(1, 7, 40)
        documents = np.repeat(np.arange(40), counts)
        losses = (
            2 + np.repeat(generator.normal(0, 0.5, 40), counts) + generator.normal(0, 0.2, len(documents))
        )
        for name, of in (("documents", documents.tolist()), ("windows", None)):
            interval = estimate(losses.tolist(), of)["interval"]
            assert interval is not None
            covered[name] += interval[0] <= math.exp(2) <= interval[1]
    assert 0.93 < covered["documents"] / 2000 < 0.965
    assert covered["windows"] / 2000 < 0.85  # windows of one document resemble each other


def test_perplexity_of_documents_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "tiny", dtype=torch.float32)
    write_text(tmp_path / "text.txt", 900)
    text = (tmp_path / "text.txt").read_text()
    parts = [text[at : at + 90] for at in range(0, len(text), 90)]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": part}) + "\n" for part in parts))
    (tmp_path / "folder").mkdir()
    for number, part in enumerate(parts):
        (tmp_path / "folder" / f"{number:02}.txt").write_text(part)
    found = []
    for name in ("text.jsonl", "folder"):
        done = COMMANDS.invoke(app, ["lm", "perplexity", "tiny", "--data", name, "--length", "20", "--json"])
        assert done.exit_code == 0, done.output
        found.append(json.loads(done.stdout))
    assert found[0] == found[1]
    assert found[0]["documents"] == len(parts)
    said = COMMANDS.invoke(app, ["lm", "perplexity", "tiny", "--data", "folder", "--length", "20"])
    assert f"from {len(parts)} documents (intervals are over documents)" in " ".join(said.stdout.split())
    done = COMMANDS.invoke(
        app, ["lm", "prune", "tiny", "--data", "text.jsonl", "--length", "20", "--samples", "4"]
    )
    assert done.exit_code == 0, done.output
    stored = json.loads((tmp_path / "tiny-wanda" / "result.json").read_text())
    assert stored["perplexity"]["after"]["documents"] == 2  # the last fifth


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        (
            "t.jsonl",
            '{"text": "a"}\n{"texts": "b"}\n',
            r"line 2 of .*t\.jsonl is .*each line .* entry \"text\"",
        ),
        ("t.jsonl", '{"text": 3}\n', r"line 1 of .*t\.jsonl is Expected `str`"),
        ("t.jsonl", "plain words\n", r"line 1 of .*t\.jsonl is "),
        ("t.jsonl", "\n\n", "is blank"),
        ("folder/readme.md", "words", r"has no text files: each document is a file that ends in \.txt"),
        ("folder/a.txt", " ", "is blank"),
    ],
)
def test_texts_that_have_no_documents_are_refused(
    name: str, content: str, error: str, tmp_path: Path
) -> None:
    write_model(tmp_path / "tiny")
    write_tokenizer(tmp_path / "tiny")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    data = str(tmp_path / name.partition("/")[0])
    done = COMMANDS.invoke(app, ["lm", "perplexity", str(tmp_path / "tiny"), "--data", data])
    assert done.exit_code == 2
    with pytest.raises(ValueError, match=error):
        read_documents(Path(data))


def test_the_mark_that_editors_put_first_is_no_text(tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n{"text": "two"}\r\n')
    assert read_documents(lines) == ["one", "two"]
    plain = tmp_path / "plain.txt"
    plain.write_bytes(b"\xef\xbb\xbfone")
    assert read_documents(plain) == ["one"]


def test_whole_documents_go_to_the_parts_of_a_search() -> None:
    documents = [torch.arange(100 * at, 100 * at + size) for at, size in enumerate((30, 30, 19, 1, 9, 11))]
    parts = parted_documents(documents, 4, what="a text")
    found = {name: sorted({int(token) // 100 for token in part.x.flatten()}) for name, part in parts.items()}
    assert found == {"train": [0, 1, 2], "validation": [4], "test": [5]}  # 3 is too short for a window
    for name in ("validation", "test"):
        for x, y in zip(parts[name].x, parts[name].y, strict=True):
            assert torch.equal(x[1:], y[:-1])
            assert len({int(token) // 100 for token in [*x, y[-1]]}) == 1
    train = torch.cat(documents[:3])
    assert torch.equal(parts["train"].x.flatten(), train[: len(parts["train"].x) * 4])
    assert torch.equal(parts["train"].y.flatten(), train[1 : len(parts["train"].x) * 4 + 1])


@pytest.mark.parametrize("sizes", [(9, 9, 9), (500, 9, 9), (9, 9, 500), (9, 500, 9), (0, 9, 0, 9, 0, 9)])
def test_every_part_has_documents(sizes: tuple[int, ...]) -> None:
    documents = [torch.arange(size) for size in sizes]
    assert all(len(part.x) for part in parted_documents(documents, 4, what="a text").values())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((90, 9), "a text has 2 documents, and a search needs three or more"),
        (
            (90, 4, 9),
            "the documents for validation have 4 tokens at most, fewer than a window of 4 and the token",
        ),
        ((4, 9, 9), "the documents for train have 4 tokens at most"),
    ],
)
def test_documents_without_a_window_are_refused(sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parted_documents([torch.arange(size) for size in sizes], 4, what="a text")


def test_a_search_reads_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = write_model(tmp_path / "model", dtype=torch.float32)
    words = write_text(tmp_path / "plain.txt", 1200).read_text()
    pieces = [words[at : at + 100] for at in range(0, 1200, 100)]
    (tmp_path / "many.jsonl").write_text("\n".join(json.dumps({"text": piece}) for piece in pieces))
    (tmp_path / "folder").mkdir()
    for at, piece in enumerate(pieces):
        (tmp_path / "folder" / f"{at:02}.txt").write_text(piece)
    reading = Reading(tokenizer=str(model))
    lines, files, whole = (
        data.load(str(tmp_path / name), window=8, reading=reading)
        for name in ("many.jsonl", "folder", "plain.txt")
    )
    for split in ("train", "validation", "test"):
        one, two = (getattr(each, split).x for each in (lines, files))
        assert torch.equal(one, two)
    assert len(lines.validation.x) == 12  # of 100 tokens, twelve windows of 8
    assert lines.train.x.shape[1] == whole.train.x.shape[1] == 8
    answer = COMMANDS.invoke(
        app,
        [
            "lm",
            "find",
            str(model),
            "--data",
            str(tmp_path / "many.jsonl"),
            "--length",
            "8",
            "--plan",
            "--json",
        ],
    )
    assert answer.exit_code == 0, answer.output
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(json.dumps({"text": piece}) for piece in pieces[:2]))
    answer = COMMANDS.invoke(app, ["lm", "find", str(model), "--data", str(few), "--length", "8", "--plan"])
    assert answer.exit_code == 2
    assert "has 2 documents, and a search needs three or more" in " ".join(answer.output.split())
