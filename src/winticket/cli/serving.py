"""`winticket serve`: a shipped or trained network behind HTTP, for trying it."""

from __future__ import annotations

import errno
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from winticket.cli.answers import request, say, show
from winticket.cli.options import number
from winticket.cli.shipping import StoreOfRun, Trust, chosen_network

if TYPE_CHECKING:
    from winticket.ship.network import Network
    from winticket.ship.serving import Server

Served = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A compact file, as winticket ship writes it; or the folder of a finished run, whose ticket is served.",
    ),
]
Host = Annotated[
    str,
    typer.Option(
        "--host", help="Address to listen at. 0.0.0.0 lets other machines in; there is no password."
    ),
]
Port = Annotated[
    int, typer.Option("--port", help="Port to listen at; 0: a free one.", parser=number("--port", int))
]
BodyLimit = Annotated[
    float,
    typer.Option(
        "--body-limit",
        help="Most megabytes of a request's body; larger ones are refused.",
        parser=number("--body-limit", float),
    ),
]


def serve(
    file: Served,
    *,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    body_limit: BodyLimit = 1.0,
    store: StoreOfRun = None,
    trust: Trust = None,
) -> None:
    """Serve predictions of FILE over HTTP, for trying a network from other programs. Ctrl-C stops it.

    POST /predict takes inputs as a JSON list and answers with classes and probabilities. GET /health says what is
    served, and GET / how to use it. The kept weights alone are computed, by the compiled kernels if they are there.

    This is no server for the open internet: it has neither encryption nor passwords.

    [bold]winticket serve runs/digits[/bold]

    [bold]winticket serve runs/digits/ship/ticket-10pct-r1-fp32.safetensors --port 0[/bold]
    """
    with request():
        if not 0 <= port <= 65535:
            raise ValueError(f"port is {port}; it must be 0 to 65535")
        if not 1e-3 <= body_limit <= 1000:
            raise ValueError(f"body-limit is {body_limit:g} MB; it must be 0.001 to 1000")
        server = _server(_network(file, store, trust or []), host, port, int(1e6 * body_limit))
    _run(server)


def _network(file: Path, store: str | None, trust: list[str]) -> Network:
    """The network of a compact file, or of anything that `winticket ship` takes."""
    from winticket.outside import Unreadable, read_file, read_header
    from winticket.ship import load
    from winticket.ship.compact_layout import FORMAT

    if file.suffix == ".safetensors" and file.is_file():
        try:
            compact = FORMAT in read_header(read_file(file))[1]
        except Unreadable:
            compact = True  # `load` says what is wrong with it
        if compact:
            return load(file)
    return chosen_network(file, "ticket", (None, None, None), store, trust).network()


def _server(network: Network, host: str, port: int, body_limit: int) -> Server:
    from winticket.ship.predicting import Predictor
    from winticket.ship.serving import Server

    try:
        return Server(Predictor(network), host=host, port=port, body_limit=body_limit)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"port {port} is in use; choose another one with --port, or 0 for a free one"
            ) from error
        raise ValueError(f"cannot listen at {host}, port {port}: {error.strerror or error}") from error


def _run(server: Server) -> None:
    """Serve until Ctrl-C, which is the way to end it, not a failure."""
    from winticket.ship.serving import title

    show(f"{title(server.predictor)}, computed by {server.predictor.computes}")
    show(f"{server.url}  (how to use it: curl {server.url})")
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C while it closes
    finally:
        server.server_close()
    say(f"stopped; {server.answered} predictions were answered")
