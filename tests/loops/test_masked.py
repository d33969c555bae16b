"""masked(): pruned weights are 0 after every step of anybody's optimiser, and nothing stays behind."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from winticket.loops import masked
from winticket.ticket import Mask, Seeds, State, Ticket

STEPS = 8
OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "sgd decay": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
}


class SignDescent:
    """An optimiser of another make: no `torch.optim.Optimizer`, with momentum of its own."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.momentum = [torch.ones_like(p) for p in self.parameters]

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for p, m in zip(self.parameters, self.momentum, strict=True):
            assert p.grad is not None
            m.mul_(0.9).add_(p.grad)
            p.sub_(0.01 * m.sign())


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model.get_parameter("0.weight")[0, :3] = 0.0  # alive weights that happen to be 0
    return model


def half(model: nn.Module) -> Mask:
    keep = {}
    for number, name in enumerate(("0.weight", "3.weight")):
        weight = model.get_parameter(name)
        keep[name] = torch.rand(weight.shape, generator=torch.Generator().manual_seed(number)) < 0.5
    keep["0.weight"][0, :3] = True
    keep["3.weight"][:, 0] = True  # so that the zeros have a gradient
    return Mask(keep)


def revived(model: nn.Module, mask: Mask) -> int:
    """Pruned weights that are not exactly 0."""
    return sum(int((model.get_parameter(n).detach()[~k] != 0).sum()) for n, k in mask.keep.items())


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(16, 6, generator=generator), torch.randint(0, 3, (16,), generator=generator)


def backward(model: nn.Module, step: int) -> None:
    x, y = batch(step)
    F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("reused", [False, True], ids=["fresh", "reused state"])
def test_pruned_weights_are_zero_after_every_step(kind: str, reused: bool) -> None:
    model = network()
    mask, optimizer = half(model), OPTIMIZERS[kind](model.parameters())
    if reused:  # moments gathered by the dense network push pruned weights as well
        for step in range(STEPS):
            optimizer.zero_grad()
            backward(model, 100 + step)
            optimizer.step()
    with masked(model, mask) as inside:
        assert inside is model
        assert revived(model, mask) == 0  # at entry
        for step in range(STEPS):
            optimizer.zero_grad()
            backward(model, step)
            optimizer.step()
            assert revived(model, mask) == 0
    assert revived(model, mask) == 0
    # Alive weights that began at 0 have moved: a mask is never inferred from zeros.
    assert bool((model.get_parameter("0.weight")[0, :3] != 0).all())


@pytest.mark.parametrize("kind", ["momentum", "adam", "adamw"])
def test_masking_gradients_alone_revives_pruned_weights(kind: str) -> None:
    # Why all of this exists: the obvious way, with an optimiser that has seen the dense network.
    model = network()
    mask, optimizer = half(model), OPTIMIZERS[kind](model.parameters())
    backward(model, 0)
    optimizer.step()
    with torch.no_grad():
        for name, keep in mask.keep.items():
            model.get_parameter(name).mul_(keep)
    assert revived(model, mask) == 0
    optimizer.zero_grad()
    backward(model, 1)
    for name, keep in mask.keep.items():
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        gradient.mul_(keep)
    optimizer.step()
    assert revived(model, mask) > 0


def test_training_inside_is_training_with_the_mask_multiplied() -> None:
    model = network()
    other, mask = copy.deepcopy(model), half(model)
    with masked(model, mask):
        optimizer = OPTIMIZERS["momentum"](model.parameters())
        for step in range(STEPS):
            optimizer.zero_grad()
            backward(model, step)
            optimizer.step()
    plain = OPTIMIZERS["momentum"](other.parameters())
    for step in range(-1, STEPS):
        if step >= 0:
            plain.zero_grad()
            backward(other, step)
            plain.step()
        with torch.no_grad():
            for name, keep in mask.keep.items():
                other.get_parameter(name).mul_(keep)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name  # the same operations in the same order


def test_an_optimiser_of_another_make() -> None:
    model = network()
    mask, optimizer = half(model), SignDescent(model.parameters())
    seen: list[int] = []
    spy = model[0].register_forward_pre_hook(lambda *_: seen.append(revived(model, mask)))
    with masked(model, mask):
        for step in range(STEPS):
            optimizer.zero_grad()
            backward(model, step)
            optimizer.step()
            assert revived(model, mask) > 0  # it knows no hooks, so weights have moved, until they are used
            state = model.state_dict()
            assert all(bool((state[n][~k] == 0).all()) for n, k in mask.keep.items())
    assert seen == [0] * STEPS
    assert revived(model, mask) == 0
    spy.remove()


