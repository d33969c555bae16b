"""A measurement in words and rows, as the command shows it."""

from __future__ import annotations

from collections.abc import Iterator

from winticket.ship.measure_runtimes import ENGINE
from winticket.ship.measure_timing import interval_called
from winticket.ship.measurement import Best, Estimated, Interval, Measurement, Timing
from winticket.ship.words import density_percent, kilobytes

ENERGY_HEAD = ("runtime", "batch", "joules/example, measured (95 %)", "watts, measured")
ESTIMATE_HEAD = ("estimate, not measured", "kept weights", "all weights")


def size_rows(made: Measurement) -> list[tuple[str, str]]:
    """(What, its size): of the file, of the network's tensors, and of its operations.

    >>> from winticket.ship.measure_text import number
    >>> number(26304.0), number(0.2066), number(3.14159)
    ('26 304', '0.21', '3.1')
    """
    files, share = made["bytes"], made["bytes"]["dense"] / made["bytes"]["compact"]
    part = made["dense_operations"] / max(made["operations"], 1)
    return [
        ("weights kept", f"{made['kept']} of {made['weights']} ({density_percent(made['density'])})"),
        (
            "compact file",
            f"{kilobytes(files['compact'])}; dense, in float32, {kilobytes(files['dense'])} ({number(share)} times)",
        ),
        (
            "operations of an example",
            f"{number(made['operations'])}; dense {number(made['dense_operations'])} ({number(part)} times)",
        ),
    ]


def number(value: float) -> str:
    """Two significant digits below 100, and groups of thousands above."""
    return f"{value:.2g}" if value < 100 else f"{value:,.0f}".replace(",", " ")


def time_rows(made: Measurement, batch: int) -> Iterator[tuple[str, ...]]:
    """Cells of `head` for every runtime at a batch size, the fastest first."""
    rows = [row for row in made["timings"] if row["batch"] == batch]
    for row in sorted(rows, key=lambda row: row["microseconds"]["median"]):
        memory = made["memory"].get(row["runtime"])
        yield (
            row["runtime"],
            _between(row["microseconds"]),
            number(row["per_second"]),
            "" if row["runtime"] == ENGINE else _between(row["engine_faster"], "×"),
            "" if memory is None else kilobytes(memory),
        )


def _between(of: Interval, unit: str = "") -> str:
    return f"{number(of['median'])}{unit} ({number(of['low'])}–{number(of['high'])})"


def head(made: Measurement) -> tuple[str, ...]:
    """Names of the columns of `time_rows`."""
    of = "95 %" if interval_called(made["rounds"]) != "range" else "range"
    return "runtime", f"µs ({of})", "examples/s", f"× engine ({of})", "memory"


def sentences(made: Measurement) -> Iterator[str]:
    """What the measurement says at each batch size, and what could not be measured."""
    called = interval_called(made["rounds"])
    for best in made["best"]:
        yield from _verdict(best, [row for row in made["timings"] if row["batch"] == best["batch"]], called)
    for name, reason in made["missing"].items():
        before = [str(row["batch"]) for row in made["timings"] if row["runtime"] == name]
        if before:
            yield f"Measured at batch {', '.join(before)} alone: {name}, since then {reason}."
        else:
            yield f"Not measured: {name}, since {reason}."


def how(made: Measurement) -> str:
    """How it was measured, in words."""
    return (
        f"Every time is the median of {made['rounds']} round{'s' if made['rounds'] > 1 else ''} in which all runtimes "
        f"take turns after a warm-up, with {made['threads']} thread{'s' if made['threads'] > 1 else ''} each, on "
        f"{made['processor']}. µs: of a call, with its {interval_called(made['rounds'])}. × engine: times as long as "
        "the sparse engine in the same rounds. Trust these ratios more than times."
    )


def energy_rows(made: Measurement) -> Iterator[tuple[str, ...]]:
    """Cells of `ENERGY_HEAD` for every runtime and batch size; none if energy was not measured."""
    measured = made["energy"]["measured"]
    for row in measured["rows"] if measured else ():
        of = row["joules_per_example"]
        yield (
            row["runtime"],
            str(row["batch"]),
            f"{joules(of['median'])} ({joules(of['low'])}–{joules(of['high'])})",
            number(row["watts"]["median"]),
        )


