"""How one uses a compact file, in lines of Python."""

from __future__ import annotations

from winticket.ship.network import Network


def compact_lines(network: Network, name: str, remark: str) -> tuple[str, ...]:
    """Lines that load and compute the file, folder or repository `name`; `remark` stands behind the loading.

    >>> from winticket.ship import Operation
    >>> lines = compact_lines(Network((4,), (Operation("relu", ("input",), "1"),)), "net", "a comment")
    >>> print(lines[2])
    model = winticket.ship.SparseModel.load('net')  # a comment
    """
    ready = "model.network.preprocessing.apply(pixels)" if network.preprocessing else "pixels"
    return (
        "import winticket",
        "",
        f"model = winticket.ship.SparseModel.load({name!r})  # {remark}",
        f"x = {ready}  # float32 [N, {', '.join(map(str, network.input_shape))}]",
        "logits = model(x)  # winticket.ship.run(model.network, x) needs numpy alone",
    )
