"""The choice of the layers of a stack that train on the sparse kernels; the others train dense."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.func import functional_call

from winticket.sparse import Converted, Shape, candidates, fastest_layers, missing, tuning, window_of
from winticket.sparse import convert as converted_for
from winticket.train.recipe import Recipe
from winticket.train.stacked import may_stack
from winticket.trouble import of_the_machine

Engine = Literal["auto", "dense", "sparse"]
HALF = 1.4  # a dense step of LeNet-300-100 in float32 takes about so many times one in bfloat16
ENGINES: tuple[Engine, ...] = get_args(Engine)

_trusted: WeakSet[nn.Module] = WeakSet()


def check_engine(engine: str) -> None:
    """Raise ValueError if there is no such engine, or if this installation does not have it.

    >>> check_engine("fast")
    Traceback (most recent call last):
    ValueError: engine is 'fast'; possible: auto, dense, sparse
    """
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; possible: {', '.join(ENGINES)}")
    if engine == "sparse" and missing:
        raise ValueError(
            f"engine sparse is not available: {missing}; use engine auto, which then trains dense"
        )


def convert(
    module: nn.Module,
    keep: Mapping[str, Tensor],
    recipe: Recipe,
    *,
    engine: Engine,
    stacked: bool,
    example: Tensor,
) -> Converted:
    """`module` for masks `keep` [S, *shape], with some of its layers on the sparse kernels.

    `auto` chooses the layers with which a step takes the least time on this machine, at the mean density over the stack
    (see `winticket.sparse.mixture`). `sparse` chooses every layer that the kernels support and that has a pruned
    weight. `dense` chooses none, nor does any engine on a device other than the CPU. Sparse layers compute in float32,
    as was measured fastest here, whatever the engine and the precision. `example` [B, ...] are inputs, run once to
    learn the image sizes within the network.
    """
    check_engine(engine)
    if engine == "dense" or missing or any(m.device.type != "cpu" for m in keep.values()):
        return Converted(module)
    density = {name: float(keep[name].double().mean()) for name in candidates(module) if name in keep}
    chosen = [name for name, d in density.items() if d < 1]
    if not chosen:
        return Converted(module)
    count = len(keep[chosen[0]]) if stacked else 1
    shapes = _shapes(module, density, recipe, stack=count, example=example)
    tunings = {name: tuning(shape) for name, shape in shapes.items() if engine == "auto" or name in chosen}
    if engine == "auto":
        chosen = fastest_layers(tunings, density, chain=_may_chain(module, shapes, recipe, stack=count))
    return converted_for(module, keep, chosen, tunings={n: tunings[n] for n in chosen if n in tunings})


def _may_chain(module: nn.Module, shapes: Mapping[str, Shape], recipe: Recipe, *, stack: int) -> bool:
    """True if these layers are all that learns, and steps of a stack could be one compiled call (`train.chain`).

    Whether they are one shows when a step has been traced.
    """
    layers = {name: layer for name, layer in candidates(module).items() if name in shapes}
    covered = sum(p.numel() for layer in layers.values() for p in layer.parameters())
    linear = all(isinstance(layer, nn.Linear) for layer in layers.values())
    learns = sum(p.numel() for p in module.parameters())
    return linear and covered == learns and recipe.clip_norm is None and torch.get_num_threads() <= stack


def measure(
    module: nn.Module, names: Iterable[str], recipe: Recipe, *, stacks: Iterable[int], example: Tensor
) -> None:
    """Measure how the layers of weights `names` train fastest with one thread, unless it is known already.

    That is their break-even density, and the instruction sets and blocks of their products. `stacks` are the numbers of
    replicates that train together; `example` [B, ...] are inputs. The result is kept in the cache folder. This runs
    before the workers of a run start, so that they agree and do not all measure at once.

    >>> measure(nn.Linear(4, 2), [], Recipe(steps=10), stacks=[1], example=torch.zeros(2, 4))  # no layers: no work
    """
    if missing:
        return
    together = may_stack(module, torch.device("cpu"), recipe.stacking)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for count in {c if together else 1 for c in stacks}:
            for shape in _shapes(module, names, recipe, stack=count, example=example).values():
                tuning(shape)
    finally:
        torch.set_num_threads(threads)


def relative_cost(module: nn.Module, density: float, recipe: Recipe, *, engine: Engine = "auto") -> float:
    """A rough estimate of a step's cost at a density, relative to the dense network's; for plans and progress only.

    Fitted to measurements on LeNet-300-100 (docs/performance.md): a third at density 0.1, a fifth at 0.05, a seventh at
    0.02. It is 1 if nothing trains sparse: engine dense, a GPU, or no compiled kernels.

    >>> relative_cost(nn.Sequential(nn.Linear(4, 2)), 0.1, Recipe(steps=10), engine="dense")
    1.0
    """
    if engine == "dense" or missing or torch.cuda.is_available():
        return 1.0
    eligible = sum(p.numel() for p in module.parameters() if p.ndim > 1)
    could = sum(layer.get_parameter("weight").numel() for layer in candidates(module).values())
    share = could / max(1, eligible)
    slower = HALF if recipe.precision == "bf16" else 1.0
    return 1 - share + share * min(1.0, slower * (0.09 + 2 * density))


def _shapes(
    module: nn.Module, names: Iterable[str], recipe: Recipe, *, stack: int, example: Tensor
) -> dict[str, Shape]:
    """The training shape of each layer in `names` that could be sparse and that the forward pass calls."""
    chosen = set(names)
    layers = {name: layer for name, layer in candidates(module).items() if name in chosen}
    inputs = _input_shapes(module, layers, example)
    return {
        name: Shape(
            rows=layer.get_parameter("weight").shape[0],
            columns=layer.get_parameter("weight")[0].numel(),
            stack=stack,
            # A Linear layer gets one vector per example, or one per token.
            batch=recipe.batch * (inputs[name][1:-1].numel() if isinstance(layer, nn.Linear) else 1),
            threads=torch.get_num_threads(),
            window=window_of(layer) if isinstance(layer, nn.Conv2d) else None,
            size=(inputs[name][-2], inputs[name][-1]) if isinstance(layer, nn.Conv2d) else (1, 1),
            half=recipe.precision == "bf16",
        )
        for name, layer in layers.items()
        if name in inputs
    }


def _input_shapes(
    module: nn.Module, layers: Mapping[str, nn.Module], example: Tensor
) -> dict[str, torch.Size]:
    """The shape of the input that each layer gets when the module runs on `example`; empty if the module fails."""
    shapes: dict[str, torch.Size] = {}

    def note(name: str, x: Tensor) -> None:
        shapes[name] = x.shape

    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs[0]))
        for name, layer in layers.items()
    ]
    modes = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            module.eval()(example.clone())
    except Exception as error:  # a user's module may raise anything; training it will report the error
        if of_the_machine(error):
            raise
        return {}
    finally:
        for handle in handles:
            handle.remove()
        for part, training in modes.items():
            part.training = training
    return shapes


def trusted(
    module: nn.Module,
    converted: Converted,
    weights: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    x: Tensor,
) -> Converted:
    """`converted` if it agrees with `module` on the examples x [B, ...]; otherwise `module` itself, dense.

    They may differ because a module is free to use a layer's weight outside that layer. Each choice of layers is
    compared once.
    """
    if converted.module is module or converted.module in _trusted:
        return converted
    # Random weights: a replicate that has diverged must not decide how the others are computed.
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
            dense = functional_call(module.eval(), (masked, extra), (x.clone(),))
            sparse = functional_call(converted.module.eval(), (packed, extra), (x.clone(),))
        torch.testing.assert_close(sparse, dense, rtol=1e-3, atol=1e-3 * float(dense.abs().max() + 1e-6))
    except Exception as error:  # a user's module may raise anything if a layer is replaced
        if of_the_machine(error):
            raise
        return Converted(module)
    finally:
        module.train(was_training)
        converted.module.train(was_training)
    _trusted.add(converted.module)
    return converted
