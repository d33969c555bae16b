"""--detach: a search's plan goes into the store, for `winticket work` to compute."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from winticket.cli.answers import print_json, request, show
from winticket.cli.options import Computing
from winticket.text import counted, without_secrets
from winticket.version import __version__

if TYPE_CHECKING:
    from winticket.experiment import Experiment


def submit(experiment: Experiment, computing: Computing, *, elsewhere: bool, as_json: bool) -> None:
    """Write the plan into the store for workers, and say how they are started.

    `elsewhere` says that --out or --track was typed, which are for the command that writes the report.
    """
    with request():
        if computing.ray is not None or computing.dask is not None:
            raise ValueError(
                "a plan that waits for `winticket work` runs on no Ray or Dask cluster; leave out either --detach or "
                "--ray and --dask"
            )
        if computing.workers is not None or computing.retry_failed or elsewhere:
            raise ValueError(
                "--workers and --retry-failed belong to winticket work, and --out and --track to the command that "
                "writes the report; leave them out with --detach"
            )
        from winticket.experiment import plan
        from winticket.experiment.submitting import submit as written

        planned = plan(experiment)
        made = written(planned, computing.execution())
    store = shlex.quote(without_secrets(computing.store))
    if as_json:
        print_json(
            {
                "winticket": __version__,
                "plan": made.name,
                "store": without_secrets(computing.store),
                "tasks": len(made.tasks),
            }
        )
        return
    show(f"Plan {made.name} is in {store}: {counted(len(made.tasks), 'task')}.")
    show(f"Compute it, with any number of these:  winticket work {store}")
    show(f"See how far it is:                     winticket watch {store}")
    show("When it is done, type this command again without --detach for its verdict and report.")


def refuse_both(*, detach: bool) -> None:
    """Exit with status 2 if --detach was typed beside --plan."""
    with request():
        if detach:
            raise ValueError(
                "--plan only shows what would run, and --detach writes it into the store; give one of them"
            )
