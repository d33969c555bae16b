"""The model card: a Markdown page beside each shipped file, with what it is, how good, how small, and where from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from winticket.objective import ACCURACY, Scale
from winticket.results import Origin, Shipment
from winticket.text import visible

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")
_RECIPE = (
    "optimizer",
    "lr",
    "momentum",
    "weight_decay",
    "schedule",
    "steps",
    "batch",
    "warmup",
    "flip",
    "crop",
)


def card(
    shipment: Shipment, about: Mapping[str, Any], *, what: str, use: Sequence[str], language: str = "python"
) -> str:
    """The card of a shipment.

    about: of the ticket, with recipe and data; what: what the file is; use: lines of code, in a language, that use it.
    """
    origin = origin_of(shipment)
    return joined(
        _what(shipment, what),
        good(shipment),
        small(shipment),
        removed(shipment),
        _verdict(origin),
        inputs(about),
        ("## How to use it", "", f"```{language}", *use, "```"),
        _from(origin, about),
        _environment(origin),
    )


def joined(*sections: Iterable[str]) -> str:
    """The sections of a card that have lines, with an empty line between them."""
    return "\n\n".join(text for section in sections if (text := "\n".join(section))) + "\n"


def origin_of(shipment: Shipment) -> Origin:
    """The training that a shipment comes from; for shipments that come from one."""
    origin = shipment["origin"]
    assert origin is not None
    return origin


def safe(value: object) -> str:
    r"""Text from elsewhere, so that Markdown shows it and does not obey it.

    >>> print(safe("a|b<c>\n"))
    a\|b\<c\>
    """
    return _SPECIAL.sub(r"\\\1", " ".join(visible(str(value)).split()))


def last_part(path: str) -> str:
    """The last part of a path, which may say more than others should know; a name of the Hub stays whole.

    >>> last_part("/home/me/letters"), last_part("ylecun/mnist"), last_part("digits")
    ('letters', 'ylecun/mnist', 'digits')
    """
    if path.count("/") == 1 and not path.startswith(("/", ".", "~")):
        return path
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def kilobytes(count: float) -> str:
    """A number of bytes in words.

    >>> [kilobytes(count) for count in (512, 14_017, 1_456_187)]
    ['512 bytes', '14.0 kB', '1.46 MB']
    """
    if count < 1000:
        return f"{count:.0f} bytes"
    return f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:.2f} MB"


def percent(share: float, digits: int = 2) -> str:
    """A fraction as a percentage.

    >>> percent(0.97333)
    '97.33 %'
    """
    return f"{100 * share:.{digits}f} %"


def density_percent(density: float) -> str:
    """A density as a percentage, with two significant digits or more.

    >>> [density_percent(density) for density in (1.0, 0.0476, 0.0012)]
    ['100 %', '4.8 %', '0.12 %']
    """
    share = 100 * density
    return f"{share:.0f} %" if share >= 99.95 else f"{share:.1f} %" if share >= 1 else f"{share:.2g} %"


def table(rows: Sequence[tuple[str, ...]], head: tuple[str, ...]) -> Iterator[str]:
    """A table of Markdown."""
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _what(shipment: Shipment, what: str) -> Iterator[str]:
    origin = origin_of(shipment)
    share = density_percent(origin["density"])
    yield f"# {safe(origin['model'])} for {safe(last_part(origin['data']))}, {share} of its weights"
    yield ""
    yield (
        f"`{last_part(shipment['file'])}` is a trained network of which {share} of the weights that may be pruned are "
        f"kept. winticket {safe(shipment['winticket'])} wrote it as {what}."
    )


def scale_of(shipment: Shipment) -> Scale:
    """The scale of the metric that the network is judged by."""
    origin = shipment["origin"]
    return ACCURACY if origin is None else Scale.of_json(origin.get("metric"))


def accuracy_rows(shipment: Shipment) -> list[tuple[str, str]]:
    """(What was evaluated, its test accuracy): the file, the network as trained, and its arm over all replicates.

    Of a file that was made of a compact file, what that says, if it says something.
    """
    origin, read_back = shipment["origin"], shipment["read_back"]
    rows, scale = [], scale_of(shipment)
    if read_back is not None:
        what = f"this file, read back, on {read_back['examples']:,} examples"
        rows.append((what, scale.value(read_back["test_accuracy"])))
    if origin is None:
        said = (shipment["claims"] or {"said": {}})["said"].get("test_accuracy")
        return [("as the compact file says, unchecked", percent(said))] if isinstance(said, float) else []
    rows.append(("this network, as its training recorded it", scale.value(origin["test_accuracy"])))
    if origin["mean_test_accuracy"] is not None and origin["replicates"] > 1:
        mean = scale.value(origin["mean_test_accuracy"])
        if origin["accuracy_ci"] is not None:
            low, high = origin["accuracy_ci"]
            mean += f" (95 % interval {scale.number(low)} to {scale.number(high)})"
        rows.append((f"mean of {origin['replicates']} replicates", mean))
    return rows


def cost_sentence(shipment: Shipment) -> str:
    """What the kind of values costs in accuracy; or why that is not known."""
    read_back, values, origin = shipment["read_back"], shipment["values"], shipment["origin"]
    if read_back is None or origin is None:
        return (
            f"The file was not evaluated: {shipment['not_evaluated']}{_noise(shipment['noise_difference'])}"
        )
    if (scale := scale_of(shipment)) != ACCURACY:
        return _cost_in(scale, read_back["test_accuracy"], origin["test_accuracy"], shipment)
    change = 100 * (read_back["test_accuracy"] - origin["test_accuracy"])
    answers = f"{read_back['answers_changed']} of {read_back['examples']:,} answers"
    if values == "fp32":
        exact = (
            "the recorded accuracy" if not change else f"an accuracy {change:+.2f} pp from the recorded one"
        )
        return (
            f"Values are fp32, so the file gives {exact}; {answers} differ from the trained network's, and no logit by "
            f"more than {read_back['largest_difference']:.1g}."
        )
    cost = "costs no accuracy" if not change else f"changes the accuracy by {change:+.2f} percentage points"
    return f"Rounding the values to {values} {cost}; {answers} differ from the trained network's."


def _cost_in(scale: Scale, now: float, recorded: float, shipment: Shipment) -> str:
    """What the file costs in another metric than accuracy."""
    gain, values = scale.gain(recorded, now), shipment["values"]
    same = abs(gain) <= 1e-6 * max(abs(recorded), abs(now))  # the order of sums differs from that in training
    change = "costs nothing" if same else f"makes its {scale.name} {scale.difference(gain)}"
    read_back = shipment["read_back"]
    largest = 0.0 if read_back is None else read_back["largest_difference"]
    if values == "fp32":
        return (
            f"Values are fp32: writing and reading the file {change}; no output differs from the trained network's by "
            f"more than {largest:.1g}."
        )
    return f"Rounding the values to {values} {change}."


def _noise(difference: float | None) -> str:
    if difference is None:
        return ""
    if not difference:
        return ". On noise, its logits are the network's"
    return f". On noise, its logits differ from the network's by {difference:.1g} of the largest or less"


def good(shipment: Shipment) -> Iterator[str]:
    """How accurate it is."""
    yield "## How good it is"
    yield ""
    if rows := accuracy_rows(shipment):
        yield from table(rows, ("", f"test {scale_of(shipment).name}"))
        yield ""
    sentence = cost_sentence(shipment)
    yield sentence if shipment["read_back"] else f"{safe(sentence)}."


def size_rows(shipment: Shipment) -> list[tuple[str, str]]:
    """(What, its size): the file, the dense state dict; for a compact file the information in it, for C its memory."""
    memory, dense = (
        shipment["memory"],
        ("state dict of the dense network", kilobytes(shipment["dense_bytes"])),
    )
    if memory is not None:
        ram = memory["scratch"] + memory["buffers"]
        split = f"scratch {kilobytes(memory['scratch'])}, input and output {kilobytes(memory['buffers'])}"
        return [
            (
                "flash",
                f"{kilobytes(memory['flash'])} of constants{_smaller(shipment, memory['flash'])}; code is extra",
            ),
            ("RAM", f"{kilobytes(ram)}: {split}"),
            dense,
        ]
    page = shipment["format"] == "web"
    smaller = "" if page else _smaller(shipment, shipment["bytes"])
    rows = [
        (
            "this page, its networks in it" if page else "this file",
            f"{kilobytes(shipment['bytes'])}{smaller}",
        ),
        dense,
    ]
    if parts := shipment["parts"]:
        above = 100 * (shipment["bytes"] / parts["information"] - 1) if parts["information"] else 0.0
        rows += [
            (
                "information in masks and values",
                f"{kilobytes(parts['information'])}; the file is {above:.1f} % above",
            ),
            ("- masks", kilobytes(parts["masks"])),
            (f"- values ({shipment['values']}), biases, scales", kilobytes(parts["values"])),
            ("- description of the operations", kilobytes(parts["description"])),
        ]
    return rows


def _smaller(shipment: Shipment, size: int) -> str:
    times = shipment["dense_bytes"] / max(1, size)
    return f", {times:.1f} times smaller than dense" if times > 1 else ""


def small(shipment: Shipment) -> Iterator[str]:
    """How large it is."""
    yield "## How small it is"
    yield ""
    yield from table(size_rows(shipment), ("", "size"))
    yield ""
    information = (
        " The information in a mask is its entropy, in a value its bits." if shipment["parts"] else ""
    )
    yield f"{shipment['kept']:,} of {shipment['weights']:,} weights of layers are kept.{information}"


def removed_sentence(shipment: Shipment) -> str:
    """What `--shrink` removed, in a sentence; empty if it was not asked for."""
    if (shrunk := shipment["shrunk"]) is None:
        return ""
    first = next((one for one in shrunk["layers"] if one["inputs_before"] is not None), None)
    read = first and f", and {first['name']} reads {first['inputs']:,} of {first['inputs_before']:,} inputs"
    return (
        f"{shrunk['units']:,} of {shrunk['units_before']:,} units are left{read or ''}. Outputs on noise differ from "
        f"the whole network's by {shrunk['largest_difference']:.1g} of the largest or less"
    )


def removed(shipment: Shipment) -> Iterator[str]:
    """What `--shrink` removed, layer by layer; nothing if it was not asked for."""
    if (shrunk := shipment["shrunk"]) is None:
        return
    yield "## What was removed"
    yield ""
    yield (
        f"{safe(removed_sentence(shipment))}, in float64. `{safe(last_part(shrunk['maps']))}` has the numbers that "
        "units and inputs had in the original."
    )
    yield ""
    rows = [
        (
            safe(one["name"]),
            f"{one['units']:,} of {one['units_before']:,}",
            "" if one["inputs"] is None else f"{one['inputs']:,} of {one['inputs_before']:,}",
        )
        for one in shrunk["layers"]
    ]
    yield from table(rows, ("layer", "units", "inputs"))
    for note in shrunk["notes"]:
        yield ""
        yield safe(note)


def standing(origin: Origin) -> str:
    """Whether this network has won, in a sentence."""
    if origin["arm"] != "ticket":
        return f"This network is no ticket, but arm {origin['arm']} of a run that judges tickets."
    if origin["won"]:
        return "Tickets of this density win."
    at = f"; they win at {density_percent(origin['won_at'])}" if origin["won_at"] else ""
    return f"Tickets of this density are not shown to win{at}."


def _verdict(origin: Origin) -> Iterator[str]:
    yield "## The verdict of its run"
    yield ""
    yield f"**{safe(standing(origin))}** {safe(origin['reason'])}"


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


def _from(origin: Origin, about: Mapping[str, Any]) -> Iterator[str]:
    data, recipe = about.get("data") or {}, about.get("recipe") or {}
    rows = [
        ("data", f"{safe(last_part(origin['data']))}, fingerprint {safe(str(data.get('fingerprint'))[:12])}"),
        ("model", safe(origin["model"])),
        ("method", safe(origin["method"] or "not known")),
        ("arm, level, replicate", f"{safe(origin['arm'])}, {origin['level']}, {origin['replicate'] + 1}"),
        ("density", f"{origin['density']:.4g} of the weights that may be pruned"),
        ("trained to step", f"{origin['steps']:,}"),
        *((safe(name), safe(recipe[name])) for name in _RECIPE if recipe.get(name) not in (None, 0, False)),
    ]
    yield "## Where it comes from"
    yield ""
    yield from table(rows, ("", ""))


def _environment(origin: Origin) -> Iterator[str]:
    rows = [(safe(name), safe(value)) for name, value in origin["environment"].items() if value is not None]
    yield "## Environment of its training"
    yield ""
    yield from table(rows, ("", ""))
