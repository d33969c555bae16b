"""For every test: one cache of decoded data for the session, and sums that one thread adds up."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator

# OpenMP's threads burn their cores while they wait for one another. Beside another test process, which has the core
# that they wait for, a test of two threads took up to ten times as long. It is read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import threadpoolctl  # type: ignore[import-untyped]
import torch

from undrawn import undraw

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Started in the background by a shell, which has Ctrl-C ignored; tests press it, and processes inherit this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
for name in ("SIGTERM", "SIGHUP"):  # which `nohup`, for one, has ignored
    if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) == signal.SIG_IGN:
        signal.signal(getattr(signal, name), signal.SIG_DFL)


def pytest_collection() -> None:
    # Containers often have PYTHONDONTWRITEBYTECODE, with which each of the processes that tests start would compile the
    # project anew, for half a second, and each run the tests. What tests write themselves is none of this.
    sys.dont_write_bytecode = False


def pytest_collection_finish() -> None:
    sys.dont_write_bytecode = _as_started
    _keep_out_of_collections()


_as_started = sys.dont_write_bytecode


def pytest_runtest_teardown() -> None:
    if len(sys.modules) > _seen["modules"] + MANY:  # the test has imported a large package
        _keep_out_of_collections()


MANY = 100
"""Modules that are worth a pause."""


_seen = {"modules": 0}
"""How many there were at the last pause."""


def _keep_out_of_collections() -> None:
    """Collections pass over all that there is now: modules, mostly, a million objects that live until the end.

    Each full collection took .3 s otherwise, and Transformers' trainer makes one for every training.
    """
    gc.collect()
    gc.freeze()
    _seen["modules"] = len(sys.modules)


@pytest.fixture(scope="session", autouse=True)
def session_surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # numpy's too: beside another test process, a second thread mostly waits for the first and burns its core.
    with threadpoolctl.threadpool_limits(1, "blas"), pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "OPENBLAS_NUM_THREADS", "1"
        )  # of libraries that are loaded later, and of other processes
        patch.setenv("WINTICKET_CACHE", str(tmp_path_factory.getbasetemp().parent / "winticket-cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("COLUMNS", "200")
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    undraw(monkeypatch)
