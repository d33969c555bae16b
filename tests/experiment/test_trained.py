"""Trained networks of a run: the recorded accuracy, from the store, through every format and back."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import winticket
from winticket.experiment import (
    Experiment,
    Result,
    TrainedNetwork,
    conduct,
    from_ticket,
    open_run,
    trained,
    transferred,
)
from winticket.experiment.plan import BESIDE
from winticket.run import StoreError
from winticket.ship import VALUES, load, native, run
from winticket.ship.format import ShipmentError, Source
from winticket.ship.formats import FORMATS
from winticket.ship.web import network_of
from winticket.ticket import Ticket, same_bits

Search = Callable[..., Result]


@pytest.fixture
def result(shared: Result) -> Result:
    """A finished run that many tests read."""
    return shared


@pytest.fixture
def own(search: Search, tmp_path: Path) -> Result:
    """A finished run whose files, in the test's folder, may be moved, edited or removed."""
    return search(gate=False, out=tmp_path / "out")


def accuracy(network: TrainedNetwork) -> float:
    """Test accuracy of the torch module, computed here."""
    examples = network.test_examples()
    with torch.no_grad():
        right = network.model()(examples.x).argmax(-1) == examples.y
    return int(right.sum()) / len(right.flatten())


def cells(result: Result) -> list[tuple[int, str]]:
    return sorted({cell[:2] for cell in result.finished.plan.tasks if cell[1] not in BESIDE})


def test_every_training_of_a_run_can_be_had_with_the_accuracy_that_it_recorded(result: Result) -> None:
    levels = result.document["levels"]
    assert cells(result) == [(0, "dense"), *((n, a) for n in (1, 2) for a in ("random", "reinit", "ticket"))]
    for level, arm in cells(result):
        for replicate in (0, 1):
            network = result.trained(arm=arm, level=level, replicate=replicate)
            recorded = levels[level]["arms"][arm]["accuracies"][replicate]
            assert accuracy(network) == network.origin["test_accuracy"] == recorded
            assert network.ticket.mask.density() == network.origin["density"] == levels[level]["density"]
            assert network.ticket.start.step == network.origin["steps"] == 30
            assert network.origin["mean_test_accuracy"] == levels[level]["arms"][arm]["accuracy"]
            assert network.origin["accuracy_ci"] == levels[level]["arms"][arm]["accuracy_ci"]
            module = network.model()
            assert all(not module.get_parameter(n)[~k].any() for n, k in network.ticket.mask.keep.items())
    ticket = result.trained(level=1, replicate=0).ticket
    assert not same_bits(ticket.start.weights, result.trained(level=2, replicate=0).ticket.start.weights)


def test_by_default_it_is_the_saved_ticket(result: Result) -> None:
    saved = result.document["saved_ticket"]
    assert saved is not None
    assert result.ticket is not None
    network = result.trained()
    assert (network.origin["level"], network.origin["replicate"]) == (saved["level"], saved["replicate"])
    assert network.origin["test_accuracy"] == saved["test_accuracy"]
    assert same_bits(network.ticket.mask.keep, result.ticket.mask.keep)
    assert repr(network).startswith("TrainedNetwork('ticket', density ")
    dense = result.trained(arm="dense").origin
    accuracies = [
        result.trained(arm="dense", replicate=n).ticket.about["validation_accuracy"] for n in (0, 1)
    ]
    assert dense["replicate"] == accuracies.index(max(accuracies))  # type: ignore[type-var]
    assert result.trained(density=0.73).origin["level"] == 1
    assert result.trained(arm="reinit", density=0.01).origin["level"] == 2


@pytest.mark.parametrize("values", VALUES)
def test_what_is_shipped_is_read_back_and_its_cost_is_stated(
    result: Result, values: str, tmp_path: Path
) -> None:
    network = result.trained()
    shipment = network.ship(tmp_path / "ship", values=values)
    read_back = shipment["read_back"]
    assert read_back is not None
    recorded = network.origin["test_accuracy"]
    if values == "fp32":
        assert (read_back["test_accuracy"], read_back["answers_changed"]) == (recorded, 0)
    examples = network.test_examples()
    answers = run(load(shipment["file"]), examples.x.numpy()).argmax(1)
    assert read_back["test_accuracy"] == (answers == examples.y.numpy()).mean()
    with torch.no_grad():
        assert (
            read_back["answers_changed"] == (answers != network.model()(examples.x).argmax(1).numpy()).sum()
        )
    assert shipment["bytes"] == Path(shipment["file"]).stat().st_size < shipment["dense_bytes"]
    card = Path(shipment["card"]).read_text()
    assert f"| this file, read back, on 200 examples | {100 * read_back['test_accuracy']:.2f} % |" in card
    assert f"| this network, as its training recorded it | {100 * recorded:.2f} % |" in card
    assert "| mean of 2 replicates | " in card
    change = 100 * (read_back["test_accuracy"] - recorded)
    cost = f"changes the accuracy by {change:+.2f} percentage points" if change else "costs no accuracy"
    assert ("the file gives the recorded accuracy" if values == "fp32" else f"{values} {cost}") in card


