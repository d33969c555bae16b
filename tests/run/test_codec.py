"""Values as files: exact to the bit, small where sparse, and refused when damaged, foreign or newer."""

from __future__ import annotations

import json
import math
import struct
import sys
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from winticket.run import Damaged, StoreError
from winticket.run.codec import decode, encode, verify
from winticket.run.codec_header import read_header

from . import jobs

DTYPES = [
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64", "complex128"),
    *("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool"),
]


def same(left: object, right: object) -> bool:
    """Equal in type and to the last bit."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return (left.dtype, left.shape) == (right.dtype, right.shape) and octets(left) == octets(right)
    if type(left) is not type(right):
        return False
    if isinstance(left, float) and isinstance(right, float):
        return struct.pack(">d", left) == struct.pack(">d", right)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return list(left) == list(right) and all(same(left[name], right[name]) for name in left)
    return left == right


def octets(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@st.composite
def tensors(draw: Any) -> Tensor:
    """Any bits at all, of any dtype, with a share of zeros and sometimes not contiguous."""
    dtype: torch.dtype = getattr(torch, draw(st.sampled_from(DTYPES)))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    count = math.prod(shape) * dtype.itemsize
    bits = torch.frombuffer(
        bytearray(draw(st.binary(min_size=count, max_size=count)) + b"0"), dtype=torch.uint8
    )
    cells = bits[:count].clone().reshape(-1, dtype.itemsize)
    keep = draw(st.lists(st.booleans(), min_size=len(cells), max_size=len(cells)))
    cells[~torch.tensor(keep, dtype=torch.bool)] = 0
    if dtype == torch.bool:
        cells &= 1
    made = cells.reshape(-1).view(dtype).reshape(shape)
    return made.transpose(0, -1) if len(shape) > 1 and draw(st.booleans()) else made


plain = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=9) | tensors()
)
values = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(values)
def test_round_trip_is_exact(value: object) -> None:
    data = encode(value, {"note": "x"})
    verify(data)
    assert same(decode(data), value)
    assert read_header(data)["about"] == {"note": "x"}


def test_bits_that_equality_cannot_see() -> None:
    odd = torch.tensor([0x7FC00001, 0x7F800001, -0x80000000, 0, 0, 0, 0, 0], dtype=torch.int32).view(
        torch.float32
    )
    assert same(decode(encode(odd)), odd)  # two nan payloads, and a -0.0 that must not become 0.0
    assert same(decode(encode([-0.0, float("nan"), -float("inf")])), [-0.0, float("nan"), -float("inf")])


def test_dataclasses() -> None:
    kept = jobs.Kept(torch.ones(2), {"a": (1, None)})
    again = decode(encode({"it": kept}))
    assert isinstance(again, dict)
    assert type(again["it"]) is jobs.Kept
    assert same(again["it"].weight, kept.weight)
    assert again["it"].about == {"a": (1, None)}


def test_other_mappings_become_dicts_and_parameters_tensors() -> None:
    assert decode(encode(MappingProxyType({"a": 1}))) == {"a": 1}
    again = decode(encode(torch.nn.Parameter(torch.ones(2))))
    assert type(again) is Tensor
    assert not again.requires_grad


def test_masks_and_sparse_weights_are_small() -> None:
    mask = torch.rand(300, 300, generator=torch.Generator().manual_seed(0)) < 0.1
    weight = torch.where(mask, torch.randn(300, 300), 0.0)
    empty = len(encode(None))
    assert len(encode(mask)) - empty < 90_000 / 8 + 500
    assert len(encode(weight)) - empty < 90_000 / 8 + 4 * int(mask.sum()) + 500
    # The positions are those of the mask, and equal pieces are kept once.
    assert len(encode([mask, weight])) - empty < 90_000 / 8 + 4 * int(mask.sum()) + 900
    signed = torch.randn(300, 300) * mask  # half of the pruned ones are -0.0
    assert len(encode(signed)) - empty < 2 * 90_000 / 8 + 4 * int(mask.sum()) + 700
    assert same(decode(encode(signed)), signed)
    dense = torch.randn(300, 300)
    assert len(encode([dense, dense, dense.clone()])) - empty < 360_000 + 900
    assert same(decode(encode([mask, weight])), [mask, weight])


def test_every_tensor_has_memory_of_its_own() -> None:
    shared = torch.ones(3)
    again = decode(encode([shared, shared]))
    assert isinstance(again, list)
    left, right = again
    left += 1
    assert right.tolist() == [1, 1, 1]


@dataclass(frozen=True)
class Private:
    x: int


@dataclass
class Melting:
    x: int


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [object()]}, "value/a/0 is a builtins.object, which is not stored; possible"),
        ({1.5: 2}, "dict key 1.5; only str and int"),
        ({True: 2}, "dict key True; only str and int"),
        ([Private(1)], "Private is not stored unless it declares __storable__"),
        (Melting(1), "Melting is not frozen"),
        (torch.ones(2).to_sparse(), "only dense tensors are stored"),
    ],
)
def test_what_cannot_be_kept_is_named(value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        encode(value)


def test_every_truncation_and_every_flipped_byte_is_noticed() -> None:
    data = encode({"w": torch.randn(3, 3), "m": torch.tensor([True, False])}, {"fn": "x"})
    for end in range(len(data)):
        with pytest.raises(StoreError):
            decode(data[:end])
    accepted = []
    for place in range(len(data)):
        bad = bytearray(data)
        bad[place] ^= 1
        try:
            again = decode(bytes(bad))
        except StoreError:
            continue
        accepted.append((place, again))
    assert not accepted


def test_newer_and_foreign_files_are_refused() -> None:
    header: dict[str, Any] = {"format": 2, "tree": None, "digest": "", "about": {}, "about_digest": ""}
    data = file_with(header)
    with pytest.raises(StoreError, match="format 2 by a newer winticket; this one reads up to 1: upgrade"):
        decode(data)
    with pytest.raises(Damaged, match="not written by winticket"):
        decode(torch_file())
    with pytest.raises(Damaged, match="not a safetensors file"):
        decode(b"PK" + bytes(range(200)))


def file_with(header: dict[str, Any]) -> bytes:
    text = json.dumps({"__metadata__": {"winticket": json.dumps(header)}}).encode()
    return struct.pack("<Q", len(text)) + text


def torch_file() -> bytes:
    from safetensors.torch import save

    return save({"a": torch.ones(1)})


def test_a_file_cannot_name_what_to_import(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(jobs.Kept(torch.ones(1), {}))
    assert "antigravity" not in sys.modules
    name = f"{jobs.__name__}:Kept"
    with pytest.raises(
        StoreError, match="not imported unless they are winticket's: import antigravity first"
    ):
        decode(forge(data, name, "antigravity:fly"))
    assert "antigravity" not in sys.modules
    with pytest.raises(StoreError, match="not a dataclass that may be stored"):
        decode(forge(data, name, "os:system"))
    for wrong in (
        "winticket.run.codec:encode",
        "winticket/prune",
        "winticket/gone",
        "winticket/criteria/snip",
    ):
        with pytest.raises(StoreError, match="is not a record of this version"):
            decode(forge(data, name, wrong))


def forge(data: bytes, old: str, new: str) -> bytes:
    """The same file with another class name and a digest to match."""
    from winticket.run.codec_header import digest_of

    header = read_header(data)
    tree = json.loads(json.dumps(header["tree"]).replace(old, new))
    tensors: dict[str, Tensor] = {}
    header |= {"tree": tree, "digest": digest_of(tree, tensors)}
    return file_with(header)
