"""Every crew that the conformance suite of executors runs on: a new one is a file and a row here.

Ray and Dask take seconds to start, so `test_clusters.py` starts each once and runs a part of the suite on it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from winticket.run import Crew, ExecutorCrew, Inline, Pool

from .threaded import Threaded


def processes(workers: int = 2) -> ProcessPoolExecutor:
    """The standard library's pool, with what every task needs imported once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "winticket.run.serve", "winticket.run.submitted"])
    return ProcessPoolExecutor(workers, mp_context=context)


def threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2)


CREWS: Mapping[str, Crew] = {
    "inline": Inline(),
    "pool of 1": Pool(1),
    "pool of 2": Pool(2),
    "thread": Threaded(),
    "executor of threads": ExecutorCrew(threads, 2),
    "executor of processes": ExecutorCrew(processes, 2),
}
EVERY_CREW = pytest.mark.parametrize("crew", CREWS.values(), ids=CREWS)
_APART = [name for name in CREWS if "process" in name or "pool" in name]
PROCESSES = pytest.mark.parametrize("crew", [CREWS[name] for name in _APART], ids=_APART)
