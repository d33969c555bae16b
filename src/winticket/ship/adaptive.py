"""The windows of adaptive average pools: number i of n over m elements goes from floor(i m / n) to ceil((i + 1) m / n).

This is PyTorch's rule (`start_index` and `end_index` in ATen's AdaptivePooling.h).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from winticket.ship.network import Network


def ends(length: int, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(First element, element after the last) of each of `size` windows over `length` elements, int64 [size].

    >>> [each.tolist() for each in ends(5, 3)]
    [[0, 1, 3], [2, 4, 5]]
    """
    i = np.arange(size, dtype=np.int64)
    return i * length // size, -(-(i + 1) * length // size)


def means(length: int, size: int) -> npt.NDArray[np.float32]:
    """The matrix [size, length] whose product with a vector is the mean of each window.

    >>> means(3, 2).tolist()
    [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]
    """
    matrix = np.zeros((size, length), np.float32)
    for row, low, high in zip(matrix, *ends(length, size), strict=True):
        row[low:high] = 1 / (high - low)
    return matrix


def alike(positions: Sequence[int], sizes: Sequence[int]) -> bool:
    """True if all windows along each axis have one length and none overlap, as those of a plain pool.

    >>> alike((8, 6), (4, 1)), alike((8, 5), (4, 2))
    (True, False)
    """
    return all(length % size == 0 for length, size in zip(positions, sizes, strict=True))


def means_bytes(network: Network) -> int:
    """Bytes of the different matrices that adaptive pools need in a format that has no such pool.

    A matrix along the last axis counts apart from the same one along another: it may be stored turned.
    """
    wanted = set()
    for operation in network.operations:
        if operation.kind.startswith("adaptive"):
            positions, sizes = network.shapes[operation.inputs[0]][1:], operation.options["size"]
            if not alike(positions, sizes):
                every = enumerate(zip(positions, sizes, strict=True), 1 - len(sizes))
                wanted |= {(length, size, axis == 0) for axis, (length, size) in every}
    return sum(4 * length * size for length, size, _ in wanted)
