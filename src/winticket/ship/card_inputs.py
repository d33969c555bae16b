"""What a shipped network takes and gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from winticket.ship.markdown import safe


def inputs(about: Mapping[str, Any]) -> Iterator[str]:
    """What it takes and gives."""
    data, shape = about.get("data") or {}, about.get("input_shape")
    yield "## What it takes and gives"
    yield ""
    mean, deviation = (
        ", ".join(f"{number:.6g}" for number in data.get(name, ())[:4]) for name in ("mean", "std")
    )
    more = ", ..." if len(data.get("mean", ())) > 4 else ""
    yield f"- Inputs: float32 [N, {', '.join(map(str, shape or ()))}]."
    if mean:
        yield (
            f"- Preprocessing, by channel: (x / {data.get('scale', 1):g} - mean) / deviation, with mean {mean}{more} "
            f"and deviation {deviation}{more}."
        )
    target = (about.get("build") or {}).get("target", "classes")
    if target in ("numbers", "labels"):
        yield from _other_outputs(about.get("classes"), target, data)
        return
    names = [safe(name) for name in data.get("class_names", ())]
    shown = ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
    yield f"- Outputs: logits of {about.get('classes')} classes" + (f": {shown}." if names else ".")


def _other_outputs(count: object, target: str, data: Mapping[str, Any]) -> Iterator[str]:
    """What outputs mean that are no logits of classes."""
    if target == "labels":
        yield f"- Outputs: logits of {count} labels, each present or not; its probability is 1 / (1 + exp(-logit))."
    elif data.get("spread"):
        centre, spread = (
            ", ".join(f"{number:.9g}" for number in data[name]) for name in ("centre", "spread")
        )
        yield (
            f"- Outputs: {count} numbers in units of their standard deviation. In their own unit they are output × "
            f"spread + centre, with spread {spread} and centre {centre}."
        )
    else:
        yield f"- Outputs: {count} numbers in their own unit."
