"""python -m chaos [--seed N] [--many N] [--only NAME] [--write]: see docs/reliability.md."""

from __future__ import annotations

import argparse
import importlib
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from chaos.counts import Count
from winticket.version import __version__

PARTS = {
    "files": 30_000,
    "documents": 30_000,
    "networks": 40_000,
    "caches": 30_000,
    "kills": 100,
    "faults": 100,
    "pairs": 100,
    "workers": 200,
    "outages": 40,
    "heads": 20,
}
PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m chaos", description="Make trouble and count its effects."
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--many", type=float, default=1.0, help="multiply the default number of trials by this"
    )
    parser.add_argument("--only", choices=PARTS, help="run only this part")
    parser.add_argument("--write", action="store_true", help=f"renew the table in {PAGE.name}")
    arguments = parser.parse_args()
    if arguments.write and arguments.only:
        parser.error("--write needs all parts; leave --only out")
    counts: list[Count] = []
    began = time.monotonic()
    for name, usual in PARTS.items():
        if arguments.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="winticket-chaos-") as scratch:
                part = importlib.import_module(f"chaos.{name}")
                counts += part.run(
                    Path(scratch), arguments.seed, max(1, int(usual * arguments.many)), _say(began)
                )
    table = _table(counts)
    sys.stdout.write(table + "\n")
    for count in counts:
        for note in count.notes:
            sys.stdout.write(f"{note}\n")
    if arguments.write:
        versions = f"winticket {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
        circumstances = f"Seed {arguments.seed}, {_processor()}, {versions}."
        text = PAGE.read_text(encoding="utf-8")
        block = f"\n{table}\n\n{circumstances}\n\n"
        text = re.sub(r"(<!-- chaos -->\n).*?(<!-- end -->)", rf"\g<1>{block}\g<2>", text, flags=re.DOTALL)
        PAGE.write_text(text, encoding="utf-8")
    return 0 if all(count.sound() for count in counts) else 1


def _say(began: float) -> Callable[[str], None]:
    def say(text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:5.0f} s  {text}\n")

    return say


def _table(counts: list[Count]) -> str:
    lines = ["| trouble | tried | silent | raw | lost | twice |", "|---|---|---|---|---|---|"]
    lines += [f"| {c.what} | {c.tried:,} | {c.silent} | {c.raw} | {c.lost} | {c.twice} |" for c in counts]
    return "\n".join(lines)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


if __name__ == "__main__":
    sys.exit(main())
