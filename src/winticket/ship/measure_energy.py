"""Joules per example by the processor's energy counters, which codecarbon reads, if this machine has readable ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from winticket.ship.measure_estimate import estimate
from winticket.ship.measure_timing import Call, Median, median
from winticket.ship.measurement import Energy, EnergyRow, Interval
from winticket.ship.network import Network

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows the counters (Intel RAPL, which AMD's processors have as well)."""
ROUNDS = 7
"""Turns of each runtime: with seven, the range is an interval of the median at 95 % or more (98.4 %)."""
STRETCH = 0.3
"""Seconds of a turn at least. Counters are renewed every millisecond or so, so a turn is read to better than 1 %."""
JOULES = 3.6e6
"""Of a kWh, in which codecarbon counts."""
_DOMAINS = ("intel-rapl*/energy_uj", "intel-rapl*/intel-rapl*/energy_uj")


class NoCounters(RuntimeError):  # noqa: N818 - nothing is wrong
    """There is no energy counter that can be read; the message says why, as the rest of a sentence."""


class Counter(Protocol):
    """Counts joules. what: which counters, in words."""

    what: str

    def start(self) -> None:
        """Count from now on."""

    def joules(self, seconds: float) -> float:
        """Those since the start, which was `seconds` ago. NoCounters if there is no reading."""


class Rapl:
    """The counters of whole processor packages under a powercap folder, as codecarbon reads them.

    codecarbon also offers joules where there are no counters, guessed from the processor's nominal power. Nothing of
    that is used: only its reader of counters (`IntelRAPL`). Raises NoCounters if there are none that can be read.
    """

    def __init__(self, folder: Path) -> None:
        _check_readable(folder)
        try:
            release = version("codecarbon")
        except PackageNotFoundError:
            raise NoCounters(
                "codecarbon, which reads the energy counters of this machine, is not installed: "
                "pip install 'winticket[energy]'"
            ) from None
        try:
            with _quiet():
                self._reader: Any = import_module("codecarbon.core.cpu").IntelRAPL(rapl_dir=str(folder))
            self._seconds: Callable[[float], Any] = import_module("codecarbon.core.units").Time.from_seconds
        except Exception as error:  # whatever a library that is not ours may raise
            raise NoCounters(f"codecarbon {release} fails: {type(error).__name__}: {error}") from error
        self.what = f"Intel RAPL of whole processor packages, read by codecarbon {release}"

    def start(self) -> None:
        """Count from now on."""
        with _quiet():
            self._reader.start()

    def joules(self, seconds: float) -> float:
        """Those of all packages since the start."""
        with _quiet():
            details = self._reader.get_cpu_details(self._seconds(seconds))
        # Only whole packages (or the whole platform) have such a name; parts of them would be counted twice.
        counted = [energy for name, energy in details.items() if "Energy" in name]
        if not counted:
            raise NoCounters(f"no counter under {POWERCAP} is of a whole processor package")
        if min(counted) <= 0:  # what codecarbon gives for a reading that failed: no processor takes no energy
            raise NoCounters(f"an energy counter did not move for {seconds:.2g} seconds")
        return JOULES * float(sum(counted))


