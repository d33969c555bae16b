"""The files of claims: what they contain, how they are named, and whether the process that wrote one still runs."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from winticket.alive import alive
from winticket.outside import Unreadable, read_json
from winticket.run.files import Files, host
from winticket.run.layout import CLAIMS


class Claim(msgspec.Struct, frozen=True):
    """The content of a claim file.

    owner      the run that holds it, a random number
    host, boot, pid   its process
    beat       the number of renewals
    released   the run has given the task back, unfinished
    """

    owner: str
    host: str
    boot: str
    pid: int
    beat: int = 0
    released: bool = False

    def dead(self) -> bool:
        """True if the claim's process ran on this machine since its last boot, and has ended."""
        return self.boot != "" and (self.host, self.boot) == (host(), boot()) and not alive(self.pid)

    def who(self) -> str:
        if not self.pid:
            return "another worker"
        return f"process {self.pid}" + ("" if self.host == host() else f" on {self.host}")


NOBODY = Claim("", "", "", 0)
"""Stands for a damaged file until it expires."""
UNREAD = Claim("unread", "", "", 0)
"""Stands for a file that has not been read yet."""


def claim_name(key: str, generation: int = 0) -> str:
    """The file of a task's claim. Generation 0 is the first; every run that takes the claim over adds one."""
    return f"{CLAIMS}/{key}.json" if generation == 0 else f"{CLAIMS}/{key}-{generation}.json"


def read_claim(files: Files, key: str, generation: int) -> Claim | None:
    """A claim file's content; None if there is no file, and a claim that nobody holds if the file is damaged."""
    try:
        return read_json(files.read(claim_name(key, generation)), Claim)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Unreadable:
        return NOBODY


def encoded(claim: Claim) -> bytes:
    """The content of a claim's file."""
    return json.dumps(msgspec.structs.asdict(claim)).encode()


def boot() -> str:
    """An identifier of this boot and of the process namespace; empty if the system has none."""
    try:
        number = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{number}/{Path('/proc/self/ns/pid').readlink()}"
    except (OSError, ValueError):
        return ""
