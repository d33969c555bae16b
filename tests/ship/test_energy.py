"""Energy of a measurement: joules by counters whose readings are known, and an estimate where there are none."""

from __future__ import annotations

import json
import logging
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from inferring import captured, weight
from winticket.ship import Network, Operation, Weight, measure_energy
from winticket.ship.measure import measure
from winticket.ship.measure_energy import Counter, Meter, NoCounters, Rapl, Turns, turns
from winticket.ship.measure_estimate import estimate
from winticket.ship.measure_text import ESTIMATE_HEAD, energy_rows, energy_sentences, estimate_rows
from winticket.ship.native import missing

needs_engine = pytest.mark.skipif(bool(missing), reason=f"no compiled inference: {missing}")
JOULE = 1_000_000
"""In the counters' microjoules."""


class Machine:
    """A powercap folder and a clock of its own: computing and resting move the counters by known amounts."""

    def __init__(self, folder: Path, *, most: int = 262_143 * JOULE) -> None:
        self.folder, self.most, self.seconds = folder, most, 0.0
        self.packages = [folder / "intel-rapl" / f"intel-rapl:{number}" for number in (0, 1)]
        for number, package in enumerate(self.packages):
            self.domain(package, f"package-{number}", (number + 1) * 1000 * JOULE)
            self.domain(package / f"intel-rapl:{number}:0", "core", 5)

    def domain(self, path: Path, name: str, count: int) -> None:
        path.mkdir(parents=True)
        (path / "name").write_text(f"{name}\n")
        (path / "energy_uj").write_text(f"{count}\n")
        (path / "max_energy_range_uj").write_text(f"{self.most}\n")

    def run(self, seconds: float, joules: tuple[float, float]) -> None:
        self.seconds += seconds
        for package, amount in zip(self.packages, joules, strict=True):
            file = package / "energy_uj"
            file.write_text(f"{(int(file.read_text()) + round(amount * JOULE)) % self.most}\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    pytest.importorskip("codecarbon")
    return Machine(tmp_path / "powercap")


def test_joules_of_a_call_are_those_that_the_counters_moved_by(machine: Machine) -> None:
    """A call of .1 s takes 2 J in one package and 1 J in the other; resting takes 4 W and 1 W."""
    counter = Rapl(machine.folder)
    shares: list[float] = []
    made = turns(
        {"a": lambda: machine.run(0.1, (2, 1)), "b": lambda: machine.run(0.5, (3, 4))},
        counter,
        progress=shares.append,
        clock=lambda: machine.seconds,
        rest=lambda seconds: machine.run(seconds, (4 * seconds, seconds)),
    )
    assert "read by codecarbon" in counter.what
    assert len(made.joules["a"]) == len(made.idle) == measure_energy.ROUNDS == len(shares)
    # A microjoule is lost to rounding, and codecarbon's kWh has six digits.
    assert made.joules["a"] == pytest.approx([3.0] * 7, rel=2e-6)
    assert made.joules["b"] == pytest.approx([7.0] * 7, rel=2e-6)
    assert made.watts["a"] == pytest.approx([30.0] * 7, rel=2e-6)
    assert made.watts["b"] == pytest.approx([14.0] * 7, rel=2e-6)
    assert made.idle == pytest.approx([5.0] * 7, rel=1e-5)


def test_a_counter_that_begins_anew_is_read_on(tmp_path: Path) -> None:
    pytest.importorskip("codecarbon")
    machine = Machine(tmp_path / "powercap", most=2001 * JOULE)  # the second package has 2000 already
    counter = Rapl(machine.folder)
    counter.start()
    machine.run(1, (3, 4))
    assert int((machine.packages[1] / "energy_uj").read_text()) == 3 * JOULE
    assert counter.joules(1.0) == pytest.approx(7.0, rel=2e-6)


def test_a_counter_that_stands_still_is_no_measurement_of_nothing(machine: Machine) -> None:
    counter = Rapl(machine.folder)
    counter.start()
    machine.run(1, (3, 0))
    with pytest.raises(NoCounters, match="an energy counter did not move for 1 seconds"):
        counter.joules(1.0)
    counter.start()
    for package in machine.packages:
        (package / "energy_uj").unlink()
    with pytest.raises(NoCounters):
        counter.joules(1.0)


def test_parts_of_a_processor_are_not_taken_for_it(tmp_path: Path) -> None:
    pytest.importorskip("codecarbon")
    machine = Machine(tmp_path / "powercap")
    for number, package in enumerate(machine.packages):
        (package / "name").write_text(("core", "uncore")[number])
    counter = Rapl(machine.folder)
    counter.start()
    machine.run(1, (3, 4))
    with pytest.raises(NoCounters, match="of a whole processor package"):
        counter.joules(1.0)


@pytest.fixture
def unreadable(tmp_path: Path) -> Path:
    file = tmp_path / "intel-rapl:0" / "energy_uj"
    file.parent.mkdir()
    file.mkdir()  # root reads files of any mode, but no folder
    return tmp_path


def test_a_library_that_fails_is_a_reason(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon.core.cpu", None)
    with pytest.raises(NoCounters, match=r"codecarbon 3\..* fails: ModuleNotFoundError: "):
        Rapl(machine.folder)


def test_why_there_are_no_counters(tmp_path: Path, unreadable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoCounters, match=r"shows no energy counters .Intel RAPL, under .*nowhere"):
        Rapl(tmp_path / "nowhere")
    with pytest.raises(NoCounters, match=r"cannot be read by this user; if you may: sudo chmod -R a\+r"):
        Rapl(unreadable)
    (tmp_path / "intel-rapl:1").mkdir()
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("12\n")
    monkeypatch.setattr(measure_energy, "version", _absent)
    with pytest.raises(NoCounters, match=r"is not installed: pip install 'winticket\[energy\]'"):
        Rapl(tmp_path)
    monkeypatch.setattr(measure_energy, "POWERCAP", tmp_path / "nowhere")
    assert "shows no energy counters" in str(Meter().reason)
    assert Meter(wanted=False).reason == "it was not asked for"


def _absent(name: str) -> str:
    raise PackageNotFoundError(name)


def test_codecarbons_remarks_are_not_shown(machine: Machine) -> None:
    seen: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    handler = Handler(logging.DEBUG)
    logger = logging.getLogger("codecarbon")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        Rapl(machine.folder).start()
        assert not seen
        logger.warning("still heard")
        assert len(seen) == 1
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class Steady:
    """A counter of 10 W."""

    what = "a counter of 10 W"

    def __init__(self, fails_at: int = -1) -> None:
        self.left, self.began = fails_at, 0.0

    def start(self) -> None:
        self.began = time.perf_counter()

    def joules(self, seconds: float) -> float:
        self.left -= 1
        if not self.left:
            raise NoCounters("it is gone")
        return 10 * (time.perf_counter() - self.began)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_energy, "STRETCH", 0.002)


def with_counter(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_energy, "Rapl", lambda folder: counter)


@needs_engine
@pytest.mark.usefixtures("short")
def test_a_measurement_has_the_joules_of_every_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    with_counter(Steady(), monkeypatch)
    network = captured("lenet-30-20", (1, 8, 8), 0.1)
    shares: list[float] = []
    made = measure(
        network, batches=(1, 8), rounds=1, runtimes=["torch"], memory=False,
        progress=lambda _, share: shares.append(share),
    )  # fmt: skip
    energy = made["energy"]
    assert (energy["estimate"], energy["not_measured"]) == (None, None)
    measured = energy["measured"]
    assert measured is not None
    assert measured["counters"] == "a counter of 10 W"
    assert [(row["batch"], row["runtime"]) for row in measured["rows"]] == [
        (batch, name) for batch in (1, 8) for name in ("sparse engine", "torch")
    ]
    for row in measured["rows"]:
        joules = row["joules_per_example"]
        assert 0 < joules["low"] <= joules["median"] <= joules["high"]
        assert row["watts"]["median"] == pytest.approx(10, rel=0.2)
    assert measured["idle_watts"]["median"] == pytest.approx(10, rel=0.2)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(list(energy_rows(made))) == 4
    assert list(estimate_rows(made)) == []
    (sentence,) = energy_sentences(made)
    assert sentence.startswith(
        "Energy is measured by a counter of 10 W: median of 7 turns of 0.002 s or more."
    )
    assert "stimate" not in sentence


def test_joules_of_a_call_are_divided_by_its_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    joules = [4.0, 4.8, 5.6, 4.0, 4.0, 2.4, 4.0]
    made = Turns({"torch": joules}, {"torch": [10.0] * 7}, [5.0, 5.0, 5.0, 5.0, 6.0, 4.0, 5.0])
    monkeypatch.setattr(measure_energy, "turns", lambda calls, counter, *, progress: made)
    with_counter(Steady(), monkeypatch)
    meter = Meter()
    meter.measure(8, {"torch": lambda: None}, lambda share: None)
    measured = meter.energy(captured("lenet-30-20", (1, 8, 8), 0.1))["measured"]
    assert measured is not None
    assert measured["rows"] == [
        {
            "batch": 8,
            "runtime": "torch",
            "joules_per_example": pytest.approx({"median": 0.5, "low": 0.3, "high": 0.7}),
            "watts": {"median": 10, "low": 10, "high": 10},
        }
    ]
    assert measured["idle_watts"] == {"median": 5, "low": 4, "high": 6}


@needs_engine
@pytest.mark.usefixtures("short")
def test_a_counter_that_fails_on_the_way_leaves_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    with_counter(Steady(fails_at=30), monkeypatch)  # in the second batch size
    network = captured("lenet-30-20", (1, 8, 8), 0.1)
    energy = measure(network, batches=(1, 2), rounds=1, runtimes=["torch"], memory=False)["energy"]
    assert (energy["measured"], energy["not_measured"]) == (None, "it is gone")
    assert energy["estimate"] is not None


def test_the_estimate_by_hand() -> None:
    """A convolution of 2 x 3 x 3 x 3 at 36 positions, 20 weights kept, and a dense layer of 5 x 72 with biases."""
    rng = np.random.default_rng(0)
    keep = np.zeros(54, bool)
    keep[rng.permutation(54)[:20]] = True
    conv = Weight.of("conv", rng.standard_normal((2, 3, 3, 3)), keep.reshape(2, 3, 3, 3))
    dense = Weight.of("fc", rng.standard_normal((5, 72)))
    layers = (
        Operation("conv2d", ("input",), "1", {}, {"weight": conv}),
        Operation("reshape", ("1",), "2", {"shape": [72]}),
        Operation("linear", ("2",), "3", {}, {"weight": dense, "bias": Weight.of("b", np.ones(5))}),
    )
    made = estimate(Network((3, 8, 8), layers))
    kept, whole = made["kept"], made["dense"]
    assert (kept["multiplications"], whole["multiplications"]) == (36 * 20 + 360, 36 * 54 + 360)
    assert kept["additions"] == kept["multiplications"]
    assert kept["weight_bytes"] == 20 * 6 + 4 * 365
    assert whole["weight_bytes"] == 4 * (54 + 365)
    # Horowitz 2014, figure 1.1.9: 3.7 and .9 pJ; 100 pJ for 8 bytes of 1 MB SRAM; 1.3 to 2.6 nJ for 8 bytes of DRAM.
    computed = 1080 * 4.6e-12
    assert kept["estimated_joules_of_operations"] == pytest.approx(computed, rel=5e-3)
    assert kept["estimated_joules_from_sram"] == pytest.approx(computed + 1580 / 8 * 1e-10, rel=5e-3)
    assert kept["estimated_joules_from_dram"]["low"] == pytest.approx(computed + 1580 / 8 * 1.3e-9, rel=5e-3)
    assert kept["estimated_joules_from_dram"]["high"] == pytest.approx(computed + 1580 / 8 * 2.6e-9, rel=5e-3)


def test_weights_too_large_for_the_sram_have_no_figure_for_it() -> None:
    fits = Network((512,), (Operation("linear", ("input",), "1", tensors={"weight": weight("w", 512, 512)}),))
    assert estimate(fits)["dense"]["estimated_joules_from_sram"] is not None  # 1 MB to the byte
    larger = Network(
        (512,), (Operation("linear", ("input",), "1", tensors={"weight": weight("w", 513, 512)}),)
    )
    assert estimate(larger)["dense"]["estimated_joules_from_sram"] is None


@needs_engine
def test_no_estimate_looks_like_a_measurement() -> None:
    network = captured("lenet-30-20", (1, 8, 8), 0.1)
    made = measure(network, batches=(1,), rounds=1, runtimes=["torch"], memory=False, energy=False)
    energy = made["energy"]
    assert energy["measured"] is None
    assert energy["not_measured"] == "it was not asked for"
    assert list(energy_rows(made)) == []
    said = list(energy_sentences(made))
    assert said[0].startswith("Energy is not measured: it was not asked for.")
    assert "≈" not in "".join(said)
    assert said[1].startswith("The joules above are an estimate by the energies of Horowitz 2014")
    rows = list(estimate_rows(made))
    assert ESTIMATE_HEAD[0] == "estimate, not measured"
    assert all(cell.startswith(("≈ ", "does not fit")) for row in rows for cell in row[1:])
    assert len(rows) == 3
    estimated = json.loads(json.dumps(energy["estimate"]))
    assert "not a measurement" in estimated["assumptions"]
    for part in ("kept", "dense"):
        joules = [key for key in estimated[part] if "joules" in key]
        assert len(joules) == 3
        assert all(key.startswith("estimated_") for key in joules)
