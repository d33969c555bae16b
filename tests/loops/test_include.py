"""`include`: parameters that are no Linear or Conv weights, in every method around one's own loop."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
from torch.optim.swa_utils import AveragedModel

import winticket
from winticket import allocate
from winticket.ticket import Mask, Ticket

CLASSES, WORDS = 3, 11


class Reader(nn.Module):
    """Tokens [B, T] through an embedding, the layer in question and a small head."""

    def __init__(self, middle: nn.Module, width: int = 16) -> None:
        super().__init__()
        self.embed, self.middle = nn.Embedding(WORDS, width), middle
        self.head = nn.Linear(width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embed(tokens)
        if isinstance(self.middle, nn.MultiheadAttention):
            h = self.middle(h, h, h, need_weights=False)[0]
        else:
            h = self.middle(h)
            h = h[0] if isinstance(h, tuple) else h
        logits: Tensor = self.head(h.mean(1))
        return logits


def conv1d() -> nn.Module:
    from transformers.pytorch_utils import Conv1D

    layer: nn.Module = Conv1D(16, 16)
    return layer


MIDDLES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lstm": (lambda: nn.LSTM(16, 16, batch_first=True), "middle.weight_hh_l0"),
    "gru": (lambda: nn.GRU(16, 16, batch_first=True), "middle.weight_ih_l0"),
    "attention": (lambda: nn.MultiheadAttention(16, 2, batch_first=True), "middle.in_proj_weight"),
    "embedding": (nn.Identity, "embed.weight"),
    "conv1d": (conv1d, "middle.weight"),
    "weight norm": (lambda: weight_norm(nn.Linear(16, 16)), "middle.parametrizations.weight.original1"),
    "spectral norm": (lambda: spectral_norm(nn.Linear(16, 16)), "middle.parametrizations.weight.original"),
}


def reader(kind: str) -> Reader:
    torch.manual_seed(0)
    return Reader(MIDDLES[kind][0]())


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(0, WORDS, (16, 5), generator=generator)
    return tokens, tokens[:, 0] % CLASSES


def train(model: nn.Module, parameters: Any = None, steps: int = 8) -> None:
    optimizer = torch.optim.AdamW(model.parameters() if parameters is None else parameters, lr=0.02)
    for step in range(steps):
        x, y = batch(step)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def revived(model: nn.Module, mask: Mask) -> int:
    return sum(int(model.get_parameter(n).detach()[~k].count_nonzero()) for n, k in mask.keep.items())


def by_prune(model: nn.Module, **how: Any) -> Ticket:
    ticket = winticket.prune(model, 0.5, **how)
    with winticket.masked(model, ticket):
        train(model)
    return ticket


def by_levels(model: nn.Module, **how: Any) -> Ticket:
    for level in winticket.Levels(model, [0.7, 0.5], **how):
        with level:
            train(model)
    return level.ticket


def by_change(method: str) -> Callable[..., Ticket]:
    def go(model: nn.Module, **how: Any) -> Ticket:
        with getattr(winticket, method)(model, 0.5, steps=8, every=2, **how) as sparse:
            train(model)
        ticket: Ticket = sparse.ticket
        return ticket

    return go


def by_learning(method: str) -> Callable[..., Ticket]:
    def go(model: nn.Module, **how: Any) -> Ticket:
        with getattr(winticket, method)(model, 0.5, **how) as learned:
            train(model, learned.parameters())
        ticket: Ticket = learned.ticket
        return ticket

    return go


METHODS: dict[str, Callable[..., Ticket]] = {
    "prune": by_prune,
    "Levels": by_levels,
    **{name: by_change(name) for name in ("rigl", "set_", "gradual")},
    **{name: by_learning(name) for name in ("edge_popup", "supermask")},
}


@pytest.mark.parametrize("kind", MIDDLES)
@pytest.mark.parametrize("method", METHODS)
def test_included_parameters_are_pruned_by_every_method(method: str, kind: str) -> None:
    model, name = reader(kind), MIDDLES[kind][1]
    options: dict[str, Any] = {"allocate": allocate.layerwise}  # half of every layer
    # Weight norm divides by the norm of a unit, which therefore keeps some weight.
    if kind == "weight norm" and method in {"prune", "Levels"}:
        options["allocate"] = allocate.constant_fan_in
    ticket = METHODS[method](
        model, include=[name], exclude=["embed.*"] if kind != "embedding" else [], **options
    )
    keep = ticket.mask.keep[name]
    assert int(keep.sum()) == keep.numel() // 2
    assert list(ticket.mask.keep)[-1] == "head.weight"
    assert revived(model, ticket.mask) == 0
    if kind.endswith("norm"):  # what is computed from it has the same zeros
        weight = model.get_submodule("middle").weight
        assert isinstance(weight, Tensor)
        assert not weight[~keep].any()
        assert bool(weight[keep].count_nonzero())
    assert bool(model(batch(0)[0]).isfinite().all())


def test_scores_that_lead_through_a_learned_mask_of_a_recurrent_layer() -> None:
    """The forward pass of torch's own cells reads the masked weights, not those from before the block."""
    model = reader("lstm")
    x = batch(0)[0]
    with winticket.edge_popup(model, 0.5, include=["middle.*"], exclude=["embed.*"]) as learned:
        train(model, learned.parameters(), steps=1)
        assert all(score.grad is not None and bool(score.grad.any()) for score in learned.parameters())
        within = model(x)
    assert torch.allclose(model(x), within, atol=1e-6)


