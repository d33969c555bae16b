"""`winticket store ls`, `verify` and `gc`, which look after results, and `winticket info`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from winticket.cli.answers import flowing, print_json, request, show
from winticket.cli.options import STORE, AsJson, StorePath
from winticket.text import console, visible

if TYPE_CHECKING:
    from winticket.run import Row, Store

app = typer.Typer(
    no_args_is_help=True,
    help="Look after a store, the folder or URL that keeps results: list, check, clean up.",
)
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")]


def info(*, as_json: AsJson = False) -> None:
    """Show versions, device, cores, and the folder in which decoded data are cached."""
    from winticket.experiment import environment

    if as_json:
        print_json(environment())
        return
    table = Table(show_header=False, box=None)
    for name, value in environment().items():
        table.add_row(name, str(value))
    console().print(table)


def ls(*, store: StorePath = STORE, as_json: AsJson = False) -> None:
    """List what a store holds: results, failures, and checkpoints of unfinished trainings, each with what it trains."""
    with request():
        rows = existing(store).ls()
    if as_json:
        print_json([{**vars(row), "label": dict(row.label)} for row in rows])
        return
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(_question(dict(row.label)), []).append(row)
    for question, entries in groups.items():
        console().print(Text(question, style="bold"))
        sys.stdout.write(_table([_cells(row) for row in entries]))
    show(f"{len(rows)} entries, {sum(row.bytes for row in rows) / 2**20:.1f} MiB in {store}")


_COLUMNS = ("kind", "key", "arm", "level", "replicates", "seconds", "KiB", "when")
_RIGHT = ("level", "seconds", "KiB")


def _table(rows: list[list[str]]) -> str:
    """Columns of text with their names above. A table of `rich` takes half a millisecond for every row."""
    lines = [list(_COLUMNS), *([visible(cell) for cell in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    at_right = [name in _RIGHT for name in _COLUMNS]
    return "".join(
        " ".join(
            (" " * (width - cell_len(cell)) + cell) if right else (cell + " " * (width - cell_len(cell)))
            for cell, width, right in zip(line, widths, at_right, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    )


def _cells(row: Row) -> list[str]:
    label: dict[str, Any] = dict(row.label)
    replicates = ""
    if "first" in label:
        first, count = label["first"] + 1, label["count"]  # people count from one
        replicates = f"{first}" if count == 1 else f"{first}–{first + count - 1}"
    return [
        row.kind,
        row.key[:8],
        _arm(label),
        str(label.get("level", "")),
        replicates,
        "" if row.seconds is None else f"{row.seconds:.1f}",
        f"{row.bytes / 1024:.0f}",
        (row.when or "")[:16].replace("T", " "),
    ]


def _question(label: dict[str, Any]) -> str:
    """What a result belongs to, in words."""
    if "model" in label:
        return f"{label['model']} on {label['data']}: {label['recipe']}"
    return "Analyses" if str(label.get("arm", "")).startswith("analysis ") else "Other results"


def _arm(label: dict[str, Any]) -> str:
    """The arm; for states from the middle of a training, also after which steps."""
    arm, steps = str(label.get("arm", "")), label.get("states")
    if not isinstance(steps, list) or not steps:
        return arm
    return f"{arm}, step {steps[0]}" if len(steps) == 1 else f"{arm}, {len(steps)} steps to {steps[-1]}"


def verify(*, store: StorePath = STORE, as_json: AsJson = False) -> None:
    """Read every byte and compare it with its checksum. The exit status is 1 if something is damaged."""
    with request():
        problems = existing(store).verify()
    if as_json:
        print_json([vars(p) for p in problems])
    else:
        for p in problems:
            show(f"{p.kind}: {p.name}: {p.reason}")
        damaged = sum(p.kind == "damaged" for p in problems)
        show(
            f"{damaged} damaged and {len(problems) - damaged} left over in {store}; "
            "winticket store gc --damaged removes them"
            if problems
            else f"{store}: every byte is as it was written"
        )
    if any(p.kind == "damaged" for p in problems):
        raise typer.Exit(1)


def gc(
    *,
    store: StorePath = STORE,
    keep: Annotated[
        list[Path] | None,
        typer.Option(
            "--keep",
            help="result.json of a finished run: remove every result that none of the kept runs used; analyses are "
            "removed, too, and are computed again when asked for. May be repeated.",
        ),
    ] = None,
    failures: Annotated[
        bool,
        typer.Option("--failures", help="Also remove stored failures, so that those trainings run again."),
    ] = False,
    damaged: Annotated[
        bool,
        typer.Option(
            "--damaged", help="Also remove what verify calls damaged, so that it is computed again."
        ),
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove what killed runs left behind: temporary files, and checkpoints of trainings that have finished since.

    Results and failures stay, unless an option below says otherwise.
    """
    with request():
        kept = None if not keep else {key for file in keep for key in _keys(file)}
        removed = existing(store).gc(kept, failures=failures, damaged=damaged, dry_run=dry_run)
    if as_json:
        print_json([vars(item) for item in removed])
        return
    for item in removed:
        show(
            f"{'would remove' if dry_run else 'removed'} {item.name} ({item.bytes / 1024:.0f} KiB): {item.why}"
        )
    show(f"{len(removed)} files, {sum(item.bytes for item in removed) / 2**20:.1f} MiB")


def _keys(file: Path) -> list[str]:
    """The keys of the trainings in a result document."""
    from winticket.experiment.documents import Kept, read_document

    try:
        kept = read_document(file, Kept)
        if not kept.keys:
            raise ValueError("it names no training")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file} is not a result document ({error}); pass the result.json of a finished run"
        ) from error
    return kept.keys


def existing(path: str) -> Store:
    """The store. FileNotFoundError if there is none."""
    missing = FileNotFoundError(
        f"there is no store at {path!r}; pass another with --store, or create one with winticket find"
    )
    if "://" not in path and not Path(path).expanduser().exists():
        raise missing
    from winticket.run import Store

    store = Store(path)
    if not store.exists():
        raise missing
    return store


for command in (ls, verify, gc):
    app.command(help=flowing(command.__doc__))(command)
