"""Trouble of the machine, as against what a computation itself did: only the latter is a result."""

from __future__ import annotations

from collections.abc import Iterator

# How torch words what it raises as a plain RuntimeError.
_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc", "not enough memory", "alloc_cpu.cpp")
_UNLOADED = ("failed to map segment", "annot allocate memory")  # of a library that finds no room
_DEVICE = (
    "CUDA error",
    "cuDNN error",
    "CUBLAS_STATUS",
    "DataLoader worker",
    "unable to mmap",
    "Too many open files",
)


def of_the_machine(error: BaseException) -> bool:
    """Whether an error says something about the machine (files, memory, devices, what is installed).

    An error that was raised `from` such a one counts too. One that was merely raised while another was handled does
    not: libraries look for sources and optional packages, fail, and go on to something else.

    >>> from winticket.trouble import of_the_machine
    >>> of_the_machine(MemoryError()), of_the_machine(ZeroDivisionError())
    (True, False)
    """
    return any(_is(one) for one in _chain(error))


def short_of_memory(error: BaseException) -> bool:
    """Whether it is memory that lacks."""
    return any(
        isinstance(one, MemoryError)
        or _says(one, _MEMORY)
        or (isinstance(one, (ImportError, OSError)) and any(word in str(one) for word in _UNLOADED))
        for one in _chain(error)
    )


def _is(error: BaseException) -> bool:
    return isinstance(error, (OSError, MemoryError, ImportError)) or _says(error, (*_MEMORY, *_DEVICE))


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    now: BaseException | None = error
    while now is not None and id(now) not in seen:
        seen.add(id(now))
        yield now
        now = now.__cause__


def where(error: BaseException) -> str:
    """The file and line that raised it, innermost: "model.py, line 12"; empty where there is none."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}"
