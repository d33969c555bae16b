"""Whether a process of this machine, known by its number, still runs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def alive(pid: int, *, since: float | None = None) -> bool:
    """True if process `pid` runs on this machine and, if `since` is given, began before that moment.

    A process that has ended does not run, even if nobody has asked for its exit status yet (a "zombie": in a container
    the first process may never ask). If in doubt, the answer is True.

    Args:
      pid: number of the process, of any user
      since: seconds since the epoch

    >>> import os
    >>> alive(os.getpid())
    True
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's process
        pass
    with contextlib.suppress(OSError):  # no /proc here, or the process has just ended
        process = Path(f"/proc/{pid}")
        # The name, in parentheses, may itself hold any character.
        if process.joinpath("stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
            return False
        if since is not None:
            return process.stat().st_ctime <= since + 2.0
    return True
