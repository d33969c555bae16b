"""The perplexity of a language model on a text: checked first, then computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from winticket.lm import loading
from winticket.lm.finishing import summary
from winticket.lm.progress import Say, silent
from winticket.lm.pruning import evaluated
from winticket.lm.record import Perplexity
from winticket.lm.request import checked_tokens, window_length
from winticket.lm.text import Windows, even_windows


@dataclass(frozen=True)
class Evaluation:
    """A checked question: a model and the windows of text to evaluate it on."""

    source: loading.Source
    windows: Windows


def prepare_text(path: str, data: Path, *, length: int | None, most: int, say: Say = silent) -> Evaluation:
    """Read everything but the weights. Raises ValueError, with what is possible, if the question makes no sense."""
    if most < 1:
        raise ValueError(f"--windows {most} is less than 1")
    if length is not None and length < 2:
        raise ValueError(f"--length {length} is less than 2")
    of = loading.source(path)
    config = loading.configuration(of)
    words = loading.tokenizer(of)
    say("Reading the text", None)
    tokens = checked_tokens(words, loading.skeleton(config), data)
    return Evaluation(of, even_windows(tokens, most=most, length=window_length(config, length)))


def evaluate(evaluation: Evaluation, *, say: Say = silent) -> Perplexity:
    """Perplexity on the windows, with a 95 % interval over their documents, or over the windows of one document."""
    say("Loading the model", None)
    model = loading.load(evaluation.source)
    losses = evaluated(model, evaluation.windows, "Perplexity", say)
    return summary(losses, evaluation.windows)
