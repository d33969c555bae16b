"""What `winticket ship` says of a language model that it packed or unpacked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict


class PackedFile(TypedDict):
    """The compact file of a language model; sizes in bytes."""

    winticket: str
    """Version of winticket."""
    file: str
    """Its path."""
    bytes: int
    """Its size."""
    original: int
    """The files of the folder that are in it."""
    masks: int
    """Coded masks."""
    values: int
    """Coded values of the weights that have masks."""
    whole: int
    """Coded tensors without masks: embeddings, norms, biases."""
    description: int
    """All other files, names, shapes and checksums."""
    information: float
    """What masks hold at least if the density is all that is known of each: their entropy."""
    kept: int
    """Weights that masks keep."""
    weights: int
    """Weights that have masks."""
    left_out: list[str]
    """What is in the folder and not in the file: folders and hidden files."""
    seconds: float
    """How long it took, the check included."""
    peak_bytes: int | None
    """Most memory of the process; null if the system does not tell."""


class UnpackedFolder(TypedDict):
    """A folder that was made of a compact file."""

    winticket: str
    """Version of winticket."""
    folder: str
    """Its path."""
    bytes: int
    """All of its files."""
    files: int
    """How many they are."""
    seconds: float
    """How long it took."""
    peak_bytes: int | None
    """Most memory of the process; null if the system does not tell."""


def packed_sentences(result: PackedFile) -> Iterator[str]:
    """What was packed, in words, a sentence each."""
    yield (
        f"{result['file']} has {size(result['bytes'])}; the folder has {size(result['original'])}, "
        f"{result['original'] / result['bytes']:.2f} times as much."
    )
    bits = 8 * result["masks"] / result["weights"]
    yield (
        f"Of {result['weights']:,} weights under masks, {result['kept']:,} are kept. Masks take "
        f"{size(result['masks'])}, {bits:.3f} bits for each weight; kept weights take {size(result['values'])}, "
        f"{8 * result['values'] / max(1, result['kept']):.1f} bits each. Embeddings and all else without masks take "
        f"{size(result['whole'])}, other files {size(result['description'])}."
    )
    yield "Read back, every file has the SHA-256 that it had."
    if result["left_out"]:
        yield f"Not in the file: {', '.join(result['left_out'])}."


def size(count: int) -> str:
    """Bytes for people.

    >>> size(1_234_567), size(999)
    ('1.2 MB', '999 bytes')
    """
    for unit, least in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= least:
            return f"{count / least:,.1f} {unit}"
    return f"{count} bytes"


def unpacked_sentences(result: UnpackedFolder) -> Iterator[str]:
    """What was unpacked, in words, a sentence each."""
    yield (
        f"{result['folder']} has {result['files']} files of {size(result['bytes'])} in all, each with the SHA-256 "
        "that it had when it was packed."
    )
    yield f'To use it: AutoModelForCausalLM.from_pretrained("{result["folder"]}")'