def _check_readable(folder: Path) -> None:
    """NoCounters if there are no counters, or none that this user may read."""
    files = [file for pattern in _DOMAINS for file in folder.glob(pattern)]
    if not files:
        raise NoCounters(
            f"this machine shows no energy counters (Intel RAPL, under {folder}), as most virtual machines"
        )
    for file in files:
        try:
            float(file.read_text())
        except (OSError, ValueError):
            continue
        return
    raise NoCounters(
        f"the energy counters under {folder} cannot be read by this user; if you may: sudo chmod -R a+r {folder}/*"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """codecarbon's remarks are for those who run it; what matters here is raised."""
    logger = logging.getLogger("codecarbon")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@dataclass(frozen=True)
class Turns:
    """What the turns of one batch size gave, round by round: joules of a call and watts, by runtime; watts at rest."""

    joules: Mapping[str, list[float]]
    watts: Mapping[str, list[float]]
    idle: list[float]


def turns(
    calls: Mapping[str, Call],
    counter: Counter,
    *,
    progress: Callable[[float], object] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
    rest: Callable[[float], object] = time.sleep,
) -> Turns:
    """Let every computation take its turn in each of ROUNDS rounds, in rotating order, and rest in each round once.

    A turn begins with a call that does not count and then lasts STRETCH seconds or one call. clock: seconds, not those
    of the process, since the counters run on. rest: waits for so many seconds.

    >>> class Battery:
    ...     what, now = "of an example", 0.0
    ...     def start(self): self.began = self.now
    ...     def joules(self, seconds): return 5.0 * (self.now - self.began)
    >>> battery = Battery()
    >>> def wait(seconds): battery.now += seconds
    >>> made = turns({"a": lambda: wait(0.1)}, battery, clock=lambda: battery.now, rest=wait)
    >>> round(made.joules["a"][0], 6), round(made.watts["a"][0], 6), round(made.idle[0], 6)
    (0.5, 5.0, 5.0)
    """
    order = list(calls)
    joules: dict[str, list[float]] = {name: [] for name in order}
    watts: dict[str, list[float]] = {name: [] for name in order}
    idle: list[float] = []
    for done in range(ROUNDS):
        at = done % len(order)
        for name in order[at:] + order[:at]:
            calls[name]()
            taken, seconds, count = _turn(calls[name], counter, clock)
            joules[name].append(taken / count)
            watts[name].append(taken / seconds)
        counter.start()
        began = clock()
        rest(STRETCH)
        seconds = clock() - began
        idle.append(counter.joules(seconds) / seconds)
        progress((done + 1) / ROUNDS)
    return Turns(joules, watts, idle)


def _turn(call: Call, counter: Counter, clock: Callable[[], float]) -> tuple[float, float, int]:
    """(Joules, seconds, calls) of one turn."""
    count = 0
    counter.start()
    began = clock()
    while True:
        call()
        count += 1
        seconds = clock() - began
        if seconds >= STRETCH:
            return counter.joules(seconds), seconds, count


class Meter:
    """Measures the joules of one batch size after the other, if it can; `energy` says what came of it.

    wanted: False measures nothing.
    """

    def __init__(self, *, wanted: bool = True) -> None:
        self.counter: Counter | None = None
        self.reason: str | None = "it was not asked for"
        self._rows: list[EnergyRow] = []
        self._idle: list[float] = []
        if wanted:
            try:
                self.counter, self.reason = Rapl(POWERCAP), None
            except NoCounters as reason:
                self.reason = str(reason)

    def measure(self, batch: int, calls: Mapping[str, Call], progress: Callable[[float], object]) -> None:
        """Take the turns of computations that compute `batch` examples in a call. Without counters it does nothing."""
        if self.counter is None:
            return
        try:
            made = turns(calls, self.counter, progress=progress)
        except NoCounters as reason:  # then there is no row at all, rather than some of them
            self.counter, self.reason = None, str(reason)
            return
        self._idle += made.idle
        for name in calls:
            self._rows.append(
                {
                    "batch": batch,
                    "runtime": name,
                    "joules_per_example": _interval(median([j / batch for j in made.joules[name]])),
                    "watts": _interval(median(made.watts[name])),
                }
            )

    def energy(self, network: Network) -> Energy:
        """What was measured; else why not, and an estimate."""
        if self.counter is None or not self._rows:
            return {"measured": None, "not_measured": self.reason, "estimate": estimate(network)}
        return {
            "measured": {
                "counters": self.counter.what,
                "rounds": ROUNDS,
                "seconds": STRETCH,
                "idle_watts": _interval(median(self._idle)),
                "rows": self._rows,
            },
            "not_measured": None,
            "estimate": None,
        }


def seconds(count: int) -> float:
    """About how long the turns of `count` runtimes take at one batch size.

    >>> round(seconds(2), 1)
    6.3
    """
    return ROUNDS * (count + 1) * STRETCH


def _interval(of: Median) -> Interval:
    return {"median": of.middle, "low": of.low, "high": of.high}
