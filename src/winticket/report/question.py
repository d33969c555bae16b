"""What a run asked, of which data and which network: three paragraphs for the page, a few lines for the screen."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from winticket.report.metric import metric_of
from winticket.report.reading import (
    arms,
    data_of,
    density_percent,
    is_transfer,
    pruned_levels,
    question_of,
    saved_of,
    tickets_from,
)
from winticket.report.settings import method_words
from winticket.results import Data, Document, Layer

OWN_SPLIT = "its own split of the data"
A_TICKET = (
    "A ticket is a mask, which says which weights are kept, together with the values from which these weights "
    "start."
)


def asked(document: Document) -> list[str]:
    """The question in three paragraphs: what was asked, of which data and network, and in how many repetitions."""
    return [sentence for sentence in (_what(document), _of_what(document), _how_often(document)) if sentence]


def _what(document: Document) -> str:
    margin, metric = question_of(document).get("margin_pp"), metric_of(document)
    size = "" if margin is None else metric.margin(margin)
    if margin is not None and metric.in_points:
        size = f"{margin:g} {metric.spelt}"
    elif margin is not None and metric.relative:
        size = f"{margin:g} %"  # the sentence goes on with what it is a share of
    reach = f"comes to within {size} of" if size else "reaches"
    redraw = (question_of(document).get("redraw") or "fresh") if question_of(document).get("start") else None
    weights = {
        None: "new initial weights",
        "fresh": "new initial weights in place of the pretrained ones",
        "shuffled": "the pretrained weights of each layer shuffled",
    }
    controls = {
        "reinit": f"the same mask with {weights[redraw]} (re-initialised)",
        "random": "a random mask that starts from the same values as the ticket",
    }
    others = [words for arm, words in controls.items() if arm in arms(document)]
    side = "above" if metric.higher else "better than"
    better = f", and whether it ends {side} {_all_of(others, 'both controls')}" if others else ""
    found = ""
    if is_transfer(document):
        found = f" from another experiment ({tickets_from(question_of(document)['source'])})"
    return (
        f"{A_TICKET} This run asks whether a ticket{found} that is trained by itself {reach} the {metric.name} of the "
        f"dense (whole) network{better}."
    )


def _all_of(words: Sequence[str], several: str) -> str:
    return words[0] if len(words) == 1 else f"{several}: {' and '.join(words)}"


def _of_what(document: Document) -> str:
    question = question_of(document)
    parts = []
    if question.get("data"):
        about = data_words(document)
        parts.append(f"the data are {question['data']}{f' ({about})' if about else ''}")
    if question.get("model"):
        about = network_words(document, parameters=True)
        parts.append(f"the network is {question['model']}{f' ({about})' if about else ''}")
    text = ", and ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _how_often(document: Document) -> str:
    question, tried = question_of(document), pruned_levels(document)
    count, method = question.get("replicates"), method_words(question)
    if count is None or not tried:
        return ""
    ends = dict.fromkeys(density_percent(level["density"]) for level in (tried[0], tried[-1]))
    levels = "1 level" if len(tried) == 1 else f"{len(tried)} levels"
    found = "trained" if method is None else f"found with {method}"
    steps = question.get("steps")
    each = "" if steps is None else f" Each network was trained for {steps:,} steps."
    return (
        f"Tickets with {' to '.join(ends)} of the weights were {found} at {levels}, in {_replicates(count)}, "
        f"{_all_new(document)}.{each}"
    )


def _replicates(count: int) -> str:
    return "1 replicate" if count == 1 else f"{count} replicates"


def _all_new(document: Document) -> str:
    mask = "its own ticket" if is_transfer(document) else "its own mask search"
    split = f" and {OWN_SPLIT}" if draws_own_split(document) else ""
    return f"each with its own {varied(document)}{',' if split else ' and'} {mask}{split}"


def varied(document: Document) -> str:
    """What differs between replicates beside their splits, in words: pretrained weights are the same for all."""
    return "order of examples" if question_of(document).get("start") else "random initialisation"


def draws_own_split(document: Document) -> bool:
    """Whether every replicate draws its own split of the data."""
    data = data_of(document)
    return data is not None and data.get("split") == "own"


def data_words(document: Document) -> str | None:
    """What the examples are and how many: `8 × 8 images in 10 classes; 1,197 training, ...`. None if unknown."""
    data = data_of(document)
    if data is None or not data.get("input_shape"):
        return None
    kind = _examples(data["input_shape"], text=_units(document) if _is_text(document) else "")
    kind += _answers(data)
    return f"{kind}; {data['train']:,} training, {data['validation']:,} validation and {data['test']:,} test examples"


def _answers(data: Data) -> str:
    """What is predicted for an example: a class, numbers, labels, or a class at each pixel."""
    count, target = data["classes"], data.get("target", "classes")
    if target in ("numbers", "labels"):
        return f" with {count} {target if count > 1 else target.removesuffix('s')} to predict"
    if target == "positions":
        return f" with one of {count} classes at each pixel"
    return f" in {count} classes" if count else ""


def _is_text(document: Document) -> bool:
    """Whether the examples are tokens; older documents say so of their saved ticket alone."""
    data = data_of(document)
    if data is not None and "tokens" in data:
        return data["tokens"]
    saved = saved_of(document)
    return saved is not None and "build" in saved and saved["build"]["tokens"]


def _units(document: Document) -> str:
    """What a text is cut into."""
    return "tokens" if question_of(document).get("reading", {}).get("tokenizer") else "characters"


def _examples(shape: Sequence[int], *, text: str) -> str:
    """The form of an example in words; `text` is what windows of text consist of, empty for other data.

    >>> [_examples(shape, text="") for shape in ((1, 8, 8), (3, 32, 32), (1, 40), (12,))]
    ['8 × 8 images', '32 × 32 colour images', 'signals of 40 values', 'examples of 12 values']
    """
    if text:
        return f"windows of {shape[0]} {text}"
    if len(shape) == 3:
        kinds = {1: "images", 3: "colour images"}
        return f"{shape[1]} × {shape[2]} {kinds.get(shape[0], f'images of {shape[0]} channels')}"
    if len(shape) == 2 and shape[0] == 1:
        return f"signals of {shape[1]} values"
    return f"examples of {' × '.join(map(str, shape))} values"


def network_words(document: Document, *, parameters: bool = False) -> str | None:
    """What the network is: `3 fully connected layers, 64–300–100–10; ... may be pruned`. None if that is not known."""
    network = document.get("network")
    if network is None:
        return None
    whole, eligible = network["parameters"], network["eligible"]
    sizes = (
        f"{whole:,} parameters, of which {eligible:,} may be pruned"
        if parameters
        else f"{eligible:,} weights that may be pruned"
    )
    return f"{_layers(network['layers'])}; {sizes}"


def _layers(layers: Sequence[Layer]) -> str:
    """The layers in words: how many of each kind, and the widths of a chain of fully connected ones.

    >>> _layers([{"name": "fc1.weight", "shape": [300, 64], "size": 19200}])
    '1 fully connected layer, 64–300'
    """
    full = [layer["shape"] for layer in layers if len(layer["shape"]) == 2]
    convolutions = [layer for layer in layers if len(layer["shape"]) > 2]
    others = len(layers) - len(full) - len(convolutions)
    counted = [
        f"{count} {noun}{'s' if count > 1 else ''}"
        for count, noun in (
            (len(convolutions), "convolution"),
            (len(full), "fully connected layer"),
            (others, "other weight"),
        )
        if count
    ]
    chain = all(after[1] == before[0] for before, after in pairwise(full))
    if len(full) == len(layers) and chain:
        return f"{counted[0]}, {'–'.join(map(str, (full[0][1], *(shape[0] for shape in full))))}"
    return " and ".join(counted)


def subject(document: Document) -> list[str]:
    """The experiment for the screen: its choices in a line, then what data, network and tickets are, if known."""
    question = question_of(document)
    count, method, seed = question.get("replicates"), method_words(question), question.get("seed")
    words = [str(part) for part in (question.get("data"), question.get("model")) if part]
    if method is not None:
        words.append(f"method {method}" if method == question.get("method") else method)
    if count is not None:
        plural = varied(document).replace("order", "orders").replace("initialisation", "initialisations")
        new = f"{plural}{f', each with {OWN_SPLIT}' if draws_own_split(document) else ''}"
        words.append("1 replicate" if count == 1 else f"{count} replicates ({new})")
    if seed is not None:
        words.append(f"{words.pop()} from seed {seed}" if count is not None else f"seed {seed}")
    about = [
        f"{question.get(name)}: {text}."
        for name, text in (("data", data_words(document)), ("model", network_words(document)))
        if question.get(name) and text
    ]
    return [", ".join(words), *about, A_TICKET] if words else []
