"""Why tickets win: what the analyses say of runs on digits, MNIST and CIFAR-10, with intervals.

python experiments/understanding.py                           # all of it; prints
python experiments/understanding.py docs/evidence.md          # writes the parts that the page has marks for
python experiments/understanding.py docs/evidence.md digits   # one part: digits, signs, mnist, barriers or cifar10

On two cores, digits, signs, mnist and barriers take some twenty minutes together, and cifar10 as long again. Everything
is stored, so a second call computes what is missing. MNIST and CIFAR-10 are loaded from the Hub;
`WINTICKET_MNIST` and `WINTICKET_CIFAR10` may name local folders of their parquet files instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import winticket
from winticket import judge
from winticket.analyse.barriers import MATCHES
from winticket.experiment import Execution, Experiment, Run, conduct
from winticket.table import Table

STORE = Path("runs/understanding")
CIFAR10 = os.environ.get("WINTICKET_CIFAR10", "cifar10")
MNIST = os.environ.get("WINTICKET_MNIST", "mnist")
Options = Mapping[str, Mapping[str, Any]]


def run(name: str, experiment: Experiment) -> Run:
    """The run of an experiment, resumed if it was stopped."""
    sys.stderr.write(f"{name}: search\n")
    conduct(experiment, store=STORE / "store", out=STORE / name)
    return winticket.open(STORE / name)


def said(of: Run, options: Options) -> list[str]:
    """A list entry for each analysis: its question and its answers."""
    lines = []
    for name, chosen in options.items():
        sys.stderr.write(f"{of.folder.name}: {name}\n")
        (made,) = of.analyse(name, options={name: chosen}, execution=Execution.local(of.store.path))
        answer = " ".join(made.sentences) if made.reason is None else f"Not analysed: {made.reason}."
        lines.append(f"- **{made.analysis.title}** {answer}")
    return lines


def digits() -> list[str]:
    """The default search: overlap, barriers, and the information plane, whose estimators differ."""
    return said(*_digits())


def _digits() -> tuple[Run, Options]:
    made = run("digits", Experiment.of("digits"))
    return made, {"overlap": {}, "barriers": {"replicates": 30}, "instability": {}, "information": {}}


def mnist() -> list[str]:
    """A short search of LeNet-300-100 down to 2 % of the weights."""
    return said(*_mnist())


def _mnist() -> tuple[Run, Options]:
    chosen = {"model": "lenet-300-100", "init": "glorot-normal", "steps": 1200, "schedule": "cosine"}
    experiment = Experiment.of(
        MNIST, **chosen, rate=0.35, levels=9, replicates=5, controls=("random",), gate=False, validation=5000
    )
    options = {"instability": {"shares": (0.0, 0.02, 0.1)}, "barriers": {}, "overlap": {}}
    return run("mnist", experiment), options


def barriers() -> list[str]:
    """The barrier between every level and the network before it, and whether the level matches, on digits and MNIST."""
    tables = []
    for title, (made, options) in {"digits": _digits(), "MNIST": _mnist()}.items():
        chosen = options["barriers"]
        sys.stderr.write(f"{made.folder.name}: barriers\n")
        (found,) = made.analyse(
            "barriers", options={"barriers": chosen}, execution=Execution.local(made.store.path)
        )
        tables.append("\n".join(by_level(title, found.table)))
    return ["\n\n".join(tables)]


def by_level(title: str, table: Table) -> list[str]:
    """The levels of a run, as `barriers` finds them, in Markdown."""
    lines = [
        f"| {title}: weights kept | error rises on the line from the network before, pp | accuracy below the dense "
        "network's, pp | replicates that match | the level matches |",
        "|---|---|---|---|---|",
    ]
    for density in dict.fromkeys(table.column("density")):
        rows = table.where(density=density)
        rises = [100 * float(value) for value in rows.numbers("error_rise")]
        gaps = [100 * float(gap) for gap in rows.numbers("dense_accuracy") - rows.numbers("accuracy")]
        low, high = judge.mean_interval(rises) or (float("nan"),) * 2
        matching = sum(bool(one) for one in rows.column("matches"))
        level = "yes" if sum(gaps) / len(gaps) <= 100 * MATCHES + 1e-7 else "no"
        cells = (_cell(rises, max(low, 0.0), high), _interval(gaps), f"{matching} of {len(rows)}", level)
        lines.append(f"| {100 * float(str(density)):.3g} % | {' | '.join(cells)} |")
    return lines


def cifar10() -> list[str]:
    """The dense network alone: a small ResNet with BatchNorm, split ever later in its training."""
    chosen = {"model": "resnet-8-8", "optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
    data = {"batch": 64, "steps": 400, "schedule": "cosine", "crop": 4, "flip": True, "test": 2000}
    experiment = Experiment.of(
        CIFAR10,
        **chosen,
        **data,
        levels=1,
        replicates=4,
        stack=2,
        controls=(),
        gate=False,
        validation=500,
        evaluate_every=400,
        early_points=False,
    )
    made = run("cifar10", experiment)
    instability = {"shares": (0.0, 0.05, 0.15, 0.4), "ticket_shares": (), "points": 7}
    lines = said(made, {"instability": instability})
    (found,) = made.analyse("instability", options={"instability": instability})
    return [*lines, "", *by_share(found.table)]


def by_share(table: Table) -> list[str]:
    """The barrier of the dense network by the step of the split, in Markdown."""
    lines = ["| split at step | share of the training | error barrier, pp | |", "|---|---|---|---|"]
    for step in dict.fromkeys(table.column("step")):
        rows = table.where(step=step)
        values = [100 * float(value) for value in rows.numbers("error_barrier")]
        low, high = judge.mean_interval(values) or (float("nan"),) * 2
        share = 100 * float(rows.numbers("share")[0])
        stable = "stable" if sum(values) / len(values) < 2 else "not stable"
        lines.append(f"| {step} | {share:g} % | {_cell(values, max(low, 0.0), high)} | {stable} |")
    return lines


def signs() -> list[str]:
    """How many kept weights have lost their initial sign, by level: when weights are rewound, or the learning rate."""
    chosen = {"replicates": 10, "stack": 5, "controls": (), "gate": False}
    runs = {
        rewind: run(f"signs-{rewind}", Experiment.of("digits", **chosen, rewind=rewind))
        for rewind in ("to_init", "learning_rate")
    }
    lines = [
        "| weights kept | rewinding weights | rewinding the learning rate | difference |",
        "|---|---|---|---|",
    ]
    for level, density in enumerate(runs["to_init"].densities):
        if level % 3 or not level:
            continue
        lost = {rewind: [flipped(of, level, r) for r in range(10)] for rewind, of in runs.items()}
        gaps = [new - old for old, new in zip(lost["to_init"], lost["learning_rate"], strict=True)]
        cells = [_interval(values) for values in (lost["to_init"], lost["learning_rate"], gaps)]
        lines.append(f"| {100 * density:.3g} % | {' | '.join(cells)} |")
    return lines


def flipped(of: Run, level: int, replicate: int) -> float:
    """Percent of a level's kept weights that end with another sign than the dense network started with."""
    end = of.training("ticket", level=level, replicate=replicate)
    init = of.training("dense", level=0, replicate=replicate).start.weights
    changed = kept = 0
    for name, keep in end.mask.keep.items():
        chosen = keep.to(torch.bool)
        changed += int((end.weights[name][chosen] * init[name][chosen] < 0).sum())
        kept += int(chosen.sum())
    return 100 * changed / kept


