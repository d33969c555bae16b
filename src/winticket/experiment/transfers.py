"""Transfer: an experiment on the tickets that another one finds, with other data, another recipe or another width."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import log
from typing import Any

import torch

from winticket import models, rewind
from winticket.align import resized, symmetry
from winticket.experiment.choices import effective, own_rate, proportionate
from winticket.experiment.names import stages
from winticket.experiment.spec import RECIPE_FIELDS, Experiment
from winticket.stages import Setup, kept_here, prunable, whole_mask
from winticket.ticket import Weights

CHOICES = (
    "model",
    "controls",
    "replicates",
    "margin_pp",
    "alpha",
    "gate",
    "engine",
    "validation",
    "test",
    "split",
)
"""What may be chosen anew; all else is the source's."""

FOUND_BY = (
    *(
        "method",
        "criterion",
        "allocate",
        "rewind",
        "rewind_step",
        "rate",
        "pruning",
        "final_density",
        "density",
    ),
    *("output_rate", "conv_rate", "exclude"),
)
REWINDS = (rewind.to_init, rewind.to_step, rewind.to_step_with_optimizer)


@dataclass(frozen=True, kw_only=True)
class Transfer(Experiment):
    """Do the tickets that `source` finds win elsewhere? Made by `transferred`.

    `carried` are the source's levels whose tickets train here. Every replicate takes its own ticket. Dense network and
    ticket begin at the source's start (θ₀, or θ_k where the source rewinds to step k), at step 0 of this recipe. Where
    the data have another number of classes, the output layer is drawn anew, the same for both, and is not pruned.
    Into another model, one of the same kind with other numbers of hidden units, masks alone are carried; dense network
    and ticket then begin at that model's own initialisation.
    """

    source: Experiment
    carried: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.source, Transfer):
            raise TypeError("these tickets were carried over themselves; give the experiment that found them")
        if self.source.method == "early-bird":
            raise ValueError(
                "method early-bird starts tickets from weights that were trained for them, which no dense network "
                "starts from; carry over the tickets of another method"
            )
        if stages(self.source)["rewind"] not in REWINDS:
            raise ValueError(
                f"rewind {self.source.rewind} starts tickets from weights that were trained for them, which no dense "
                f"network starts from; there are {', '.join(r.__name__ for r in REWINDS)}"
            )

    def setup(self) -> Setup:
        """As an experiment's; ValueError where the source's tickets do not fit."""
        here, there = super().setup(), self.source.setup()
        if here.input_shape != there.input_shape:
            raise ValueError(
                f"the tickets were found on {self.source.data}, with examples of shape {there.input_shape}, and those "
                f"of {self.data} have shape {here.input_shape}; a mask fits one shape alone"
            )
        weights: Weights = {n: p.detach() for n, p in there.module().named_parameters()}
        if another_width(here, there):
            if "other-aligned" in self.controls:
                raise ValueError(
                    "other-aligned matches hidden units by what a dense network learnt, and these tickets were found "
                    f"in another one ({self.source.model}); leave it out of the controls"
                )
            weights = _widened(weights, here, there)
        return replace(here, exclude=(*here.exclude, *_new(here, weights)))

    def counts(self, setup: Setup) -> list[int]:
        """Weights kept at level 0 and at each that is carried, without an output layer that is new."""
        there = self.source.setup()
        left = self.source.counts(there)
        names = set(prunable(setup))
        wider = another_width(setup, there)
        if names == set(prunable(there)) and not wider:
            return [left[level] for level in (0, *self.carried)]
        once, again = (_layers(self.source, there, seed=seed) for seed in (0, 1))
        if any(
            {n: a[n] for n in names} != {n: b[n] for n in names} for a, b in zip(once, again, strict=True)
        ):
            raise ValueError(
                f"allocate {self.source.allocate} lets layers compete, so in a network of another width tickets keep "
                "different counts; let the source prune layer by layer (allocate layerwise)"
                if wider
                else f"allocate {self.source.allocate} lets the output layer compete with the others, so without it "
                "tickets keep different counts; let the source leave it out (exclude "
                f"{models.output_layer(there.module())})"
            )
        sizes = {n: p.numel() for n, p in setup.module().named_parameters() if n in names}
        return [
            sum(kept_here(once[level][n], once[0][n], sizes[n]) for n in names)
            for level in (0, *self.carried)
        ]

    def describe(self) -> dict[str, Any]:
        """As an experiment's, with how the tickets were found, and the source's own description."""
        found = self.source.describe()
        own = {**super().describe(), **{name: found[name] for name in FOUND_BY}}
        return {**own, "carried": list(self.carried), "source": found}


