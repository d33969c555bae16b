"""Text from outside is shown as text: nothing in a name is obeyed by a terminal, a page or a figure."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import undrawn
from starting import Started
from winticket.experiment import Experiment, conduct
from winticket.text import cleaned, console, hide, visible, without_secrets

EVIL = "a\x1b[31m[bold]$x$\u202e\x9b\udcff"
SHOWN = r"a\x1b[31m[bold]$x$\u202e\x9b\udcff"


def test_what_would_be_obeyed_is_written_as_an_escape() -> None:
    assert visible(EVIL) == SHOWN
    assert visible("plain\ttext\nof – two lines") == "plain\ttext\nof – two lines"
    assert cleaned({EVIL: [EVIL, 3, None]}) == {SHOWN: [SHOWN, 3, None]}


def test_the_console_takes_no_name_for_markup_and_lets_no_escape_through() -> None:
    printer = console()
    printer.file = io.StringIO()
    printer.print(EVIL, soft_wrap=True)
    assert printer.file.getvalue() == SHOWN + "\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://me:secret@bucket/runs", "s3://***@bucket/runs"),
        ("https://h/x?sig=abc&t=1 is away", "https://h/x?sig=***&t=*** is away"),
        ("/home/me@work/runs", "/home/me@work/runs"),
        ("memory://runs", "memory://runs"),
    ],
)
def test_passwords_in_urls_are_hidden(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_librarys_message_does_not_tell_them_either() -> None:
    assert hide("login failed for secret", "ftp://me:secret@host/x") == "login failed for ***"


NOISY = """
import ctypes, sys
print("imported")
import torch
class Loud(torch.nn.Module):
    def __init__(self):
        super().__init__()
        print("built")
        self.fc = torch.nn.Linear(64, 10)
    def forward(self, x):
        print("called")
        ctypes.CDLL(None).puts(b"from C")
        return self.fc(x.flatten(1))
def build(*, input_shape, classes):
    return Loud()
"""
SEARCH = ("find", "digits", "--density", "0.5", "--steps", "20", "--replicates", "2", "--no-gate")


COMMAND = "from winticket.cli import main\nmain()\n"
SEVERAL = """
import sys

from winticket.cli import main

for words in WORDS:
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as end:
        assert (end.code or 0) == STATUS, words
"""
UNDRAWN = undrawn.COMMAND.removesuffix("main()\n")


def several(*requests: tuple[str, ...], status: int = 0) -> str:
    """A program that gives the command one request after the other, since starting a process takes seconds."""
    return SEVERAL.replace("WORDS", repr(requests)).replace("STATUS", str(status))


def command(
    folder: Path, *words: str, program: str = COMMAND, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    (folder / "command").write_text(program)
    return subprocess.run(
        [sys.executable, str(folder / "command"), *words],
        cwd=folder,
        capture_output=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )


def test_json_is_one_document_whatever_a_model_prints(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    words = (*SEARCH, "--model", "noisy:build", "--json", "--workers", "1")
    done = Started(*words, folder=tmp_path, program=undrawn.COMMAND)
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    assert json.loads(out)["verdict"]["outcome"] == "inconclusive"
    for word in ("imported", "built", "called", "from C"):
        assert word in err


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that has what SEARCH trains with the model lenet-12-8."""
    folder = tmp_path_factory.mktemp("searched")
    asked = Experiment.of("digits", model="lenet-12-8", density=(0.5,), steps=20, replicates=2, gate=False)
    with pytest.MonkeyPatch.context() as patch:
        undrawn.undraw(patch)
        conduct(asked, store=folder / "runs", out=folder / "out", workers=0)
    return folder / "runs"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_terminals_without_unicode_and_notebooks_backends_lose_nothing(
    tmp_path: Path, encoding: str, store: Path
) -> None:
    """In ASCII everything is trained and drawn; in Latin-1 the trainings are in the store, and nothing is drawn."""
    folder = tmp_path / "50$ and 60$ [x]"
    folder.mkdir()
    draws = encoding == "ascii"
    kept = "runs" if draws else str(store)
    search = (*SEARCH, "--workers", "1", "--model", "lenet-12-8", "--store", kept, "--out", "o[b]$1$")
    others = (("methods",), ("store", "ls", "--store", kept), ("plan", *search[1:-2]), ("--help",))
    program = several(search, *others)
    done = command(
        folder,
        program=program if draws else UNDRAWN + program,
        PYTHONIOENCODING=encoding,
        MPLBACKEND="nonsense",
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert (b"Nothing to train" in done.stderr) != draws
    assert (folder / "o[b]$1$" / "figures" / "accuracy_against_density.png").is_file() == draws
    assert (folder / "o[b]$1$" / "report.html").is_file() == draws
    assert b"o[b]$1$" in done.stdout
    assert b"--help" in done.stdout


def test_escapes_in_what_was_typed_do_not_reach_the_terminal(tmp_path: Path) -> None:
    wrong = (("find", "\x1b[31mdigits"), ("\x1b]0;evil\x07",), ("find", "digits", "--lr", "\x1b[31m"))
    done = Started(folder=tmp_path, program=several(*wrong, status=2))
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    assert err.count("Error") == len(wrong)
    assert "\x1b" not in out + err


def test_a_closed_or_full_stdout_loses_no_result(tmp_path: Path) -> None:
    """Where it is closed everything is trained, by a worker that inherits what there is of a stdout."""
    (tmp_path / "command").write_text(undrawn.COMMAND)
    words = [*SEARCH, "--workers", "1", "--model", "lenet-12-8", "--out"]
    closed = " ".join([sys.executable, "command", *words, "closed", ">&-"])
    done = subprocess.run(
        ["/bin/sh", "-c", closed], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    full = Started(*words, "full", folder=tmp_path, program=undrawn.COMMAND, stdout="/dev/full")
    for out, said in (("closed", done.stderr), ("full", full.communicate(timeout=120)[1])):
        assert "Traceback" not in said
        document = json.loads((tmp_path / out / "result.json").read_text())
        assert document["verdict"]
        assert (document["computed"] > 0) == (out == "closed")