def test_a_state_dict_taken_in_mid_block_is_masked_and_has_its_usual_names() -> None:
    model = network()
    names, mask = list(model.state_dict()), half(model)
    with pytest.warns(RuntimeWarning, match="are 0 again"), masked(model, mask):  # noqa: PT031
        with torch.no_grad():
            model.get_parameter("0.weight").fill_(1.0)
        state = model.state_dict()
        assert list(state) == names
        assert torch.equal(state["0.weight"], mask.keep["0.weight"].float())
        inside = nn.ModuleDict({"wrapped": model})
        with torch.no_grad():
            model.get_parameter("0.weight").fill_(1.0)
        assert torch.equal(inside.state_dict()["wrapped.0.weight"], mask.keep["0.weight"].float())


def test_a_dense_state_dict_loaded_within_is_masked_before_its_use() -> None:
    model = network()
    dense, mask = copy.deepcopy(model.state_dict()), half(model)
    with masked(model, mask):
        model.load_state_dict(dense)
        model(batch(0)[0])
        assert revived(model, mask) == 0


def test_nothing_stays_on_the_model_whatever_ends_the_block() -> None:
    model = network()
    mask = half(model)
    before = {k for k in vars(model) if "hook" in k and vars(model)[k]}
    with pytest.raises(ZeroDivisionError), masked(model, mask):  # noqa: PT012
        model.get_parameter("0.weight").data.fill_(1.0)
        raise ZeroDivisionError
    assert revived(model, mask) == 0
    assert {k for k in vars(model) if "hook" in k and vars(model)[k]} == before == set()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    backward(model, 0)
    optimizer.step()
    assert revived(model, mask) > 0  # the block is over, and so is the mask


def test_a_copy_made_within_leaves_its_original_alone() -> None:
    model = network()
    mask = half(model)
    with masked(model, mask):
        twin = copy.deepcopy(model)
    assert revived(twin, mask) == 0
    with torch.no_grad():
        model.get_parameter("0.weight").fill_(1.0)
    twin(batch(0)[0])
    assert bool((model.get_parameter("0.weight") == 1).all())


def test_several_forward_passes_before_one_backward_pass() -> None:
    model = network()
    mask = half(model)
    x, y = batch(0)
    with masked(model, mask):
        loss = F.cross_entropy(model(x), y) + F.cross_entropy(model(-x), y)
        model.state_dict()
        loss.backward()  # type: ignore[no-untyped-call]  # no "modified by an inplace operation"
    assert model.get_parameter("0.weight").grad is not None


def test_two_models_are_masked_side_by_side_and_one_within_another() -> None:
    one, two = network(), network()
    wide = half(one)
    narrow = Mask({"0.weight": wide.keep["0.weight"] & (torch.arange(48).view(8, 6) % 3 > 0)})
    with masked(one, wide), masked(two, wide), masked(two, narrow):
        for model in (one, two):
            optimizer = OPTIMIZERS["adam"](model.parameters())
            backward(model, 0)
            optimizer.step()
        assert revived(one, wide) == revived(two, wide) == revived(two, narrow) == 0
        assert revived(one, narrow) > 0


