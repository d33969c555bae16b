"""The compact file of a language model: its folder bit for bit, as small as it says, and closed to damage."""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig
from typer.testing import CliRunner

from lm.models import write_model, write_text, write_tokenizer
from winticket.cli import app
from winticket.lm import Request, prepare, prune, read_masks
from winticket.lm.compact import CompactModelError, PackedModel, masks, pack, planes, unpack
from winticket.outside import read_header
from winticket.ship import CompactFileError, load
from winticket.ship.coding import CodingError

COMMANDS = CliRunner()


def pruned(folder: Path, **options: Any) -> Path:
    """A folder `pruned` beside a small model."""
    family, dtype = options.pop("family", "llama"), options.pop("dtype", torch.float32)
    write_model(folder / "model", family, dtype=dtype)
    text = write_text(folder / "text.txt")
    asked = Request(**{"method": "magnitude", "length": 16, "windows": 0, **options})
    prune(prepare(str(folder / "model"), asked, text, None), folder / "pruned")
    return folder / "pruned"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    files = (load_file(file) for file in folder.glob("model*.safetensors"))
    return {name: tensor for file in files for name, tensor in file.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("family", "options"),
    [("llama", {"density": 0.5}), ("llama", {"density": 0.1}), ("gpt2", {"pattern": "2:4"})],
    ids=["bits", "rice", "groups"],
)
def test_the_folder_comes_back_bit_for_bit(
    dtype: torch.dtype, family: str, options: dict[str, Any], tmp_path: Path
) -> None:
    source = pruned(tmp_path, family=family, dtype=dtype, **options)
    sizes = pack(source, tmp_path / "file.safetensors")
    assert unpack(tmp_path / "file.safetensors", tmp_path / "again") == sizes.original
    assert contents(tmp_path / "again") == contents(source)
    assert sizes.original == sum(map(len, contents(source).values()))
    assert sizes.file == (tmp_path / "file.safetensors").stat().st_size
    keep = read_masks(source).keep
    assert sizes.kept == sum(int(one.sum()) for one in keep.values())
    assert sizes.weights == sum(one.numel() for one in keep.values())
    with PackedModel(tmp_path / "file.safetensors") as model:
        codes = {entry.mask.code for entry in model.document.tensors.values() if entry.mask}
    assert codes == {"groups" if "pattern" in options else "bits" if options["density"] == 0.5 else "rice"}
    one, two = (AutoModelForCausalLM.from_pretrained(f, dtype=dtype) for f in (source, tmp_path / "again"))
    tokens = torch.arange(12)[None]
    assert torch.equal(one(tokens).logits, two(tokens).logits)


def test_negative_zeros_values_of_every_kind_and_kept_zeros_come_back(tmp_path: Path) -> None:
    source = pruned(tmp_path, density=0.5)
    name, keep = next(iter(read_masks(source).keep.items()))
    file = next(f for f in source.glob("model-*.safetensors") if name in load_file(f))
    changed = load_file(file)
    weight = changed[name]
    weight[~keep] = torch.where(torch.arange(int((~keep).sum())) % 3 == 0, -0.0, 0.0)
    odd = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45])
    weight[keep] = torch.cat([odd, weight[keep][6:]])
    save_file(changed, file, metadata={"format": "pt"})
    before = contents(source)
    pack(source, tmp_path / "file.safetensors")
    unpack(tmp_path / "file.safetensors", tmp_path / "again")
    assert contents(tmp_path / "again") == before
    with PackedModel(tmp_path / "file.safetensors") as model:
        assert [one for one, entry in model.document.tensors.items() if entry.negative] == [name]


def test_a_weight_that_is_not_zero_under_its_mask_is_refused(tmp_path: Path) -> None:
    source = pruned(tmp_path, density=0.5)
    name, keep = next(iter(read_masks(source).keep.items()))
    file = next(f for f in source.glob("model-*.safetensors") if name in load_file(f))
    changed = load_file(file)
    changed[name][tuple((~keep).nonzero()[0])] = 1e-30
    save_file(changed, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"1 weights of {name} are not 0"):
        pack(source, tmp_path / "file.safetensors")
    assert not (tmp_path / "file.safetensors").exists()
    assert not list(tmp_path.glob(".file*"))


