"""Dask as an executor: a cluster of `dask.distributed`, or worker processes on this machine."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from winticket.run.errors import RunError
from winticket.run.futures import ExecutorCrew

_REACH_SECONDS = 10.0


def dask_crew(address: str | None = None, workers: int | None = None) -> ExecutorCrew:
    """A crew of Dask's worker processes; `pip install winticket[dask]`.

    Args:
      address: of a running scheduler, such as "tcp://host:8786"; None starts workers on this machine for each run
      workers: number of tasks at once (default: as many as the cluster has worker processes now; on this machine, its
        cores)

    A process computes one task at a time, however many threads it has, so start workers with `--nthreads 1`. A
    scheduler repeats a task whose process died three times itself (`distributed.scheduler.allowed-failures`) before
    the run hears of it; on this machine, the run hears of it at once.

    Raises ValueError if Dask is not installed, if the scheduler cannot be reached within ten seconds or has no worker,
    or for less than 1 worker.

    >>> dask_crew("127.0.0.1")
    Traceback (most recent call last):
    ValueError: '127.0.0.1' is not an address of a Dask scheduler; write tcp://host:port, or local
    """
    if importlib.util.find_spec("distributed") is None:
        raise ValueError("Dask is not installed; install it with: pip install 'winticket[dask]'")
    if address is None:
        workers = os.cpu_count() or 1 if workers is None else workers
    else:
        room = _room(address)
        workers = room if workers is None else workers
    return ExecutorCrew(OnDask(address, workers), workers)


@dataclass(frozen=True)
class OnDask:
    """Makes an executor on Dask; `processes` is the number of those that are started on this machine."""

    address: str | None
    processes: int

    def __call__(self) -> DaskExecutor:
        return DaskExecutor(self)


class DaskExecutor:
    """Submits functions to Dask and gives futures of `concurrent.futures`."""

    def __init__(self, on: OnDask) -> None:
        self._cluster = _cluster(on.processes) if on.address is None else None
        self._client = _client(self._cluster if on.address is None else on.address)
        # The executor of plans repeats a task whose process died. Pure functions would be computed once for all runs.
        self._calls: Any = self._client.get_executor(pure=False, retries=0)

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        return self._calls.submit(fn, *args)

    def shutdown(self, *, wait: bool = True) -> None:
        """Leave the cluster, or end the processes that were started; unless `wait`, cancel what still computes."""
        self._calls.shutdown(wait=wait)
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


def _cluster(processes: int) -> Any:
    """Worker processes on this machine, which are to give a task up as soon as a process dies of it."""
    import dask
    import distributed

    room: Any = distributed
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        return room.LocalCluster(
            n_workers=processes,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=0,  # or Dask would kill a training for memory that Dask does not manage
            silence_logs=logging.CRITICAL,  # the run says itself what became of its tasks
        )


def _client(where: Any) -> Any:
    """Raises RunError if the scheduler does not answer."""
    import distributed

    room: Any = distributed
    try:
        return room.Client(where, timeout=_REACH_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise RunError(
            f"no Dask scheduler answers at {where!r} ({type(error).__name__}: {error}); start one with `dask "
            "scheduler`, whose output names its address, or use --dask local"
        ) from error


def _room(address: str) -> int:
    """The number of worker processes of a cluster. Raises ValueError if it cannot be used."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isdecimal()):
        raise ValueError(
            f"{address!r} is not an address of a Dask scheduler; write tcp://host:port, or local"
        )
    try:
        client = _client(address)
    except RunError as error:
        raise ValueError(str(error)) from error
    try:
        known = len(client.scheduler_info(n_workers=-1)["workers"])
    finally:
        client.close()
    if not known:
        raise ValueError(
            f"the Dask scheduler at {address!r} has no worker; start some with `dask worker {address}`"
        )
    return known
