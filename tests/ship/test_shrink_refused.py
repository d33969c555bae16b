"""What `compact` refuses, and in which words."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import winticket
from ship.shrinkable import Residual, conv1d, random_mask
from winticket import Mask, compact


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()


X = torch.zeros(1, 3)
FULL = Mask({"0.weight": torch.ones(4, 3, dtype=torch.bool)})


def refused(model: nn.Module, mask: Any, words: str, **options: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        compact(model, mask, **{"example": X, **options})


def test_masks_that_do_not_fit() -> None:
    refused(
        mlp(),
        Mask({"1.weight": torch.ones(4, 3, dtype=torch.bool)}),
        "the mask has a layer '1.weight' that the",
    )
    refused(
        mlp(),
        Mask({"0.weight": torch.ones(3, 4, dtype=torch.bool)}),
        r"has shape \(3, 4\), but the model's weight",
    )
    refused(mlp(), {"0.weight": torch.ones(4, 3)}, r"compact\(\) takes a Ticket or a Mask, not a dict")


def test_examples_that_do_not_fit() -> None:
    refused(mlp(), FULL, r"needs a batch of inputs: example=x", example=None)
    refused(
        mlp(),
        FULL,
        r"does not take examples of shape \(2, 5\) in float64: RuntimeError",
        example=torch.zeros(1, 5),
    )
    refused(
        mlp(),
        FULL,
        r"a batch \[N, \.\.\.\] of at least one, not of shape \(0, 3\)",
        example=torch.zeros(0, 3),
    )
    refused(mlp(), FULL, r"example is a tensor or a tuple of tensors, not of list", example=([0.0],))


def test_training_mode() -> None:
    model = mlp()
    model[1].train()
    refused(model, FULL, r"in training mode \(1\).*call model\.eval\(\)")
    refused(model.train(), FULL, r"in training mode \(Sequential, 0, 1, \.\.\.\)")


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.fc(x)
        if h.sum() > 0:
            return h
        return -h


def test_a_forward_that_branches_names_its_line() -> None:
    refused(
        Branching().eval(),
        Mask({}),
        r"Branching cannot be traced at .*test_shrink_refused\.py:\d+ \(if h\.sum\(\) > 0:\)",
    )


def test_shared_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)).eval()
    model[2].weight = model[0].weight
    refused(model, Mask({}), r"0\.weight and 2\.weight are one weight")
    layer = nn.Linear(3, 3)
    refused(nn.Sequential(layer, nn.ReLU(), layer).eval(), Mask({}), "are one weight|called twice")


def test_a_layer_that_is_called_twice_or_used_otherwise() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            h: Tensor = self.fc(torch.relu(self.fc(x)))
            return h

    class Outside(Twice):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.fc(x)) @ self.fc.weight

    refused(Twice().eval(), Mask({}), "layer fc is called twice")
    refused(Outside().eval(), Mask({}), r"fc\.weight is used outside its layer")


def test_masks_that_leave_no_path() -> None:
    empty = torch.zeros(2, 4, dtype=torch.bool)
    refused(
        mlp(), Mask({"2.weight": empty}), r"no path from the inputs.*\(layers without weights: 2\.weight\)"
    )
    cut = {"0.weight": torch.zeros(4, 3, dtype=torch.bool), "2.weight": empty.clone()}
    cut["0.weight"][0, 0], cut["2.weight"][0, 1] = True, True
    refused(mlp(), Mask(cut), "none is empty, but together they cut every path")


def test_outputs_that_are_not_finite() -> None:
    model = mlp()
    with torch.no_grad():
        model.get_parameter("0.bias")[0] = torch.nan
    refused(model, FULL, "outputs on noise are not finite")


def test_a_graph_that_is_misread_is_not_shipped() -> None:
    """Here the width of a value is a number in the arithmetic, and an in-place operation has no user."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)
            h = h / h.shape[1]
            logits: Tensor = self.b(h)
            return logits

    class InPlace(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)
            torch.relu_(h)
            logits: Tensor = self.b(h)
            return logits

    torch.manual_seed(0)
    keep = torch.ones(4, 3, dtype=torch.bool)
    keep[1, 0], keep[0] = False, False
    for kind in (Scaled, InPlace):
        model = kind().eval()
        with torch.no_grad():
            model.a.bias.fill_(-1.0)
        refused(
            model,
            Mask({"a.weight": keep}),
            f"the graph of {kind.__name__} was misread: .* its output changes by",
        )


def test_weights_that_other_tools_hold() -> None:
    """Parametrized layers are kept whole, with their zeros; pruned by torch, a network may not be copied."""
    model = mlp()
    parametrizations.weight_norm(model[2]).eval()
    mask = Mask({"0.weight": torch.tensor([[True, False, False]] * 4)})
    small = compact(model, mask, example=X)
    assert small.get_submodule("0").in_features == 1
    assert any("2 (ParametrizedLinear)" in note for note in small.notes)
    pruned = mlp()
    prune.l1_unstructured(pruned[0], "weight", amount=0.5)  # type: ignore[no-untyped-call]
    refused(pruned, Mask({}), re.escape("torch.nn.utils.prune"))
    ticket = winticket.interop.from_torch_prune(pruned)
    prune.remove(pruned[0], "weight")  # type: ignore[no-untyped-call]
    assert compact(pruned, ticket, example=X).mask.count() <= ticket.mask.count()


def test_wrapped_models_are_unwrapped() -> None:
    model = conv1d().eval()
    mask = random_mask(model, 0.1)
    wrapped = torch.optim.swa_utils.AveragedModel(model).eval()
    small = compact(wrapped, mask, example=torch.zeros(1, 6, 50))
    assert small.mask.keep.keys() == mask.keep.keys()


def test_all_networks_here_are_refused_in_training_mode() -> None:
    refused(Residual(), Mask({}), "training mode", example=torch.zeros(1, 3, 8, 8))
