"""The page: its networks as compact files in base64, what they are in words, and the scripts that compute."""

from __future__ import annotations

import base64
import json
import re
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from winticket.outside import Unreadable
from winticket.ship.about import recorded_accuracy
from winticket.ship.coding import Values, check_values
from winticket.ship.compact_read import decode
from winticket.ship.compact_write import encode
from winticket.ship.interpret import run
from winticket.ship.network import Network
from winticket.ship.web.inputs import examples_of, input_facts
from winticket.ship.words import density_percent, kilobytes, last_part
from winticket.text import visible
from winticket.version import __version__

EXACT = 700_000
"""Most bytes of a dense network's compact file in fp32 on the page; larger ones are in fp16."""
MOST_BYTES = 64_000_000
"""Most bytes of the networks' files on a page: browsers are slow to open pages of more."""
COMPARED = 1000
"""Most examples on which a dense network in fp16 is compared with itself in fp32."""
_SCRIPTS = ("engine.js", "drawing.js", "page.js")


def to_web(
    network: Network,
    *,
    dense: Network | None = None,
    examples: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    values: str = "fp32",
    note: str = "",
) -> str:
    """The network as one HTML page that needs no network connection and no other file.

    One draws the input (images of one channel, up to 64 x 64), chooses an example, or sets up to 64 values by sliders.
    The page shows the class probabilities, sizes, and the time of a prediction, measured in the browser.

    dense     a network to compare with, which is shown first; it is stored in fp32, or in fp16 if it has more than
              700 kB, which the page says
    examples  (inputs [N, *input_shape], preprocessed, as `winticket.ship.run` takes them; classes [N]); the page takes
              up to 20
    values    how the network's kept weights are stored: "fp32", "fp16", "bf16" or "int8"
    note      a sentence for the page, as what was learned of the network

    Accuracies on the page are `about["test_accuracy"]` of the networks. Raises ValueError for a network whose output
    are not the logits of two classes or more, for two networks that do not fit together, for inputs that can be neither
    drawn nor set nor chosen, and for networks of more than 64 MB.

    >>> from winticket.ship import Network, Operation, Weight
    >>> weight = Weight.of("fc.weight", [[1.0, 2.0], [3.0, 4.0]])
    >>> page = to_web(Network((2,), (Operation("linear", ("input",), "1", tensors={"weight": weight}),)))
    >>> page.count("<script"), "http" in page.replace("http-equiv", "")
    (3, False)
    """
    _check(network, dense)
    chosen = None if examples is None else examples_of(network, *examples)
    names = [visible(name) for name in network.classes] or [
        str(n) for n in range(network.shapes[network.output][0])
    ]
    inputs = None if examples is None else np.asarray(examples[0], np.float32)[:COMPARED]
    panels = [] if dense is None else [_dense_panel(dense, inputs)]
    panels.append(_panel(network, "ticket", check_values(values)))
    if sum(len(panel["file"]) for panel in panels) > MOST_BYTES:
        raise ValueError(
            f"the networks take {kilobytes(sum(len(panel['file']) for panel in panels))} as files, and a page holds at "
            f"most {kilobytes(MOST_BYTES)}; take smaller values (fp16, int8), or leave out the dense network"
        )
    facts = {
        **input_facts(network, chosen, names),
        "classes": names,
        "networks": [{key: panel[key] for key in ("id", "name", "facts", "shapes")} for panel in panels],
    }
    files = {panel["id"]: base64.b64encode(panel["file"]).decode() for panel in panels}
    return _filled(
        {
            "TITLE": escape(_title(facts)),
            "SENTENCE": escape(_sentence(network, dense, note)),
            "NOTES": "\n".join(f"<p>{escape(text)}</p>" for text in _notes(network, panels)),
            "MORE": "Set the values" if chosen is None else f"{len(chosen.raw)} examples of the test data",
            "STYLE": _text("page.css"),
            "FACTS": _json(facts),
            "NETWORKS": "\n".join(
                f'<script type="text/plain" id="{id_}">{text}</script>' for id_, text in files.items()
            ),
            "SCRIPT": "\n".join(_bare(_text(name)) for name in _SCRIPTS),
        }
    )


def network_of(page: str, which: str = "ticket") -> Network:
    """The network that a page holds; which: "ticket", which it is of, or "dense".

    Raises Unreadable (a ValueError), with the reason, if there is none or its file is damaged.
    """
    match = re.search(rf'<script type="text/plain" id="{re.escape(which)}">([A-Za-z0-9+/=]*)</script>', page)
    if match is None:
        raise Unreadable(f"a page without a network {which!r}")
    try:
        content = base64.b64decode(match[1], validate=True)
    except ValueError as error:
        raise Unreadable(f"damaged: its network {which!r} is no base64 ({error})") from error
    return decode(content)


