"""Count the effects of one kind of trouble; every count except `tried` should be 0."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Count:
    """One row of the table in docs/reliability.md.

    what    the kind of trouble, for people: "a ticket file, mutated"
    tried   number of trials
    silent  wrong values, or changes of a file that went unnoticed
    raw     errors other than the named ones: a traceback, a bare KeyError, a hang
    lost    finished results that were gone or had to be computed again
    twice   trainings that were computed more than once
    notes   one text per counted effect, with enough detail to repeat it
    """

    what: str
    tried: int = 0
    silent: int = 0
    raw: int = 0
    lost: int = 0
    twice: int = 0
    notes: list[str] = field(default_factory=list)

    def sound(self) -> bool:
        return not (self.silent or self.raw or self.lost or self.twice)
