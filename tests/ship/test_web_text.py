"""What a page says, holds and refuses, without a browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shipped
from winticket.ship import Network, Operation, Preprocessing, Weight, run, to_web
from winticket.ship.web import inputs, network_of, page


def plain(*shape: int, classes: int = 3, seed: int = 0, **rest: Any) -> Network:
    """One Linear layer over a flattened input."""
    size = int(np.prod(shape))
    rng = np.random.default_rng(seed)
    weight = Weight.of("fc.weight", rng.standard_normal((classes, size)), rng.random((classes, size)) < 0.5)
    flat = Operation("reshape", ("input",), "1", {"shape": [size]})
    return Network(shape, (flat, Operation("linear", ("1",), "2", tensors={"weight": weight})), **rest)


def test_it_is_one_file_that_names_no_address() -> None:
    text = to_web(shipped.network("lenet-300-100"))
    assert not re.findall(r"https?:|//[a-z]+\.|@import|url\(|<link|<img| src=", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("values", ["fp32", "fp16", "bf16", "int8"])
def test_the_network_comes_back_out_of_it(values: str) -> None:
    network = shipped.network("lenet-300-100", int8=values == "int8")
    back = network_of(to_web(network, values=values))
    x = np.random.default_rng(0).standard_normal((4, 1, 28, 28)).astype(np.float32)
    tolerance = {"fp32": 0, "fp16": 2**-11, "bf16": 2**-8, "int8": 1e-6}[values]
    right = run(network, x)
    assert np.abs(run(back, x) - right).max() <= 10 * tolerance * np.abs(right).max()
    with pytest.raises(ValueError, match="a page without a network 'dense'"):
        network_of(to_web(network), "dense")


def test_text_from_elsewhere_stays_text() -> None:
    evil = "</script><script>alert(1)</script>\x1b[31m"
    about = {"arm": evil, "data": evil, "model": evil}
    network = replace(plain(2, classes=2), classes=(evil, "@FACTS@"), about=about)
    text = to_web(network, note=evil)
    assert text.count("<script") == 3
    assert text.count("</script>") == 3
    assert "<script>alert" not in text
    assert "\x1b" not in text
    assert '"classes":["\\u003c/script>' in text


def test_a_large_dense_network_is_stored_in_fp16_and_the_page_says_so() -> None:
    """LeNet-300-100 has 1.07 MB in fp32; the page stays below 1 MB."""
    network = shipped.network("lenet-300-100")
    weights = {name: Weight.of(name, w.dense() + 0.01) for name, w in network.weights().items()}
    operations = tuple(
        replace(o, tensors={role: weights[w.name] for role, w in o.tensors.items()})
        for o in network.operations
    )
    dense = replace(network, operations=operations, about={})
    x = np.random.default_rng(0).standard_normal((30, 1, 28, 28)).astype(np.float32)
    text = to_web(network, dense=dense, examples=(x, np.arange(30) % 7))
    assert len(text) < 1_000_000
    stored = network_of(text, "dense")
    changed = int((run(stored, x).argmax(-1) != run(dense, x).argmax(-1)).sum())
    answers = {0: "no answer", 1: "1 answer"}.get(changed, f"{changed} answers")
    assert f"the dense network is stored in fp16, which changes {answers} of 30 test examples." in text
    assert "1.07 MB (fp32)" in text
    assert "fp16" not in to_web(network, dense=network)


@pytest.mark.parametrize(
    ("accuracy", "before", "sentence"),
    [
        (0.976, 0.98, "The ticket keeps 50.0 % of the weights and classifies 97.60 % of the test data correctly; the "
         "dense network, 98.00 %. Tickets win."),
        (None, None, "The ticket keeps 50.0 % of the weights. Tickets win."),
        (2, "x", "The ticket keeps 50.0 % of the weights. Tickets win."),
    ],
)  # fmt: skip
def test_the_sentence_says_what_is_known(accuracy: Any, before: Any, sentence: str) -> None:
    network, dense = plain(4, classes=4), plain(4, classes=4, seed=1)
    keep = np.arange(16).reshape(4, 4) % 2 == 0
    fc = Operation("linear", ("1",), "2", tensors={"weight": Weight.of("w", np.ones((4, 4)), keep)})
    network = replace(
        network,
        operations=(network.operations[0], fc),
        about={} if accuracy is None else {"test_accuracy": accuracy},
    )
    dense = replace(dense, about={} if before is None else {"test_accuracy": before})
    assert f"<p>{sentence}</p>" in to_web(network, dense=dense, note="Tickets win.")


def test_examples_are_of_every_class_in_turn_and_raw() -> None:
    ready = Preprocessing(255.0, (0.4, 0.5), (0.2, 0.3))
    network = plain(2, 3, 3, classes=6, preprocessing=ready)
    raw = np.random.default_rng(0).integers(0, 256, (200, 2, 3, 3))
    y = np.r_[np.zeros(100, int), np.arange(100) % 5]
    chosen = inputs.examples_of(network, ready.apply(raw), y)
    assert chosen.classes.tolist() == [0, 1, 2, 3, 4] * 4
    np.testing.assert_array_equal(chosen.raw[:2], raw[[0, 101]])
    np.testing.assert_array_equal(chosen.raw[5:7], raw[[1, 106]])
    assert (chosen.low, chosen.high) == (raw.min(), raw.max())


def test_few_large_examples_are_chosen() -> None:
    network = plain(3, 150, 200, classes=2)
    chosen = inputs.examples_of(network, np.random.default_rng(0).random((5, 3, 150, 200)), np.zeros(5, int))
    assert len(chosen.raw) == len(chosen.classes) == 1


@pytest.mark.parametrize(
    ("shape", "data", "fit"),
    [
        ((1, 8, 8), "digits", "whole"),
        ((1, 28, 28), "/home/me/mnist", "centred"),
        ((1, 28, 28), "ylecun/mnist", "centred"),
        ((1, 28, 28), "fashion_mnist", "plain"),
        ((1, 12, 20), "letters", "plain"),
        ((1, 65, 8), "letters", None),
        ((3, 8, 8), "digits", None),
        ((1, 40), "mnist1d", None),
    ],
)
def test_what_can_be_drawn(shape: tuple[int, ...], data: str, fit: str | None) -> None:
    network = plain(*shape, about={"data": data})
    examples = inputs.examples_of(network, np.random.default_rng(0).random((3, *shape)), np.arange(3))
    draw = inputs.input_facts(network, examples, ["a", "b", "c"])["draw"]
    assert (draw and draw["fit"]) == fit


def test_paper_is_what_the_border_is() -> None:
    network = plain(1, 6, 6)
    x = np.zeros((3, 1, 6, 6), np.float32)
    x[:, :, 2:4, 2:4] = 9
    for data, paper, ink in ((x, 0.0, 9.0), (9 - x, 9.0, 0.0)):
        facts = inputs.input_facts(network, inputs.examples_of(network, data, np.arange(3)), ["a", "b", "c"])
        assert facts["draw"] == {"fit": "plain", "paper": paper, "ink": ink}


def test_what_cannot_be_a_page_is_refused() -> None:
    network = plain(1, 8, 8)
    x, y = np.zeros((2, 1, 8, 8)), np.array([0, 1])
    per_row = Operation("linear", ("input",), "1", tensors={"weight": Weight.of("w", np.ones((2, 8)))})
    refused: list[tuple[Callable[[], str], str]] = [
        (lambda: to_web(Network((1, 8, 8), (per_row,))), r"gives outputs of shape \[1, 8, 2\]"),
        (
            lambda: to_web(plain(4, classes=1)),
            r"two classes or more, but the network gives outputs of shape \[1\]",
        ),
        (
            lambda: to_web(plain(3, 8, 8)),
            "can be neither drawn nor set by sliders, so the page needs examples",
        ),
        (lambda: to_web(network, values="fp61"), "values is 'fp61'"),
        (
            lambda: to_web(network, dense=plain(1, 8, 7)),
            r"takes \[1, 8, 7\] and gives \[3\], but the other one takes",
        ),
        (
            lambda: to_web(network, dense=plain(1, 8, 8, preprocessing=Preprocessing(2.0, (0.0,), (1.0,)))),
            "preprocess their inputs differently",
        ),
        (lambda: to_web(network, examples=(x[:, 0], y)), r"not \[2, 8, 8\] and \[2\]"),
        (lambda: to_web(network, examples=(x[:0], y[:0])), "N of 1 or more"),
        (lambda: to_web(network, examples=(x, y + 2)), "whole numbers from 0 to 2"),
        (lambda: to_web(network, examples=(x, y / 2)), "whole numbers from 0 to 2"),
    ]
    for make, message in refused:
        with pytest.raises(ValueError, match=message):
            make()


def test_a_page_of_many_megabytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_BYTES", 2000)
    with pytest.raises(
        ValueError, match=r"take 3\.\d kB as files, and a page holds at most 2\.0 kB; take smaller values"
    ):
        to_web(plain(1, 20, 20))


def test_the_documents_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "ship-web.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(compile(code, "ship-web.md", "exec"), names)
    written = (tmp_path / "digits.html").read_text("utf-8")
    kept, size = network_of(written).kept()
    assert size == network_of(written, "dense").kept()[0] == 22_200
    assert kept == 2_220
    assert "keeps 10.0 % of the weights. Trained for 10 epochs.</p>" in written
