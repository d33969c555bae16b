"""What the executor asks of a crew: the one interface between a plan and the machines that compute it.

A crew is a file of this room (`inline.py`, `pool.py`) with two classes: the crew itself, a frozen value that says who
computes, and its workers while one run is under way. `tests/run/crews.py` lists the crews that the conformance suite
of executors runs on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from winticket.run.desk import Conditions
from winticket.run.fitting import Machine
from winticket.run.messages import Message
from winticket.run.store import Store
from winticket.run.task import Node

Hear = Callable[[int, Message], None]
"""Takes a worker's number and what it says about the task in its hands."""


class Crew(Protocol):
    """Who computes: a frozen value that can be pickled, and that may be opened any number of times, also at once."""

    @property
    def workers(self) -> int:
        """How many processes compute at once; 0 if the calling process computes."""

    def machine(self) -> Machine | None:
        """What each of these workers has, if they are on this machine; None if that is not known here."""

    def check(self, store: Store) -> None:
        """Raises ValueError, with a remedy, if these workers cannot write to the store. Starts nothing."""

    def open(self, conditions: Conditions, *, tasks: int, stopping: Callable[[], bool]) -> Workers:
        """The workers for one run of at most `tasks` tasks.

        `conditions` hold for every task and go to every worker. `stopping` turns true when the run is asked to stop;
        a crew whose workers are other processes may ignore it, since `ask_to_stop` follows.
        Raises RunError if no worker can be had.
        """


class Workers(Protocol):
    """A crew at work, called from one thread alone. A worker is a number, and has at most one task in its hands.

    A worker calls `winticket.run.work.attempt(nodes, desk)` for each task: it reads the inputs from the store,
    computes, stores result or failure, and returns the last message. A worker computes with one torch thread, so that
    results do not depend on who computed them, and sends to stderr what a task prints.
    """

    def free(self, count: int) -> list[int]:
        """The numbers of idle workers. Starts new ones, up to the crew's size, if fewer than `count` are idle.

        Raises RunError if none can be started.
        """

    def give(self, worker: int, nodes: tuple[Node, ...]) -> None:
        """Hand a task to an idle worker; the last node is the task, the others are unstored inputs of it.

        Raises TypeError, with the function's name, for a task that cannot be sent.
        """

    def listen(self, hear: Hear, timeout: float) -> None:
        """Pass on what workers have said, waiting up to `timeout` seconds for the first word.

        Every task given ends in exactly one message other than "progress". If a worker is lost, that is
        `Message("died", key, text=how)`; with `cause="unready"` if it was lost before it could begin the task. The
        executor then gives the task out again, once. Raises RunError if workers are lost before they can begin, again
        and again.
        """

    def patient(self) -> bool:
        """Whether the tasks under way notice a request to stop by themselves, so that the executor may wait."""

    def ask_to_stop(self) -> None:
        """Tell every worker to stop at its task's next report, after a checkpoint. Returns at once."""

    def close(self, hear: Hear, grace: float) -> None:
        """Give the tasks under way `grace` seconds to stop, pass on what they say, then end every worker.

        Is called at the end of every run, whatever it ended by, and may be called twice.
        """