@pytest.mark.parametrize(
    ("n", "m", "least"), [(2, 4, 0.6463), (1, 4, 0.5), (4, 8, 0.7662), (1, 2, 0.5), (3, 5, 0.6644)]
)
def test_patterns_take_little_more_than_their_information(n: int, m: int, least: float) -> None:
    """log2 C(n, m) / m bits for each flag, from the table of binomial coefficients."""
    assert math.log2(math.comb(m, n)) / m == pytest.approx(least, abs=1e-4)
    order = np.random.default_rng(0).random((30_000, m)).argsort(1)
    flags = (order < n).reshape(-1)
    entry, coded = masks.encode(flags)
    assert (entry.code, entry.n, entry.m) == ("groups", n, m) or least == 0.5
    assert least <= 8 * len(coded) / len(flags) < 1.005 * least
    assert (masks.decode(coded, len(flags), entry) == flags).all()


def test_groups_are_numbered_as_the_page_says() -> None:
    """Of 2:4 there are 0011, 0101, 0110, 1001, 1010 and 1100; 17 groups make a number in base 6, of 44 bits."""
    patterns = ["1100", "0011", "1010"] + ["0101"] * 14
    flags = np.array([flag == "1" for flag in "".join(patterns)])
    number = 0
    for digit in [5, 0, 4] + [1] * 14:
        number = 6 * number + digit
    _, coded = masks.encode(flags)
    assert coded.tobytes() == (number << 4).to_bytes(6, "big")  # 44 bits, padded to 48


