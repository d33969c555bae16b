"""The words that the command, its results and the documents use: the table behind the page and docs/glossary.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

WORDS: Mapping[str, str] = {
    "eligible weight": "A weight that may be pruned. By default the weights of Linear and Conv layers are "
    "eligible, and biases and BatchNorm's parameters are not. The options --include and --exclude change "
    "the choice.",
    "mask": "A mask says for every eligible weight whether it is kept or pruned. A pruned weight is "
    "exactly 0 and stays 0 throughout training.",
    "density": "The share of the eligible weights that a mask keeps. A density of 5 % means that 95 % are "
    "pruned. The column “of the whole model” counts all parameters instead.",
    "dense network": "The network with all its weights, trained by the same recipe. A ticket has to match "
    "this network.",
    "start": "The values from which a training begins: weights, buffers such as BatchNorm's statistics, "
    "and the step that they belong to. The initial weights are written θ₀, and the weights after k steps "
    "θ_k.",
    "ticket": "A mask together with a start. A ticket is trained on its own, as a smaller network.",
    "winning ticket": "A ticket that is shown to match the dense network and to beat both controls. The "
    "smallest verified ticket is the winning ticket with the lowest density.",
    "replicate": "One repetition of the whole experiment, with a random initialisation and a mask search "
    "that no other replicate shares. The networks of one replicate see the same batches, so they are "
    "compared in pairs.",
    "run": "One execution of an experiment, with the folder of its results.",
    "source": "The experiment whose tickets a transfer trains again, on other data or by another recipe.",
    "seed": "The number from which all randomness of an experiment is derived. A new seed makes a new "
    "experiment.",
    "level": "One round of pruning, with everything that is trained at its density. Level 0 trains the "
    "dense network.",
    "arm": "One of the networks that are trained side by side and compared: the dense network, the ticket, "
    "and each control.",
    "control": "A network that could explain the ticket away. If a control trains as well as the ticket, "
    "the ticket's mask and start are nothing special.",
    "re-initialised": "The control that keeps the ticket's mask and draws new initial weights. It is also "
    "called re-init or reinit.",
    "random mask": "The control that keeps the ticket's start and draws a random mask with as many weights "
    "in every layer.",
    "method": "The procedure that finds masks. Iterative magnitude pruning (imp), the default, trains, "
    "prunes a share of the weights, rewinds the rest, and repeats.",
    "criterion": "The rule that gives every eligible weight a score; weights with higher scores are kept. "
    "The default, magnitude, is the absolute value of the trained weight.",
    "allocation": "The rule that turns scores into a mask: whether each layer is pruned on its own "
    "(layerwise), whether all layers compete (global_top), or which pattern the kept weights must have.",
    "rewind": "A rewind sets the weights that survive pruning back to earlier values: to the initial ones, "
    "or to those after step k of training.",
    "step": "One update of the weights by the optimiser.",
    "recipe": "The settings of a training: optimiser, learning rate and its schedule, batch size, number "
    "of steps.",
    "stack": "Replicates that are trained together as one batched computation, five by default. Stacking "
    "makes training faster; replicates do not influence one another.",
    "verdict": "What the experiment concludes: won, not won, or inconclusive.",
    "won": "At one density or more, the ticket is shown to match the dense network and to beat both controls.",
    "not won": "At every density, the data show the opposite: the ticket is below the dense network by "
    "more than the margin, or it is below a control.",
    "inconclusive": "Neither a win nor its opposite is shown. The verdict then says how many replicates "
    "would decide, if that can be estimated.",
    "margin": "The loss of accuracy, in percentage points (pp), that still counts as matching; also "
    "written δ. It is 0.5 pp by default and is fixed before the run.",
    "matches dense": "The ticket's accuracy is shown to be less than the margin below the dense network's, "
    "after the same number of training steps.",
    "error rate": "The largest chance, over all densities together, that the verdict is a false win; also "
    "written α. It is 5 % by default.",
    "look": "One verdict on the same networks. Whoever adds replicates and judges again takes another "
    "look, and later looks must pass stricter tests, so that all looks together keep to the error rate.",
    "open": "A check whose answer is neither yes (shown) nor no (the opposite is shown).",
    "± and intervals": "Half the width of a 95 % interval for the mean over replicates. An interval that "
    "is not symmetric is given by its two ends.",
    "trained enough": "The dense network counts as trained enough if training it twice as long is shown to "
    "gain less than the margin.",
    "winning structure": "A kind of result: the ticket matches the dense network and beats the random "
    "mask, but is not shown to beat its re-initialised mask. The mask helps then, and the initial weights "
    "are not shown to matter.",
    "trivially sparse": "A kind of result: the ticket matches the dense network, but is not shown to beat "
    "either control. Any mask of this density may do as well then.",
    "early stop": "The training step at which the validation loss is lowest. If that is the last step for "
    "most networks, the early stop says nothing and is not shown.",
    "to 95 % of dense": "The number of steps until the validation accuracy reaches 95 % of what the dense "
    "network of the same replicate ends at. It measures how soon a network learns.",
    "sooner, later, alike": "The ticket learns sooner or later than the dense network if a test shows it. "
    "Alike means that no difference was shown.",
    "search": "The arm that shows the network as its search left it. It exists for methods that find the "
    "mask within one training, such as rigl.",
    "dead unit": "A neuron or filter that has lost all its incoming weights, under a mask that keeps or "
    "prunes whole units. Its bias and the weights that read it are 0 as well.",
    "effective density": "The density that is left when weights that read only dead units are not counted.",
    "emptied layer": "A layer that has lost every weight. In a network without shortcuts, no signal gets "
    "past such a layer.",
    "failed": "A training that ended with an error, for example because the loss was no longer finite. It "
    "stays in the count and is never replaced by a guess.",
    "collapsed": "A replicate whose accuracy is far below that of the others.",
    "sparse kernels": "Compiled code that computes a layer with its kept weights alone. It is used for the "
    "layers that it makes faster on the machine at hand.",
    "store": "The folder in which results are kept, so that a command that is repeated or extended "
    "computes only what is missing.",
    "plan": "The list of trainings that a command needs. It can be priced before anything runs.",
}
"""Each word with one to three sentences; related words stand together."""

ALIASES: Mapping[str, str] = {
    "re-init": "re-initialised",
    "re-initialised %": "re-initialised",
    "random mask %": "random mask",
    "ticket %": "ticket",
    "beats re-init": "control",
    "early-stop step": "early stop",
    "margin δ": "margin",
    "margin, error rate": "margin",
    "smallest verified ticket": "winning ticket",
    "replicates": "replicate",
    "n": "replicate",
}
"""Headings of the page that are a word in another form."""

_HEADINGS = re.compile(r"(?P<open><(?P<tag>th|dt)\b[^>]*>)(?P<word>[^<]+)(?P<close></(?P=tag)>)")


def anchor(word: str) -> str:
    """The fragment that leads to a word, such as `word-random-mask`."""
    return "word-" + re.sub(r"\W+", "-", word).strip("-")


def words_section() -> str:
    """The page's last section: all words in a folded list, each with an anchor."""
    entries = "\n".join(
        f'<dt id="{anchor(word)}">{escape(word)}</dt><dd>{escape(meaning)}</dd>'
        for word, meaning in WORDS.items()
    )
    return (
        "<section><details><summary>Words used on this page</summary>"
        f'<dl class="wide words">{entries}</dl></details></section>'
    )


def linked(html: str) -> str:
    """The page's HTML with a link to the explanation in the first heading of a table or fact that is a word."""
    seen: set[str] = set()

    def link(heading: re.Match[str]) -> str:
        word = ALIASES.get(heading["word"], heading["word"])
        if word not in WORDS or word in seen:
            return heading[0]
        seen.add(word)
        return f'{heading["open"]}<a href="#{anchor(word)}">{heading["word"]}</a>{heading["close"]}'

    return _HEADINGS.sub(link, html)


def glossary_page() -> str:
    """docs/glossary.md, as `make docs` writes it."""
    head = (
        "# Glossary\n\nThese are the words that the command, its results and the other documents use. Related words "
        "stand together. The report of every run ends with the same list.\n\n| word | meaning |\n|---|---|\n"
    )
    return head + "".join(f"| **{word}** | {meaning} |\n" for word, meaning in WORDS.items())
