"""The glossary: the words that the command, its results, the report page and docs/glossary.md use."""

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
    "dense network": "The network with all its weights, trained with the same recipe. A ticket must match "
    "this network.",
    "start": "The values from which a training begins: weights, buffers such as BatchNorm's statistics, "
    "and the step that they belong to. The initial weights are written θ₀, and the weights after k steps "
    "θ_k.",
    "ticket": "A mask together with a start. It defines a smaller network that can be trained by itself.",
    "winning ticket": "A ticket that is shown to match the dense network and to beat both controls. The "
    "smallest verified ticket is the winning ticket with the lowest density.",
    "replicate": "One repetition of the whole experiment, with a random initialisation and a mask search "
    "that no other replicate shares. The networks of one replicate see the same batches, so they are "
    "compared in pairs.",
    "run": "One execution of an experiment, with the folder of its results.",
    "source": "The experiment whose tickets a transfer trains on other data or with another recipe.",
    "seed": "The number from which all randomness of an experiment is derived. Another seed gives another "
    "experiment.",
    "level": "One round of pruning, with everything that is trained at its density. Level 0 trains the "
    "dense network.",
    "arm": "One of the networks that are trained side by side and compared: the dense network, the ticket, "
    "and each control.",
    "control": "A network that could explain the ticket away. If a control trains as well as the ticket, "
    "the ticket's mask and start do not explain its accuracy.",
    "re-initialised": "The control that keeps the ticket's mask and draws new initial weights. It is also "
    "called re-init or reinit.",
    "random mask": "The control that keeps the ticket's start and draws a random mask with as many weights "
    "in every layer.",
    "method": "The procedure that finds masks. Iterative magnitude pruning (imp), the default, trains, "
    "prunes a share of the weights, rewinds the rest, and repeats.",
    "criterion": "The rule that gives every eligible weight a score. Weights with higher scores are kept. "
    "The default, magnitude, is the absolute value of the trained weight.",
    "allocation": "The rule that turns scores into a mask. It prunes each layer separately (layerwise), ranks the "
    "weights of all layers together (global_top), or requires the kept weights to form a pattern.",
    "rewind": "A rewind resets the weights that survive pruning to earlier values: the initial values, or the "
    "values after step k of training.",
    "step": "One update of the weights by the optimiser.",
    "recipe": "The settings of a training: optimiser, learning rate and its schedule, batch size, number "
    "of steps.",
    "stack": "Replicates that are trained together as one batched computation, five by default. Stacking "
    "makes training faster. The replicates do not influence one another.",
    "verdict": "What the experiment concludes: won, not won, or inconclusive.",
    "won": "At one density or more, the ticket is shown to match the dense network and to beat both controls.",
    "not won": "At every density, the data show the opposite: the ticket is below the dense network by "
    "more than the margin, or it is below a control.",
    "inconclusive": "Neither a win nor its opposite is shown. The verdict then says how many replicates "
    "would decide, if that can be estimated.",
    "margin": "The loss of accuracy, in percentage points (pp), that a ticket must stay below to match the dense "
    "network. It is also written δ. It is 0.5 pp by default and is fixed before the run.",
    "matches dense": "The ticket's accuracy is shown to be less than the margin below the dense network's, "
    "after the same number of training steps.",
    "error rate": "The largest chance, over all densities together, that the verdict is a false win. It is also "
    "written α. It is 5 % by default.",
    "look": "One verdict on the same networks. Adding replicates and judging again is another look. Later "
    "looks need stricter tests, so that the error rate holds for all looks together.",
    "open": "A check whose answer is neither yes (shown) nor no (the opposite is shown).",
    "± and intervals": "Half the width of a 95 % interval for the mean over replicates. An interval that "
    "is not symmetric is given by its two ends.",
    "trained enough": "The dense network counts as trained enough if training it twice as long is shown to "
    "gain less accuracy than the margin.",
    "winning structure": "A kind of result: the ticket matches the dense network and beats the random "
    "mask, but is not shown to beat its re-initialised mask. The mask then helps, and the initial weights "
    "are not shown to matter.",
    "trivially sparse": "A kind of result: the ticket matches the dense network, but is not shown to beat "
    "either control. Any mask of this density may then work as well.",
    "early stop": "The training step at which the validation loss is lowest. If that is the last step for "
    "most networks, the early stop says nothing and is not shown.",
    "to 95 % of dense": "The number of steps until the validation accuracy reaches 95 % of the final "
    "validation accuracy of the same replicate's dense network. It measures how soon a network learns.",
    "sooner, later, alike": "The ticket learns sooner or later than the dense network if a test shows it. "
    "Alike means that no difference was shown.",
    "search": "The arm that shows the network as its search left it. It exists for methods that find the "
    "mask within one training, such as rigl.",
    "dead unit": "A neuron or filter that has lost all its incoming weights, under a mask that keeps or "
    "prunes whole units. Its bias and the weights that take it as input are 0 as well.",
    "effective density": "The density without the weights whose only inputs are dead units.",
    "emptied layer": "A layer that has lost every weight. In a network without shortcuts, no signal passes "
    "through such a layer.",
    "failed": "A training that ended with an error, for example because the loss was no longer finite. It "
    "counts as failed, and no value replaces its accuracy.",
    "collapsed": "A replicate whose accuracy is far below that of the others.",
    "sparse kernels": "Compiled code that computes a layer with its kept weights alone. It is used for the "
    "layers that it makes faster on this machine.",
    "store": "The folder that keeps finished trainings. A command that is repeated or extended then computes "
    "only what is missing.",
    "compact file": "The file in which winticket ship writes a trained network. It holds coded masks and the kept "
    "weights, and no pruned ones.",
    "plan": "The list of trainings that a command needs. Its cost can be estimated before anything runs.",
}
"""Each word with its meaning in one to three sentences. Related words are next to each other."""

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
"""Headings of the page that use another form of a word."""

_HEADINGS = re.compile(r"(?P<open><(?P<tag>th|dt)\b[^>]*>)(?P<word>[^<]+)(?P<close></(?P=tag)>)")


def anchor(word: str) -> str:
    """Return the HTML anchor of a word.

    >>> anchor("random mask")
    'word-random-mask'
    """
    return "word-" + re.sub(r"\W+", "-", word).strip("-")


def words_section() -> str:
    """Return the page's last section as HTML: a folded list of all words, each with an anchor."""
    entries = "\n".join(
        f'<dt id="{anchor(word)}">{escape(word)}</dt><dd>{escape(meaning)}</dd>'
        for word, meaning in WORDS.items()
    )
    return (
        "<section><details><summary>Words used on this page</summary>"
        f'<dl class="wide words">{entries}</dl></details></section>'
    )


def linked(html: str) -> str:
    """Link the first table or fact heading for each word in the page's HTML to the word's explanation."""
    seen: set[str] = set()

    def link(heading: re.Match[str]) -> str:
        word = ALIASES.get(heading["word"], heading["word"])
        if word not in WORDS or word in seen:
            return heading[0]
        seen.add(word)
        return f'{heading["open"]}<a href="#{anchor(word)}">{heading["word"]}</a>{heading["close"]}'

    return _HEADINGS.sub(link, html)


def glossary_page() -> str:
    """Return the text of docs/glossary.md, which `make docs` writes."""
    head = (
        "# Glossary\n\nThese are the words that the command, its results and the other documents use. Related words "
        "are next to each other. The report of every run ends with the same list.\n\n| word | meaning |\n|---|---|\n"
    )
    return head + "".join(f"| **{word}** | {meaning} |\n" for word, meaning in WORDS.items())
