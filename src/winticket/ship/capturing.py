"""A torch module in evaluation mode -> the network that it computes, compared with it before it is handed over."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from winticket.loops.wrapped import bare, check_fits, check_whole
from winticket.ship.folding import folded
from winticket.ship.interpret import run
from winticket.ship.kinds import KINDS
from winticket.ship.network import INPUT, Network, Operation, Preprocessing, Weight
from winticket.ship.translate import TRANSLATIONS, Call, Constant, Step, Symbol
from winticket.ticket import Mask, Ticket
from winticket.trouble import of_the_machine
from winticket.units import dead_parameters, zeroed

BATCH = 2
"""Examples in a traced batch; the comparison uses other numbers."""
TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest logit: the rounding of float32 in deep networks."""


def capture(
    model: nn.Module,
    mask: Mask | Ticket | None = None,
    *,
    example: Tensor,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] = (),
) -> Network:
    """The network that `model` computes in evaluation mode, with its weights as they are now, under a mask.

    Of a ticket only the mask is used: the weights are the model's, so train it or call `ticket.load_into(model)` first.
    `example` [N, *input_shape] shows what the model takes; N may be 1. BatchNorm is folded into the layer before it if
    nothing else reads that layer. The model does not change.

    The result is compared with the model on the example and on noise. Raises ValueError if they differ, if the model
    cannot be traced (torch.export), if it has an operation that a shipped network cannot have (the message names
    operation and layer), or if the mask does not fit; and NetworkError for weights that are not finite.

    >>> import torch, winticket
    >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> winticket.ship.capture(model, winticket.prune(model, 0.25).mask, example=torch.zeros(1, 6))
    Network(3 operations, 8 of 32 weights kept, inputs [6], outputs [2])
    """
    check_whole(model)
    model = bare(model)
    kept = mask.mask if isinstance(mask, Ticket) else mask
    if kept is not None:
        check_fits(model, kept)
    example = _checked(model, example)
    with _evaluated(model):
        values = _values(model, kept)
        steps, output = _steps(model, example, values, {} if kept is None else kept.keep)
        network = Network(
            tuple(example.shape[1:]),
            _operations(folded(steps, output), output),
            preprocessing,
            tuple(classes),
        )
        _compare(network, model, values, example)
    return network


def _checked(model: nn.Module, example: Tensor) -> Tensor:
    other = {p.dtype for p in model.parameters()} - {torch.float32}
    if other or example.dtype != torch.float32:
        kinds = ", ".join(str(kind) for kind in {*other, example.dtype} - {torch.float32})
        raise ValueError(
            f"networks of float32 weights with float32 inputs can be captured, but here are {kinds}; a network for "
            "text is shipped as a state dict (--to torch); convert others with model.float()"
        )
    if example.ndim < 2 or not len(example):
        raise ValueError(
            f"the example must be [N, *input_shape] with N of 1 or more, not {list(example.shape)}"
        )
    parameter = next(model.parameters(), example)
    return example.detach().to(parameter.device)


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """Within, the model is in evaluation mode; afterwards every module is in its own mode again."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torch.export and the model's own, which training has shown already
            yield
    finally:
        for module, was in training.items():
            module.training = was


def _values(model: nn.Module, mask: Mask | None) -> dict[str, Tensor]:
    """Parameters and buffers by name, with pruned weights 0, and with 0 for what dead units leave."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    if mask is not None:
        parameters = zeroed(mask.apply(parameters), dead_parameters(model, mask))
    return {**parameters, **{name: b.detach() for name, b in model.named_buffers()}}


def _steps(
    model: nn.Module, example: Tensor, values: Mapping[str, Tensor], keep: Mapping[str, Tensor]
) -> tuple[dict[str, Step], str]:
    """The operations by the name of their output, and the name of the network's output."""
    blank = example.new_zeros(BATCH, *example.shape[1:])
    try:
        program = torch.export.export(model, (blank,))
    except Exception as error:
        if of_the_machine(error):
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(
            f"the model cannot be traced by torch.export ({type(error).__name__}: {first}); its forward must not "
            "branch on the values of tensors"
        ) from error
    signature = program.graph_signature
    named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    fixed = {**program.constants, **values}
    names = {**named, **signature.inputs_to_lifted_tensor_constants}
    reader = _Reader({node: _constant(name, fixed, keep) for node, name in names.items()}, example.shape[1:])
    for node in program.graph.nodes:
        reader.read(node)
    return reader.steps, reader.output


def _constant(name: str, fixed: Mapping[str, Any], keep: Mapping[str, Tensor]) -> Constant:
    return Constant(name, fixed[name].detach().cpu(), keep[name].cpu() if name in keep else None)


