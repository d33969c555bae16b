"""Which layers of a network train sparse: those that make a step of the whole network take the least time."""

from __future__ import annotations

from collections.abc import Mapping

from winticket.sparse.choices import Tuning

CALLS = 4e-5
"""Seconds that PyTorch adds to a step of a sparse layer: three products, 8 to 13 microseconds each, and conversions."""


def fastest_layers(tunings: Mapping[str, Tuning], density: Mapping[str, float], *, chain: bool) -> list[str]:
    """The layers that train sparse in the fastest mixture of sparse and dense layers, by weight, in the given order.

    A layer that gains less than PyTorch's calls cost stays dense. If `chain`, the layers may also train in one compiled
    call (`winticket.sparse.chain`), which needs all of them sparse and pays for no calls: this is taken if it is the
    fastest way, though some of its layers by themselves are slower sparse. Layers with all their weights are sparse in
    a chain only.

    Args:
      tunings: what was measured of each layer, by weight; without times, the break-even densities decide alone
      density: the density of each of these weights
      chain: whether these are all the weights of the network, of layers that a chain could have

    >>> from winticket.sparse.choices import Shape, Times
    >>> shape = Shape(rows=10, columns=100, stack=5, batch=60, threads=1)
    >>> large = Tuning(shape, 0.5, times=Times(1e-2, ((0.1, 2e-3), (1.0, 2e-2))))
    >>> small = Tuning(shape, 0.0, times=Times(1e-5, ((0.1, 2e-5), (1.0, 3e-5))))
    >>> fastest_layers({"1": large, "2": small}, {"1": 0.1, "2": 0.1}, chain=True)
    ['1', '2']
    >>> fastest_layers({"1": large, "2": small}, {"1": 0.1, "2": 0.1}, chain=False)
    ['1']
    """
    pruned = [name for name in tunings if density[name] < 1]
    alone = [name for name in pruned if _gains(tunings[name], density[name])]
    times = {name: tuning.times for name, tuning in tunings.items()}
    if not chain or not pruned or any(t is None for t in times.values()):
        whole = [name for name in tunings if density[name] <= tunings[name].break_even]
        return whole if alone and len(whole) == len(tunings) and chain else alone
    mixture = whole_chain = 0.0
    for name, measured in times.items():
        assert measured is not None
        sparse = measured.at(density[name])
        whole_chain += sparse
        mixture += sparse + CALLS if name in alone else measured.dense
    return list(tunings) if whole_chain < mixture else alone


def _gains(tuning: Tuning, density: float) -> bool:
    if tuning.times is None:
        return density <= tuning.break_even
    return tuning.times.at(density) + CALLS < tuning.times.dense
