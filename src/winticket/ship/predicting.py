"""Answers to JSON inputs: decoded and checked, computed by the fastest engine at hand, as classes and probabilities."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from winticket.ship.engine import SparseModel
from winticket.ship.interpret import run
from winticket.ship.native import missing
from winticket.ship.network import Floats, Network
from winticket.text import visible

LARGEST_INPUT = 1 << 22
"""Most numbers of an input; a network that takes more is not served."""
EXAMPLES = 64
"""Inputs on which kernels are measured, if they have no more than LARGEST_INPUT numbers together."""
MOST_PROBABILITIES = 1 << 18
"""Most probabilities of an answer, over all inputs: some bytes of a body may ask for thousands."""
_BRACKETS = re.compile(rb"[\s\[]*")


class InputError(ValueError):
    """A body that holds no inputs of the network; the message says what it holds and what is needed."""


class TooManyInputsError(InputError):
    """Inputs whose answer would be too large; the message says how many may be sent."""


class Predictor:
    """Computes classes and probabilities of inputs in JSON. Threads may share one.

    network   its output are the logits of two classes or more
    takes     what inputs are, in words: raw data if the network knows its preprocessing
    computes  what computes, in words
    classes   names of the classes

    Raises ValueError for a network that gives something else, or with larger inputs than LARGEST_INPUT or more classes
    than MOST_PROBABILITIES.

    >>> from winticket.ship import Network, Operation, Weight
    >>> weight = Weight.of("fc.weight", [[1.0, 2.0], [3.0, 4.0]])
    >>> network = Network((2,), (Operation("linear", ("input",), "1", tensors={"weight": weight}),))
    >>> predict = Predictor(network)
    >>> [(one["class"], round(one["probability"], 4)) for one in predict(b"[[1, 1], [0, -2]]")["predictions"]]
    [('1', 0.982), ('0', 0.982)]
    """

    def __init__(self, network: Network) -> None:
        outputs = network.shapes[network.output]
        if len(outputs) != 1 or outputs[0] < 2:
            raise ValueError(
                "predictions are classes, two or more, but the network gives outputs of shape "
                f"{list(outputs)}; compute them with winticket.ship.run"
            )
        size = math.prod(network.input_shape)
        if size > LARGEST_INPUT or outputs[0] > MOST_PROBABILITIES:
            raise ValueError(
                f"the network takes inputs of {size:,} numbers and has {outputs[0]:,} classes; at most "
                f"{LARGEST_INPUT:,} numbers and {MOST_PROBABILITIES:,} classes are served"
            )
        self.network = network
        self.classes = [visible(name) for name in network.classes] or [str(n) for n in range(outputs[0])]
        values = "raw values, as pixels" if network.preprocessing else "numbers"
        self.takes = f"{values}, {list(network.input_shape)}"
        self.computes, self._logits = self._engine()

    def _engine(self) -> tuple[str, Callable[[Floats], npt.NDArray[Any]]]:
        network, ready = self.network, self.network.preprocessing
        if missing:
            return "numpy (the kernels are not compiled)", lambda x: run(
                network, ready.apply(x) if ready else x
            )
        # Kernels are measured on inputs as preprocessed data are: about 0, with deviation 1.
        count = min(EXAMPLES, LARGEST_INPUT // math.prod(network.input_shape))
        x = np.random.default_rng(0).standard_normal((count, *network.input_shape), np.float32)
        if ready:
            x = ready.undo(x).astype(np.float32)
        return "compiled kernels", SparseModel(network, raw=ready is not None, example=x)

    def __call__(self, body: bytes) -> dict[str, Any]:
        """{"predictions": [{"class", "index", "probability", "probabilities"}, ...], "classes": [...]}.

        body: a JSON list: an input, nested or flat, or a list of inputs. Raises InputError for any other, and for
        inputs so large that outputs are not finite; TooManyInputsError for more inputs than MOST_PROBABILITIES allow.
        """
        x = self.decoded(body)
        most = MOST_PROBABILITIES // len(self.classes)
        if len(x) > most:
            raise TooManyInputsError(
                f"the answer to {len(x):,} inputs would have {len(x) * len(self.classes):,} probabilities, and at most "
                f"{MOST_PROBABILITIES:,} are computed; send at most {most:,} inputs at once"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # checked below
            logits = self._logits(x).astype(np.float64)
        finite = np.isfinite(logits).all(1)
        if not finite.all():
            raise InputError(
                f"the network's outputs for input {int(finite.argmin())}, counted from 0, are not finite: the numbers "
                "of the input are too large for it"
            )
        if self.network.operations[-1].kind != "softmax":
            powers = np.exp(logits - logits.max(1, keepdims=True))
            logits = powers / powers.sum(1, keepdims=True)
        return {"predictions": [self._prediction(row) for row in logits], "classes": self.classes}

    def _prediction(self, row: npt.NDArray[np.float64]) -> dict[str, Any]:
        best = int(row.argmax())
        shares = [round(share, 7) for share in row.tolist()]
        return {
            "class": self.classes[best],
            "index": best,
            "probability": shares[best],
            "probabilities": shares,
        }

    def decoded(self, body: bytes) -> Floats:
        """The inputs [N, *input_shape], float32. InputError if the body is not that."""
        shape = self.network.input_shape
        size, axes = math.prod(shape), len(shape)
        brackets = _BRACKETS.match(body)
        depth = brackets[0].count(b"[") if brackets else 0
        if depth not in {1, 2, axes, axes + 1} - {0}:
            raise InputError(f"the body begins with {depth} opening brackets; {self._wanted()}")
        try:
            values = msgspec.json.decode(body, type=_nested(depth))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InputError(f"the body is not what is needed ({error}); {self._wanted()}") from error
        try:
            with np.errstate(over="ignore"):
                x = np.array(values, np.float64).astype(np.float32)
        except ValueError as error:
            raise InputError(f"the lists of the body have different lengths; {self._wanted()}") from error
        one = depth == axes or (depth == 1 and axes != 0)
        flat = depth in (1, 2) and depth not in (axes, axes + 1)
        each = (size,) if flat else shape
        x = x[None] if one else x
        if x.shape[1:] != each or not len(x):
            raise InputError(f"the body holds numbers of shape {list(x.shape)}; {self._wanted()}")
        if not np.isfinite(x).all():
            raise InputError("a number of the body is too large for float32")
        return np.ascontiguousarray(x.reshape(-1, *shape))

    def _wanted(self) -> str:
        shape = self.network.input_shape
        flat = f" or {math.prod(shape)} numbers" if len(shape) > 1 else ""
        return f"send a JSON list: one input of shape {list(shape)}{flat}, or a list of such inputs"


def _nested(depth: int) -> Any:
    kind: Any = float
    for _ in range(depth):
        kind = list[kind]
    return kind