def energy_sentences(made: Measurement) -> Iterator[str]:
    """How energy was measured; or why not, and an estimate, which is called so in every sentence that has joules."""
    energy = made["energy"]
    if measured := energy["measured"]:
        idle = measured["idle_watts"]
        yield (
            f"Energy is measured by {measured['counters']}: median of {measured['rounds']} turns of "
            f"{measured['seconds']:g} s or more. It is that of the whole processor, other programs and "
            f"{number(idle['median'])} watts at rest ({number(idle['low'])}–{number(idle['high'])}) included."
        )
    if estimate := energy["estimate"]:
        kept, dense = estimate["kept"], estimate["dense"]
        yield (
            f"Energy is not measured: {energy['not_measured']}. An example takes {number(kept['multiplications'])} "
            f"multiplications and as many additions, and reads {kilobytes(kept['weight_bytes'])} of weights; dense "
            f"{number(dense['multiplications'])} and {kilobytes(dense['weight_bytes'])}."
        )
        yield f"The joules above are {estimate['assumptions']}."


def estimate_rows(made: Measurement) -> Iterator[tuple[str, ...]]:
    """Cells of `ESTIMATE_HEAD`; none if energy was measured."""
    if estimate := made["energy"]["estimate"]:
        columns = [list(_estimated(estimate["kept"])), list(_estimated(estimate["dense"]))]
        names = "operations alone", "with weights in SRAM", "with weights in DRAM"
        yield from zip(names, *columns, strict=True)


def _estimated(of: Estimated) -> Iterator[str]:
    sram, dram = of["estimated_joules_from_sram"], of["estimated_joules_from_dram"]
    yield f"≈ {joules(of['estimated_joules_of_operations'])}"
    yield "does not fit" if sram is None else f"≈ {joules(sram)}"
    yield f"≈ {joules(dram['low'])} to {joules(dram['high'])}"


def joules(value: float) -> str:
    """An amount of energy with two digits and a fitting unit.

    >>> [joules(value) for value in (0.0, 2.345e-8, 1.5e-5, 0.5, 12.0)]
    ['0 J', '23 nJ', '15 µJ', '500 mJ', '12 J']
    """
    for size, unit in ((1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ"), (1e-9, "nJ"), (1e-12, "pJ")):
        if value >= size:
            return f"{float(f'{value / size:.2g}'):g} {unit}"
    return f"{float(f'{value:.2g}'):g} J"


def _verdict(best: Best, rows: list[Timing], called: str) -> Iterator[str]:
    """called: what intervals are, as `interval_called` says."""
    batch, other, against = f"Batch {best['batch']}", best["other"], best["engine_faster"]
    if other is None or against is None:
        yield (
            f"{batch}: there is nothing to compare the sparse engine with; no other runtime in float32 was measured."
        )
        return
    interval = _interval(against, called)
    if best["verdict"] == "faster":
        yield (
            f"{batch}: the sparse engine is {number(against['median'])} times as fast as {other}, the fastest other "
            f"runtime in float32 {interval}."
        )
    elif best["verdict"] == "slower":
        dense = next(row["dense"] for row in rows if row["runtime"] == other)
        yield (
            f"{batch}: no faster than {'dense' if dense else other} here. {other} takes {number(against['median'])} "
            f"times as long {interval}."
        )
    else:
        yield (
            f"{batch}: no faster than {other} here: it takes {number(against['median'])} times as long as the sparse "
            f"engine, and the interval includes 1 {interval}."
        )
    yield from _beside(batch, other, rows, called)


def _beside(batch: str, other: str, rows: list[Timing], called: str) -> Iterator[str]:
    """What the fastest other runtime in float32 does not say: of the fastest dense one, and of those in bfloat16."""
    dense = [row for row in rows if row["exact"] and row["dense"] and row["runtime"] != ENGINE]
    fastest = min(dense, key=lambda row: row["microseconds"]["median"], default=None)
    if fastest is not None and fastest["runtime"] != other and fastest["engine_faster"]["low"] <= 1:
        share = fastest["engine_faster"]
        yield (
            f"{batch}: no faster than dense here either. {fastest['runtime']} takes {number(share['median'])} times as "
            f"long {_interval(share, called)}."
        )
    for row in rows:
        share = row["engine_faster"]
        if not row["exact"] and share["median"] < 1:
            yield (
                f"{batch}: {row['runtime']} takes {number(share['median'])} times as long as the sparse engine "
                f"{_interval(share, called)}. It may round to bfloat16: outputs differ by "
                f"{100 * row['difference']:.2g} % of the largest."
            )


def _interval(of: Interval, called: str) -> str:
    return f"({called} {number(of['low'])} to {number(of['high'])})"
