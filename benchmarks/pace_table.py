"""Print the steps to an accuracy of a finished experiment as a Markdown table, for docs/evidence.md.

    python benchmarks/pace_table.py runs/mnist-pace [0.95]

Takes the folder of a result (or its result.json), and the target as a share of the dense network's final accuracy. The
table has medians, and below each the ratio to the dense network's steps with its 95 % interval.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winticket.report.pace import pace_cell


def interval(entry: Mapping[str, Any]) -> str:
    """A median with its interval, as 16 (14 to 24); the end is open if no replicate bounds it."""
    if entry["median"] is None:
        return "never"
    low, high = entry["ci"] or (None, None)
    return f"{entry['median']:g}" + (
        "" if low is None else f" ({low:g} to {'–' if high is None else f'{high:g}'})"
    )


def table(document: Mapping[str, Any], target: str) -> str:
    """One row per density, one column per arm."""
    pruned = [level for level in document["levels"] if level["density"] < 1]
    arms = list(dict.fromkeys(arm for level in pruned for arm in level["arms"]))
    dense = document["levels"][0]["arms"]["dense"]["steps_to"][target]
    lines = [
        f"Dense network: {interval(dense)} steps to {100 * float(target):g} % of its final accuracy.",
        "",
        "| density | " + " | ".join(arms) + " |",
        "|---" * (len(arms) + 1) + "|",
    ]
    for level in pruned:
        cells = ["<br>".join(pace_cell(level["arms"].get(arm), float(target))) for arm in arms]
        lines.append(f"| {level['density']:.3f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path)
    parser.add_argument("target", nargs="?", default="0.95", choices=["0.9", "0.95", "0.98", "0.99", "1"])
    arguments = parser.parse_args()
    path = arguments.result / "result.json" if arguments.result.is_dir() else arguments.result
    print(table(json.loads(path.read_text()), arguments.target))