def test_a_page_has_the_network_and_the_dense_one_of_its_replicate(result: Result, tmp_path: Path) -> None:
    network = result.trained()
    dense = result.trained(arm="dense", level=0, replicate=network.origin["replicate"])
    shipment = network.ship(tmp_path, to="web", values="fp16", dense=dense)
    path = Path(shipment["file"])
    assert path.name.endswith("-fp16.html")
    assert path.stat().st_size == shipment["bytes"]
    assert shipment["read_back"] is not None
    page = path.read_text("utf-8")
    assert f"the dense network, {100 * dense.origin['test_accuracy']:.2f} %." in page
    x = network.test_examples().x
    for one, which, tolerance in ((network, "ticket", 2**-9), (dense, "dense", 1e-5)):
        with torch.no_grad():
            right = one.model()(x).numpy()
        got = run(network_of(page, which), x.numpy())
        np.testing.assert_allclose(got, right, rtol=tolerance, atol=tolerance * np.abs(right).max())
    assert "times smaller than dense" not in Path(shipment["card"]).read_text("utf-8")
    with pytest.raises(ValueError, match="dense is for pages"):
        network.ship(tmp_path, dense=dense)


def test_a_state_dict_comes_back_exactly(result: Result, tmp_path: Path) -> None:
    network = result.trained(arm="reinit", level=1)
    shipment = network.ship(tmp_path, to="torch")
    assert shipment["read_back"] is not None
    assert shipment["read_back"]["largest_difference"] == 0
    assert shipment["bytes"] == shipment["dense_bytes"]
    assert shipment["parts"] is None
    module = network.model()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1)
    code = "\n".join(shipment["use"])
    exec(compile(code, "use", "exec"), {"model": module})
    assert same_bits(dict(module.state_dict()), dict(network.model().state_dict()))


@pytest.mark.skipif(bool(native.missing), reason=f"no compiled inference: {native.missing}")
def test_the_cards_lines_use_the_file(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = result.trained()
    shipment = network.ship(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", Path(shipment["card"]).read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    about: Any = network.ticket.about["data"]
    examples = network.test_examples()
    pixels = (examples.x * torch.tensor(about["std"]) + torch.tensor(about["mean"])) * about["scale"]
    names: dict[str, Any] = {"pixels": pixels.round().numpy()}
    exec(compile(code, "card", "exec"), names)
    np.testing.assert_allclose(names["x"], examples.x.numpy(), atol=1e-6)
    assert (names["logits"].argmax(1) == examples.y.numpy()).mean() == network.origin["test_accuracy"]


def test_a_finished_run_is_opened_by_its_folder(own: Result, tmp_path: Path) -> None:
    opened = open_run(tmp_path / "out")
    mine, theirs = trained(opened), own.trained()
    assert mine.origin == theirs.origin
    assert same_bits(mine.ticket.start.weights, theirs.ticket.start.weights)
    elsewhere = tmp_path / "moved"
    shutil.move(tmp_path / "runs", elsewhere)
    with pytest.raises(FileNotFoundError, match="pass its path, or the path of a new one, with --store"):
        open_run(tmp_path / "out")
    moved = trained(open_run(tmp_path / "out" / "result.json", store=elsewhere))
    assert same_bits(moved.ticket.start.weights, theirs.ticket.start.weights)
    with pytest.raises(StoreError, match=r"has no training of arm 'ticket' at level \d of this run"):
        trained(open_run(tmp_path / "out", store=tmp_path / "empty"))


def test_what_is_no_finished_run_is_refused(own: Result, tmp_path: Path) -> None:
    file = tmp_path / "out" / "result.json"
    with pytest.raises(FileNotFoundError, match="there is no"):
        open_run(tmp_path / "nowhere")
    (tmp_path / "comparison.json").write_text(json.dumps({"rows": [], "budget_steps": 3}))
    with pytest.raises(ValueError, match="not the result of a search or transfer"):
        open_run(tmp_path / "comparison.json")
    document = json.loads(file.read_text())
    for change, message in (
        ({"store": "http://127.0.0.1:9/x"}, "this command would connect to it"),
        ({"experiment": {**document["experiment"], "model": "evilmod:f"}}, "would import the module evilmod"),
        ({"experiment": {**document["experiment"], "data": "some/where"}}, "would be fetched from the Hub"),
        ({"levels": 3}, "not the result of a search or transfer"),
        ({"schema": 99}, "cannot be read"),
    ):
        file.write_text(json.dumps({**document, **change}))
        with pytest.raises(ValueError, match=message):
            open_run(file)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"arm": "signs"}, "the run has no arm 'signs'; it has dense, ticket, reinit, random"),
    ({"arm": "dense doubled"}, "the run has no arm 'dense doubled'"),
    (
        {"level": 3},
        r"arm 'ticket' has no level 3; its levels, with the weights kept, are 1 \(80.6 %\), 2 \(65.1 %\)",
    ),
    ({"arm": "dense", "level": 1}, r"arm 'dense' has no level 1; .* 0 \(100 %\)"),
    ({"level": 1, "density": 0.8}, "give a level or a density, not both"),
    ({"density": 0}, "density is 0; it is a share of the weights"),
    ({"replicate": 2}, "replicate is 2; the run has 0 to 1, counted from 0"),
    ({"replicate": -1}, "replicate is -1"),
]


