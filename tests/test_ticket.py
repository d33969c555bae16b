"""The nouns by hand-computed values, and the ticket file: round trips, other programs, every refusal."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import save_file
from torch import Tensor

from winticket.bits import pack_bits, unpack_bits
from winticket.ticket import (
    Curve,
    Failed,
    Mask,
    Seeds,
    State,
    Ticket,
    TicketFileError,
    Trajectory,
    same_bits,
)

T, F = True, False
WEIGHTS = {
    "fc1.weight": torch.tensor([[1.0, -2.0, 0.0], [math.inf, 5.0, math.nan]]),
    "fc1.bias": torch.tensor([7.0, 8.0]),
    "fc2.weight": torch.tensor([[9.0, -10.0]]),
}
MASK = Mask({"fc1.weight": torch.tensor([[T, F, T], [F, T, F]]), "fc2.weight": torch.tensor([[F, F]])})


def ticket(**about: Any) -> Ticket:
    momentum = {"momentum/fc1.weight": torch.arange(6.0).reshape(2, 3)}
    buffers = {"bn.running_mean": torch.tensor([0.5]), "bn.num_batches_tracked": torch.tensor(3)}
    return Ticket(MASK, State(WEIGHTS, buffers, momentum, 20), "imp", Seeds(42, 7), about)


# Mask


def test_mask_counts() -> None:
    assert MASK.count() == 3
    assert MASK.total() == 8
    assert MASK.density() == 3 / 8
    assert MASK.layers() == {"fc1.weight": (3, 6), "fc2.weight": (0, 2)}
    assert MASK.emptied() == ("fc2.weight",)
    full = Mask.full({name: WEIGHTS[name] for name in MASK.keep})
    assert (full.count(), full.density(), full.emptied()) == (8, 1.0, ())


def test_mask_apply_zeroes_exactly_the_pruned() -> None:
    masked = MASK.apply(WEIGHTS)
    # inf and nan, if pruned, are 0 as well; a kept 0 stays; a pruned -2 gives 0.0, not -0.0.
    assert same_bits(
        masked,
        {
            "fc1.weight": torch.tensor([[1.0, 0.0, 0.0], [0.0, 5.0, 0.0]]),
            "fc1.bias": torch.tensor([7.0, 8.0]),
            "fc2.weight": torch.tensor([[0.0, 0.0]]),
        },
    )
    masked["fc1.bias"].fill_(0)
    assert WEIGHTS["fc1.bias"].tolist() == [7.0, 8.0]  # a copy


def test_mask_is_not_inferred_from_zeros() -> None:
    assert Mask.full({"w": torch.tensor([0.0, -1.0])}).count() == 2


@pytest.mark.parametrize("values", [torch.ones(2), torch.ones(2, dtype=torch.uint8), [True, False]])
def test_mask_must_be_bool(values: Any) -> None:
    with pytest.raises(TypeError, match=r"layer 'conv1\.weight'.*not torch\.bool"):
        Mask({"conv1.weight": values})


def test_mask_over_nothing_has_no_density() -> None:
    with pytest.raises(ValueError, match="no eligible weight"):
        Mask({}).density()


def test_masks_of_other_layers_or_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"only one of them has 'fc2\.weight'"):
        MASK.within(Mask({"fc1.weight": MASK.keep["fc1.weight"]}))
    other = Mask({**MASK.keep, "fc2.weight": torch.tensor([F, F])})
    with pytest.raises(ValueError, match=r"'fc2\.weight': shapes \(1, 2\) and \(2,\)"):
        MASK.within(other)
    with pytest.raises(ValueError, match=r"only one of them has 'fc2\.weight'"):
        MASK.apply({"fc1.weight": WEIGHTS["fc1.weight"]})


bools = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))


@given(keep=bools, data=st.data())
def test_within_is_the_subset_relation(keep: np.ndarray[Any, Any], data: st.DataObject) -> None:
    other = data.draw(hnp.arrays(np.bool_, keep.shape))
    a, b = Mask({"w": torch.from_numpy(keep)}), Mask({"w": torch.from_numpy(other)})
    kept = {index for index, alive in np.ndenumerate(keep) if alive}
    assert a.within(b) == (kept <= {index for index, alive in np.ndenumerate(other) if alive})
    assert a.within(a)
    assert Mask({"w": a.keep["w"] & b.keep["w"]}).within(b)


@given(keep=bools)
def test_packing_round_trip(keep: np.ndarray[Any, Any]) -> None:
    tensor = torch.from_numpy(keep)
    packed = pack_bits(tensor)
    assert packed.numel() == math.ceil(tensor.numel() / 8)
    assert same_bits({"w": unpack_bits(packed, keep.size).reshape(keep.shape)}, {"w": tensor})


def test_packing_puts_the_first_bit_highest() -> None:
    assert pack_bits(torch.tensor([[T, F, F], [F, F, F], [F, T, T]])).tolist() == [
        0b1000_0001,
        0b1000_0000,
    ]


# State, seeds, curve, trajectory


def test_seeds_are_the_documented_hash() -> None:
    digest = hashlib.sha256(b'[42,7,"order",3]').digest()
    assert Seeds(42, 7).derive("order", 3) == int.from_bytes(digest, "big") >> (256 - 63)


def test_seeds_differ_by_root_replicate_and_purpose() -> None:
    seeds = [
        Seeds(0, 1).derive("init"),
        Seeds(1, 0).derive("init"),
        Seeds(0, 1).derive("order"),
        Seeds(0, 1).derive("order", 3),
        Seeds(0, 1).derive("order", "3"),
        Seeds(0, 1).derive(),
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    for purpose in (1.5, True, None):
        with pytest.raises(TypeError, match="text and integers"):
            Seeds(0, 1).derive(purpose)  # type: ignore[arg-type]


def curve(validation_loss: list[float], **columns: list[float]) -> Curve:
    length = len(validation_loss)
    values = {
        "train_loss": [0.0] * length,
        "validation_loss": validation_loss,
        "validation_accuracy": [0.5] * length,
        "pace_accuracy": [0.5] * length,
        "test_loss": [1.0] * length,
        "test_accuracy": [i / 10 for i in range(length)],
        **columns,
    }
    step = torch.arange(length, dtype=torch.int64) * 10
    return Curve(step, **{name: torch.tensor(column, dtype=torch.float64) for name, column in values.items()})


@pytest.mark.parametrize(
    ("losses", "step", "accuracy"),
    [
        ([3, 1, 2], 10, 0.1),
        ([3, 1, 1], 10, 0.1),  # the first of equals
        ([math.nan, 4, 2], 20, 0.2),
        ([math.nan, 2, math.nan], 10, 0.1),
        ([-math.inf, 2, math.inf], 10, 0.1),
        ([math.nan, math.nan], None, None),
        ([], None, None),
    ],
)
def test_early_stop(losses: list[float], step: int | None, accuracy: float | None) -> None:
    assert curve(losses).early_stop_step() == step
    assert curve(losses).accuracy_at_early_stop() == accuracy


@pytest.mark.parametrize(
    ("accuracy", "step"),
    [(0.05, 0), (0.1, 0), (0.11, 10), (0.8, 10), (0.81, 30), (0.9, 30), (0.91, None)],
)
def test_steps_to_an_accuracy_are_the_first_point_that_has_it(accuracy: float, step: int | None) -> None:
    """Not interpolated, and not the last time that it is reached."""
    rising = curve([1.0] * 4, pace_accuracy=[0.1, 0.8, 0.7, 0.9])
    assert rising.steps_to(accuracy) == step


def test_a_target_that_is_reached_exactly_is_reached_whatever_its_rounding() -> None:
    # .95 of 140/150 is 133/150, but not in binary.
    assert 0.95 * (140 / 150) != 133 / 150
    assert curve([1.0] * 2, pace_accuracy=[132 / 150, 133 / 150]).steps_to(0.95 * (140 / 150)) == 10


def test_a_curve_without_points_reaches_nothing() -> None:
    assert curve([]).steps_to(0.0) is None


def test_unmeasured_test_accuracy_is_none() -> None:
    assert curve([2, 1], test_accuracy=[0.9, math.nan]).accuracy_at_early_stop() is None


def test_curve_rows() -> None:
    rows = curve([3, 1, 2])
    last = {
        "train_loss": 0,
        "validation_loss": 2,
        "validation_accuracy": 0.5,
        "pace_accuracy": 0.5,
        "test_loss": 1,
        "test_accuracy": 0.2,
    }
    assert rows.last() == last
    assert rows.at(20) == last
    assert rows.at(0) == {**last, "validation_loss": 3, "test_accuracy": 0}
    with pytest.raises(ValueError, match=r"step 15 is not on the curve's grid \[0, 10, 20\]"):
        rows.at(15)
    with pytest.raises(ValueError, match="no points"):
        curve([]).last()


def test_curve_columns_are_checked() -> None:
    good = torch.zeros(2, dtype=torch.float64)
    step = torch.tensor([0, 1])
    with pytest.raises(TypeError, match=r"'test_loss' is torch\.float32"):
        Curve(step, good, good, good, good, torch.zeros(2), good)
    with pytest.raises(TypeError, match=r"'step' is torch\.float64"):
        Curve(good, good, good, good, good, good, good)
    with pytest.raises(ValueError, match=r"'train_loss' has shape \(3,\), but 'step' has \(2,\)"):
        Curve(step, torch.zeros(3, dtype=torch.float64), good, good, good, good, good)
    with pytest.raises(ValueError, match=r"do not rise: \[1, 1\]"):
        Curve(torch.tensor([1, 1]), good, good, good, good, good, good)


def test_trajectory_saves_states_under_their_own_step() -> None:
    state = State(WEIGHTS, {}, {}, 5)
    assert Trajectory(ticket(), {5: state}, curve([1])).saved[5] is state
    with pytest.raises(ValueError, match="under step 6 says that it is at step 5"):
        Trajectory(ticket(), {6: state}, curve([1]))
    with pytest.raises(ValueError, match="step -1"):
        State({}, {}, {}, -1)


def test_nouns_can_be_pickled() -> None:
    path = pickle.loads(pickle.dumps(Trajectory(ticket(model="lenet"), {20: ticket().start}, curve([2, 1]))))
    assert same_bits(path.ticket.mask.keep, MASK.keep)
    assert same_bits(path.saved[20].weights, WEIGHTS)
    assert path.curve.early_stop_step() == 10
    failed = Failed("loss is nan", 12, Seeds(0, 1))
    assert pickle.loads(pickle.dumps(failed)) == failed


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (torch.tensor([math.nan, 1.0]), torch.tensor([math.nan, 1.0]), True),
        (torch.tensor([0.0]), torch.tensor([-0.0]), False),
        (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64), False),
        (torch.ones(2, 3), torch.ones(3, 2), False),
        (torch.arange(6).reshape(2, 3).T, torch.tensor([[0, 3], [1, 4], [2, 5]]), True),
        (torch.tensor(True), torch.tensor(True), True),
        (torch.tensor(3), torch.tensor(4), False),
        (torch.zeros(0), torch.zeros(0), True),
    ],
)
def test_same_bits(a: Tensor, b: Tensor, same: bool) -> None:
    assert same_bits({"w": a}, {"w": b}) is same
    assert not same_bits({"w": a}, {"v": a})


# Ticket


def test_ticket_densities_and_excluded() -> None:
    assert ticket().excluded() == ("fc1.bias",)
    assert ticket().model_density() == (3 + 2) / 10


def test_ticket_parts_must_fit() -> None:
    with pytest.raises(ValueError, match=r"only one of them has 'fc2\.weight'"):
        Ticket(MASK, State({"fc1.weight": WEIGHTS["fc1.weight"]}, {}, {}, 0), "imp", Seeds(0, 0))
    with pytest.raises(ValueError, match=r"'fc2\.weight': shapes"):
        Ticket(MASK, State({**WEIGHTS, "fc2.weight": torch.ones(2)}, {}, {}, 0), "imp", Seeds(0, 0))


@pytest.mark.parametrize("value", [math.nan, torch.ones(1), {1, 2}])
def test_about_must_be_json(value: Any) -> None:
    with pytest.raises(ValueError, match="about must be JSON"):
        ticket(model=value)


def assert_same_ticket(a: Ticket, b: Ticket) -> None:
    assert same_bits(a.mask.keep, b.mask.keep)
    for part in ("weights", "buffers", "optimizer"):
        assert same_bits(getattr(a.start, part), getattr(b.start, part))
        assert list(getattr(a.start, part)) == list(getattr(b.start, part))
    assert list(a.mask.keep) == list(b.mask.keep)
    assert (a.start.step, a.origin, a.seeds, a.about) == (b.start.step, b.origin, b.seeds, b.about)


def test_file_round_trip_is_bit_identical(tmp_path: Path) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    original = ticket(model="lenet-2", data={"name": "digits", "sha256": "00ff"})
    original.save(first, recipe={"rate": 0.2, "betas": (0.9, 0.999)})
    loaded = Ticket.load(first)
    loaded.save(second)
    assert_same_ticket(loaded, Ticket.load(second))
    assert loaded.about == {**original.about, "recipe": {"rate": 0.2, "betas": [0.9, 0.999]}}
    assert_same_ticket(
        loaded, Ticket(original.mask, original.start, original.origin, original.seeds, loaded.about)
    )
    assert first.read_bytes() == second.read_bytes()
    assert sorted(tmp_path.iterdir()) == [first, second]  # nothing temporary is left


def test_views_of_a_stack_and_half_precision_survive(tmp_path: Path) -> None:
    stacked = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    weights = {"a": stacked[1].T, "b": stacked[1], "c": stacked[2, :2].to(torch.bfloat16)}
    original = Ticket(Mask({"a": weights["a"] > 0}), State(weights, {}, {}, 0), "imp", Seeds(0, 0))
    original.save(tmp_path / "t.safetensors")
    assert_same_ticket(original, Ticket.load(tmp_path / "t.safetensors"))


def test_metadata_of_the_file(tmp_path: Path) -> None:
    ticket(model="lenet-2").save(tmp_path / "t.safetensors")
    content = (tmp_path / "t.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    document = json.loads(header["__metadata__"]["winticket"])
    assert document.pop("sha256")
    versions = document.pop("written_by")
    assert versions["torch"] == torch.__version__
    assert set(versions) == {"winticket", "torch", "numpy", "python"}
    assert document == {
        "version": 1,
        "origin": "imp",
        "step": 20,
        "seeds": {"root": 42, "replicate": 7},
        "about": {"model": "lenet-2"},
        "density": 0.375,
        "model_density": 0.5,
        "layers": {
            "fc1.weight": {"kept": 3, "total": 6, "shape": [2, 3]},
            "fc2.weight": {"kept": 0, "total": 2, "shape": [1, 2]},
        },
        "excluded": ["fc1.bias"],
        "tensors": {
            "mask": ["fc1.weight", "fc2.weight"],
            "weights": ["fc1.weight", "fc1.bias", "fc2.weight"],
            "buffers": ["bn.running_mean", "bn.num_batches_tracked"],
            "optimizer": ["momentum/fc1.weight"],
        },
    }


OTHER_PROGRAM = """
import hashlib, json, sys
import numpy as np
from safetensors import safe_open

