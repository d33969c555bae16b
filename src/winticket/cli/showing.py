"""show, report, watch: a run's screen and pages again, from what it has left; nothing is trained."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from winticket.cli.answers import print_json, request, say, to_stderr
from winticket.cli.answers import show as tell
from winticket.cli.options import AsJson, Quiet, number
from winticket.cli.shipping import StoreOfRun, Trust
from winticket.cli.working import watch_store
from winticket.places import COMPARISON_PAGE, PAGE, PROGRESS, RESULT, STARTED, comparison_file, result_file
from winticket.text import console

if TYPE_CHECKING:
    from winticket.experiment.watching import Watched
    from winticket.report.side_by_side_rows import Named

RunPath = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="Folder or result.json of a search or transfer, finished or not, or a compare.json.",
    ),
]
RunOrStore = Annotated[
    str,
    typer.Argument(
        metavar="RUN|STORE",
        help="Folder or result.json of a search or transfer, finished or not; or the folder or URL of a store.",
    ),
]
RunPaths = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN...",
        help="Folder or result.json of a search or transfer, or a compare.json. With --compare, several of them.",
    ),
]
Together = Annotated[bool, typer.Option("--compare", help="Write one page that has the runs side by side.")]
Page = Annotated[
    Path | None,
    typer.Option(
        "--out", help="With --compare, the page to write. Default: winticket-runs.html in the current folder."
    ),
]
Every = Annotated[
    int,
    typer.Option("--every", help="Seconds between two looks at the run.", parser=number("--every", int)),
]
SIDE_BY_SIDE = Path("winticket-runs.html")


def show(run: RunPath, *, store: StoreOfRun = None, trust: Trust = None, as_json: AsJson = False) -> None:
    """Show the final screen of RUN again, or its progress if it has not finished.

    Nothing is computed. For an unfinished run, the command shows which results there are and which are missing, without
    a verdict.

    [bold]winticket show runs/digits[/bold]
    """
    with request():
        if unfinished(run):
            document = _so_far(run, store, trust)
        elif (compared := comparison_file(run)) is not None:
            document = _comparison(compared)
        else:
            from winticket.experiment.opening import document_of
            from winticket.experiment.rewriting import relocated

            file = result_file(run)
            document = relocated(document_of(file), file.parent)
    if as_json:
        print_json(document)
        return
    from winticket import report

    if "planned" in document:
        console().print(report.progress_screen(document))
    elif report.is_comparison(document):
        console().print(report.comparison_screen(document))
    else:
        console().print(report.final_screen(document))


def unfinished(run: Path) -> bool:
    """Whether a folder is that of a run that has not finished.

    One that finished and was started again is unfinished only if it asks for more now.
    """
    if not (run / STARTED).is_file():
        return False
    from winticket.experiment.opening import found

    return found(run)[1] is None


def _so_far(run: Path, store: str | None, trust: list[str] | None) -> Any:
    from winticket.experiment import open as open_run
    from winticket.experiment.sofar import SoFar

    return SoFar(open_run(run, store=store, trust=trust or [])).read()[0]


def _comparison(file: Path) -> Any:
    from winticket.experiment.documents import read_comparison

    return read_comparison(file)


def report(
    runs: RunPaths,
    *,
    together: Together = False,
    out: Page = None,
    store: StoreOfRun = None,
    trust: Trust = None,
) -> None:
    """Write report.html and the figures of RUN again, from its numbers; or, with --compare, one page of several runs.

    Nothing is trained or analysed. The page shows the analyses that the run's store has. An unfinished run gets a page
    of what there is so far, as `winticket watch` writes it.

    [bold]winticket report runs/digits[/bold]

    [bold]winticket report --compare runs/digits runs/digits-sgd runs/letters[/bold]
    """
    with request():
        if out is not None and not together:
            raise ValueError("--out is for --compare; the page of one run goes to the run's folder")
        if together:
            tell(f"Page: {_side_by_side(runs, out or SIDE_BY_SIDE)}")
            return
        if len(runs) > 1:
            raise ValueError(f"{len(runs)} runs are given; add --compare to have them on one page")
        with to_stderr(), _without_collections():
            path, notes = _written(runs[0], store, trust)
    for note in notes:
        say(f"Note: {note}")
    tell(f"Page: {path}")


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Within: Python looks for no cycles of garbage.

    Among the million objects of torch and matplotlib that takes a fifth of the time, and frees some forty megabytes.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _written(run: Path, store: str | None, trust: list[str] | None) -> tuple[Path, tuple[str, ...]]:
    """Write the page of one run, and say where it is and what it lacks."""
    if unfinished(run):
        from winticket.experiment import open as open_run
        from winticket.experiment.watching import write_progress

        return write_progress(open_run(run, store=store, trust=trust or [])), ()
    if (compared := comparison_file(run)) is not None:
        from winticket.report import write_comparison_page

        return write_comparison_page(_comparison(compared), compared.with_name(COMPARISON_PAGE)), ()
    from winticket.experiment.rewriting import rewrite

    made = rewrite(run, store=store, trust=trust or [])
    if made.document["report"] is None:
        raise OSError(f"the page could not be written: {made.document.get('unwritten')}")
    return Path(made.document["report"]), made.notes


def _side_by_side(runs: list[Path], page: Path) -> Path:
    from winticket.report import write_side_by_side

    return write_side_by_side(_named(runs), page)


def _named(runs: list[Path]) -> list[Named]:
    """The documents, each by the shortest end of its path that tells it from the others."""
    from winticket.experiment.opening import document_of
    from winticket.report import Named

    files = [comparison_file(run) or result_file(run) for run in runs]
    folders = [file.resolve().parent for file in files]
    if len(set(folders)) < len(folders):
        raise ValueError("a run is given twice; a page compares different ones")
    count = next(
        count
        for count in range(1, max(len(folder.parts) for folder in folders) + 1)
        if len({folder.parts[-count:] for folder in folders}) == len(folders)
    )
    names = ["/".join(folder.parts[-count:]) for folder in folders]
    return [
        Named(name, document_of(file) if file.name == RESULT or not _compares(file) else _comparison(file))
        for name, file in zip(names, files, strict=True)
    ]


def _compares(file: Path) -> bool:
    return comparison_file(file) is not None


def watch(
    target: RunOrStore,
    *,
    every: Every = 10,
    store: StoreOfRun = None,
    trust: Trust = None,
    quiet: Quiet = False,
) -> None:
    """Keep a page on RUN up to date until it has finished, or show the progress of the plans in a STORE.

    The page shows what the store has so far: counts, accuracies, learning curves. It reloads itself in the browser. It
    never has a verdict, which is reached from all trainings together. When the run has finished, the page leads to its
    report, even if this command was stopped before. You can stop the command at any time without changing the run; the
    page then no longer reloads itself. If the run in the folder is extended in the meantime, for example by more
    replicates, the page follows it.

    For a store, the terminal shows every plan that `--detach` has written into it, with its tasks and the workers that
    compute them.

    [bold]winticket watch runs/digits[/bold]

    [bold]winticket watch s3://bucket/runs[/bold]
    """
    with request():
        if every < 1:
            raise ValueError(f"--every is {every}; give the seconds between two looks, 1 or more")
        of_store = _is_store(target)
        if of_store and (store or trust):
            raise ValueError("--store and --trust are for runs; a store that is watched needs neither")
    if of_store:
        watch_store(target, every, quiet=quiet)
        return
    run = Path(target)
    with request():
        folder = run.parent if run.name in (RESULT, STARTED) and run.is_file() else run
        under_way = (folder / STARTED).is_file()
        opened = _opener(folder, every, store, trust)
        watched = opened() if under_way else None
        page = None if under_way else _finished(run)
    if watched is not None:
        tell(f"Page: {folder / PROGRESS} (renewed every {every} s; Ctrl-C ends this command, not the run)")
        with request():
            page = _follow(watched, opened, every, quiet=quiet)
    tell(_over(page, run))


def _is_store(path: str) -> bool:
    """Whether a path is that of a store: a URL, or a folder with a store's marker."""
    if "://" in path:
        return True
    from winticket.run.layout import MARKER

    folder = Path(path)
    return (
        (folder / MARKER).is_file() and not (folder / STARTED).is_file() and not (folder / RESULT).is_file()
    )