def transferred(
    source: Experiment, data: str | None = None, *, density: Sequence[float] = (), **choices: Any
) -> Transfer:
    """The experiment that trains `source`'s tickets on `data` (by default where they were found).

    `density` picks the source's levels that are nearest; unless said, all are carried over. `choices` are the recipe's
    fields and CHOICES; the recipe is the source's but for them. Raises TypeError for any other choice, and ValueError
    where the tickets cannot be carried over.
    """
    known = (*CHOICES, *RECIPE_FIELDS)
    for name in choices:
        if name not in known:
            raise TypeError(
                f"a transfer has no choice {name!r}, which the tickets bring; there are {', '.join(known)}"
            )
    old = source.recipe
    own_rate(choices, {"optimizer": old.optimizer, "lr": old.lr})
    effective(choices, schedule=choices.get("schedule", old.schedule))
    changed = {k: v for k, v in choices.items() if k in RECIPE_FIELDS}
    if changed.get("optimizer", "sgd") != "sgd":
        changed = {"momentum": 0.0, "nesterov": False, **changed}
    changed.update(proportionate(choices, steps=old.steps, evaluate_every=old.evaluate_every))
    own = {k: v for k, v in choices.items() if k not in RECIPE_FIELDS}
    if data is not None and data != source.data:
        own = {"validation": None, "test": None, **own}
    asked = {f.name: getattr(source, f.name) for f in fields(Experiment)}
    if "replicates" in own:
        source = replace(source, replicates=own["replicates"])
    levels = _nearest_levels(source, density) if density else tuple(range(1, source.levels + 1))
    begins = {
        "rewind": "to_init",
        "rewind_step": 0,
        "levels": len(levels),
        "density": (),
        "final_density": None,
    }
    begins |= {"pruning": "geometric", "controls": ("reinit", "random")}
    return Transfer(
        **{
            **asked,
            **begins,
            "data": source.data if data is None else data,
            "recipe": replace(old, **changed),
            **own,
        },
        source=source,
        carried=levels,
    )


def _nearest_levels(source: Experiment, densities: Sequence[float]) -> tuple[int, ...]:
    """The levels whose densities are nearest, on a logarithmic scale."""
    for d in densities:
        if not 0 < d < 1:
            raise ValueError(f"density {d} is asked for; a density to carry over lies in (0, 1)")
    counts = source.counts(source.setup())
    there = {level: log(count / counts[0]) for level, count in enumerate(counts) if level}
    return tuple(sorted({min(there, key=lambda level: abs(there[level] - log(d))) for d in densities}))


def another_width(here: Setup, there: Setup) -> bool:
    """Whether the networks differ by more than their output layer, so that no start can be carried."""
    if here.model == there.model:
        return False
    now, then = ({n: p.shape for n, p in setup.module().named_parameters()} for setup in (here, there))
    return any(
        now.get(n) != then.get(n) for n in {**then, **now} if n.rpartition(".")[0] != _output_path(here)
    )


def _output_path(setup: Setup) -> str | None:
    """The output layer's path; None in a network without Linear and Conv layers."""
    weight = models.output_layer(setup.module())
    return None if weight is None else weight.rpartition(".")[0]


def _widened(weights: Weights, here: Setup, there: Setup) -> Weights:
    """The source's weights in the shapes of another width. ValueError where the networks do not correspond."""
    between = f"tickets of {there.model} cannot be carried into {here.model}"
    try:
        units = [symmetry(setup.module(), setup.input_shape) for setup in (there, here)]
    except ValueError as error:
        raise ValueError(f"{between}, since no unit can be followed into another width: {error}") from error
    try:
        return resized(weights, *units)
    except ValueError as error:
        raise ValueError(
            f"{between}, which is not the same network with other numbers of hidden units: {error}"
        ) from error


def _new(here: Setup, given: Weights) -> tuple[str, ...]:
    """The weights to prune that are new here: the output layer's, for another number of classes.

    ValueError where anything else of what is `given` is of another shape.
    """
    now = {n: tuple(p.shape) for n, p in here.module().named_parameters()}
    then = {n: tuple(w.shape) for n, w in given.items()}
    differ = [n for n in {**then, **now} if now.get(n) != then.get(n)]
    output = _output_path(here)
    wrong = [n for n in differ if n.rpartition(".")[0] != output]
    if wrong:
        raise ValueError(
            f"the tickets' {wrong[0]} has shape {then.get(wrong[0], 'none')} where {here.model} on {here.data} has "
            f"{now.get(wrong[0], 'none')}; only the output layer may differ"
        )
    return tuple(n for n in differ if n in prunable(here))


def _layers(source: Experiment, setup: Setup, *, seed: int) -> list[Mapping[str, int]]:
    """What the source's allocation keeps of random scores in every layer, at levels 0..levels."""
    weights = dict(setup.module().named_parameters())
    mask = whole_mask(setup, {name: weight.detach() for name, weight in weights.items()})
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(keep.shape, generator=generator) for name, keep in mask.keep.items()}
    kept = [mask.layers()]
    for density in source.densities(setup):
        mask = stages(source)["allocate"](scores, mask, density=density)
        kept.append(mask.layers())
    return [{name: count for name, (count, _) in layers.items()} for layers in kept]
