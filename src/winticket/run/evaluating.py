"""The value of a task: its function is called on the values of its inputs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from winticket.run.keys import Ref, rebuild, resolve
from winticket.run.task import Node


def evaluate(nodes: Sequence[Node], fetch: Callable[[Ref], object], supplies: dict[str, object]) -> object:
    """The last node's value; the other nodes are derived tasks that it needs, evaluated here."""
    made: dict[str, object] = {}

    def leaf(value: object) -> object:
        if not isinstance(value, Ref):
            return value
        return made[value.key] if value.key in made else fetch(value)

    for node in nodes:
        fn = cast("Callable[..., object]", resolve(node.fn))
        inputs = [rebuild(value, leaf) for value in node.inputs]
        options = {name: rebuild(value, lambda item: item) for name, value in node.options.items()}
        made[node.key] = (
            fn(*inputs, **options, **supplies) if node.stored else _each(node.fn, fn, inputs, options)
        )
    return made[nodes[-1].key]


def _each(path: str, fn: Callable[..., object], inputs: list[object], options: dict[str, object]) -> object:
    """The call, or one call per element if inputs are stacks; a failed replicate is the value of its call."""

    def once(values: Sequence[object]) -> object:
        failed = [value for value in values if getattr(type(value), "failed_replicate", False) is True]
        return failed[0] if failed else fn(*values, **options)

    lengths = {len(value) for value in inputs if type(value) is tuple}
    if not lengths:
        return once(inputs)
    if len(lengths) > 1:
        raise ValueError(
            f"{path}: stacks of different lengths {sorted(lengths)} cannot be taken element by element"
        )
    rows = range(lengths.pop())
    return tuple(once([value[i] if type(value) is tuple else value for value in inputs]) for i in rows)


@contextmanager
def own_random_state(key: str) -> Iterator[None]:
    """Within: global generators are seeded by the key; afterwards they are restored.

    winticket never draws from them, but a user's dropout does, and must not depend on what a worker ran before.
    """
    import numpy as np
    import torch

    seed = int(key[:8], 16)
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    cuda: Any = torch.cuda
    if cuda.is_initialized():
        cuda.manual_seed_all(seed)
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        torch.set_rng_state(kept[2])