def test_what_a_run_does_not_have_is_refused_by_name(result: Result) -> None:
    for choices, message in REFUSED:
        with pytest.raises(ValueError, match=message):
            result.trained(**choices)


def test_replicates_that_failed_are_refused_with_the_reason(search: Search) -> None:
    result = search(gate=False, controls=(), lr=1e20, optimizer="sgd")
    with pytest.raises(ValueError, match="every replicate of arm 'dense' failed"):
        result.trained(arm="dense")
    with pytest.raises(ValueError, match=r"this replicate of arm 'dense' failed: .*finite"):
        result.trained(arm="dense", replicate=0)
    with pytest.raises(ValueError, match="has saved no ticket"):
        result.trained()


def test_formats_and_values_are_checked_before_anything_is_written(result: Result, tmp_path: Path) -> None:
    network = result.trained()
    for choices, message in (
        ({"to": "onnxx"}, "there is no format 'onnxx' .did you mean 'onnx'"),
        ({"values": "fp61"}, "values is 'fp61' .did you mean 'fp16'"),
        ({"to": "torch", "values": "int8"}, "format torch holds values in fp32, not in int8"),
    ):
        with pytest.raises(ValueError, match=message):
            network.ship(tmp_path / "ship", **choices)  # type: ignore[arg-type]
    assert not (tmp_path / "ship").exists()


@pytest.mark.parametrize("method", ["rigl", "edge-popup", "gradual", "one-shot"])
def test_networks_as_their_search_left_them(method: str, search: Search, tmp_path: Path) -> None:
    options = {"search_lr": 1.0} if method == "edge-popup" else {}
    result = search(method=method, gate=False, controls=(), final_density=0.4, replicates=1, **options)
    arm = "search" if method != "one-shot" else "ticket"
    network = result.trained(arm=arm, level=2)
    assert accuracy(network) == result.document["levels"][2]["arms"][arm]["accuracies"][0]
    shipment = network.ship(tmp_path)
    assert shipment["read_back"] is not None
    assert shipment["read_back"]["test_accuracy"] == network.origin["test_accuracy"]
    assert shipment["kept"] == result.finished.plan.counts[2]
    if arm == "search":
        assert "This network is no ticket, but arm search" in Path(shipment["card"]).read_text()


