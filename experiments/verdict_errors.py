"""Simulate how often the verdict is wrong and how often it finds a ticket: the tables of docs/verdict.md.

python experiments/verdict_errors.py docs/verdict.md          # some minutes on one core; without a file it prints them
python experiments/verdict_errors.py docs/verdict.md metrics  # one table alone
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from winticket.judge.looks import share
from winticket.judge.simulate import DIGITS, Scenario, boundary_truths, decisions, draw, rates
from winticket.judge.simulate_metrics import MetricScenario, metric_rates, metric_truths

EXPERIMENTS = 20_000
LEVELS = 8
DENSITIES = tuple(0.8**k for k in range(1, LEVELS + 1))
REPLICATES = (5, 6, 8, 10, 20, 30)
LOOKS = (5, 10, 15, 20, 25, 30)
TEST_EXAMPLES = (100, 450, 1000, 10_000)


def false_wins(truth: Scenario, *, replicates: int | tuple[int, ...], test_examples: int) -> float:
    """The share of false wins, the larger one of two kinds of noise: networks differ by .3 pp, or only test sets do."""
    return max(
        rates(
            replace(truth, noise=noise),
            replicates=replicates,
            experiments=EXPERIMENTS,
            seed=1,
            test_examples=test_examples,
        ).false_win
        for noise in ("normal", "sampled")
    )


def error_tables() -> list[str]:
    lines, largest = [], 0.0
    for test_examples in TEST_EXAMPLES:
        lines += [f"**{test_examples:,} test examples**", ""]
        lines += ["| truth | " + " | ".join(f"n = {n}" for n in REPLICATES) + " | six looks, 5 to 30 |"]
        lines += ["|---|" + "---|" * (len(REPLICATES) + 1)]
        for name, accuracy in boundary_truths(LEVELS).items():
            truth = Scenario(DENSITIES, accuracy)
            parts = [
                false_wins(truth, replicates=n, test_examples=test_examples) for n in (*REPLICATES, LOOKS)
            ]
            largest = max(largest, *parts)
            lines.append(f"| {name} | " + " | ".join(f"{100 * part:.1f}" for part in parts) + " |")
            sys.stderr.write(f"{test_examples} {lines[-1]}\n")
        lines.append("")
    error = (largest * (1 - largest) / EXPERIMENTS) ** 0.5
    lines += [
        f"Each cell gives the false wins in percent of {EXPERIMENTS:,} simulated experiments with {LEVELS} levels "
        "each, for the kind of noise that gives more of them. "
        f"The largest is {100 * largest:.2f} % (95 % interval up to {100 * (largest + 1.96 * error):.2f} %).",
        "",
    ]
    return lines


def won_small(truth: Scenario, *, replicates: int, test_examples: int | None) -> float:
    """Share of experiments that win at a density of .12 or less, at their first look."""
    drawn = draw(
        truth,
        replicates=replicates,
        experiments=EXPERIMENTS,
        seed=replicates,
        test_examples=test_examples,
    )
    decided = decisions(drawn, margin_pp=0.5, alpha=0.05 * share(1), test_examples=test_examples)
    small = [density <= 0.12 for density in truth.densities]
    return float(decided.claimed[:, small].any(axis=-1).mean())


def power_table() -> list[str]:
    collapsing = Scenario(
        (*DIGITS.densities, 0.02),
        {arm: (*mean, 0.9842 if arm == "dense" else 0.15) for arm, mean in DIGITS.accuracy.items()},
    )
    lines = [
        "| replicates | won at .11 or less | with a collapsing level more | on 450 test examples |",
        "|---|---|---|---|",
    ]
    for n in (5, 6, 7, 8, 10):
        cells = []
        for truth, test_examples in ((DIGITS, None), (collapsing, None), (DIGITS, 450)):
            cells.append(f"{won_small(truth, replicates=n, test_examples=test_examples):.3f}")
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
        sys.stderr.write(f"{lines[-1]}\n")
    return [*lines, ""]


def collapse_table() -> list[str]:
    single = boundary_truths(2)["everything equal"]
    means = {arm: (0.9 if arm in ("dense", "ticket") else 0.85,) for arm in single}
    lines = ["| replicates | false wins | no collapse seen |", "|---|---|---|"]
    for n in (5, 10, 20, 40):
        truth = Scenario((0.2,), means, collapse=0.05)
        wrong = rates(truth, replicates=n, experiments=EXPERIMENTS, seed=n).false_win
        lines.append(f"| {n} | {100 * wrong:.0f} % | {100 * 0.95**n:.0f} % |")
    return [*lines, ""]


def metric_scenarios(
    metric: Literal["RMSE", "average precision"], spread: float, *, ticket_alone: bool, relative: bool
) -> Iterator[tuple[str, MetricScenario]]:
    """Every truth, with a margin of one and a half standard deviations of the paired difference."""
    dense, size = (2.0, 2.0) if metric == "RMSE" else (0.95, 0.05)
    margin = 1.5 * spread * size
    for name, mean in metric_truths(metric, LEVELS, margin=margin).items():
        yield (
            name,
            MetricScenario(
                metric,
                mean,
                margin / dense if relative else margin,
                relative,
                spread=0.01 if ticket_alone else spread,
                ticket_spread=spread,
            ),
        )


METRICS: tuple[tuple[Literal["RMSE", "average precision"], float], ...] = (
    *(("RMSE", spread) for spread in (0.02, 0.1, 0.3, 0.5)),
    *(("average precision", spread) for spread in (0.1, 0.2, 0.5)),
)


def metric_table() -> list[str]:
    """The most false wins of the boundary's truths, and the wins if every level holds a winning ticket."""
    lines = [
        "| metric | sd of a value | only tickets vary | false wins, absolute margin (n = 5, 10, 20) "
        "| relative margin | wins, absolute margin (n = 5, 10, 20) | relative margin |",
        "|---|---|---|---|---|---|---|",
    ]
    for metric, spread in METRICS:
        for ticket_alone in (False, True):
            wrong, right = [], []
            for relative in (False, True):
                by_n = [
                    {
                        name: metric_rates(one, replicates=n, experiments=EXPERIMENTS, seed=n)
                        for name, one in metric_scenarios(
                            metric, spread, ticket_alone=ticket_alone, relative=relative
                        )
                    }
                    for n in (5, 10, 20)
                ]
                wrong.append(", ".join(f"{100 * max(r.false_win for r in x.values()):.1f}" for x in by_n))
                right.append(", ".join(f"{100 * x['winning tickets'].win:.0f}" for x in by_n))
            of = "of its mean" if metric == "RMSE" else "of its distance from 1"
            lines.append(
                f"| {metric} | {100 * spread:.0f} % {of} | {'yes' if ticket_alone else 'no'} | "
                + " | ".join((*wrong, *right))
                + " |"
            )
            sys.stderr.write(f"{lines[-1]}\n")
    return [*lines, ""]


TABLES = {"errors": error_tables, "power": power_table, "collapse": collapse_table, "metrics": metric_table}


def main() -> None:
    page, *wanted = sys.argv[1:] or ("",)
    write({name: TABLES[name]() for name in wanted or TABLES}, page)


def write(tables: dict[str, list[str]], path: str) -> None:
    """The tables into their blocks of the page; on the screen if there is no page."""
    if not path:
        sys.stdout.write("\n".join(line for table in tables.values() for line in table))
        return
    page = Path(path)
    text = page.read_text(encoding="utf-8")
    for name, lines in tables.items():
        block = "\n".join(["", *lines])
        text = re.sub(rf"(<!-- {name} -->\n).*?(<!-- end -->)", rf"\g<1>{block}\g<2>", text, flags=re.DOTALL)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
