"""Text as data: characters by hand, parts that share nothing, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from winticket import data
from winticket.data import load
from winticket.data.reading import Reading
from winticket.data.text import LENGTH

SHARED = Path(__file__).parents[3] / "shared" / "data" / "tinyshakespeare"


def numbered(length: int) -> str:
    """A text whose every place can be told: 0 1 2 ... as characters of their own."""
    return "".join(chr(0x4E00 + i) for i in range(length))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def characters(part: data.Split, whole: data.Dataset) -> list[str]:
    return ["".join(whole.class_names[c] for c in row) for row in part.x.tolist()]


def test_windows_and_what_follows_by_hand(tmp_path: Path) -> None:
    text = numbered(
        1400
    )  # parts of 1120, 140 and 140: 17, 2 and 2 windows of 64, each with a character to spare
    loaded = data.load(write(tmp_path / "book.txt", text))
    assert (loaded.input_shape, loaded.classes) == ((LENGTH,), 1400)
    assert [len(part.y) for part in (loaded.train, loaded.validation, loaded.test)] == [17, 2, 2]
    for part, begin in ((loaded.train, 0), (loaded.validation, 1120), (loaded.test, 1260)):
        assert (part.x.dtype, part.y.dtype) == (torch.int64, torch.int64)
        assert "".join(characters(part, loaded)) == text[begin : begin + LENGTH * len(part.x)]
        assert torch.equal(part.x.flatten()[1:], part.y.flatten()[:-1])
        follows = begin + LENGTH * len(part.x)
        assert loaded.class_names[int(part.y[-1, -1])] == text[follows]

    def seen(part: data.Split) -> set[int]:
        return {*part.x.flatten().tolist(), *part.y.flatten().tolist()}

    assert not seen(loaded.train) & seen(loaded.validation)
    assert not seen(loaded.validation) & seen(loaded.test)
    source = data.find_dataset(tmp_path / "book.txt")
    assert source.tokens
    assert (source.stored_train, source.stored_validation, source.stored_test) == (17, 2, 2)
    assert not data.find_dataset("digits").tokens


def test_windows_of_another_length(tmp_path: Path) -> None:
    text = numbered(1400)  # parts of 1120, 140 and 140: with 100 in a window, 11, 1 and 1
    file = write(tmp_path / "book.txt", text)
    loaded = data.load(file, window=100)
    assert loaded.input_shape == (100,)
    assert [len(part.y) for part in (loaded.train, loaded.validation, loaded.test)] == [11, 1, 1]
    assert "".join(characters(loaded.test, loaded)) == text[1260:1360]
    assert loaded.class_names[int(loaded.test.y[-1, -1])] == text[1360]
    source, usual = data.find_dataset(file, window=100), data.find_dataset(file)
    assert (source.input_shape, source.fingerprint) == ((100,), loaded.fingerprint)
    assert source.fingerprint != usual.fingerprint
    assert data.find_dataset(file, window=LENGTH) == usual  # which results from before are stored under
    with pytest.raises(
        ValueError, match="but needs at least 1410, since its parts are cut into windows of 140"
    ):
        data.find_dataset(file, window=140)
    with pytest.raises(ValueError, match="digits is not text, and only text is cut into windows, here of 32"):
        data.find_dataset("digits", window=32)


def test_characters_are_numbered_by_code_point(tmp_path: Path) -> None:
    loaded = data.load(write(tmp_path / "a.txt", "ba\nc" * 400))
    assert loaded.class_names == ("\n", "a", "b", "c")
    assert loaded.train.x[0, :4].tolist() == [2, 1, 0, 3]
    marked = tmp_path / "b.txt"
    marked.write_bytes(
        b"\xef\xbb\xbf" + b"ba\nc" * 400
    )  # the mark that some editors put first is no character
    assert data.load(marked).fingerprint == loaded.fingerprint


def test_a_folder_with_one_text_is_that_text(tmp_path: Path) -> None:
    file = write(tmp_path / "set" / "input.txt", numbered(1400))
    assert data.load(tmp_path / "set").fingerprint == data.load(file).fingerprint
    write(tmp_path / "set" / ".hidden.txt", "no")
    assert data.find_dataset(tmp_path / "set").train == 17
    write(tmp_path / "set" / "more.txt", numbered(1400))
    with pytest.raises(ValueError, match=r"holds 2 text files \(input\.txt, more\.txt\); give one"):
        data.load(tmp_path / "set")


def test_a_changed_text_is_another(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "ab" * 700)
    before = data.find_dataset(file).fingerprint
    write(file, "ba" * 700)
    assert data.find_dataset(file).fingerprint != before


def test_fewer_windows_are_drawn_by_seed(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", numbered(7000))
    one, two = (data.load(file, seed=seed, validation=3, test=4) for seed in (1, 2))
    whole: list[Tensor] = list(data.load(file).validation.x)
    assert [len(one.validation.y), len(one.test.y)] == [3, 4]
    assert all(any(torch.equal(row, other) for other in whole) for row in one.validation.x)
    assert not torch.equal(one.validation.x, two.validation.x)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"too short",
            "has 9 characters, but needs at least 650, since its parts are cut into windows of 64",
        ),
        (b"a" * 2000, "one character throughout"),
        (b"caf\xe9 " * 400, "is not UTF-8 text"),
    ],
)
def test_bad_texts(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.find_dataset(tmp_path / "bad.txt")


def test_a_missing_text_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        data.find_dataset("nowhere.txt")


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no tinyshakespeare at {SHARED}")
def test_tinyshakespeare() -> None:
    source = data.find_dataset(SHARED)
    assert (source.classes, source.input_shape) == (65, (LENGTH,))
    # 1 115 394 characters: 892 316 for training, 111 539 each for validation and test.
    assert (source.train, source.validation, source.test) == (13942, 1742, 1742)


def test_another_texts_characters_number_a_text(tmp_path: Path) -> None:
    """Pretrained weights expect the numbers that their text's characters had."""
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text("abcdefgh" * 300)
    second.write_text("bdfh" * 600)
    alone, with_first = (
        load(second, window=8, reading=Reading(alphabet=other)) for other in (None, str(first))
    )
    assert (alone.classes, with_first.classes) == (4, 8)
    assert alone.train.x[0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert with_first.train.x[0].tolist() == [1, 3, 5, 7, 1, 3, 5, 7]
    assert with_first.fingerprint != alone.fingerprint
    third = tmp_path / "third.txt"
    third.write_text("abxy" * 600)
    with pytest.raises(ValueError, match=r"has 2 characters that .*first\.txt lacks: 'x', 'y'; replace"):
        load(third, window=8, reading=Reading(alphabet=str(first)))