def _check(network: Network, dense: Network | None) -> None:
    outputs = network.shapes[network.output]
    if len(outputs) != 1 or outputs[0] < 2:
        raise ValueError(
            f"a page shows answers among two classes or more, but the network gives outputs of shape {list(outputs)}; "
            "use another format (safetensors, onnx, c, ...)"
        )
    if not network.input_shape:
        raise ValueError("a page needs inputs with channels, but the network takes single numbers")
    if dense is None:
        return
    if (dense.input_shape, dense.shapes[dense.output]) != (network.input_shape, outputs):
        raise ValueError(
            f"the dense network takes {list(dense.input_shape)} and gives {list(dense.shapes[dense.output])}, but the "
            f"other one takes {list(network.input_shape)} and gives {list(outputs)}"
        )
    if dense.preprocessing != network.preprocessing:
        raise ValueError("the two networks preprocess their inputs differently, so one page cannot feed both")


def _panel(network: Network, id_: str, values: Values) -> dict[str, Any]:
    """What the page says of a network, and its compact file."""
    content, _ = encode(network, values=values)
    kept, size = network.kept()
    weights = f"{kept:,} of {size:,}" if kept < size else f"{size:,}"
    return {
        "id": id_,
        "name": _name(network),
        "facts": [["weights", weights], ["file", f"{kilobytes(len(content))} ({values})"]],
        "shapes": [list(network.shapes[operation.output]) for operation in network.operations],
        "file": content,
        "note": "",
    }


def _dense_panel(dense: Network, inputs: npt.NDArray[Any] | None) -> dict[str, Any]:
    panel = _panel(dense, "dense", "fp32")
    if len(panel["file"]) > EXACT:
        facts = panel["facts"]
        panel = {**_panel(dense, "dense", "fp16"), "facts": facts}
        panel["note"] = f"On this page the {panel['name'].lower()} is stored in fp16" + _cost(
            dense, panel["file"], inputs
        )
    return panel


def _cost(dense: Network, file: bytes, inputs: npt.NDArray[Any] | None) -> str:
    if inputs is None:
        return "."
    changed = int((run(dense, inputs).argmax(-1) != run(decode(file), inputs).argmax(-1)).sum())
    answers = "no answer" if not changed else f"{changed} answer" + "s" * (changed > 1)
    return f", which changes {answers} of {len(inputs):,} test examples."


def _name(network: Network) -> str:
    kept, size = network.kept()
    arm = str(network.about.get("arm", "dense" if kept == size else "ticket"))
    return {"ticket": "Ticket", "dense": "Dense network"}.get(arm, f"Network of arm {visible(arm)}")


def _title(facts: dict[str, Any]) -> str:
    if facts["draw"]:
        what = "picture" if facts["draw"]["fit"] == "plain" else "digit"
        return f"Draw a {what}, and {_who(facts)} answer" + "s" * (len(facts["networks"]) < 2)
    return f"Choose an input, and {_who(facts)} answer" + "s" * (len(facts["networks"]) < 2)


def _who(facts: dict[str, Any]) -> str:
    return " and ".join(f"the {one['name'][0].lower()}{one['name'][1:]}" for one in facts["networks"])


def _sentence(network: Network, dense: Network | None, note: str) -> str:
    """How many weights are left, and how well both networks do on test data."""
    kept, size = network.kept()
    name = _name(network)
    text = f"The {name[0].lower()}{name[1:]} "
    if kept < size:
        text += f"keeps {density_percent(kept / size)} of the weights"
    accuracy = recorded_accuracy(network)
    if accuracy is not None:
        text += (
            " and " if kept < size else ""
        ) + f"classifies {100 * accuracy:.2f} % of the test data correctly"
    if kept == size and accuracy is None:
        text += f"has {size:,} weights"
    before = None if dense is None else recorded_accuracy(dense)
    if before is not None:
        text += f"; the dense network, {100 * before:.2f} %"
    return f"{text}. {visible(note)}".strip()


def _notes(network: Network, panels: list[dict[str, Any]]) -> list[str]:
    about = network.about
    origin = " for ".join(
        visible(last_part(str(about[key]))) for key in ("model", "data") if isinstance(about.get(key), str)
    )
    lines = [
        f"{origin}. Written by winticket {__version__}." if origin else f"Written by winticket {__version__}."
    ]
    lines += [panel["note"] for panel in panels if panel["note"]]
    lines.append(
        "Everything is computed in this page by plain JavaScript, in float32, from the kept weights alone; nothing is "
        "loaded or sent. Files are compact files of winticket: masks are coded, and pruned weights are not in them. "
        "Times are of this computation, and other programs may be faster."
    )
    return lines


def _json(value: Any) -> str:
    """JSON that ends no script element, whatever is in it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _filled(parts: dict[str, str]) -> str:
    return re.sub(r"@([A-Z]+)@", lambda match: parts[match[1]], _text("page.html"))


def _bare(script: str) -> str:
    """A script without indentation and without lines that are comments; ours have no text over several lines."""
    lines = (line.strip() for line in script.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))


@cache
def _text(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