@pytest.mark.parametrize("size", [0, 1, 7, 64, 1000, 4096])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 0.5, 0.9, 1.0])
def test_any_mask_comes_back(size: int, density: float) -> None:
    flags = np.random.default_rng(size).random(size) < density
    entry, coded = masks.encode(flags)
    assert len(coded) <= -(-size // 8)
    assert (masks.decode(coded, size, entry) == flags).all()


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_values_come_back_in_blocks(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planes, "BLOCK", 100)
    raw = np.random.default_rng(0).integers(0, 256, 250 * width, np.uint8)
    for values in (raw.view(f"<u{width}"), np.full(250, 7, f"<u{width}"), np.empty(0, f"<u{width}")):
        coded = b"".join(planes.encode(values))
        blocks = list(planes.decode(memoryview(coded), len(values), width))
        assert b"".join(block.tobytes() for block in blocks) == values.tobytes()
        assert len(coded) <= values.nbytes + 4 * 3 * width
        for broken in (coded + b"x", coded[:-1]):
            if coded:
                with pytest.raises(CodingError):
                    list(planes.decode(memoryview(broken), len(values), width))


def test_exponents_of_normal_weights_shrink() -> None:
    """The entropy of the last byte of normal float32 numbers, by counting; the other three bytes are all but noise."""
    values = (0.02 * np.random.default_rng(0).standard_normal(100_000)).astype("<f4").view("<u4")
    counts = np.unique(values >> 24, return_counts=True)[1] / len(values)
    entropy = -(counts * np.log2(counts)).sum()
    bits = 8 * len(b"".join(planes.encode(values))) / len(values)
    assert entropy < 2.7
    assert 23.8 + entropy < bits < 24.1 + 1.1 * entropy


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack(pruned(folder, density=0.3), folder / "file.safetensors")
    return folder / "file.safetensors"


def test_any_changed_byte_is_noticed(packed: Path, tmp_path: Path) -> None:
    content, expected = packed.read_bytes(), contents(packed.parent / "pruned")
    start = 8 + int.from_bytes(content[:8], "little")
    rng = random.Random(0)
    places = [*range(8), *rng.sample(range(8, start), 60), *rng.sample(range(start, len(content)), 60)]
    refused = 0
    for at in places:
        broken = content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
        (tmp_path / "broken.safetensors").write_bytes(broken)
        try:
            unpack(tmp_path / "broken.safetensors", tmp_path / "out")
        except CompactModelError:
            refused += 1
        else:  # a space of the header may be another one
            assert content[at : at + 1].isspace()
            assert contents(tmp_path / "out") == expected
            shutil.rmtree(tmp_path / "out")
    assert refused >= 120
    assert [one.name for one in tmp_path.iterdir()] == ["broken.safetensors"]


def test_a_file_that_is_cut_off_is_refused(packed: Path, tmp_path: Path) -> None:
    content = packed.read_bytes()
    for length in (0, 7, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.safetensors").write_bytes(content[:length])
        with pytest.raises(
            CompactModelError, match=r"cut\.safetensors is (truncated|not a safetensors file)"
        ):
            unpack(tmp_path / "cut.safetensors", tmp_path / "out")


def forged(content: bytes, change: Callable[[Any, dict[str, bytes]], object]) -> bytes:
    """The file after a change of its document and parts, with right checksums of the document and of each part."""
    header, about = read_header(content)
    start = 8 + int.from_bytes(content[:8], "little")
    parts = {name: content[start + one.start : start + one.end] for name, one in header.items()}
    document = json.loads(zlib.decompress(parts.pop("document")))
    change(document, parts)
    for file in document["files"]:
        if (name := "file/" + file["name"]) in parts:
            file["crc32"] = zlib.crc32(parts[name])
    for name, entry in document["tensors"].items():
        entry["crc32"] = zlib.crc32(parts.get("tensor/" + name, b""))
    parts["document"] = zlib.compress(json.dumps(document).encode())
    entries, at = {}, 0
    for name, raw in parts.items():
        entries[name] = {"dtype": "U8", "shape": [len(raw)], "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    metadata = {"format": about["format"], "crc32": f"{zlib.crc32(parts['document']):08x}"}
    text = json.dumps({"__metadata__": metadata, **entries}).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(parts.values())


WEIGHT = "model.layers.0.mlp.down_proj.weight"


def mask(**changes: Any) -> Callable[[Any, Any], object]:
    return lambda document, _: document["tensors"][WEIGHT]["mask"].update(changes)


def part(name: str, change: Callable[[bytes], bytes]) -> Callable[[Any, Any], object]:
    return lambda _, parts: parts.update({name: change(parts[name])})


def renamed(name: str) -> Callable[[Any, Any], object]:
    def change(document: Any, parts: dict[str, bytes]) -> None:
        parts["file/" + name] = parts.pop("file/config.json")
        next(one for one in document["files"] if one["name"] == "config.json")["name"] = name

    return change


def swapped(header: bytes) -> bytes:
    """A header of a safetensors file, deflated, with a tensor of 2^40 elements."""
    text = json.dumps({"w": {"dtype": "U8", "shape": [1 << 40], "data_offsets": [0, 1 << 40]}}).encode()
    return zlib.compress(len(text).to_bytes(8, "little") + text)


def bomb(document: Any, parts: dict[str, bytes]) -> None:
    """A tensor of 2^31 elements, none of which is kept, in no bytes at all."""
    name, size = "model-00001-of-00004.safetensors", 1 << 31
    text = json.dumps({WEIGHT: {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}}).encode()
    parts["file/" + name] = zlib.compress(len(text).to_bytes(8, "little") + text)
    entry = next(one for one in document["files"] if one["name"] == name)
    entry["bytes"] = 8 + len(text) + 4 * size
    document["tensors"][WEIGHT] = {"crc32": 0, "mask": {"code": "rice", "kept": 0, "bytes": 0}}
    parts["tensor/" + WEIGHT] = b""


FORGED: list[tuple[Callable[[Any, Any], object], str]] = [
    (renamed("../config.json"), "is no plain name"),
    (renamed("/etc/config.json"), "is no plain name"),
    (renamed(".bashrc"), "is no plain name"),
    (renamed("a\\b"), "is no plain name"),
    (renamed("tokenizer.json"), "lists other tensors than its header"),
    (mask(kept=1 << 39), "its mask keeps|do not fit"),
    (mask(kept=3), "its mask keeps|bits behind its end|values"),
    (mask(bytes=1 << 39), "its mask has .* bytes"),
    (mask(bytes=0), "its mask|do not fit"),
    (mask(low=24), "remainders of 24 bits do not fit"),
    (mask(low=60), "Expected `int` <= 24"),
    (mask(code="groups", n=2, m=4), "have no groups of 4 with 2 kept"),
    (mask(code="groups", n=0, m=0), "have no groups of 0"),
    (mask(code="pickle"), "Invalid enum value 'pickle'"),
    (mask(code="bits"), "flags need"),
    (mask(more=1), "unknown field `more`"),
    (lambda document, _: document["tensors"][WEIGHT].pop("mask"), "plane|bytes follow its values"),
    (lambda document, _: document["tensors"].pop(WEIGHT), "lists other tensors than its header"),
    (lambda document, _: document["files"][0].update(sha256="0" * 64), "comes out with another SHA-256"),
    (lambda document, _: document["files"][0].update(sha256="x"), "Expected `str` matching"),
    (lambda document, _: document["files"][0].update(bytes=1), "has more than the 1 bytes"),
    (lambda document, _: document["files"].append(document["files"][0]), "lists other tensors"),
    (part("tensor/" + WEIGHT, lambda raw: raw + b"x"), "bytes follow its values"),
    (part("tensor/" + WEIGHT, lambda raw: raw[:-1]), "end within a plane"),
    (part("tensor/" + WEIGHT, lambda raw: b"\xff" * len(raw)), "its mask"),
    (part("file/config.json", lambda raw: raw[:-3]), "is cut off"),
    (part("file/config.json", lambda raw: b"no zlib"), "cannot be inflated"),
    (part("file/config.json", lambda raw: zlib.compress(b"{}")), "another SHA-256"),
    (part("file/masks.safetensors", lambda raw: zlib.compress(b"x")), "not a safetensors file"),
    (bomb, "0 bytes of '.*' cannot be 2147483648 elements"),
    (part("file/masks.safetensors", swapped), "elements, and 4294967296 is most"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), FORGED, ids=range(len(FORGED)))
def test_nonsense_with_right_checksums_is_refused_by_name(
    packed: Path, change: Callable[[Any, Any], object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "forged.safetensors"
    path.write_bytes(forged(packed.read_bytes(), change))
    with pytest.raises(CompactModelError, match=f"forged.safetensors is damaged: .*({message})"):
        unpack(path, tmp_path / "deep" / "out")
    assert not list(tmp_path.glob("**/out*"))
    assert sorted(one.name for one in tmp_path.rglob("*") if one.is_file()) == ["forged.safetensors"]


def test_a_file_that_does_not_read_back_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = pruned(tmp_path)
    monkeypatch.setattr(planes, "encode", lambda values: [b"x"])
    with pytest.raises(CompactModelError, match="is damaged: model-00001"):
        pack(source, tmp_path / "file.safetensors")
    assert not (tmp_path / "file.safetensors").exists()


def test_the_forging_itself_changes_nothing(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "same.safetensors").write_bytes(forged(packed.read_bytes(), lambda *_: None))
    unpack(tmp_path / "same.safetensors", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(packed.parent / "pruned")


def test_other_files_are_told_apart(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(CompactFileError, match="compact file of a language model and not of a network"):
        load(packed)
    with pytest.raises(CompactModelError, match="no compact file of a language model"):
        unpack(next((packed.parent / "pruned").glob("model-*.safetensors")), tmp_path / "out")
    with pytest.raises(CompactModelError, match="there is no file"):
        unpack(tmp_path / "none.safetensors", tmp_path / "out")
    newer = packed.read_bytes().replace(b"winticket language model 1", b"winticket language model 9", 1)
    (tmp_path / "newer.safetensors").write_bytes(newer)
    with pytest.raises(CompactModelError, match="of version 9, and this winticket reads up to 1: upgrade it"):
        unpack(tmp_path / "newer.safetensors", tmp_path / "out")


def answer(*words: str, status: int = 0) -> str:
    done = COMMANDS.invoke(app, ["ship", *words])
    assert done.exit_code == status, done.output
    return " ".join((done.stderr if status else done.stdout).split())


def test_ship_as_typed_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = pruned(tmp_path, pattern="2:4")
    (source / ".cache").mkdir()
    said = answer("pruned", "--to", "compact", "--name", "small")
    assert "small.safetensors has" in said
    assert "5,760 weights under masks, 2,880 are kept" in said
    assert "Not in the file: .cache" in said
    result = json.loads(answer("pruned", "--name", "default", "--json"))
    assert result["bytes"] == (tmp_path / "default.safetensors").stat().st_size
    assert result["original"] / result["bytes"] > 1.5
    assert "from_pretrained" in answer("small.safetensors", "--to", "hub", "--out", "back")
    shutil.rmtree(source / ".cache")
    assert contents(tmp_path / "back" / "small") == contents(source)
    assert "is there already" in answer("pruned", "--name", "small", status=2)
    assert "is there already" in answer("small.safetensors", "--to", "hub", "--out", "back", status=2)
    content = (tmp_path / "small.safetensors").read_bytes()
    (tmp_path / "small.safetensors").write_bytes(content[:-1] + b"x")
    assert "checksum of 'document' does not match" in answer("small.safetensors", "--to", "hub", status=2)


def test_progress_goes_to_stderr_if_it_takes_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pruned(tmp_path)
    words = ["ship", str(tmp_path / "pruned"), "--to", "compact", "--json", "--name"]
    done = COMMANDS.invoke(app, [*words, "one"])
    assert "Packing" not in done.stderr
    monkeypatch.setattr("winticket.cli.progress.PATIENCE", 0.0)
    monkeypatch.setattr("winticket.cli.progress.QUIET_SECONDS", 0.0)
    done = COMMANDS.invoke(app, [*words, "two"])
    assert "Packing model.layers.0.self_attn.q_proj.weight, about" in done.stderr
    assert "Checking masks.safetensors, about" in done.stderr
    assert json.loads(done.stdout)["weights"] == 5760


REFUSED = {
    "pruned --to onnx": "can be shipped --to compact",
    "pruned --to compact --values fp16": "--values is not for language models",
    "pruned --to compact --shrink": "--shrink is not for language models",
    "pruned --to compact --level 1": "--arm, --level, --density and --replicate choose from a run",
    "pruned --to compact --name ../x": "names a file",
    "model --to compact": "has no masks.safetensors",
    "unfinished --to compact": "is not finished",
    "unfit --to compact": "does not fit model.layers.0.self_attn.q_proj.weight",
    "lacking --to compact": "there is no such weight in the other files",
    "cut --to compact": "model-00002-of-00004.safetensors is truncated",
    "file.safetensors": "--to hub makes its folder again",
}


def test_what_cannot_be_shipped_is_refused_before_anything_is_written(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = pruned(tmp_path)
    for name in ("unfinished", "unfit", "lacking", "cut"):
        shutil.copytree(source, tmp_path / name)
    shutil.copy(packed, tmp_path)
    (tmp_path / "unfinished" / "pruning.json").write_text("{}")
    first = tmp_path / "unfit" / "model-00001-of-00004.safetensors"
    changed = load_file(first)
    changed["model.layers.0.self_attn.q_proj.weight"] = torch.zeros(4, 4)
    save_file(changed, first)
    (tmp_path / "lacking" / "model-00001-of-00004.safetensors").unlink()
    second = tmp_path / "cut" / "model-00002-of-00004.safetensors"
    second.write_bytes(second.read_bytes()[:-1])
    before = sorted(tmp_path.rglob("*"))
    for words, message in REFUSED.items():
        assert message in answer(*words.split(), status=2), words
    assert sorted(tmp_path.rglob("*")) == before


PEAK = """
import sys, threading
from winticket.lm.compact import pack, unpack

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

root, most, stop = sys.argv[1], [0], threading.Event()

def sample():
    while not stop.wait(0.002):
        most[0] = max(most[0], anonymous())

for name in ("tiny", "large"):
    base = most[0] or anonymous()
    sampler = threading.Thread(target=sample)
    sampler.start()
    pack(f"{root}/{name}", f"{root}/{name}.safetensors")
    unpack(f"{root}/{name}.safetensors", f"{root}/{name}-again")
    stop.set()
    sampler.join()
    stop.clear()
print(base, most[0])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory from /proc")
def test_memory_is_a_few_tensors(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=20, hidden_size=512, intermediate_size=1408, num_hidden_layers=10, num_attention_heads=8,
        max_position_embeddings=64,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    total = 4 * sum(one.numel() for one in model.parameters())
    largest = 4 * max(one.numel() for one in model.parameters())
    model.save_pretrained(tmp_path / "dense")
    write_tokenizer(tmp_path / "dense")
    text = write_text(tmp_path / "text.txt")
    asked = Request(method="magnitude", length=16, windows=0)
    prune(prepare(str(tmp_path / "dense"), asked, text, None), tmp_path / "large")
    (tmp_path / "other").mkdir()
    shutil.move(pruned(tmp_path / "other"), tmp_path / "tiny")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True, timeout=100
    )
    base, peak = map(int, done.stdout.split())
    # The tensor, its flags and their positions, what it keeps, and a block of a million values with its planes.
    assert 8 * largest < 0.25 * total
    assert peak - base < 8 * largest