def _interval(values: list[float]) -> str:
    low, high = judge.mean_interval(values) or (float("nan"),) * 2
    return _cell(values, low, high)


def _cell(values: list[float], low: float, high: float) -> str:
    return f"{sum(values) / len(values):.2f} ({low:.2f} to {high:.2f})".replace("-", "−")


PARTS: dict[str, Callable[[], list[str]]] = {
    "digits": digits,
    "signs": signs,
    "mnist": mnist,
    "barriers": barriers,
    "cifar10": cifar10,
}


def _mark(name: str) -> str:
    """The line of a page after which a part stands."""
    return f"<!-- understanding {name} -->"


def main() -> None:
    chosen = [word for word in sys.argv[1:] if word in PARTS]
    pages = [Path(word) for word in sys.argv[1:] if word not in PARTS]
    if len(pages) > 1 or not all(page.is_file() for page in pages):
        sys.exit(f"Give at most one existing page, and parts of {', '.join(PARTS)}; this is {sys.argv[1:]}")
    text_of_page = pages[0].read_text(encoding="utf-8") if pages else ""
    for name in chosen or [name for name in PARTS if not pages or _mark(name) in text_of_page]:
        text = "\n".join(PARTS[name]())
        if not pages:
            sys.stdout.write(f"{name}\n\n{text}\n\n")
            continue
        before, mark, rest = pages[0].read_text(encoding="utf-8").partition(_mark(name))
        if not mark:
            sys.exit(f"{pages[0]} has no line {_mark(name)}; the part was computed, and is stored")
        _, end, after = rest.partition("<!-- end -->")
        pages[0].write_text(f"{before}{mark}\n\n{text}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
