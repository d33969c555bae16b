"""The command's answers: messages on stderr, one JSON document on stdout, an exit status."""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import json
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from winticket.catalogue import names
from winticket.text import cleaned, console, visible, without_secrets
from winticket.trouble import short_of_memory

STOPPED = "stopped; what was finished is kept, and the same command resumes from there"


class _Stopped:
    """The signal that stops the command, for its exit status."""

    by = int(signal.SIGINT)


def stop_in_order() -> None:
    """From now on SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 stop the command as Ctrl-C does, if they were not ignored.

    Batch systems announce the end of a job's time by SIGTERM, SIGUSR1 or SIGUSR2.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        _Stopped.by = number
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, stop)


class Answers(TyperGroup):
    """The group of commands: a run that is given up or stopped ends with a message, not with a traceback."""

    def make_context(self, *args: Any, **more: Any) -> Any:
        with _shown_safely():
            return super().make_context(*args, **more)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except Exception as unknown:
            message = getattr(unknown, "message", None)
            if message and args and (args[0] in names("data") or Path(args[0]).exists()):
                unknown.__dict__["message"] = (
                    f"{message} To search for tickets on this dataset, type: winticket find {args[0]}"
                )
            raise

    def invoke(self, ctx: Any) -> Any:
        try:
            with _shown_safely():
                return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            text = str(stopped) or STOPPED
            _leave(text[:1].upper() + text[1:], status=128 + _Stopped.by)
        except typer.Exit:
            raise
        except Exception as error:
            if _is(error, "RunError"):
                _leave(f"Error: {error}", status=1)
            if short_of_memory(error):
                last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
                # Not by `say`, whose imports may find no memory either.
                sys.stderr.write(f"Error: memory ran out ({visible(last[0])}); what was finished is kept\n")
                raise typer.Exit(1) from error
            raise


@contextlib.contextmanager
def request() -> Iterator[None]:
    """Within, a request is read and checked: an error in it becomes a message, and the exit status is 2.

    Whatever a user's model prints in the meantime goes to stderr.
    """
    try:
        with to_stderr():
            yield
    except (ValueError, TypeError, OSError) as wrong:
        _leave(f"Error: {wrong}", status=2)
    except Exception as error:
        if _is(error, "StoreError"):
            _leave(f"Error: {error}", status=2)
        raise


@contextlib.contextmanager
def computing() -> Iterator[None]:
    """Within, a checked request is computed, and what is finished is kept: what it prints goes to stderr.

    An error of files, of numbers that are not finite, or of a request that only computing shows to be impossible
    becomes a message, and the exit status is 1.
    """
    try:
        with to_stderr():
            yield
    except (OSError, ArithmeticError, ValueError) as failed:
        _leave(f"Error: {failed}; what was finished is kept", status=1)


@contextlib.contextmanager
def computing_at_once() -> Iterator[None]:
    """As `computing`, for what keeps nothing before its end: messages say so, also that of Ctrl-C."""
    with without_state():
        try:
            with to_stderr():
                yield
        except (OSError, ArithmeticError, ValueError) as failed:
            _leave(f"Error: {failed}", status=1)


@contextlib.contextmanager
def without_state() -> Iterator[None]:
    """Within, Ctrl-C says that nothing was written, where the usual message would promise that the command resumes."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        raise KeyboardInterrupt("stopped; nothing was written") from stopped


@contextlib.contextmanager
def to_stderr() -> Iterator[None]:
    """Within: whatever Python or C code prints to stdout goes to stderr, since stdout is for the answer alone."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    try:
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of the two is closed
        kept = None
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            _flush_c()
            os.dup2(kept, 1)
            os.close(kept)


def _flush_c() -> None:
    """Flush what C code has printed."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)


@contextlib.contextmanager
def printed(kept: str) -> Iterator[None]:
    """Within, the answer is printed: if that fails (a full disk), the message says which file has it."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - or Python fails again when it ends
        _leave(f"The result could not be printed ({error.strerror}); it is in {kept}", status=1)


@contextlib.contextmanager
def _shown_safely() -> Iterator[None]:
    """Within: an error about the typed arguments shows no escape sequence and no password of theirs."""
    try:
        yield
    except Exception as error:
        for name in ("message", "param_hint"):
            text = getattr(error, name, None)
            if isinstance(text, str):
                error.__dict__[name] = without_secrets(visible(text))
        raise


def _is(error: Exception, name: str) -> bool:
    """True for that error of winticket.run, which is not imported just to ask, since it imports torch."""
    known = sys.modules.get("winticket.run.errors")
    return known is not None and isinstance(error, getattr(known, name))


def _leave(text: str, *, status: int) -> NoReturn:
    say(text)
    raise typer.Exit(status)


def say(text: str) -> None:
    """Print a message to stderr, without markup."""
    console(stderr=True).print(without_secrets(text), soft_wrap=True)


def show(text: str) -> None:
    """Print a line to stdout, without markup."""
    console().print(without_secrets(text), soft_wrap=True)


def flowing(doc: str | None) -> str:
    """A docstring with its paragraphs joined into lines, so that the terminal can wrap them."""
    paragraphs = inspect.cleandoc(doc or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(cleaned(value), indent=1, allow_nan=False) + "\n")


def answer(result: Any, sentences: Iterable[str], *, kept: Path, as_json: bool) -> None:
    """Print a result, as JSON or in sentences. kept: the file that has it, which is named if printing fails."""
    with printed(str(kept)):
        if as_json:
            print_json(result)
            return
        for sentence in sentences:
            show(sentence)


def show_warnings() -> None:
    """From now on every warning is one readable line, without its position in the code."""

    def tell(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, UserWarning | RuntimeWarning):
            say(f"Warning: {message}")

    warnings.showwarning = tell
