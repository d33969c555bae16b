"""Masks from and to torch.nn.utils.prune and state dicts: bit-exact round trips, nothing guessed."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

from winticket import interop
from winticket.loops import masked
from winticket.ticket import Mask, Seeds, State, Ticket, same_bits
from winticket.units import Layout


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        model.get_parameter("4.weight")[0, :4] = 0.0  # alive, and 0
    return model


def half(model: nn.Module) -> Mask:
    keep = {}
    for number, name in enumerate(("0.weight", "4.weight")):
        generator = torch.Generator().manual_seed(number)
        keep[name] = torch.rand(model.get_parameter(name).shape, generator=generator) < 0.5
    keep["4.weight"][0, :4] = True
    return Mask(keep)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def ticket_of(model: nn.Module) -> Ticket:
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    return Ticket(half(model), State(weights_of(model), buffers, {}, 7), "ticket", Seeds(3, 1))


X = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(9))


def test_to_torch_prune_and_back() -> None:
    model = network()
    before, mask = weights_of(model), half(model)
    assert interop.to_torch_prune(model, mask) is model
    assert prune.is_pruned(model)
    ticket = interop.from_torch_prune(model, step=7, seeds=Seeds(3, 1))
    assert same_bits(ticket.mask.keep, mask.keep)
    assert same_bits(ticket.start.weights, before)  # pruned ones too: weight_orig has them
    assert same_bits(ticket.start.buffers, dict(network().named_buffers()))
    assert (ticket.start.step, ticket.seeds) == (7, Seeds(3, 1))
    other = network()
    with masked(other.eval(), ticket):
        assert torch.equal(other(X), model.eval()(X))


def test_a_ticket_goes_to_torch_prune_with_its_start_whole() -> None:
    ticket, model = ticket_of(network()), nn.Sequential(*copy.deepcopy(list(network())))
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(5.0)
    interop.to_torch_prune(model, ticket)
    back = interop.from_torch_prune(model)
    assert same_bits(back.start.weights, ticket.start.weights)
    assert same_bits(back.mask.keep, ticket.mask.keep)


def test_what_torch_prunes_itself_is_read() -> None:
    model = network()
    linear: Any = model[4]
    prune.l1_unstructured(linear, "weight", amount=20)  # type: ignore[no-untyped-call]
    prune.random_unstructured(linear, "weight", amount=8)  # type: ignore[no-untyped-call]  # twice: masks meet
    prune.l1_unstructured(linear, "bias", amount=1)  # type: ignore[no-untyped-call]
    mask = interop.from_torch_prune(model).mask
    assert mask.layers() == {"4.weight": (20, 48), "4.bias": (2, 3)}
    assert torch.equal(mask.keep["4.weight"], linear.weight_mask == 1)


def test_state_dicts_with_masks() -> None:
    model = network()
    before, mask = model.state_dict(), half(model)
    before = {name: value.clone() for name, value in before.items()}
    interop.to_torch_prune(model, mask)
    found, plain = interop.from_state_dict(model.state_dict())
    assert same_bits(found.keep, mask.keep)
    assert same_bits(plain, before)
    beside = {**before, **{f"{name}_mask": keep.to(torch.uint8) for name, keep in mask.keep.items()}}
    found, plain = interop.from_state_dict(beside)
    assert same_bits(found.keep, mask.keep)
    assert same_bits(plain, before)


def test_a_buffer_that_is_called_a_mask_is_the_models_own() -> None:
    model = network()
    model.register_buffer("causal_mask", torch.ones(3, 3).tril())
    interop.to_torch_prune(model, half(model))
    found, plain = interop.from_state_dict(model.state_dict())
    assert set(found.keep) == {"0.weight", "4.weight"}
    assert torch.equal(plain["causal_mask"], torch.ones(3, 3).tril())
    assert "causal_mask" in interop.from_torch_prune(model).start.buffers


@pytest.mark.parametrize("masks", [False, True])
def test_a_ticket_as_a_state_dict_and_back(masks: bool) -> None:
    ticket, model = ticket_of(network()), network()
    state = interop.to_state_dict(ticket, masks=masks)
    if not masks:
        model.load_state_dict(state)
        assert same_bits(weights_of(model), ticket.mask.apply(ticket.start.weights))
        return
    interop.to_torch_prune(model, ticket.mask)
    model.load_state_dict(state)
    found, plain = interop.from_state_dict(state)
    assert same_bits(found.keep, ticket.mask.keep)
    assert same_bits({n: plain[n] for n in ticket.start.weights}, ticket.start.weights)
    assert same_bits(interop.from_torch_prune(model).start.weights, ticket.start.weights)


def test_zeros_are_no_mask_unless_they_are_asked_to_be() -> None:
    model = network()
    mask = half(model)
    pruned = mask.apply(weights_of(model))
    with pytest.raises(
        ValueError, match=re.escape("zeros alone are not a mask (mask_of_zeros reads one from them)")
    ):
        interop.from_state_dict(pruned)
    with pytest.raises(ValueError, match=re.escape("has pruned nothing in this model")):
        interop.from_torch_prune(model)
    guess = interop.mask_of_zeros(pruned, ["0.weight", "4.weight"])
    assert same_bits({"a": guess.keep["0.weight"]}, {"a": mask.keep["0.weight"]})
    assert not guess.keep["4.weight"][0, :4].any()  # alive weights of 0: what its docstring warns of
    with pytest.raises(
        ValueError, match=re.escape("no weight is called 9.weight; there are 0.weight, 0.bias")
    ):
        interop.mask_of_zeros(pruned, ["9.weight"])
    with pytest.raises(ValueError, match=r"1.bias would keep nothing"):
        interop.mask_of_zeros(pruned, ["1.bias"])


def test_errors_leave_the_model_as_it_was() -> None:
    model = network()
    before = weights_of(model)
    with pytest.raises(ValueError, match=r"the mask has a layer '9.weight' that the model lacks"):
        interop.to_torch_prune(model, Mask({**half(model).keep, "9.weight": torch.ones(1, dtype=torch.bool)}))
    with pytest.raises(ValueError, match=re.escape("the mask of '4.weight' has shape (16, 3)")):
        interop.to_torch_prune(model, Mask({**half(model).keep, "4.weight": torch.ones(16, 3) > 0}))
    assert same_bits(weights_of(model), before)
    mask = half(model)
    interop.to_torch_prune(model, mask)
    with pytest.raises(ValueError, match=r"'0.weight' is already pruned by torch.nn.utils.prune"):
        interop.to_torch_prune(model, mask)
    state = model.state_dict()
    with pytest.raises(ValueError, match=r"the mask of '4.weight' has values other than 0 and 1"):
        interop.from_state_dict({**state, "4.weight_mask": state["4.weight_mask"] * 0.5})
    with pytest.raises(
        ValueError, match=re.escape("the mask of '4.weight' has shape (3,), its weight (3, 16)")
    ):
        interop.from_state_dict({**state, "4.weight_mask": torch.ones(3)})


def test_tickets_of_other_weights_have_other_seeds() -> None:
    def imported(seed: int) -> Ticket:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(8, 4))
        prune.l1_unstructured(model[0], "weight", amount=0.5)  # type: ignore[no-untyped-call]
        state = torch.get_rng_state()
        ticket = interop.from_torch_prune(model)
        assert torch.equal(torch.get_rng_state(), state)
        return ticket

    assert imported(1).seeds == imported(1).seeds
    assert imported(1).seeds != imported(2).seeds


def inside(model: nn.Module) -> nn.Module:
    """A model of which one part is compiled."""
    outer = nn.Module()
    compiled: Any = torch.compile(model, backend="eager")
    outer.net, outer.head = compiled, nn.Linear(3, 3)
    return outer


def compiled_and_averaged(model: nn.Module) -> nn.Module:
    compiled: Any = torch.compile(model, backend="eager")
    return AveragedModel(compiled)


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "DataParallel": nn.DataParallel,
    "averaged": AveragedModel,
    "compiled": lambda m: torch.compile(m, backend="eager"),
    "compiled, averaged": compiled_and_averaged,
    "wrapped twice": lambda m: nn.DataParallel(AveragedModel(m)),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_names_are_those_of_the_model_within_its_wrappers(wrapper: str) -> None:
    mask, plain = half(network()), list(network().state_dict())
    wrapped = WRAPPERS[wrapper](network())
    assert interop.to_torch_prune(wrapped, mask) is wrapped
    found, state = interop.from_state_dict(wrapped.state_dict())
    assert same_bits(found.keep, mask.keep)
    assert sorted(state) == sorted(plain)
    network().load_state_dict(state)
    ticket = interop.from_torch_prune(wrapped)
    assert same_bits(ticket.mask.keep, mask.keep)
    assert sorted(ticket.start.weights) == sorted(weights_of(network()))
    fresh = WRAPPERS[wrapper](network())
    assert interop.to_torch_prune(fresh, ticket) is fresh
    assert same_bits(interop.from_torch_prune(fresh).mask.keep, mask.keep)
    model = network()
    with torch.no_grad():
        for name, keep in mask.keep.items():
            model.get_parameter(name).copy_(keep)
    lost = WRAPPERS[wrapper](model).state_dict()
    assert same_bits(interop.mask_of_zeros(lost, list(mask.keep)).keep, mask.keep)
    under = [next(full for full in lost if full.endswith(name)) for name in mask.keep]
    assert same_bits(interop.mask_of_zeros(lost, under).keep, mask.keep)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_layouts_come_with_the_mask_from_within_wrappers(wrapper: str) -> None:
    """A transposed convolution's weight is [inputs, units, ...], whatever the model is wrapped in."""
    mask = Mask({"0.weight": torch.eye(3, 4)[..., None, None].expand(3, 4, 2, 2) > 0})
    wrapped = WRAPPERS[wrapper](nn.Sequential(nn.ConvTranspose2d(3, 4, 2)))
    interop.to_torch_prune(wrapped, mask)
    assert interop.from_torch_prune(wrapped).mask.layout == {"0.weight": Layout(inputs_first=True)}


def test_layouts_come_with_the_mask_of_a_compiled_part() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(3, 4, 2))
    interop.to_torch_prune(model, Mask({"0.weight": torch.eye(3, 4)[..., None, None].expand(3, 4, 2, 2) > 0}))
    assert interop.from_torch_prune(inside(model)).mask.layout == {"net.0.weight": Layout(inputs_first=True)}


def test_a_compiled_part_and_a_part_that_is_called_module() -> None:
    model = network()
    interop.to_torch_prune(model, half(model))
    found, state = interop.from_state_dict(inside(model).state_dict())
    assert list(found.keep) == ["net.0.weight", "net.4.weight"]
    assert "head.weight" in state
    assert list(interop.from_torch_prune(inside(model)).mask.keep) == list(found.keep)
    part = nn.ModuleDict({"module": model})
    assert list(interop.from_state_dict(part.state_dict())[0].keep) == ["0.weight", "4.weight"]
    assert list(interop.from_state_dict(part.state_dict(), unwrap=False)[0].keep) == [
        "module.0.weight",
        "module.4.weight",
    ]
    part["head"] = nn.Linear(3, 3)  # beside another part it is no wrapper
    assert next(iter(interop.from_state_dict(part.state_dict())[0].keep)) == "module.0.weight"
