"""Trained networks as C, ONNX and TFLite: a file computes what was trained, or it is said why that is not known."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from compiled import needs_cc
from winticket.experiment import Result, TrainedNetwork
from winticket.ship import as_c, choices, load, native, to_c
from winticket.ship.card_size import size_rows
from winticket.ship.format import ShipmentError

Search = Callable[..., Result]


@pytest.fixture
def network(search: Search) -> TrainedNetwork:
    return search(gate=False, controls=(), levels=1, replicates=1).trained()


def recorded(network: TrainedNetwork) -> float:
    return network.origin["test_accuracy"]


@needs_cc
@pytest.mark.parametrize("values", ["fp32", "int8"])
def test_c_is_compiled_and_evaluated_and_its_memory_stated(
    values: str, network: TrainedNetwork, tmp_path: Path
) -> None:
    shipment = network.ship(tmp_path / "ship", to="c", values=values, name="my net.1")
    stem = "my_net_1" if values == "fp32" else "my_net_1_int8"
    names = sorted(file.name for file in (tmp_path / "ship").iterdir())
    assert names == [f"{stem}.c", f"{stem}.c.md", f"{stem}.h"]
    assert shipment["beside"] == [str(tmp_path / "ship" / f"{stem}.h")]
    read_back, memory = shipment["read_back"], shipment["memory"]
    assert read_back is not None
    assert memory is not None
    dense = to_c(network.network(), name=stem)
    assert (memory["scratch"], memory["buffers"]) == (dense.scratch, 4 * (64 + 10))
    if values == "fp32":
        assert (read_back["test_accuracy"], read_back["answers_changed"]) == (recorded(network), 0)
        assert 0 < read_back["largest_difference"] < 1e-4
        assert memory["flash"] == dense.flash
    else:
        assert read_back["largest_difference"] > 1e-4
        assert memory["flash"] < 0.5 * dense.flash
    card = Path(shipment["card"]).read_text()
    assert f"{memory['flash'] / 1e3:.1f} kB of constants" in card
    assert "| state dict of the dense network |" in card
    assert "this file |" not in card  # the size of the text says nothing


@needs_cc
def test_the_cards_lines_of_c_use_the_file(network: TrainedNetwork, tmp_path: Path) -> None:
    shipment = network.ship(tmp_path, to="c", name="net")
    text = Path(shipment["card"]).read_text()
    include, _, rest = text.split("```c\n")[1].split("```")[0].partition("\n")
    about: Any = network.ticket.about["data"]
    examples = network.test_examples()
    raw = (examples.x[:3].numpy() * about["std"][0] + about["mean"][0]) * about["scale"]
    answers = []
    for pixels in raw.reshape(3, -1).round():
        declared = ", ".join(f"{pixel:.1f}f" for pixel in pixels)
        show = f'for (int i = 0; i < {10}; i++) printf("%.9g ", output[i]);'
        body = f"static const float pixels[] = {{{declared}}};\n{rest}\n{show}\nreturn 0;"
        (tmp_path / "main.c").write_text(f"#include <stdio.h>\n{include}\nint main(void)\n{{\n{body}\n}}\n")
        subprocess.run(
            ["cc", "-std=c99", "-o", "main", "main.c", "net.c", "-lm"], cwd=tmp_path, check=True, timeout=100
        )
        done = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True, timeout=100)
        answers.append([float(number) for number in done.stdout.split()])
    model = network.model()
    np.testing.assert_allclose(answers, model(examples.x[:3]).detach().numpy(), rtol=1e-4, atol=1e-4)


@needs_cc
def test_a_program_that_fails_is_an_error_and_a_compiler_that_fails_is_told(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(as_c, "_MAIN", "int main(void) { return 3; }\n")
    with pytest.raises(ShipmentError, match=r"net\.c ends with status 3"):
        network.ship(tmp_path, to="c", name="net")
    assert not list(tmp_path.glob("*.md"))
    monkeypatch.setattr(as_c, "_MAIN", "int main(void) { return nothing; }\n")
    reason = network.ship(tmp_path, to="c", name="net")["not_evaluated"]
    assert reason is not None
    assert "cannot compile it here: " in reason
    monkeypatch.setattr(as_c, "SECONDS", 0)
    assert "more than 0 seconds" in str(network.ship(tmp_path, to="c", name="net")["not_evaluated"])


def test_without_a_compiler_c_is_written_and_the_card_says_that_it_was_not_evaluated(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(as_c, "COMPILERS", ("no-such-compiler",))
    shipment = network.ship(tmp_path, to="c", name="net")
    assert shipment["read_back"] is None
    assert shipment["not_evaluated"] == "there is no C compiler here (no-such-compiler)"
    assert "The file was not evaluated: there is no C compiler here" in Path(shipment["card"]).read_text()
    assert "net_run(input, output)" in "\n".join(shipment["use"])


def test_onnx_is_evaluated_by_its_runtime(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    shipment = network.ship(tmp_path, to="onnx", name="net")
    read_back = shipment["read_back"]
    assert read_back is not None
    assert (read_back["test_accuracy"], read_back["answers_changed"]) == (recorded(network), 0)
    assert read_back["largest_difference"] < 1e-5
    examples = network.test_examples()
    names: dict[str, Any] = {"x": examples.x.numpy()}
    code = Path(shipment["card"]).read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "card", "exec"), names)
    assert (names["logits"].argmax(1) == examples.y.numpy()).mean() == recorded(network)


@pytest.mark.parametrize("to", ["tflite", "tflite-sparse"])
def test_tflite_is_evaluated_by_litert(
    to: str, network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert")
    shipment = network.ship(tmp_path, to=to, name="net")
    read_back = shipment["read_back"]
    assert read_back is not None
    assert (read_back["test_accuracy"], read_back["answers_changed"]) == (recorded(network), 0)
    assert read_back["largest_difference"] < 1e-5
    assert Path(shipment["file"]).name == ("net.tflite" if to == "tflite" else "net-sparse.tflite")
    card = Path(shipment["card"]).read_text()
    assert ("Only interpreters without default delegates compute it" in card) == (to == "tflite-sparse")
    examples = network.test_examples()
    names: dict[str, Any] = {"x": examples.x.numpy()}
    code = card.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "card", "exec"), names)
    assert (names["logits"].argmax(1) == examples.y.numpy()).mean() == recorded(network)


def test_a_folder_for_the_hub_is_loaded_and_its_header_is_yaml(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipment = network.ship(tmp_path, to="hub", values="fp16", name="net")
    folder = tmp_path / "net-fp16"
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert shipment["card"] == str(folder / "README.md")
    assert shipment["beside"] == [str(folder / "config.json")]
    read_back = shipment["read_back"]
    assert read_back is not None
    text = (folder / "README.md").read_text()
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["library_name"] == "winticket"
    assert header["pipeline_tag"] == "image-classification"
    assert "datasets" not in header  # digits come with scikit-learn
    (result,) = header["model-index"][0]["results"]
    assert result["dataset"]["name"] == "digits"
    assert result["metrics"][0]["value"] == read_back["test_accuracy"]
    config = json.loads((folder / "config.json").read_text())
    assert (config["library_name"], config["values"]) == ("winticket", "fp16")
    assert (config["kept"], config["input_shape"]) == (shipment["kept"], [1, 8, 8])
    assert load(folder).about["test_accuracy"] == recorded(network)
    if not native.missing:
        code = text.split("```python\n")[1].split("```")[0]
        monkeypatch.chdir(folder)
        names: dict[str, Any] = {"pixels": np.zeros((2, 1, 8, 8), np.float32)}
        exec(compile(code, "card", "exec"), names)
        assert names["logits"].shape == (2, 10)


def test_what_strangers_write_into_the_header_of_a_card_stays_text(
    network: TrainedNetwork, tmp_path: Path
) -> None:
    odd = 'a"\n---\n: {x: !!python/object:os.system}\u2028'
    changed = replace(network, origin={**network.origin, "model": odd, "data": f"x/{odd}"})
    text = Path(changed.ship(tmp_path, to="hub", name="net")["card"]).read_text()
    header = yaml.safe_load(text[4 : text.index("\n---\n", 4)])
    assert header["model-index"][0]["name"] == odd
    assert "datasets" not in header


def test_without_onnx_runtime_onnx_is_written_and_not_evaluated(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    shipment = network.ship(tmp_path, to="onnx", name="net")
    assert Path(shipment["file"]).name == "net.onnx"
    assert shipment["read_back"] is None
    assert "ONNX Runtime is not installed" in str(shipment["not_evaluated"])
    assert size_rows(shipment)[0][0] == "this file"


def test_what_cannot_be_written_is_refused_first(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"to": "c", "values": "fp16"}, "format c holds values in fp32, int8, not in fp16"),
        ({"to": "onnx", "values": "int8"}, "format onnx holds values in fp32, not in int8"),
        ({"name": "a/b"}, "name is 'a/b'; it names a file"),
        ({"name": ".."}, "it names a file"),
    ]
    for wrong, message in mistakes:
        with pytest.raises(ValueError, match=message):
            network.ship(tmp_path / "ship", **wrong)
    monkeypatch.setattr(choices, "find_spec", lambda _: None)
    with pytest.raises(
        ValueError, match=r"with the package onnx, which is not installed: pip install 'winticket\[ship\]"
    ):
        network.ship(tmp_path / "ship", to="onnx")
    assert not (tmp_path / "ship").exists()