def test_a_pruned_weight_that_is_not_finite_becomes_zero() -> None:
    model = network()
    mask = half(model)
    with torch.no_grad():
        model.get_parameter("0.weight")[~mask.keep["0.weight"]] = float("nan")
    with masked(model, mask):
        assert bool(torch.isfinite(model(batch(0)[0])).all())


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (
            Mask({"9.weight": torch.ones(8, 6, dtype=torch.bool)}),
            "the mask has a layer '9.weight' that the model",
        ),
        (
            Mask({"0.weight": torch.ones(6, 8, dtype=torch.bool)}),
            "the mask of '0.weight' has shape (6, 8), but the",
        ),
    ],
)
def test_a_mask_of_another_model_is_refused_before_anything_happens(mask: Mask, words: str) -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=re.escape(words)), masked(model, mask):
        raise AssertionError("the block must not begin")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def drawn(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def ticket_of(model: nn.Module) -> Ticket:
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    buffers = {name: b.detach().clone() + 3 for name, b in model.named_buffers()}
    return Ticket(half(model), State(weights, buffers, {}, 0), "ticket", Seeds(0, 0))


def test_a_ticket_is_its_start_and_its_mask_and_a_mask_is_a_mask() -> None:
    ticket = ticket_of(drawn(1))
    start = ticket.mask.apply(ticket.start.weights)
    model = drawn(2)
    with masked(model, ticket):
        assert all(torch.equal(p, start[name]) for name, p in model.named_parameters())
        assert all(torch.equal(b, ticket.start.buffers[name]) for name, b in model.named_buffers())
    other = drawn(2)
    own = {name: p.detach().clone() for name, p in other.named_parameters()}
    with masked(other, ticket.mask):
        for name, p in other.named_parameters():
            keep = ticket.mask.keep.get(name, torch.tensor(True))
            assert torch.equal(p, own[name] * keep)


def test_a_ticket_of_another_network_is_refused_before_anything_is_written() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    before = copy.deepcopy(model.state_dict())
    with (
        pytest.raises(ValueError, match="ticket and model do not cover the same layers"),
        masked(model, ticket_of(drawn(1))),
    ):
        pass
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(TypeError, match="takes a Ticket or a Mask, not a dict"), masked(model, {}):  # type: ignore[arg-type]
        pass


def test_a_state_dict_of_a_part_is_masked_too() -> None:
    model = drawn(1)
    mask = half(model)
    with pytest.warns(RuntimeWarning, match="are 0 again"), masked(model, mask):  # noqa: PT031
        with torch.no_grad():
            model.get_parameter("0.weight").add_(1.0)
        part = model.get_submodule("0").state_dict()["weight"]
        assert not part[~mask.keep["0.weight"]].any()


@pytest.mark.parametrize("state_dict_taken", [False, True])
def test_dense_weights_written_after_the_last_step_are_masked_and_reported(state_dict_taken: bool) -> None:
    model = network()
    dense, mask = copy.deepcopy(model.state_dict()), half(model)
    pruned = int((~mask.keep["0.weight"]).sum()), int((~mask.keep["3.weight"]).sum())
    said = f"({pruned[0]} of 0.weight, {pruned[1]} of 3.weight), and no optimiser had moved them; they are 0 again"
    with pytest.warns(RuntimeWarning, match=re.escape(said)) as caught, masked(model, mask):  # noqa: PT031
        optimizer = OPTIMIZERS["adamw"](model.parameters())
        backward(model, 0)
        optimizer.step()
        model.load_state_dict(dense)
        if state_dict_taken:  # as a checkpoint is, which has the zeros
            assert not model.state_dict()["0.weight"][~mask.keep["0.weight"]].any()
    assert caught[0].filename == __file__
    assert revived(model, mask) == 0


def test_what_an_optimiser_of_another_make_moved_is_no_surprise() -> None:
    model = network()
    mask = half(model)
    with masked(model, mask):  # a warning would be an error here
        optimizer = SignDescent(model.parameters())
        optimizer.zero_grad()
        backward(model, 0)
        optimizer.step()
        assert revived(model, mask) > 0
    assert revived(model, mask) == 0


def test_dense_weights_that_were_masked_by_a_forward_pass_since_are_not_reported() -> None:
    model = network()
    dense, mask = copy.deepcopy(model.state_dict()), half(model)
    with masked(model, mask):
        model.load_state_dict(dense)
        model.state_dict()
        model(batch(0)[0])
    assert revived(model, mask) == 0


def wrapped_by_lora(model: nn.Sequential) -> None:
    class LoRA(nn.Module):
        def __init__(self, base_layer: nn.Linear) -> None:
            super().__init__()
            self.base_layer = base_layer
            self.down = nn.Linear(base_layer.in_features, 2, bias=False)
            self.up = nn.Linear(2, base_layer.out_features, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            given: Tensor = self.base_layer(x) + self.up(self.down(x))
            return given

    model[0] = LoRA(model[0])  # type: ignore[arg-type]


SURGERY: dict[str, tuple[Callable[[nn.Sequential], object], str]] = {
    "lora": (
        wrapped_by_lora,
        "no longer has a parameter '0.weight', .* now called '0.base_layer.weight'.; change layers",
    ),
    "weight_norm": (
        lambda m: weight_norm(m[0]),
        "no longer has a parameter '0.weight', .*nothing has replaced it",
    ),
    "spectral_norm": (lambda m: spectral_norm(m[0]), "it is now called '0.parametrizations.weight.original'"),
    "new head": (
        lambda m: m.__setitem__(3, nn.Linear(8, 5)),
        "'3.weight' was replaced by one of shape .5, 8.; its mask has .3, 8.; change layers",
    ),
    "cut off": (lambda m: m.__delitem__(3), "no longer has a parameter '3.weight'"),
}


@pytest.mark.parametrize("seen_by", ["forward pass", "step", "state dict", "end"])
@pytest.mark.parametrize("kind", SURGERY)
def test_surgery_within_the_block_names_the_parameter_and_what_to_do(kind: str, seen_by: str) -> None:
    model = network()
    mask, (operate, words) = half(model), SURGERY[kind]
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with pytest.raises(RuntimeError, match=words), masked(model, mask):  # noqa: PT012
        backward(model, 0)
        operate(model)
        if seen_by == "forward pass":
            model(batch(0)[0])
        elif seen_by == "step":
            optimizer.step()
        elif seen_by == "state dict":
            model.state_dict()
    left = {n: k for n, k in mask.keep.items() if n in dict(model.named_parameters())}
    if kind != "new head":  # what still has its name is masked, and nothing of the block remains
        assert revived(model, Mask(left)) == 0
    assert not model._forward_pre_hooks
    optimizer.step()


def test_modules_added_within_the_block_change_nothing() -> None:
    model = network()
    mask = half(model)
    with masked(model, mask):
        model.append(nn.Linear(3, 3))
        backward(model, 0)
        OPTIMIZERS["adamw"](model.parameters()).step()
        assert revived(model, mask) == 0
    assert revived(model, mask) == 0


def constants(exported: torch.export.ExportedProgram) -> dict[str, Tensor]:
    return {**exported.state_dict, **exported.constants}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_a_model_is_exported_within_the_block_as_without_it(strict: bool, trained: bool) -> None:
    model = network()
    mask, x = half(model), batch(0)[0]
    with masked(model, mask):
        if trained:  # so that the weights' hooks are there
            optimizer = OPTIMIZERS["adamw"](model.parameters())
            backward(model, 0)
            optimizer.step()
        model.eval()
        inside = torch.export.export(model, (x,), strict=strict)
        expected = model(x)
    plain = torch.export.export(model, (x,), strict=strict)
    assert [str(n.target) for n in inside.graph.nodes] == [str(n.target) for n in plain.graph.nodes]
    assert constants(inside).keys() == constants(plain).keys()
    for name, keep in mask.keep.items():
        assert not constants(inside)[name][~keep].any()
        assert constants(inside)[name][keep].count_nonzero() > 0
    assert torch.equal(inside.module()(x), expected)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace.*` is deprecated")
def test_a_traced_model_has_the_zeros_and_no_mask() -> None:
    model, x = network().eval(), batch(0)[0]
    mask = half(model)
    with masked(model, mask):
        expected, traced = model(x), torch.jit.trace(model, (x,))  # type: ignore[no-untyped-call]
    assert "masked_fill" not in str(traced.inlined_graph)
    assert torch.equal(traced(x), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # a file that torch leaves open
def test_the_default_onnx_exporter_writes_the_zeros(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="torch.onnx.export needs onnx and onnxscript")
    pytest.importorskip("onnx.reference", reason="torch.onnx.export needs onnx and onnxscript")
    pytest.importorskip("onnxscript", reason="torch.onnx.export needs onnx and onnxscript")
    model, x, path = network().eval(), batch(0)[0], tmp_path / "model.onnx"
    mask = half(model)
    with masked(model, mask):
        expected = model(x)
        torch.onnx.export(model, (x,), path, verbose=False)
    graph = onnx.load(path).graph
    # Its optimiser folds BatchNorm into the layer before, which multiplies whole rows: zeros stay zeros.
    # That of torch 2.8 names equal tensors once, and the others by Identity.
    assert {node.op_type for node in graph.node} <= {"Gemm", "BatchNormalization", "Relu", "Identity"}
    found = onnx.reference.ReferenceEvaluator(onnx.load(path)).run(None, {graph.input[0].name: x.numpy()})
    assert torch.allclose(torch.from_numpy(found[0]), expected, atol=1e-5)
    weights = {w.name: torch.from_numpy(onnx.numpy_helper.to_array(w).copy()) for w in graph.initializer}
    for name, keep in mask.keep.items():
        assert not weights[name][~keep].any()
        assert weights[name][keep].count_nonzero() > 0
