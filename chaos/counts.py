"""What a kind of trouble did, as counts; every count but `tried` is to be 0."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Count:
    """One row of the table in docs/reliability.md.

    what    the kind of trouble, for people to read: "a ticket file, mutated"
    tried   how many times
    silent  a wrong value came out, or a change of the file was not noticed
    raw     an error that is none of the named ones: a traceback, a bare KeyError, a hang
    lost    something finished before was gone or had to be made again
    twice   trainings that were done more than once
    notes   what it was, for each that counts: enough to try it again
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
