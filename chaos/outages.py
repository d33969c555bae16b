"""The same trouble as in `workers`, with the results in an object store whose server is gone for moments.

The store is on moto's server. Workers reach it through a forwarder, a process that is killed and started again: to the
workers that is a server that dies with all connections, and comes back with its data.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from chaos.counts import Count
from chaos.workers import EXPIRY, Say, one_round
from winticket.run import claims as claiming

BUCKET = "chaos"
FORWARDER = Path(__file__).with_name("forward.py")


def run(scratch: Path, seed: int, many: int, say: Say) -> list[Count]:
    """`many` rounds on one server, each in a store of its own."""
    count, usual = Count("workers of one plan in an object store whose server dies"), claiming.EXPIRY
    claiming.EXPIRY = 3 * EXPIRY  # a renewal may wait for the server
    try:
        with served() as outage:
            for number in range(many):
                rng = Random(f"{seed} {number}")
                store = f"s3://{BUCKET}/round-{number}"
                one_round(count, scratch / f"round-{number}", store, rng, outage.disturb)
                say(f"outages: {number + 1} of {many} rounds")
    finally:
        claiming.EXPIRY = usual
    return [count]


@dataclass
class Outage:
    """The forwarder in front of the server."""

    behind: int
    before: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, str(FORWARDER), str(self.before), str(self.behind)]
        self.process = subprocess.Popen(command)
        _wait_for(self.before)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def disturb(self, rng: Random) -> None:
        """Now and then, let the server be gone for up to two seconds."""
        if rng.random() < 0.4:
            self.kill()
            time.sleep(rng.uniform(0.1, 2.0))
            self.start()


@contextmanager
def served() -> Iterator[Outage]:
    """Within: an object store on this machine, which the environment names, behind a forwarder."""
    behind, before = _free_port(), _free_port()
    kept = dict(os.environ)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{before}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [sys.executable, "-m", "moto.server", "-p", str(behind)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    outage = Outage(behind, before)
    try:
        _wait_for(behind)
        outage.start()
        _make_bucket()
        yield outage
    finally:
        outage.kill()
        server.send_signal(signal.SIGKILL)
        server.wait()
        os.environ.clear()
        os.environ.update(kept)


def _make_bucket() -> None:
    """In a process of its own, so that no connection is inherited by the workers that are forked."""
    code = f"import s3fs; s3fs.S3FileSystem().mkdir({BUCKET!r})"
    subprocess.run([sys.executable, "-c", code], check=True)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


def _wait_for(port: int, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing answers at port {port}")
