"""What goes with a network, as `network.about` has it: free JSON, which may come from a stranger's file."""

from __future__ import annotations

from winticket.ship.network import Network


def recorded_accuracy(network: Network) -> float | None:
    """`network.about["test_accuracy"]` if that is a number from 0 to 1.

    >>> from winticket.ship import Network, Operation
    >>> relu = (Operation("relu", ("input",), "1"),)
    >>> [recorded_accuracy(Network((2,), relu, about={"test_accuracy": value})) for value in (0.97, 2, "<b>")]
    [0.97, None, None]
    """
    value = network.about.get("test_accuracy")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return None
    return float(value)