def test_whole_units_and_batchnorm_of_a_users_network(search: Search, tmp_path: Path) -> None:
    result = search(
        model="networks:convolutional", allocate="units", criterion="l1_units", gate=False, controls=(),
        replicates=1, final_density=0.4, lr=0.01, optimizer="adam",
    )  # fmt: skip
    assert (
        accuracy(result.trained()) == result.trained().origin["test_accuracy"]
    )  # this program named the module
    with pytest.raises(ValueError, match="only the file names this module"):
        open_run(Path(result.document["results"]))
    network = trained(open_run(Path(result.document["results"]), trust=["networks"]))
    shipment = network.ship(tmp_path)
    assert shipment["read_back"] is not None
    assert shipment["read_back"]["test_accuracy"] == network.origin["test_accuracy"] == accuracy(network)
    read = load(shipment["file"])
    assert [o.kind for o in read.operations] == ["conv2d", "relu", "conv2d", "relu", "reshape", "linear"]


def test_a_transfers_networks(own: Result, tmp_path: Path) -> None:
    source = own.finished.plan.experiment
    moved = conduct(
        transferred(source, lr=0.002, density=(0.6,)), store=tmp_path / "runs", out=tmp_path / "to", workers=0
    )
    network = trained(open_run(tmp_path / "to"))
    assert network.origin["level"] == 1
    assert (
        accuracy(network)
        == moved.document["levels"][1]["arms"]["ticket"]["accuracies"][network.origin["replicate"]]
    )
    shipment = network.ship(tmp_path / "ship")
    assert shipment["read_back"] is not None
    assert shipment["read_back"]["answers_changed"] == 0


def test_signals_and_text(search: Search, tmp_path: Path) -> None:
    result = search(
        "mnist1d", model="mlp1d", gate=False, controls=(), levels=1, replicates=1, lr=0.02, test=500
    )
    network = result.trained()
    assert network.network().preprocessing is None  # the data are taken as they are
    assert network.ship(tmp_path / "ship")["read_back"]["test_accuracy"] == accuracy(network)  # type: ignore[index]
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 200)
    text = search(
        str(tmp_path / "text.txt"), store="texts", model="chargpt-1-16", gate=False, controls=(), levels=1,
        replicates=1, validation=None, test=None, lr=0.003,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"a network for text is shipped as a state dict \(--to torch\)"):
        text.trained().ship(tmp_path / "text")
    assert not (tmp_path / "text").exists()
    shipped = text.trained().ship(tmp_path / "text", to="torch")
    assert shipped["read_back"]["test_accuracy"] == accuracy(text.trained())  # type: ignore[index]


def test_a_trained_ticket_is_a_file_that_can_be_shipped_alone(own: Result, tmp_path: Path) -> None:
    network = own.trained()
    network.ticket.save(tmp_path / "trained.safetensors")
    shutil.rmtree(tmp_path / "runs")
    ticket = Ticket.load(tmp_path / "trained.safetensors")
    again = from_ticket(ticket)
    assert again.origin == network.origin
    shipment = again.ship(tmp_path, name="mine")
    assert Path(shipment["file"]).name == "mine-fp32.safetensors"
    assert shipment["read_back"] is not None
    assert shipment["read_back"]["test_accuracy"] == network.origin["test_accuracy"]
    assert own.ticket is not None
    with pytest.raises(ValueError, match="the start of a training, not its end"):
        from_ticket(own.ticket)


def test_data_that_cannot_be_read_leave_the_file_unevaluated_and_say_why(
    result: Result, tmp_path: Path
) -> None:
    ticket = result.trained().ticket

    def with_data(**changes: Any) -> TrainedNetwork:
        data: Any = ticket.about["data"]
        return from_ticket(replace(ticket, about={**ticket.about, "data": {**data, **changes}}))

    for changes, reason in (
        ({"name": "some/where"}, "would be fetched from the Hub; to allow that, pass --trust some/where"),
        (
            {"name": "sensors.npz"},
            "go to the folder in which the search was made",
        ),
        ({"fingerprint": "0" * 64}, "are not those that the network was trained on"),
        ({"test": 10**9}, "is not possible"),
    ):
        shipment = with_data(**changes).ship(tmp_path)
        assert shipment["read_back"] is None
        assert shipment["not_evaluated"] is not None
        assert reason in shipment["not_evaluated"]
        assert "The file was not evaluated: " in Path(shipment["card"]).read_text()


