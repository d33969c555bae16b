"""Tells errors of the machine from errors of a computation; only the latter are results."""

from __future__ import annotations

from collections.abc import Iterator

# Parts of the messages of PyTorch's plain RuntimeErrors.
_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc", "not enough memory", "alloc_cpu.cpp")
_UNLOADED = (
    "failed to map segment",
    "annot allocate memory",
)  # a library could not be loaded for lack of memory
_DEVICE = (
    "CUDA error",
    "cuDNN error",
    "CUBLAS_STATUS",
    "DataLoader worker",
    "unable to mmap",
    "Too many open files",
)


def of_the_machine(error: BaseException) -> bool:
    """True if an error is about the machine: its files, memory, devices or installed packages.

    An error that was raised `from` such an error counts too. An error that was merely raised while another was handled
    does not, since libraries look for sources and optional packages, fail, and try something else.

    >>> from winticket.trouble import of_the_machine
    >>> of_the_machine(MemoryError()), of_the_machine(ZeroDivisionError())
    (True, False)
    """
    return any(_is(one) for one in _chain(error))


def short_of_memory(error: BaseException) -> bool:
    """True if the cause of an error is a lack of memory.

    >>> short_of_memory(RuntimeError("CUDA out of memory")), short_of_memory(OSError("no such file"))
    (True, False)
    """
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
    """The innermost file and line that raised an error, such as "model.py, line 12"; empty if there is none.

    >>> where(ValueError("never raised"))
    ''
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}"
