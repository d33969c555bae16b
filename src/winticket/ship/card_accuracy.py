"""How accurate a shipped network is, and what its kind of values costs."""

from __future__ import annotations

from collections.abc import Iterator

from winticket.objective import ACCURACY, Scale
from winticket.results import Shipment
from winticket.ship.markdown import safe, table
from winticket.ship.words import percent


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
