"""What a network would take in energy by published figures, where no counter can be read: an estimate."""

from __future__ import annotations

import math

from winticket.ship.measurement import Estimate, Estimated
from winticket.ship.network import Network, Operation

MULTIPLICATION, ADDITION = 3.7e-12, 0.9e-12
"""Joules of an operation in float32 at 45 nm and 0.9 V: Horowitz 2014, figure 1.1.9, also for the two below."""
SRAM = 100e-12
"""Joules to read 64 bits of an SRAM of 1 MB."""
DRAM = (1.3e-9, 2.6e-9)
"""Joules to read 64 bits of DRAM: from, to."""
LARGEST_SRAM = 1 << 20
"""Bytes of that SRAM."""
WORD = 8
"""Bytes of 64 bits."""
VALUE, PLACE = 4, 2
"""Bytes of a weight's value, and of the place that a sparse layer needs for each kept one."""
ASSUMPTIONS = (
    "an estimate by the energies of Horowitz 2014 (ISSCC, figure 1.1.9; 45 nm, 0.9 V), not a measurement: 3.7 pJ for a "
    "multiplication and 0.9 pJ for an addition in float32; every weight is read once per example, 4 bytes for its "
    "value and 2 more for the place of a kept one in a pruned layer, at 100 pJ for 64 bits of a 1 MB SRAM, or 1.3 to "
    "2.6 nJ of DRAM. Instructions, activations and idle power are not in it, so a processor takes far more"
)
"""What the estimate counts, in words."""


def products(network: Network, operation: Operation, *, dense: bool = False) -> int:
    """Multiplications of one example in a Linear layer or convolution, with the kept weights or all; 0 for others.

    >>> import numpy as np
    >>> from winticket.ship import Weight
    >>> weight = Weight.of("fc", np.ones((2, 3)), np.array([[True, False, False], [True, True, False]]))
    >>> layer = Operation("linear", ("input",), "1", tensors={"weight": weight})
    >>> products(Network((3,), (layer,)), layer), products(Network((3,), (layer,)), layer, dense=True)
    (3, 6)
    """
    weight = operation.tensors.get("weight")
    if weight is None:
        return 0
    shape = network.shapes[operation.output]
    positions = math.prod(shape[:-1] if operation.kind == "linear" else shape[1:])
    return positions * (weight.size if dense else len(weight.values))


def weight_bytes(network: Network, *, dense: bool = False) -> int:
    """Bytes of all tensors in float32; of pruned ones the kept values and their places, unless `dense`.

    >>> import numpy as np
    >>> from winticket.ship import Weight
    >>> weight = Weight.of("fc", np.ones((2, 3)), np.array([[True, False, False], [True, True, False]]))
    >>> network = Network((3,), (Operation("linear", ("input",), "1", tensors={"weight": weight}),))
    >>> weight_bytes(network), weight_bytes(network, dense=True)
    (18, 24)
    """
    tensors = network.weights().values()
    if dense:
        return VALUE * sum(weight.size for weight in tensors)
    return sum(len(w.values) * (VALUE if w.positions is None else VALUE + PLACE) for w in tensors)


def estimate(network: Network) -> Estimate:
    """The estimate for one example, with the kept weights and with all.

    Each multiplication has its addition. A network whose weights take more than 1 MB has no estimate with weights in
    SRAM, since the published figure is of an SRAM of that size. Horowitz 2014, "Computing's energy problem (and what we
    can do about it)", ISSCC, figure 1.1.9.

    >>> import numpy as np
    >>> from winticket.ship import Weight
    >>> weight = Weight.of("fc", np.eye(1000, dtype=np.float32), np.eye(1000, dtype=bool))
    >>> made = estimate(Network((1000,), (Operation("linear", ("input",), "1", tensors={"weight": weight}),)))
    >>> made["kept"]["estimated_joules_of_operations"], made["dense"]["estimated_joules_of_operations"]
    (4.6e-09, 4.6e-06)
    >>> made["kept"]["estimated_joules_from_sram"], made["dense"]["estimated_joules_from_sram"]
    (7.96e-08, None)
    """
    return {
        "assumptions": ASSUMPTIONS,
        "kept": _estimated(network, dense=False),
        "dense": _estimated(network, dense=True),
    }


def _estimated(network: Network, *, dense: bool) -> Estimated:
    count = sum(products(network, operation, dense=dense) for operation in network.operations)
    size = weight_bytes(network, dense=dense)
    computed = _rounded(count * (MULTIPLICATION + ADDITION))
    low, high = (_rounded(computed + size / WORD * joules) for joules in DRAM)
    return {
        "multiplications": count,
        "additions": count,
        "weight_bytes": size,
        "estimated_joules_of_operations": computed,
        "estimated_joules_from_sram": _rounded(computed + size / WORD * SRAM)
        if size <= LARGEST_SRAM
        else None,
        "estimated_joules_from_dram": {"low": low, "high": high},
    }


def _rounded(joules: float) -> float:
    """Three digits: the published figures have two, and more would look like a measurement."""
    return float(f"{joules:.3g}")