class _Reader:
    """Reads an exported graph node by node: constants are computed, everything else becomes a step."""

    def __init__(self, constants: Mapping[str, Constant], shape: Sequence[int]) -> None:
        self.constants, self.shape = constants, tuple(shape)
        self.known: dict[fx.Node, Any] = {}
        self.steps: dict[str, Step] = {}
        self.output = INPUT

    def read(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self.known[node] = self.constants.get(node.name) or Symbol(INPUT, self.shape)
        elif node.op == "output":
            (results,) = node.args
            values = [self.resolved(one) for one in results] if isinstance(results, tuple | list) else []
            if len(values) != 1 or not isinstance(values[0], Symbol):
                raise ValueError("the model must return one tensor that depends on its input: the logits")
            self.output = values[0].name
        elif node.users or node.op != "call_function":
            self.call(node)

    def resolved(self, value: Any) -> Any:
        """An argument with what is known about the nodes in it."""
        if isinstance(value, fx.Node):
            return self.known[value]
        if isinstance(value, list | tuple):
            return [self.resolved(one) for one in value]
        return value

    def call(self, node: fx.Node) -> None:
        call = self.described(node)
        inputs = [self.known[one] for one in node.all_input_nodes]
        if not any(isinstance(one, Symbol) for one in inputs):
            self.known[node] = self.computed(node, inputs, call.layer)
            return
        translation = TRANSLATIONS.get(call.operator)
        if translation is None:
            call.refuse(f"supported are {', '.join(KINDS)}")
        made = translation(call)
        if isinstance(made, Step):
            shape = call.example_shape()
            made = self.add(made, shape)
        self.known[node] = made
        if (
            str(node.target).split(".")[1].endswith("_")
        ):  # it wrote into its input, which later nodes may name
            self.known[node.args[0]] = made  # type: ignore[index]

    def described(self, node: fx.Node) -> Call:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        layer = str(stack[-1][0]) if stack else ""
        value = node.meta.get("val")
        shape = tuple(value.shape) if isinstance(value, Tensor) else ()
        if not isinstance(node.target, torch._ops.OpOverload):
            return Call(str(getattr(node.target, "__name__", node.target)), layer, {}, shape, BATCH)
        arguments = node.target._schema.arguments
        given = dict(zip((a.name for a in arguments), node.args, strict=False)) | dict(node.kwargs)
        options = {
            a.name: self.resolved(given[a.name]) if a.name in given else a.default_value for a in arguments
        }
        operator = node.target._schema.name.removeprefix("aten::")
        return Call(operator.rstrip("_"), layer, options, shape, BATCH)

    def computed(self, node: fx.Node, inputs: Sequence[Constant], layer: str) -> Constant:
        """What an operation gives that reads constants alone, as the weight of a parametrized layer."""
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda one: self.known[one].value)
        value = node.target(*args, **kwargs)  # type: ignore[operator]
        masked = [one.keep for one in inputs if one.keep is not None]
        keep = masked[0] if len(masked) == 1 and masked[0].shape == value.shape else None
        if keep is not None and bool(value[~keep].any()):
            keep = None  # it mixes the entries, so pruned ones are no zeros of it
        return Constant(f"{layer}.{node.name}".lstrip("."), value, keep)

    def add(self, step: Step, shape: tuple[int, ...]) -> Symbol:
        name = str(len(self.steps) + 1)
        self.steps[name] = step
        return Symbol(name, shape)


def _operations(steps: Mapping[str, Step], output: str) -> tuple[Operation, ...]:
    if output == INPUT:
        raise ValueError("the model returns its input unchanged, so there is nothing to ship")
    numbers = {INPUT: INPUT, **{name: str(number) for number, name in enumerate(steps, 1)}}
    weights = _Weights()
    return tuple(
        Operation(
            step.kind,
            tuple(numbers[symbol.name] for symbol in step.inputs),
            numbers[name],
            step.options,
            {role: weights.of(constant) for role, constant in step.tensors.items()},
        )
        for name, step in steps.items()
    )


class _Weights:
    """Makes the tensors of the operations: one for each constant, each under a name of its own."""

    def __init__(self) -> None:
        self.made: dict[int, tuple[Constant, Weight]] = {}
        self.names: set[str] = set()

    def of(self, constant: Constant) -> Weight:
        if id(constant) not in self.made:
            name, number = constant.name, 1
            while name in self.names:
                number += 1
                name = f"{constant.name}#{number}"
            self.names.add(name)
            keep = None if constant.keep is None else constant.keep.numpy()
            weight = Weight.of(name, constant.value.to(torch.float32).numpy(), keep)
            self.made[id(constant)] = constant, weight
        return self.made[id(constant)][1]


def _compare(network: Network, model: nn.Module, values: Mapping[str, Tensor], example: Tensor) -> None:
    """ValueError if the network's logits differ from the model's, on the example or on noise."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(BATCH + 1, *example.shape[1:], generator=generator)
    for what, x in (("its example", example[:16]), ("noise", noise.to(example.device))):
        expected = functional_call(model, dict(values), (x,)).cpu().numpy()
        with np.errstate(all="ignore"):
            computed = run(network, x.cpu().numpy())
        if expected.shape != computed.shape:
            raise ValueError(
                f"the model returns {list(expected.shape)} for {len(x)} examples, but {list(computed.shape)} follow "
                f"from its trace of {BATCH}: it must treat every example alike"
            )
        if not np.isfinite(expected).all():
            raise ValueError(f"the model's outputs on {what} are not finite, so it is not fit to be shipped")
        difference, largest = float(np.abs(computed - expected).max()), float(np.abs(expected).max())
        if not difference <= TOLERANCE * largest + 1e-6:
            raise ValueError(
                f"the captured network differs from the model by up to {difference:.3g} on {what} (outputs up to "
                f"{largest:.3g}): its forward does something that its trace does not show"
            )
