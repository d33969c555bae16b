"""Ray as an executor: tasks of one core each on a cluster, or on this machine."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from winticket.run.errors import RunError
from winticket.run.futures import ExecutorCrew

_REACH_SECONDS = 10.0
_OBJECT_BYTES = 100 << 20  # of Ray's own store, which holds messages alone
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or Ray warns that tasks without a GPU will see it in future
}


def ray_crew(address: str | None = None, workers: int | None = None) -> ExecutorCrew:
    """A crew of Ray's workers; `pip install winticket[ray]`.

    Args:
      address: of a running cluster: "host:6379", or "auto" for the one that this machine belongs
        to; None starts Ray on this machine for each run. If this process has called `ray.init` already, that
        connection is used and left open.
      workers: number of tasks at once, each with one core, and one GPU if the cluster has any (default: as many as the
        cluster has room for now; on this machine, its cores)

    Raises ValueError if Ray is not installed, if the cluster cannot be reached, or for less than 1 worker.

    >>> ray_crew("127.0.0.1:1", workers=2)
    Traceback (most recent call last):
    ValueError: no Ray cluster answers at '127.0.0.1:1' (Connection refused); start one with `ray start --head`, ...
    """
    if importlib.util.find_spec("ray") is None:
        raise ValueError("Ray is not installed; install it with: pip install 'winticket[ray]'")
    if address is not None:
        _reach(address)
        workers = _room(address) if workers is None else workers
    return ExecutorCrew(OnRay(address, workers), os.cpu_count() or 1 if workers is None else workers)


@dataclass(frozen=True)
class OnRay:
    """Makes an executor on Ray; `cpus` is the number of cores of a Ray that is started on this machine."""

    address: str | None
    cpus: int | None = None

    def __call__(self) -> RayExecutor:
        return RayExecutor(self)


class RayExecutor:
    """Submits functions to Ray and gives futures of `concurrent.futures`."""

    def __init__(self, on: OnRay) -> None:
        self._leave = _connect(on.address, on.cpus)

    @functools.cached_property
    def _options(self) -> dict[str, Any]:
        """Of every task. The executor of plans repeats a task whose process died, so Ray does not."""
        gpus = {"num_gpus": 1} if _resources().get("GPU") else {}
        return {"num_cpus": 1, "max_retries": 0, **gpus}

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        import ray

        ref = ray.remote(fn).options(**self._options).remote(*args)
        future = ref.future()

        def cancelled(done: Any) -> None:
            if done.cancelled():
                with contextlib.suppress(Exception):  # the cluster has gone, and the task with it
                    ray.cancel(ref, force=True)

        future.add_done_callback(cancelled)
        return future

    def broken(self, error: BaseException) -> bool:
        """True if Ray itself has ended on this machine, so that only a new connection helps."""
        from ray.exceptions import LocalRayletDiedError

        return isinstance(error, LocalRayletDiedError)

    def shutdown(self) -> None:
        """Leave the cluster, or end the Ray that was started. Either ends the tasks that still compute."""
        self._leave()


def _connect(address: str | None, cpus: int | None) -> Callable[[], None]:
    """Connect this process to Ray, unless it is connected. Returns a function that undoes it."""
    import ray

    if ray.is_initialized():
        return _nothing
    where: dict[str, Any] = {"address": address}
    if address is None:
        where = {
            "address": "local",
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": _OBJECT_BYTES,
        }
    with _undisturbed():
        try:
            ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            token = "" if address is None else "; if the cluster asks for a token, set RAY_AUTH_MODE=token"
            raise RunError(
                f"Ray cannot be used{_at(address)} ({type(error).__name__}: {error}){token}"
            ) from error
    return ray.shutdown


def _nothing() -> None:
    """For a connection that is not ours to end."""


def _at(address: str | None) -> str:
    return "" if address is None else f" at {address!r}"


def _resources() -> dict[str, float]:
    import ray

    cluster: Any = ray
    return dict(cluster.cluster_resources())


def _room(address: str) -> int:
    """How many tasks the cluster has room for. Raises ValueError if it cannot be used."""
    try:
        leave = _connect(address, None)
    except RunError as error:
        raise ValueError(str(error)) from error
    try:
        has = _resources()
    finally:
        leave()
    return max(1, int(has.get("GPU") or has.get("CPU", 0)))


def _reach(address: str) -> None:
    """Raise ValueError unless a server such as Ray's answers at the address, since Ray waits for one for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isdecimal()):
        raise ValueError(f"{address!r} is not an address of Ray; write host:port, auto or local")
    try:
        with socket.create_connection((host, int(port)), timeout=_REACH_SECONDS) as line:
            speaks = "RAY_USE_TLS" in os.environ or _speaks_http2(line)
        reason = "" if speaks else "what answers is no server of Ray"
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
    if reason:
        raise ValueError(
            f"no Ray cluster answers at {address!r} ({reason}); start one with `ray start --head`, whose output names "
            "its address, or use --ray local"
        )


def _speaks_http2(line: socket.socket) -> bool:
    """True if the server answers the opening of HTTP/2, on which Ray speaks, with settings (RFC 9113, section 3.4)."""
    settings = b"\0\0\0\4\0\0\0\0\0"  # a frame of length 0 and type 4
    line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
    return line.recv(len(settings))[3:4] == settings[3:4]


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Within, Ray starts: it sends no statistics, and afterwards the handler of SIGTERM is the one from before."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    kept = {name: os.environ.get(name) for name in _QUIET}
    os.environ.update(_QUIET)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)
