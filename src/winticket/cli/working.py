"""work: a worker for the plans that wait in a store; `watch STORE`: how far they are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from winticket.cli.answers import print_json, printed, request, say, show, to_stderr
from winticket.cli.options import AsJson, Quiet, Retry, Workers, number
from winticket.cli.shipping import Trust
from winticket.text import console, counted
from winticket.version import __version__

if TYPE_CHECKING:
    from winticket.experiment import Execution
    from winticket.experiment.submitting import Job, Submitted
    from winticket.run import Outcomes, Store

StoreArgument = Annotated[
    str, typer.Argument(metavar="STORE", help="Folder or URL of the store that has the plans.")
]
Leave = Annotated[
    float | None,
    typer.Option(
        "--leave",
        metavar="SECONDS",
        help="Stop after so many seconds with nothing to compute because other workers have all the tasks that are "
        "ready. Default: wait until the plans are done, in case another worker is lost.",
        parser=number("--leave", float),
    ),
]


def work(
    store: StoreArgument,
    *,
    workers: Workers = None,
    retry: Retry = False,
    leave: Leave = None,
    trust: Trust = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compute the plans that wait in STORE, together with all other workers, and stop when they are done.

    `winticket find ... --detach` writes plans into the store. Start this command as often as you like, on any machine
    that can reach the store, by hand or with Slurm, Kubernetes or anything else: each worker takes the next task that
    is ready and that no other worker computes. A worker that is killed loses at most ten seconds of work; after half a
    minute, another takes over its task. On Ctrl-C, SIGTERM or SIGUSR1, a worker saves the state of its trainings, gives
    them back and stops. If this machine has too little memory for a training, or lacks what `find --needs` asks for,
    the training is left to other workers.

    A plan names data, and perhaps modules of yours. Both must be on this machine, and `--trust` must list the modules.

    [bold]winticket find digits --store /shared/runs --detach[/bold]

    [bold]winticket work /shared/runs[/bold]
    """
    with request():
        if leave is not None and not leave >= 0:
            raise ValueError(f"--leave is {leave:g}; give seconds, 0 or more")
        execution, work = _work(store, workers, retry=retry, trust=trust or [])
    for refused in work.refused:
        say(f"Warning: {refused}")
    outcomes: list[Outcomes] = []
    tasks = [task for job in work.jobs for task in job.tasks]
    if tasks:
        from winticket.experiment.execution import run_errors
        from winticket.experiment.submitting import compute

        if not quiet:
            say(f"{counted(len(work.jobs), 'plan')} in {store}: {counted(len(tasks), 'task')}")
        watching = nullcontext() if quiet else _watching(work.jobs)
        with run_errors(execution.store), to_stderr(), watching as watch:
            outcomes = compute(work.jobs, watch=watch, leave=leave)
    failed = work.failed + sum(len(each.failed) for each in outcomes)
    _answer(store, work, outcomes, failed, as_json=as_json)
    left = any(each.impossible or (each.left and leave is None) for each in outcomes)
    if failed or left or work.refused:
        raise typer.Exit(1)


def _work(store: str, workers: int | None, *, retry: bool, trust: list[str]) -> tuple[Execution, Submitted]:
    """What there is to compute in the store, checked."""
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; give the number of processes, 1 or more")
    existing_with_plans(store)
    from winticket.experiment import Execution
    from winticket.experiment.submitting import submitted

    execution = Execution.local(store, workers=workers, retry_failed=retry)
    work = submitted(execution, trust=trust)
    if work.refused and not work.jobs:
        raise ValueError("; ".join(work.refused))
    if work.jobs:
        execution.store.check_writable()
    return execution, work


def existing_with_plans(path: str) -> Store:
    """The store. FileNotFoundError if there is none, or if it has no plan."""
    from winticket.cli.stores import existing

    store = existing(path)
    if not store.has_plans():
        raise FileNotFoundError(
            f"store {path!r} has no plan; write one into it by: winticket find DATA --store {path} --detach"
        )
    return store


def _watching(waiting: Sequence[Job]) -> Any:
    """The progress of these plans together."""
    from winticket.report import Watch

    tasks = {task.key: task for job in waiting for task in job.tasks}
    needs: dict[str, list[str]] = {}
    for job in waiting:
        needs.update(job.plan.order([]))
    densities = waiting[0].plan.densities() if len(waiting) == 1 else []
    workers = max(waiting[0].execution.workers, 1)
    return Watch(
        list(tasks.values()),
        densities,
        seconds=None,
        needs=needs,
        workers=workers,
        console=console(stderr=True),
    )


def _answer(store: str, work: Submitted, outcomes: list[Outcomes], failed: int, *, as_json: bool) -> None:
    """Print what was computed here and what is left."""
    computed = sum(len(each.computed) for each in outcomes)
    skipped = sum(len(each.skipped) for each in outcomes)
    left = sum(each.left for each in outcomes)
    unfit = next((each.unfit for each in outcomes if each.unfit), None)
    if as_json:
        with printed(store):
            print_json(
                {
                    "winticket": __version__,
                    "plans": [job.waiting.name for job in work.jobs],
                    "refused": list(work.refused),
                    "computed": computed,
                    "failed": failed,
                    "skipped": skipped,
                    "left": left,
                    "unfit": unfit,
                    "seconds": sum(each.seconds for each in outcomes),
                }
            )
        return
    parts = [f"{counted(computed, 'task')} computed here"] * bool(work.jobs)
    parts += [f"{failed} failed (winticket work --retry-failed tries again)"] * bool(failed)
    parts += [f"{skipped} skipped, since they need a failed one"] * bool(skipped)
    parts += [f"{left} left to other workers"] * bool(left)
    if parts:
        show(", ".join(parts))
    if unfit:
        show(
            f"Of the largest training that is left: {unfit}. Workers on other machines go on without this one."
        )
    if not left and not work.refused:
        done = "Done" if work.jobs else f"Every plan in {store} is done"
        show(f"{done}. For verdict and report, type its command again without --detach.")


def watch_store(path: str, every: float, *, quiet: bool) -> None:
    """Show how far the plans of a store are, again and again until they are done."""
    from rich.live import Live

    from winticket.report.store_progress import progress_of_store
    from winticket.run.plans import standings

    with request():
        store = existing_with_plans(path)
        seen = standings(store)
    screen = console()
    if quiet or not screen.is_terminal:
        _watch_lines(store, seen, every, quiet=quiet)
        return
    with request(), Live(progress_of_store(seen), console=screen, auto_refresh=False) as live:
        while not all(how_far.over() for _, how_far in seen):
            time.sleep(every)
            seen = standings(store)
            live.update(progress_of_store(seen), refresh=True)


def _watch_lines(store: Store, seen: Any, every: float, *, quiet: bool) -> None:
    """The same without a terminal: a line whenever something has changed."""
    from winticket.report.store_progress import progress_line
    from winticket.run.plans import standings

    said = ""
    with request():
        while True:
            line = progress_line(seen)
            over = all(how_far.over() for _, how_far in seen)
            if line != said and (over or not quiet):
                show(line)
                said = line
            if over:
                return
            time.sleep(every)
            seen = standings(store)
