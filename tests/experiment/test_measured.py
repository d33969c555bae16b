"""`winticket measure` on compact files and runs: what it prints, draws and refuses."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from winticket.cli import app
from winticket.ship import load, measure_energy, save
from winticket.ship.native import missing

from .conftest import Search

pytestmark = pytest.mark.skipif(bool(missing), reason=f"no compiled inference: {missing}")
FEW = ["--rounds", "2", "--runtime", "torch", "--batch", "1", "--batch", "3", "--quiet"]


@pytest.fixture
def run(search: Search, tmp_path: Path) -> Path:
    search(out=tmp_path / "run")
    return tmp_path / "run"


def test_a_run_is_measured_on_its_test_examples(run: Path) -> None:
    answer = CliRunner().invoke(app, ["measure", str(run), "--level", "1", *FEW])
    assert answer.exit_code == 0, answer.output
    rows = [line for line in answer.stdout.splitlines() if line.startswith(("torch ", "sparse engine "))]
    assert len(rows) == 4
    assert "compact file" in answer.stdout
    for batch in (1, 3):
        said = rf"Batch {batch}: (the sparse engine is .* times as fast as torch|no faster than (dense|torch) here)"
        assert re.search(said, answer.stdout)  # which of them is tested in tests/ship/test_measure_verdict.py
    assert "median of 2 rounds in which all runtimes take turns" in answer.stdout
    assert "noise" not in answer.output


def test_energy_that_is_not_measured_is_an_estimate_and_called_so(run: Path) -> None:
    answer = CliRunner().invoke(app, ["measure", str(run), "--level", "1", *FEW, "--no-energy"])
    assert answer.exit_code == 0, answer.output
    flat = " ".join(answer.stdout.split())
    assert "energy of an example estimate, not measured kept weights all weights" in flat
    assert "Energy is not measured: it was not asked for." in flat


def test_energy_by_counters_is_in_a_table_and_no_estimate_beside_it(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Steady:
        what = "a counter of 10 W"

        def start(self) -> None: ...

        def joules(self, seconds: float) -> float:
            return 10 * seconds

    monkeypatch.setattr(measure_energy, "STRETCH", 0.002)
    monkeypatch.setattr(measure_energy, "Rapl", lambda folder: Steady())
    answer = CliRunner().invoke(app, ["measure", str(run), "--level", "1", *FEW])
    assert answer.exit_code == 0, answer.output
    flat = " ".join(answer.stdout.split())
    assert "energy of an example runtime batch joules/example, measured (95 %) watts, measured" in flat
    assert re.search(r"sparse engine 3 [\d.]+ [nµm]J \([\d.]+ [nµm]J–[\d.]+ [nµm]J\) 10 ", flat)
    assert "Energy is measured by a counter of 10 W" in flat
    assert "stimate" not in flat


def test_a_compact_file_is_measured_alone(run: Path, tmp_path: Path) -> None:
    assert (
        CliRunner().invoke(app, ["ship", str(run), "--level", "1", "--out", str(tmp_path / "ship")]).exit_code
        == 0
    )
    (file,) = (tmp_path / "ship").glob("*.safetensors")
    answer = CliRunner().invoke(app, ["measure", str(file), *FEW, "--json"])
    assert answer.exit_code == 0, answer.output
    made = json.loads(answer.stdout)
    network = load(file)
    assert (made["kept"], made["weights"]) == network.kept()
    assert made["rounds"] == 2
    assert [(row["batch"], row["runtime"]) for row in made["timings"]] == [
        (batch, name) for batch in (1, 3) for name in ("sparse engine", "torch")
    ]
    save(network, tmp_path / "again.safetensors")
    assert made["bytes"]["compact"] == (tmp_path / "again.safetensors").stat().st_size
    for words in (["--store", str(run)], ["--trust", "mylab"]):
        refused = CliRunner().invoke(app, ["measure", str(file), *FEW, *words])
        assert refused.exit_code == 2
        assert "has no run; --store and --trust are for runs" in " ".join(refused.stderr.split())


def test_every_level_is_measured_and_drawn(run: Path, tmp_path: Path) -> None:
    answer = CliRunner().invoke(
        app, ["measure", str(run), "--levels", *FEW, "--out", str(tmp_path / "drawn")]
    )
    assert answer.exit_code == 0, answer.output
    document = json.loads((run / "result.json").read_text())
    with (tmp_path / "drawn" / "measured.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = [level for level in document["levels"] if "ticket" in level["arms"]]
    assert len(rows) == len(expected) * 2 * 2
    for level in expected:
        (one,) = {row["accuracy"] for row in rows if float(row["density"]) == pytest.approx(level["density"])}
        assert float(one) == pytest.approx(level["arms"]["ticket"]["accuracy"])
    for name in ("measured-batch-1.png", "measured-batch-3.svg"):
        assert (tmp_path / "drawn" / name).stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--runtime", "tensorflow"], "there is no runtime 'tensorflow'"),
        (["--batch", "0"], "batches are of 1 example or more"),
        (["--rounds", "0"], "rounds and threads are 1 or more"),
        (["--levels", "--density", "0.5"], "--levels measures every level"),
        (["--levels", "--arm", "nobody"], "the run has no arm 'nobody'"),
        (["--levels", "--replicate", "0"], "replicate is 0; the run has 1 to"),
        (["--replicate", "0"], "replicate is 0; the run has 1 to"),
        (["--out", "measured"], "--out is for --levels"),
        (
            ["--batch", "3", "--batch", "1", "--batch", "3"],
            "a batch size is measured once, but there are [3, 1, 3]",
        ),
    ],
)
def test_a_wrong_request_is_refused(run: Path, words: list[str], reason: str) -> None:
    answer = CliRunner().invoke(app, ["measure", str(run), "--quiet", *words])
    assert answer.exit_code == 2
    assert reason in " ".join(answer.stderr.split())


def test_a_file_that_is_neither_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"no tensors")
    answer = CliRunner().invoke(app, ["measure", str(tmp_path / "x.safetensors")])
    assert answer.exit_code == 2
    assert "is neither a compact file" in answer.stderr