def test_whole_units_of_a_weight_normed_layer_are_not_taken() -> None:
    model = nn.Sequential(weight_norm(nn.Linear(4, 3)))
    name = "0.parametrizations.weight.original1"
    keep = torch.ones(3, 4, dtype=torch.bool)
    keep[1] = False
    with (
        pytest.raises(
            ValueError, match=r"prunes 1 of the 3 units of 0.*original1 entirely \(the first is unit 1\)"
        ),
        winticket.masked(model, Mask({name: keep})),
    ):
        pass
    old = nn.Sequential(nn.Linear(4, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates it
        nn.utils.weight_norm(old[0])
    with (
        pytest.raises(ValueError, match=r"prunes 1 of the 3 units of 0\.weight_v"),
        winticket.masked(old, Mask({"0.weight_v": keep})),
    ):
        pass
    assert bool(model.get_parameter(name).all())
    keep[1, 2] = True
    with winticket.masked(model, Mask({name: keep})):
        weight = model.get_submodule("0").weight
        assert isinstance(weight, Tensor)
        assert not weight[~keep].any()


def test_what_can_be_included() -> None:
    """Not the norms of weight norm, nor what a parametrization mixes, nor an average's copies."""
    model = nn.ModuleDict(
        {
            "normed": weight_norm(nn.Linear(4, 6)),
            "turned": orthogonal(nn.Linear(4, 4)),
            "table": nn.Embedding(5, 4),
            "plain": nn.Linear(4, 4),
        }
    )
    model["average"] = AveragedModel(model["plain"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates it
        model["old"] = nn.utils.weight_norm(nn.Linear(4, 4))
    named = ["normed.parametrizations.weight.original1", "table.weight", "plain.weight", "old.weight_v"]
    assert list(winticket.prune(model, 0.5, include=["*"]).mask.keep) == named
    assert list(winticket.prune(model, 0.5, include="table.*", exclude=["normed.*"]).mask.keep) == named[1:3]
    with pytest.raises(
        ValueError, match=r"'turned.*' fits no parameter that could be included; there are normed"
    ):
        winticket.prune(model, 0.5, include=["turned.*"])


def test_a_transformer_of_the_library() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=40, n_positions=8))
    with pytest.raises(
        ValueError, match=r"no Linear or Conv layer, .*; or include some of transformer.wte.weight"
    ):
        winticket.prune(model, 0.5)
    ticket = winticket.prune(model, 0.25, include=["*.c_*.weight"])
    assert [name.removeprefix("transformer.h.0.") for name in ticket.mask.keep] == [
        "attn.c_attn.weight",
        "attn.c_proj.weight",
        "mlp.c_fc.weight",
        "mlp.c_proj.weight",
    ]
    tokens = torch.arange(8).unsqueeze(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with winticket.masked(model, ticket):
        for _ in range(3):
            optimizer.zero_grad()
            model(tokens, labels=tokens).loss.backward()
            optimizer.step()
    assert revived(model, ticket.mask) == 0
    assert ticket.mask.count() == ticket.mask.total() // 4


@pytest.mark.parametrize("method", METHODS)
def test_what_is_left_out_is_reported_where_it_is_most_of_the_model(method: str) -> None:
    model = reader("lstm")
    said = "only 2% of the model's weights are in Linear and Conv layers, .*; most are in middle.weight_ih_l0 (43%), "
    with pytest.warns(RuntimeWarning, match=re.escape(said).replace(r"\.\*", ".*")) as caught:
        METHODS[method](model)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    # Neither where they are included nor where they are left out on purpose; a warning would be an error.
    for decided in ({"include": ["middle.*"]}, {"exclude": ["middle.*"]}):
        METHODS[method](reader("lstm"), **decided)


def test_a_pattern_that_fits_nothing_is_refused() -> None:
    said = "include 'lstm.*' fits no parameter that could be included; there are embed.weight, middle.weight_ih_l0"
    for method in METHODS.values():
        with pytest.raises(ValueError, match=re.escape(said)):
            method(reader("lstm"), include=["lstm.*"])
