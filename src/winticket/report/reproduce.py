"""How to run an experiment again: the command with every option that had an effect, and the versions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, cast

from winticket.report.elements import section
from winticket.report.reading import is_transfer, question_of
from winticket.report.settings import idle
from winticket.results import Document, Question

FLAGS = {"controls": "--control", "margin_pp": "--margin", "milestones": "--milestone"}
"""Options whose flags are not their names."""
SWITCHES = frozenset(("gate", "precision_check", "nesterov", "early_points", "flip"))
NO_OPTION = frozenset(("data", "arms", "source", "carried"))
OF_TRANSFER = frozenset(
    ("model", "controls", "replicates", "margin_pp", "alpha", "gate", "precision_check", "split", "validation", "test")
)  # fmt: skip
"""What a transfer chooses besides its recipe; everything else is its source's."""
OF_SEARCH = frozenset(
    ("init", "method", "criterion", "allocate", "rewind", "rewind_step", "every", "search_lr", "levels", "rate",
     "pruning", "final_density", "density", "output_rate", "conv_rate", "include", "exclude", "seed", "stack")
)  # fmt: skip
FOLDER = "source"
LONGEST_LINE = 88


def reproduction(document: Document) -> str:
    """The section on how to run the experiment again."""
    question = question_of(document)
    if not question.get("data"):
        return ""
    environment = document.get("environment") or {}
    versions = ", ".join(
        f"{name} {environment[name]}" for name in ("python", "torch", "numpy") if environment.get(name)
    )
    same = (
        "The same command with the same versions gives the same numbers on the same kind of processor; other versions "
        "may change the last digits, and with them which weights are pruned. "
    )
    typed = "\n".join(_in_lines(command) for command in _commands(document))
    used = f"It was run with winticket {document.get('winticket', '–')}" + (
        f" and {versions}." if versions else "."
    )
    return section(
        "Run it again",
        f"<p>{escape(same + used)} Every option that had an effect is spelt out.</p>",
        f"<pre><code>{escape(typed)}</code></pre>",
    )


def _in_lines(command: Sequence[str]) -> str:
    """A long command over several lines, which a shell joins, broken between its parts, which are options."""
    lines = [""]
    for part in command:
        if len(lines[-1]) + len(part) > LONGEST_LINE:
            lines.append("")
        lines[-1] += f" {part}" if lines[-1] else part
    return " \\\n  ".join(lines)


def commands(document: Document) -> list[str]:
    """The commands that run the experiment again, one or, for a transfer, two.

    >>> question = {"data": "digits", "model": "lenet-20", "levels": 2, "rate": 0.2, "gate": False, "momentum": 0.0}
    >>> commands({"experiment": question})
    ['winticket find digits --model lenet-20 --levels 2 --rate 0.2 --no-gate']
    """
    return [" ".join(parts) for parts in _commands(document)]


def _commands(document: Document) -> list[list[str]]:
    """The same, each as its parts: the command itself, then one per option."""
    question = question_of(document)
    if not is_transfer(document):
        return [_search(question)]
    source = question["source"]
    chosen = {name: value for name, value in question.items() if name not in OF_SEARCH}
    chosen = {
        name: value for name, value in chosen.items() if name in OF_TRANSFER or value != source.get(name)
    }
    densities = [level["density"] for level in document["levels"] if level["density"] < 1]
    picked = [f"--density {density:.6g}" for density in densities]
    to = [] if question["data"] == source["data"] else [f"--to {shlex.quote(str(question['data']))}"]
    options = [*to, *picked, *_options(cast("Question", chosen))]
    return [
        [*_search(source), f"--out {FOLDER}"],
        [f"winticket transfer {FOLDER}", *options],
    ]


def _search(question: Question) -> list[str]:
    """The command that searches as a question asks, as its parts."""
    return [f"winticket find {shlex.quote(str(question['data']))}", *_options(question)]


def _options(question: Question) -> list[str]:
    values = cast("Mapping[str, Any]", question)
    typed: list[str] = []
    for name, value in values.items():
        flag = FLAGS.get(name, "--" + name.replace("_", "-"))
        if name == "controls" and value == []:
            typed.append("--control none")
        if name in NO_OPTION or idle(name, value, question) or _replaced(name, values):
            continue
        if name in SWITCHES:
            typed.append(flag if value else f"--no-{flag.removeprefix('--')}")
        elif isinstance(value, list):
            typed += [f"{flag} {_typed(item)}" for item in value]
        else:
            typed.append(f"{flag} {_typed(value)}")
    return typed


def _replaced(name: str, values: Mapping[str, Any]) -> bool:
    """Whether another option stands in this one's place: densities in that of levels."""
    if values.get("density"):
        return name in ("levels", "rate", "final_density", "pruning")
    return name == "rate" and values.get("final_density") is not None


def _typed(value: object) -> str:
    return shlex.quote(repr(value) if isinstance(value, float) else str(value))
