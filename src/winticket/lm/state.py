"""What an interrupted pruning or tuning leaves in its folder, so that the same command resumes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from winticket.atomic import replace_file
from winticket.lm.record import BlockRecord
from winticket.outside import Unreadable, read_file, read_json


class State(msgspec.Struct):
    """What has been found so far. before: losses of the model as it was."""

    identity: dict[str, Any]
    before: list[float] | None = None


class PruningState(State):
    """What has been found by a pruning. densities: those that the blocks are to have."""

    densities: list[float] | None = None
    blocks: list[BlockRecord] = msgspec.field(default_factory=list)


class TuningState(State):
    """What has been found by a tuning; its numbers are in a checkpoint (see `winticket.lm.checkpoints`)."""


KINDS: dict[type[State], tuple[str, str]] = {
    PruningState: ("pruning.json", "pruning"),
    TuningState: ("tuning.json", "tuning"),
}
"""The name of each kind's file, and what is unfinished while it is there."""
S = TypeVar("S", bound=State)


def state_file(out: Path, kind: type[State]) -> Path:
    """The file of the state in the folder `out`.

    >>> state_file(Path("smol-half"), PruningState).as_posix()
    'smol-half/pruning.json'
    """
    return out / KINDS[kind][0]


def load_state(out: Path, identity: Mapping[str, Any], kind: type[S]) -> S:
    """The state in the folder `out`, which is made if there is none.

    Raises ValueError if the folder holds anything but an unfinished run with the same identity.
    """
    file, what = state_file(out, kind), KINDS[kind][1]
    if file.is_file():
        try:
            state = read_json(read_file(file), kind)
        except Unreadable as error:
            raise ValueError(f"{file} is damaged ({error}); choose another --out") from error
        if state.identity != identity:
            differing = _differing(state.identity, identity)
            raise ValueError(
                f"{out} holds an unfinished {what} with another {differing}; choose another --out, or repeat the "
                "command that began it"
            )
        return state
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ValueError(f"{out} exists already and is no unfinished {what}; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    state = kind(dict(identity))
    save_state(out, state)
    return state


def save_state(out: Path, state: State) -> None:
    """Write the state, whole or not at all."""
    replace_file(state_file(out, type(state)), json.dumps(msgspec.to_builtins(state)).encode())


def _differing(one: Mapping[str, Any], two: Mapping[str, Any]) -> str:
    keys = [key for key in two if key != "request" and one.get(key) != two[key]]
    was, now = one.get("request"), two["request"]
    options = [key for key in now if not isinstance(was, dict) or was.get(key) != now[key]]
    return ", ".join([*options, *keys])
