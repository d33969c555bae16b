"""Which layers of a stack train on the sparse kernels, and which dense."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.func import functional_call

from winticket.sparse import Converted, Shape, break_even, candidates, missing, window_of
from winticket.sparse import convert as converted_for
from winticket.train.recipe import Recipe
from winticket.train.stacked import may_stack
from winticket.trouble import of_the_machine

Engine = Literal["auto", "dense", "sparse"]
ENGINES: tuple[Engine, ...] = get_args(Engine)

_trusted: WeakSet[nn.Module] = WeakSet()


def check_engine(engine: str) -> None:
    """ValueError for an engine that is unknown, or not to be had here."""
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; possible: {', '.join(ENGINES)}")
    if engine == "sparse" and missing:
        raise ValueError(f"engine sparse is not to be had here: {missing}; engine auto trains dense then")


def convert(
    module: nn.Module,
    keep: Mapping[str, Tensor],
    recipe: Recipe,
    *,
    engine: Engine,
    stacked: bool,
    example: Tensor,
) -> Converted:
    """`module` for masks `keep` [S, *shape], with the layers sparse that train faster so.

    `auto` takes a layer whose mean density over the stack is at most its break-even on this machine; `sparse` takes
    every layer that can be and has a pruned weight; `dense`, and any device but the CPU, none. `example` [B, ...] are
    inputs, from which the sizes of images within the network are learnt.
    """
    check_engine(engine)
    if (
        engine == "dense"
        or recipe.precision == "bf16"
        or missing
        or any(m.device.type != "cpu" for m in keep.values())
    ):
        return Converted(module)
    density = {name: float(keep[name].double().mean()) for name in candidates(module) if name in keep}
    chosen = [name for name, d in density.items() if d < 1]
    if engine == "auto" and chosen:
        count = len(keep[chosen[0]]) if stacked else 1
        shapes = _shapes(module, chosen, recipe, stack=count, example=example)
        chosen = [name for name, shape in shapes.items() if density[name] <= break_even(shape)]
    return converted_for(module, keep, chosen)


def measure(
    module: nn.Module, names: Iterable[str], recipe: Recipe, *, stacks: Iterable[int], example: Tensor
) -> None:
    """Measure the break-even of the layers of weights `names` where it is not known yet, for one thread.

    Done before the workers of a run start, so that they agree and do not measure at once.
    """
    if missing:
        return
    together = may_stack(module, torch.device("cpu"), recipe.stacking)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for count in {c if together else 1 for c in stacks}:
            for shape in _shapes(module, names, recipe, stack=count, example=example).values():
                break_even(shape)
    finally:
        torch.set_num_threads(threads)


def relative_cost(module: nn.Module, density: float, recipe: Recipe, *, engine: Engine = "auto") -> float:
    """About what a step costs at a density, in units of the dense network's: for plans and progress, no more.

    Measured on LeNet-300-100 (docs/performance.md): at .1 a third, at .05 a fifth, at .02 a seventh.
    """
    if engine == "dense" or recipe.precision == "bf16" or missing or torch.cuda.is_available():
        return 1.0
    eligible = sum(p.numel() for p in module.parameters() if p.ndim > 1)
    could = sum(layer.get_parameter("weight").numel() for layer in candidates(module).values())
    share = could / max(1, eligible)
    return 1 - share + share * min(1.0, 0.09 + 2 * density)


def _shapes(
    module: nn.Module, names: Iterable[str], recipe: Recipe, *, stack: int, example: Tensor
) -> dict[str, Shape]:
    """What each layer of `names` that could be sparse is given in training; none for one that is never called."""
    wanted = set(names)
    layers = {name: layer for name, layer in candidates(module).items() if name in wanted}
    sizes: dict[str, tuple[int, int]] = {}
    each: dict[str, int] = {}

    def note(name: str, x: Tensor) -> None:
        sizes[name] = (int(x.shape[-2]), int(x.shape[-1])) if x.ndim > 2 else (1, 1)
        each[name] = x[
            0, ..., 0
        ].numel()  # what a Linear layer is given of an example: one vector, or one per token

    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs[0]))
        for name, layer in layers.items()
    ]
    modes = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            module.eval()(example.clone())
    except Exception as error:  # a user's module; training it will tell
        if of_the_machine(error):
            raise
        return {}
    finally:
        for handle in handles:
            handle.remove()
        for part, training in modes.items():
            part.training = training
    return {
        name: Shape(
            rows=layer.get_parameter("weight").shape[0],
            columns=layer.get_parameter("weight")[0].numel(),
            stack=stack,
            batch=recipe.batch * (each[name] if isinstance(layer, nn.Linear) else 1),
            threads=torch.get_num_threads(),
            window=window_of(layer) if isinstance(layer, nn.Conv2d) else None,
            size=sizes[name] if isinstance(layer, nn.Conv2d) else (1, 1),
        )
        for name, layer in layers.items()
        if name in sizes
    }


def trusted(
    module: nn.Module,
    converted: Converted,
    weights: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    x: Tensor,
) -> Converted:
    """`converted`, if it computes what `module` does on the examples x [B, ...]; else the module itself, dense.

    A module may do with a layer's weight what no layer does with it. Tried once per choice of layers.
    """
    if converted.module is module or converted.module in _trusted:
        return converted
    # Weights of no replicate: one that has diverged is not to decide how the others are computed.
    generator = torch.Generator().manual_seed(0)
    drawn = {
        k: 0.1 * torch.randn(v.shape, generator=generator, dtype=v.dtype) * (v != 0)
        for k, v in weights.items()
    }
    stack = converted.pack(drawn)
    masked = {k: v[0] for k, v in converted.unpack(stack).items()}
    packed = {k: v[0] for k, v in stack.items()}
    sound = {k: torch.nan_to_num(v) if v.is_floating_point() else v for k, v in buffers.items()}
    extra = {k: v[0] for k, v in {**sound, **converted.indices}.items()}
    was_training = module.training
    try:
        with torch.no_grad():
            wanted = functional_call(module.eval(), (masked, extra), (x.clone(),))
            given = functional_call(converted.module.eval(), (packed, extra), (x.clone(),))
        torch.testing.assert_close(given, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max() + 1e-6))
    except Exception as error:  # whatever a user's module raises with a layer that is another
        if of_the_machine(error):
            raise
        return Converted(module)
    finally:
        module.train(was_training)
        converted.module.train(was_training)
    _trusted.add(converted.module)
    return converted
