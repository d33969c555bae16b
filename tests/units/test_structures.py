"""Attention heads, hidden neurons and tokens: declared, pruned whole, drawn at random whole, and removed."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import winticket
from winticket import allocate, controls, criteria, models
from winticket.criteria import Evidence
from winticket.models.text import Attention, CharGpt
from winticket.ship import expand
from winticket.ticket import Mask, State, Ticket, kept_parts, members, with_parts
from winticket.units import layouts, structures

LENGTH, TOKENS, WIDTH = 6, 9, 48


def network(seed: int = 0) -> CharGpt:
    made = models.build(
        f"chargpt-2-{WIDTH}", input_shape=(LENGTH,), classes=TOKENS, generator_seed=seed, tokens=True
    )
    assert isinstance(made, CharGpt)
    with torch.no_grad():  # so that biases count, too
        for name, parameter in made.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    return made.eval()


def texts(count: int = 5) -> Tensor:
    return torch.randint(TOKENS, (count, LENGTH), generator=torch.Generator().manual_seed(7))


def pruned(module: nn.Module, **options: Any) -> Ticket:
    return winticket.prune(module, 0.5, allocate=allocate.structures, **options)


def test_a_transformer_has_heads_neurons_and_tokens() -> None:
    assert [(one.name, one.kind, one.parts) for one in structures(network())] == [
        ("embed.tokens", "tokens", TOKENS),
        ("place.tokens", "tokens", LENGTH),
        ("layers.0.neurons", "neurons", 4 * WIDTH),
        ("layers.0.attention.heads", "heads", 3),
        ("layers.1.neurons", "neurons", 4 * WIDTH),
        ("layers.1.attention.heads", "heads", 3),
    ]


def test_a_part_is_its_rows_and_its_columns() -> None:
    layout = layouts(network())
    rows = torch.arange(WIDTH).view(WIDTH, 1).expand(WIDTH, WIDTH)
    for name in ("query", "key", "value"):
        parts = layout[f"layers.0.attention.{name}.weight"].by_part(rows)
        assert [part.unique().tolist() for part in parts] == [
            list(range(16 * h, 16 * h + 16)) for h in range(3)
        ]
    out = layout["layers.0.attention.out.weight"]
    assert [part.unique().tolist() for part in out.by_part(rows.T)] == [
        list(range(16 * h, 16 * h + 16)) for h in range(3)
    ]
    weight = torch.randn(WIDTH, WIDTH)
    for one in (out, layout["layers.0.attention.query.weight"], layout["embed.weight"]):
        like = torch.randn(TOKENS, WIDTH) if one.structure == "embed.tokens" else weight
        assert torch.equal(one.from_parts(one.by_part(like), like), like)


def test_whole_parts_with_the_highest_mean_score_are_kept() -> None:
    module = network()
    ticket = pruned(module)
    weights = dict(module.named_parameters())
    assert "head.weight" not in ticket.mask.keep  # it belongs to no structure
    assert ticket.mask.density() == pytest.approx((2 / 3 + 2 * 0.5) / 3)  # 2 of 3 heads; half of the neurons
    for layer in range(2):
        at = f"layers.{layer}.attention"
        size = [
            sum(
                weights[f"{at}.{n}.weight"][16 * h : 16 * h + 16].abs().sum()
                for n in ("query", "key", "value")
            )
            + weights[f"{at}.out.weight"][:, 16 * h : 16 * h + 16].abs().sum()
            for h in range(3)
        ]
        kept = torch.ones(3, dtype=torch.bool)
        kept[int(torch.stack([torch.as_tensor(one) for one in size]).argmin())] = False
        assert torch.equal(kept_parts(ticket.mask)[f"{at}.heads"], kept)
        neurons = weights[f"layers.{layer}.up.weight"].abs().sum(1) + weights[
            f"layers.{layer}.down.weight"
        ].abs().sum(0)
        best = neurons.topk(2 * WIDTH).indices.sort().values
        assert torch.equal(kept_parts(ticket.mask)[f"layers.{layer}.neurons"].nonzero().flatten(), best)


def test_masks_shrink_level_by_level_and_keep_at_least_one_part() -> None:
    module = network()
    before = pruned(module).mask
    scores = {
        n: torch.rand(keep.shape, generator=torch.Generator().manual_seed(3))
        for n, keep in before.keep.items()
    }
    after = allocate.structures(scores, before, density=0.01)
    assert after.within(before)
    assert {name: int(kept.sum()) for name, kept in kept_parts(after).items()} == {
        "layers.0.neurons": 2,
        "layers.1.neurons": 2,
        "layers.0.attention.heads": 1,
        "layers.1.attention.heads": 1,
    }


def test_the_importance_of_a_head_is_the_slope_of_the_loss_at_its_gate() -> None:
    """Michel et al.'s ξ, put into a network of its own, and differentiated example by example."""
    module = network().double()
    gates: dict[str, Tensor] = {}

    def gate(name: str, heads: int, layer: nn.Module) -> None:
        gates[name] = torch.ones(heads, dtype=torch.float64, requires_grad=True)

        def scaled(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
            (x,) = inputs
            return (x.view(*x.shape[:-1], heads, -1) * gates[name][:, None]).flatten(-2)

        layer.register_forward_pre_hook(scaled)

    twin = copy.deepcopy(module)
    for at in range(2):
        gate(f"layers.{at}.attention.heads", 3, twin.get_submodule(f"layers.{at}.attention.out"))
        gate(f"layers.{at}.neurons", 4 * WIDTH, twin.get_submodule(f"layers.{at}.down"))
    x = texts()
    wanted = {name: torch.zeros_like(xi) for name, xi in gates.items()}
    for one in x:
        loss = nn.functional.cross_entropy(twin(one[None])[0], (one + 1) % TOKENS)
        slopes = torch.autograd.grad(loss, list(gates.values()))
        for name, slope in zip(gates, slopes, strict=True):
            wanted[name] += slope.abs() / len(x)

    weights = {name: p.detach() for name, p in module.named_parameters()}
    names = [name for name in models.eligible(module) if name != "head.weight"]
    mask = Mask.full({n: weights[n] for n in names}, layout=layouts(module))
    seen = Evidence.of(
        weights, network=module, batches=[(x[:2], (x[:2] + 1) % TOKENS), (x[2:], (x[2:] + 1) % TOKENS)]
    )
    scores = criteria.head_importance(replace(seen, mask=mask, classes_last=True))
    for structure, of in members(mask).items():
        for name in of:
            parts = mask.layout[name].by_part(scores[name])
            assert torch.allclose(parts, wanted[structure][:, None].expand(parts.shape), rtol=1e-9)


def test_a_random_control_draws_as_many_whole_parts() -> None:
    ticket = pruned(network())
    drawn = [controls.random_mask(ticket, seed=seed).mask for seed in range(40)]
    for mask in drawn:
        assert mask.layers() == ticket.mask.layers()
        assert {n: int(k.sum()) for n, k in kept_parts(mask).items()} == {
            n: int(k.sum()) for n, k in kept_parts(ticket.mask).items()
        }
    heads = [tuple(kept_parts(mask)["layers.0.attention.heads"].tolist()) for mask in drawn]
    assert len(set(heads)) == 3  # each of the three pairs


def test_masks_of_other_kinds_are_not_taken_for_whole_parts() -> None:
    ticket = pruned(network())
    keep = dict(ticket.mask.keep)
    name = "layers.0.attention.out.weight"
    keep[name] = keep[name].clone()
    keep[name][0, 0] = ~keep[name][0, 0]
    assert kept_parts(replace(ticket.mask, keep=keep)) == {}
    assert kept_parts(Mask.full(ticket.mask.keep, layout=ticket.mask.layout)) == {}
    single = winticket.prune(network(), 0.5).mask
    assert kept_parts(single) == {}
    assert with_parts(single, {}).count() == single.count()


@pytest.mark.parametrize("include", [(), ("embed.weight",), ("embed.weight", "place.weight")])
def test_what_is_cut_off_is_removed_and_the_answers_stay(include: tuple[str, ...]) -> None:
    module, x = network(), texts()
    ticket = pruned(module, include=include)
    ticket.load_into(module)
    before = module(x)
    small = winticket.compact(module, ticket, example=x)
    assert torch.allclose(small(x), before, atol=1e-5)
    assert torch.allclose(small(x[:, :4]), module(x[:, :4]), atol=1e-5)  # any length, and any number of texts
    weights = dict(small.named_parameters())
    assert weights["layers.0.attention.query.weight"].shape == (32, WIDTH)
    assert weights["layers.0.attention.out.weight"].shape == (WIDTH, 32)
    assert weights["layers.1.up.weight"].shape == (2 * WIDTH, WIDTH)
    assert weights["embed.weight"].shape[0] == (5 if include else TOKENS)  # half of 9 tokens
    assert small.maps["layers.0.attention.out.inputs"].tolist() == (
        kept_parts(ticket.mask)["layers.0.attention.heads"].repeat_interleave(16).nonzero().flatten().tolist()
    )
    assert all(bool(keep.all()) for keep in small.mask.keep.values())
    for shrunk in (small, small.state_dict()):
        assert torch.allclose(expand(shrunk, small.maps, like=network())(x), before, atol=1e-6)


def test_the_shrunk_network_learns_as_the_masked_one_does() -> None:
    module, x = network().double(), texts()
    ticket = pruned(module)
    ticket.load_into(module)
    small = winticket.compact(module, ticket, example=x)
    with winticket.masked(module, ticket):
        for one in (module, small):
            optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                torch.autograd.backward(nn.functional.cross_entropy(one(x).flatten(0, 1), x.flatten()))
                optimizer.step()
    assert torch.allclose(small(x), module(x), atol=1e-9)


def test_a_layer_whose_heads_are_all_cut_off_keeps_one() -> None:
    module, x = network(), texts()
    mask = pruned(module).mask
    mask = with_parts(mask, {"layers.0.attention.heads": torch.zeros(3, dtype=torch.bool)})
    with torch.no_grad():
        for name, value in mask.apply(dict(module.named_parameters())).items():
            module.get_parameter(name).copy_(value)
    small = winticket.compact(module, mask, example=x)
    assert torch.allclose(small(x), module(x), atol=1e-5)
    assert dict(small.named_parameters())["layers.0.attention.query.weight"].shape == (16, WIDTH)
    assert "One of the heads of layers.0.attention is kept, since none cannot be." in small.notes


class Grouped(nn.Module):
    """A user's attention, with another scheme of names: two heads of keys serve four of queries."""

    prunable_structures: ClassVar = {"groups": {"count": "groups", "units": ["q", "kv"], "inputs": "o"}}

    def __init__(self) -> None:
        super().__init__()
        self.groups, self.size = 2, 4
        self.q, self.kv, self.o = nn.Linear(8, 16), nn.Linear(8, 8), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 8] -> [N, T, 8]."""
        query = self.q(x).unflatten(-1, (self.groups, -1, self.size))
        key = self.kv(x).unflatten(-1, (self.groups, 1, self.size))
        weight = torch.softmax(torch.einsum("ntghd,nsgxd->nghts", query, key), -1)
        read = torch.einsum("nghts,nsgxd->ntghd", weight, key)
        out: Tensor = self.o(read.flatten(2))
        return out


def test_a_users_module_declares_its_own() -> None:
    module, x = nn.Sequential(Grouped(), nn.Linear(8, 3)).eval(), torch.randn(2, 5, 8)
    ticket = pruned(module)
    assert set(ticket.mask.keep) == {"0.q.weight", "0.kv.weight", "0.o.weight"}
    assert ticket.mask.layers()["0.q.weight"] == (64, 128)
    ticket.load_into(module)
    small = winticket.compact(module, ticket, example=x)
    assert torch.allclose(small(x), module(x), atol=1e-6)
    assert dict(small.named_parameters())["0.kv.weight"].shape == (4, 8)


@pytest.mark.parametrize(
    ("declared", "error"),
    [
        (["heads"], r"Attention: prunable_structures is a list, not a mapping"),
        (
            {"heads": {"rows": ["query"]}},
            r"prunable_structures\['heads'\] is .* it takes count, units, inputs",
        ),
        ({"heads": {"units": []}}, "units are needed"),
        (
            {"heads": {"units": ["quarry"]}},
            "names 'quarry', which should be a Linear layer of the module; there is none",
        ),
        ({"heads": {"units": ["query"], "count": "head"}}, "head is None, not a number of parts"),
        (
            {"heads": {"units": ["query"], "count": "odd"}},
            "the 48 units of a layer do not divide into 5 parts",
        ),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(
    declared: object, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Attention(WIDTH)
    monkeypatch.setattr(module, "odd", 5, raising=False)
    monkeypatch.setattr(Attention, "prunable_structures", declared)
    with pytest.raises(ValueError, match=error):
        layouts(module)


def test_networks_without_structures_and_parts_of_them_are_refused() -> None:
    plain = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(
        ValueError, match=r"belongs to attention heads or to hidden neurons .* prunable_structures"
    ):
        pruned(plain)
    with pytest.raises(
        ValueError, match="head_importance scores attention heads and hidden neurons, but none"
    ):
        criteria.head_importance(Evidence.of({"a": torch.ones(2, 2)}, network=plain))
    error = r"layers\.0\.attention\.heads are pruned with 4 weights together, of which only .*query.*exclude these too"
    with pytest.raises(ValueError, match=error):
        pruned(network(), exclude=["head.weight", "*.out.weight"])


def test_only_heads_or_only_neurons_can_be_chosen() -> None:
    heads = pruned(network(), exclude=["head.weight", "*.up.weight", "*.down.weight"]).mask
    assert set(kept_parts(heads)) == {"layers.0.attention.heads", "layers.1.attention.heads"}


def test_criteria_of_heads_go_with_whole_heads_alone() -> None:
    module, x = network(), texts()
    batches = [(x, (x + 1) % TOKENS)]
    found = winticket.prune(module, 0.5, criterion=criteria.head_importance, batches=batches)
    assert kept_parts(found.mask)
    with pytest.raises(ValueError, match=r"of an attention head the same score.*use allocate structures"):
        winticket.prune(
            module, 0.5, criterion=criteria.head_importance, allocate=allocate.layerwise, batches=batches
        )


def test_a_saved_ticket_knows_its_structures(tmp_path: Any) -> None:
    ticket = pruned(network(), include=("embed.weight",))
    ticket.save(tmp_path / "t.safetensors")
    again = Ticket.load(tmp_path / "t.safetensors")
    assert again.mask.layout == ticket.mask.layout
    assert kept_parts(again.mask).keys() == kept_parts(ticket.mask).keys()


def test_other_controls_keep_the_mask_or_its_counts() -> None:
    ticket = pruned(network())
    state = State(dict(network(1).state_dict()), {}, {}, 0)
    assert controls.reinit(ticket, seed=1, draw=lambda _: state).mask is ticket.mask
    assert controls.inverted(ticket, seed=1).mask.layers() == ticket.mask.layers()