with safe_open(sys.argv[1], framework="np") as file:
    about = json.loads(file.metadata()["winticket"])
    tensors = {name: file.get_tensor(name) for name in file.keys()}
unsigned = {key: value for key, value in about.items() if key != "sha256"}
digest = hashlib.sha256(json.dumps(unsigned, sort_keys=True, separators=(",", ":")).encode())
kinds = {"float32": "F32", "int64": "I64", "uint8": "U8"}
for name in sorted(tensors):
    tensor = tensors[name]
    shape = str(list(tensor.shape)).replace(" ", "")
    digest.update(f"{name}\\n{kinds[str(tensor.dtype)]}\\n{shape}\\n".encode() + tensor.tobytes())
assert digest.hexdigest() == about["sha256"]
rebuilt = {}
for name in about["tensors"]["weights"]:
    rebuilt[name] = tensors["weights/" + name]
    if name in about["layers"]:
        layer = about["layers"][name]
        bits = np.unpackbits(tensors["mask/" + name], count=layer["total"])
        keep = bits.astype(bool).reshape(layer["shape"])
        assert keep.sum() == layer["kept"]
        rebuilt[name] = np.where(keep, rebuilt[name], 0)
assert "winticket" not in sys.modules and "torch" not in sys.modules
print(json.dumps({name: values.tolist() for name, values in rebuilt.items()}))
"""


def test_another_program_rebuilds_the_masked_weights(tmp_path: Path) -> None:
    ticket(model="é").save(tmp_path / "t.safetensors")
    command = [sys.executable, "-I", "-c", OTHER_PROGRAM, str(tmp_path / "t.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "fc1.weight": [[1.0, 0.0, 0.0], [0.0, 5.0, 0.0]],
        "fc1.bias": [7.0, 8.0],
        "fc2.weight": [[0.0, 0.0]],
    }


def header_end(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def flip(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


REFUSALS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda c: b"", "not a safetensors file"),
    "text": (lambda c: b"epoch,accuracy\n1,0.98\n", "not a safetensors file"),
    "pickle": (lambda c: pickle.dumps({"w": [1.0] * 50}), "not a safetensors file but a pickle"),
    "cut in the header": (lambda c: c[:60], "is truncated: it has 60 bytes"),
    "cut in the tensors": (lambda c: c[:-1], "is truncated: its tensors need"),
    "cut after the header": (lambda c: c[: header_end(c)], "is truncated: its tensors need"),
    "one bit of a tensor": (lambda c: flip(c, len(c) - 1), "damaged: its checksum"),
    "the step changed": (lambda c: c.replace(b'\\"step\\": 20', b'\\"step\\": 21'), "damaged: its checksum"),
    "a tensor renamed": (lambda c: c.replace(b'"weights/fc2', b'"weights/fc3'), "damaged: its checksum"),
    "header not JSON": (lambda c: c.replace(b'{"__metadata__":', b'{"__metadata__";'), "is damaged"),
    "metadata not JSON": (
        lambda c: c.replace(b'{\\"origin\\":', b'{\\"origin\\";'),
        "metadata cannot be read",
    ),
    "version missing": (lambda c: c.replace(b'\\"version\\"', b'\\"vershun\\"'), "metadata cannot be read"),
    "more at the end": (lambda c: c + b"\0", "is damaged"),
    "newer": (
        lambda c: c.replace(b'\\"version\\": 1', b'\\"version\\": 2'),
        "format version 2; .*upgrade winticket",
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_bad_files_are_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    ticket().save(path)
    change, reason = REFUSALS[kind]
    sound = path.read_bytes()
    path.write_bytes(change(sound))
    assert path.read_bytes() != sound
    with pytest.raises(TicketFileError, match=re.escape(str(path)) + ".*" + reason):
        Ticket.load(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    ticket().save(path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(TicketFileError, match=r"truncated|not a safetensors"):
            Ticket.load(path)


def test_missing_foreign_and_unreadable_paths(tmp_path: Path) -> None:
    with pytest.raises(TicketFileError, match=r"no ticket file at .*nothing\.safetensors"):
        Ticket.load(tmp_path / "nothing.safetensors")
    with pytest.raises(TicketFileError, match="cannot be read: Is a directory"):
        Ticket.load(tmp_path)
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TicketFileError, match=r"not a ticket: .*\(entries: format\)"):
        Ticket.load(tmp_path / "model.safetensors")
    save_file({"w": torch.ones(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(TicketFileError, match=r"not a ticket: .*\(entries: none\)"):
        Ticket.load(tmp_path / "plain.safetensors")


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.safetensors"
    ticket(take=1).save(path)

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        ticket(take=2).save(path)
    assert list(tmp_path.iterdir()) == [path]
    assert Ticket.load(path).about == {"take": 1}
    with pytest.raises(FileNotFoundError):
        ticket().save(tmp_path / "absent" / "t.safetensors")
    with pytest.raises(ValueError, match="metadata must be JSON"):
        ticket().save(path, accuracy=math.nan)