def _opener(folder: Path, every: int, store: str | None, trust: list[str] | None) -> Callable[[], Watched]:
    from winticket.experiment import open as open_run
    from winticket.experiment.watching import Watched

    return lambda: Watched(open_run(folder, store=store, trust=trust or []), refresh=every)


def _finished(run: Path) -> Path | None:
    """The page of a run that has finished, None if it has none. ValueError or OSError if it is no such run."""
    if comparison_file(run) is not None:
        raise ValueError(f"{run} is a comparison; give the folder of a search or transfer")
    from winticket.experiment.opening import document_of

    file = result_file(run)
    document_of(file)
    page = file.with_name(PAGE)
    return page if page.is_file() else None


def _over(page: Path | None, run: Path) -> str:
    if page is None:
        return f"The run has finished, but it has no page; draw it by: winticket report {run}"
    return f"The run has finished. Page: {page}"


def _follow(watched: Watched, opened: Callable[[], Watched], every: int, *, quiet: bool) -> Path | None:
    """Renew the page until the run has finished; its report, None if that was not drawn.

    If the folder asks something else meanwhile, such as more replicates, the page follows that: it is `opened` again.
    """
    from winticket.experiment.watching import OtherQuestionError

    try:
        while True:
            try:
                if watched.ended() is not None:
                    return watched.finish()
                counted = watched.look()
            except OtherQuestionError as other:
                say(f"{other}; the page follows that one from now on")
                watched = opened()
                continue
            if not quiet and counted is not None:
                say(counted)
            time.sleep(every)
    except BaseException as stopped:
        # Nobody renews the page from now on, whatever the reason, so it must not reload itself.
        with contextlib.suppress(OSError, ValueError):
            watched.leave()
        if isinstance(stopped, KeyboardInterrupt):
            raise KeyboardInterrupt("stopped watching; the run goes on without this command") from None
        raise
