"""Texts of one or several documents: a file, the lines of a file in JSON Lines, or the files of a folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

from winticket.outside import Unreadable, read_file, read_json

LONGEST = 1 << 30
"""Most bytes of a text that is read."""
LINES, FILES = ".jsonl", "*.txt"
"""The ending of files whose lines are documents, and the files of a folder that are."""


class _Line(msgspec.Struct):
    """What is read of a line of JSON."""

    text: str


def read_documents(path: Path) -> list[str]:
    """The documents of a text: one if it is a UTF-8 file; the `text` of each line of a file in JSON Lines (`.jsonl`);
    each file that ends in `.txt`, in order of its path, of a folder.

    Blank documents are left out. Raises ValueError if there is none, or if a file cannot be read or is no UTF-8.

    >>> read_documents(Path(__file__))[0].splitlines()[2]
    'from __future__ import annotations'
    """
    if path.is_dir():
        files = sorted(path.rglob(FILES))
        if not files:
            raise ValueError(
                f"the folder {path} has no text files: each document is a file that ends in .txt"
            )
        documents = [_text_of(file) for file in files]
    elif path.suffix == LINES:
        documents = [_line(line, number, path) for number, line in enumerate(_text_of(path).split("\n"), 1)]
    else:
        documents = [_text_of(path)]
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise ValueError(f"the text {path} is blank")
    return documents


def _line(line: str, number: int, path: Path) -> str:
    if not line.strip():
        return ""
    try:
        return read_json(line.encode(), _Line).text
    except Unreadable as error:
        raise ValueError(
            f'line {number} of {path} is {error}; each line of a .jsonl file is an object with the entry "text"'
        ) from error


def _text_of(path: Path) -> str:
    try:
        return read_file(path, limit=LONGEST).decode("utf-8-sig")  # some editors put a mark first
    except FileNotFoundError:
        raise ValueError(f"there is no text file at {path}") from None
    except OSError as error:
        raise ValueError(f"the text {path} cannot be read: {error.strerror}") from error
    except Unreadable as error:
        raise ValueError(f"the text {path} is {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not text in UTF-8: byte {error.start} is {error.object[error.start]:#04x}"
        ) from error
