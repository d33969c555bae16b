"""`compact`: the network that a mask leaves, without the units, filters and inputs that it has cut off."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from winticket.loops.wrapped import bare, check_fits, check_whole
from winticket.ship.shrink_graph import exact, gap, graph_of, outputs, with_dropout
from winticket.ship.shrink_plan import is_constant, plan
from winticket.ship.shrink_rewrite import Select, rewrite
from winticket.ship.shrink_structures import Cut, cut_structures
from winticket.ship.shrink_units import read
from winticket.ticket import Mask, Ticket
from winticket.trouble import of_the_machine
from winticket.units import Layout, dead_parameters, layouts, structures, takes_whole_units, zeroed

TOLERANCE = 1e-9
"""The largest difference in float64, relative to the largest output, that is taken for rounding."""
_NOISE = 2


class Compact(fx.GraphModule):
    """A network without what its mask has cut off. It is an ordinary module: train it, export it, save it.

    maps: for each layer, "LAYER.units" and "LAYER.inputs" -> int64, the numbers that its units and inputs had in the
    original; tokens are the inputs of an embedding. mask: what is left of the mask, in the new shapes. notes: what was
    kept although the mask has cut it off, and why, in sentences.
    """

    maps: Mapping[str, Tensor]
    mask: Mask
    notes: tuple[str, ...]

    def __deepcopy__(self, memo: dict[int, Any]) -> Compact:
        twin = super().__deepcopy__(memo)
        assert isinstance(twin, Compact)
        twin.maps, twin.mask, twin.notes = self.maps, self.mask, self.notes
        return twin


@torch.no_grad()
def compact(
    model: nn.Module, mask: Mask | Ticket, *, example: Tensor | Sequence[Tensor] | None = None
) -> Compact:
    """A smaller module that computes what `model` computes under `mask`, in evaluation mode.

    Units (neurons, filters) that nothing reads are removed. So are units that the mask leaves without any weight: such
    a unit is a constant, which is folded into the biases of the layers that read it, or into the mean of the BatchNorm
    behind them. Removing one may cut off others, which are removed too. Inputs of the network that no weight reads are
    dropped by an index in front of the first layer. A channel of a residual sum is removed only if all that are summed
    can lose it. If a convolution pads with zeros, a constant input is not constant at the border; then one constant
    channel is kept in place of all of them. Behind operations whose units cannot be followed, such as attention or
    LayerNorm, nothing is removed, but for attention heads, hidden neurons and tokens that a module declares
    (`winticket.units.structures`). `Compact.notes` says what was kept and why.

    mask: a Mask, or a Ticket, whose mask is used. The weights are the model's, so train first; only
    `ticket.load_into(model)` puts the ticket's start into it. example: a batch of inputs [N, ...], or a tuple with the
    arguments of the model; only its shape matters. It may be omitted for a ticket of `find`, which has its model's
    input shape.

    The result is compared with the masked model on noise, in float64, before it is returned. In the model's own
    precision outputs differ by rounding.

    Raises ValueError if the mask does not fit the model, if the model is in training mode, shares weights between
    layers or cannot be traced, or if the mask leaves no path from the inputs to the outputs. TypeError for a mask that
    is none.

    >>> import winticket
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    >>> keep = torch.tensor([[True, False, False, True], [False, False, False, False], [True, False, True, False]])
    >>> small = winticket.compact(model, winticket.Mask({"0.weight": keep}), example=torch.zeros(1, 4))
    >>> [tuple(p.shape) for p in small.parameters()]
    [(2, 3), (2,), (2, 2), (2,)]
    >>> small.maps["0.units"], small.maps["0.inputs"]
    (tensor([0, 2]), tensor([0, 2, 3]))
    """
    if not isinstance(mask, Mask | Ticket):
        raise TypeError(f"compact() takes a Ticket or a Mask, not a {type(mask).__name__}")
    check_whole(model)
    model = bare(model)
    inputs = _inputs(mask, example)
    mask = mask.mask if isinstance(mask, Ticket) else mask
    check_fits(model, mask)
    _check_evaluation(model)
    _check_unshared(model)
    return _compact(model, mask, inputs, *_masked(model, mask))


@torch.no_grad()
def compact_as_it_is(model: nn.Module, mask: Mask, *, example: Tensor) -> Compact:
    """As `compact`, for a module of which every value counts: units that a mask leaves empty keep their biases.

    Inputs of the network that nothing reads are kept, so that nothing is put in front of the first layer. The module is
    in evaluation mode, and shares no weights.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).eval()
    >>> mask = Mask({"0.weight": torch.tensor([[True, False], [False, False]])})
    >>> compact_as_it_is(model, mask, example=torch.zeros(1, 2)).maps["0.inputs"]
    tensor([0, 1])
    """
    twin = copy.deepcopy(model).to("cpu", torch.float64)
    parameters = dict(twin.named_parameters())
    for name, value in mask.apply(parameters).items():
        parameters[name].copy_(value)
    keep = {name: one.cpu() for name, one in mask.keep.items()}
    return _compact(model, mask, _inputs(mask, example), twin, keep, keep_inputs=True)


def _compact(
    model: nn.Module,
    mask: Mask,
    inputs: list[Tensor],
    masked: nn.Module,
    keep: Mapping[str, Tensor],
    *,
    keep_inputs: bool = False,
) -> Compact:
    """masked: the model under the mask in float64, which is changed; keep: the weights that count."""
    whole, counting = {n: k.cpu() for n, k in mask.keep.items()}, dict(keep)
    graph = graph_of(masked)
    _check_called_once(masked, graph)
    cut, expected = Cut(), None
    if any(one.stated for one in structures(masked)):
        expected = outputs(exact(masked, graph, inputs))
        cut = cut_structures(masked, counting, whole)
        graph = graph_of(masked) if cut.maps else graph
    note = with_dropout(masked, graph)
    before = exact(masked, graph, inputs)
    expected = outputs(before) if expected is None else expected
    if not all(bool(value.isfinite().all()) for value in expected):
        raise ValueError(
            "the masked network's outputs on noise are not finite, so nothing can be compared with them"
        )
    reading = read(graph, masked, counting, before)
    if is_constant(reading):
        emptied = ", ".join(mask.emptied()) or "none is empty, but together they cut every path"
        raise ValueError(
            "the mask leaves no path from the inputs to the outputs, so the network gives one answer to every example "
            f"(layers without weights: {emptied}); use a ticket of a higher density"
        )
    written = rewrite(masked, reading, plan(reading, keep_inputs=keep_inputs), whole)
    difference = gap(expected, outputs(exact(masked, graph, inputs)))
    if not difference <= TOLERANCE:
        raise ValueError(
            f"the graph of {type(model).__name__} was misread: without the units that seemed cut off, its output "
            f"changes by {difference:.2g} of its largest value; compact() follows Linear, Conv and BatchNorm layers, "
            "elementwise activations, pooling, flatten, sums and concatenation, and no operations that write in place "
            "to values that are read again"
        )
    small = _as_before(Compact(masked, graph, type(model).__name__).eval(), model)
    later = {name: cut.maps[name][kept] if name in cut.maps else kept for name, kept in written.maps.items()}
    small.maps = {**cut.maps, **later}
    small.notes = (*cut.notes, *written.notes, *([note] if note else []))
    small.mask = _mask(small, written.keep, whole=takes_whole_units(mask))
    return small


def _mask(small: nn.Module, keep: Mapping[str, Tensor], *, whole: bool) -> Mask:
    """What is left of the mask. whole: whether the original mask is one of whole units."""
    present, laid_out = dict(small.named_parameters()), layouts(small)
    mask = Mask({n: k.to(present[n].device) for n, k in keep.items() if n in present}, laid_out)
    if whole or not takes_whole_units(mask):
        return mask
    # Units would now count as dead, and training would set their biases to 0. A weight that is 0 prevents that.
    return Mask({n: _one_in_each_unit(k, mask.laid_out(n)) for n, k in mask.keep.items()}, laid_out)


def _one_in_each_unit(keep: Tensor, layout: Layout) -> Tensor:
    units = layout.by_unit(keep).clone()
    units[~units.flatten(1).any(1), 0, 0] = True
    return layout.from_units(units, keep)


def _as_before(small: Compact, model: nn.Module) -> Compact:
    """Convert the compact module to the types and devices of the model."""
    likes = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    first = next(iter(likes.values()))
    for path, part in small.named_modules():
        for owned in (part._parameters, part._buffers):
            for name, value in owned.items():
                like = likes.get(f"{path}.{name}".removeprefix("."), likes.get(f"{path}.weight", first))
                if value is not None:
                    converted = value.to(
                        like.device, like.dtype if value.is_floating_point() else value.dtype
                    )
                    owned[name] = (
                        nn.Parameter(converted, value.requires_grad)
                        if isinstance(value, nn.Parameter)
                        else converted
                    )
    return small


def _masked(model: nn.Module, mask: Mask) -> tuple[nn.Module, dict[str, Tensor]]:
    """A copy of the model on the CPU in float64 with pruned weights 0, and the mask without what dead units cut off."""
    try:
        twin = copy.deepcopy(model).to("cpu", torch.float64)
    except Exception as error:
        if of_the_machine(error):
            raise
        raise ValueError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error}); if torch.nn.utils.prune has "
            "changed it, call winticket.interop.from_torch_prune and torch.nn.utils.prune.remove first"
        ) from error
    parameters = dict(twin.named_parameters())
    dead = {name: value.cpu() for name, value in dead_parameters(twin, mask).items()}
    keep = {n: k.cpu() & ~dead[n] if n in dead else k.cpu() for n, k in mask.keep.items()}
    for name, value in zeroed(mask.apply(parameters), dead).items():
        parameters[name].copy_(value)
    return twin, keep


def _inputs(mask: Mask | Ticket, example: Tensor | Sequence[Tensor] | None) -> list[Tensor]:
    """A batch of noise like the example, on the CPU in float64."""
    if example is None:
        build = mask.about.get("build") if isinstance(mask, Ticket) else None
        shape = build.get("input_shape") if isinstance(build, Mapping) else None
        if not isinstance(shape, Sequence):
            raise ValueError(
                "compact() needs a batch of inputs: example=x, or a tuple of the model's arguments"
            )
        example = torch.zeros(1, *[int(size) for size in shape])  # type: ignore[arg-type]
    examples = [example] if isinstance(example, Tensor) else list(example)
    if wrong := [type(x).__name__ for x in examples if not isinstance(x, Tensor)]:
        raise TypeError(f"example is a tensor or a tuple of tensors, not of {wrong[0]}")
    generator = torch.Generator().manual_seed(0)
    return [_noise(x, generator) for x in examples]


def _noise(example: Tensor, generator: torch.Generator) -> Tensor:
    if example.ndim < 1 or not example.shape[0]:
        raise ValueError(
            f"example should be a batch [N, ...] of at least one, not of shape {tuple(example.shape)}"
        )
    if not example.is_floating_point():  # tokens: any others might not exist
        return example[:1].cpu().repeat_interleave(_NOISE, 0)
    return torch.randn(_NOISE, *example.shape[1:], generator=generator, dtype=torch.float64)


def _check_evaluation(model: nn.Module) -> None:
    training = [path or type(model).__name__ for path, module in model.named_modules() if module.training]
    if training:
        raise ValueError(
            f"the model is in training mode ({', '.join(training[:3])}{', ...' if training[3:] else ''}), in which "
            "BatchNorm and Dropout compute otherwise; compact() keeps what it computes in evaluation: call model.eval()"
        )


def _check_unshared(model: nn.Module) -> None:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    if shared := [same for same in names.values() if len(same) > 1]:
        raise ValueError(
            f"{' and '.join(shared[0])} are one weight, and compact() would cut each in another way; give each layer "
            "a weight of its own (clone it) first"
        )


def _check_called_once(model: nn.Module, graph: fx.Graph) -> None:
    seen: set[str] = set()
    for node in graph.nodes:
        path = str(node.target)
        if node.op == "call_module" and any(True for _ in model.get_submodule(path).parameters()):
            if path in seen:
                raise ValueError(
                    f"layer {path} is called twice in one forward pass, so its weights are shared; compact() would cut "
                    "them differently for each call"
                )
            seen.add(path)
    for node in graph.nodes:
        if node.op == "get_attr" and str(node.target).rpartition(".")[0] in seen - {""}:
            raise ValueError(
                f"{node.target} is used outside its layer, so its weights are shared; compact() would cut them "
                "differently for each use"
            )


__all__ = ["Compact", "Select", "compact"]