ODD: list[tuple[dict[str, Any], str]] = [
    ({"trained": {"arm": 3}}, "about is not that of a trained network"),
    ({"data": None}, "about is not that of a trained network"),
    ({"build": {"name": "lenet-20-10"}}, "about.'build'. is not what winticket.models.build takes"),
    (
        {"build": {"name": "evilmod:f", "input_shape": [1, 8, 8], "classes": 10, "generator_seed": 0}},
        "would import",
    ),
    (
        {"build": {"name": "vgg-16-9999", "input_shape": [3, 32, 32], "classes": 10, "generator_seed": 0}},
        "weights",
    ),
    (
        {"build": {"name": "lenet-2000-1000", "input_shape": [1, 8, 8], "classes": 10, "generator_seed": 0}},
        "or more",
    ),
    (
        {"build": {"name": "lenet-10", "input_shape": [1, 8, 8], "classes": 10, "generator_seed": 0}},
        "do not cover the same layers",
    ),
]


@pytest.mark.parametrize(("change", "message"), ODD, ids=range(len(ODD)))
def test_a_ticket_that_says_odd_things_is_refused(
    change: Mapping[str, Any], message: str, result: Result, tmp_path: Path
) -> None:
    ticket = result.trained().ticket
    odd = replace(ticket, about={**ticket.about, **change})
    with pytest.raises(ValueError, match=message):
        from_ticket(odd).ship(tmp_path / "ship")
    assert not (tmp_path / "ship").exists()


def test_what_strangers_write_into_a_card_stays_text(result: Result, tmp_path: Path) -> None:
    ticket = result.trained().ticket
    data, origin = ({**ticket.about[name]} for name in ("data", "trained"))  # type: ignore[dict-item]
    data["class_names"] = ["<script>alert(1)</script>", *map(str, range(1, 10))]
    origin |= {"reason": "a\n# b | [c](http://d) `e`\x1b[31m", "environment": {"x|y": "<b>"}}
    odd = from_ticket(replace(ticket, about={**ticket.about, "data": data, "trained": origin}))
    card = Path(odd.ship(tmp_path)["card"]).read_text()
    assert "\\<script\\>alert(1)\\</script\\>" in card
    assert "a \\# b \\| \\[c\\](http://d) \\`e\\`\\\\x1b\\[31m" in card
    assert "x\\|y" in card
    assert "\x1b" not in card


@pytest.mark.parametrize(("to", "error"), [("safetensors", None), ("hub", None), ("c", KeyboardInterrupt)])
def test_a_file_that_computes_something_else_is_an_error_and_is_removed(
    to: str,
    error: type[BaseException] | None,
    result: Result,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With what belongs to it, and with the card of an earlier file, which it would seem to have."""
    network = result.trained()

    def wrong(source: Source, _: Path, x: Any) -> Any:
        if error is not None:
            raise error
        return run(source.network, x) + np.arange(10)

    (tmp_path / "other.txt").touch()
    network.ship(tmp_path, to=to)
    assert len([*tmp_path.rglob("*.*")]) >= 3
    monkeypatch.setitem(FORMATS, to, replace(FORMATS[to], logits=wrong))
    with pytest.raises(error or ShipmentError, match=None if error else "does not compute what the trained"):
        network.ship(tmp_path, to=to)
    assert [path.name for path in tmp_path.rglob("*.*") if path.is_file()] == ["other.txt"]


def test_tickets_build_their_model(result: Result) -> None:
    assert result.ticket is not None
    model = result.ticket.build_model()
    for name, value in result.ticket.mask.apply(result.ticket.start.weights).items():
        assert torch.equal(model.get_parameter(name), value)
    bare = winticket.prune(torch.nn.Linear(40, 2), 0.5)
    with pytest.raises(ValueError, match="does not say which network it fits"):
        bare.build_model()


def test_a_card_says_if_its_density_has_won(result: Result, tmp_path: Path) -> None:
    network = result.trained(level=2)
    for won, won_at, sentence in (
        (True, 0.6, "Tickets of this density win."),
        (False, 0.8, "Tickets of this density are not shown to win; they win at 80.0 %."),
        (False, None, "Tickets of this density are not shown to win."),
    ):
        origin: Any = {**network.origin, "won": won, "won_at": won_at}
        shipment = replace(network, origin=origin).ship(tmp_path)
        assert f"**{sentence}**" in Path(shipment["card"]).read_text()
    assert network.origin["won"] is False  # two replicates decide nothing


def test_the_experiment_of_the_frozen_document_is_that_of_the_run(own: Result, tmp_path: Path) -> None:
    assert open_run(tmp_path / "out").plan.keys() == own.finished.plan.keys()
    assert isinstance(open_run(tmp_path / "out").plan.experiment, Experiment)
