"""What an interrupted pruning leaves beside its finished blocks, so that the same command resumes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from winticket.atomic import replace_file
from winticket.lm.record import BlockRecord
from winticket.lm.request import STATE
from winticket.outside import Unreadable, read_file, read_json


class State(msgspec.Struct):
    """What has been found so far. before: losses of the dense model. densities: those that the blocks are to have."""

    identity: dict[str, Any]
    before: list[float] | None = None
    densities: list[float] | None = None
    blocks: list[BlockRecord] = msgspec.field(default_factory=list)


def load_state(out: Path, identity: Mapping[str, Any]) -> State:
    """The state in the folder `out`, which is made if there is none.

    Raises ValueError if the folder holds anything but an unfinished run with the same identity.
    """
    file = out / STATE
    if file.is_file():
        try:
            state = read_json(read_file(file), State)
        except Unreadable as error:
            raise ValueError(f"{file} is damaged ({error}); choose another --out") from error
        if state.identity != identity:
            differing = _differing(state.identity, identity)
            raise ValueError(
                f"{out} holds an unfinished pruning with another {differing}; choose another --out, or repeat the "
                "command that began it"
            )
        return state
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ValueError(f"{out} exists already and is no unfinished pruning; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    state = State(dict(identity))
    save_state(out, state)
    return state


def save_state(out: Path, state: State) -> None:
    """Write the state, whole or not at all."""
    replace_file(out / STATE, json.dumps(msgspec.to_builtins(state)).encode())


def _differing(one: Mapping[str, Any], two: Mapping[str, Any]) -> str:
    keys = [key for key in two if key != "request" and one.get(key) != two[key]]
    was, now = one.get("request"), two["request"]
    options = [key for key in now if not isinstance(was, dict) or was.get(key) != now[key]]
    return ", ".join([*options, *keys])
