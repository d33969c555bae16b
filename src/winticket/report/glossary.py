"""The glossary: the words that the command, its results, the report page and docs/glossary.md use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape, unescape

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
    "start": "The values from which training begins: weights, buffers such as BatchNorm's statistics, "
    "and the step that they belong to. The initial weights are written θ₀, and the weights after k steps "
    "θ_k.",
    "ticket": "A mask together with a start. It defines a smaller network that can be trained by itself.",
    "winning ticket": "A ticket that is shown to match the dense network and to beat both controls. The "
    "smallest winning density is the lowest at which the tickets win.",
    "replicate": "One repetition of the whole experiment, with its own random initialisation, its own mask search and, "
    "for small data, its own split into training, validation and test examples. The networks of one replicate see the "
    "same examples in the same batches, so they are compared in pairs. Texts and tables count replicates from 1; "
    "result.json and Python count from 0.",
    "run": "One execution of an experiment, with the folder of its results. It consists of trainings; each trains "
    "one network once.",
    "source": "The experiment that found the tickets of a transfer. A transfer trains tickets on other data, with "
    "another recipe, or in another width.",
    "seed": "The number from which all randomness of an experiment is derived. Another seed gives another "
    "experiment.",
    "level": "One round of pruning, with everything that is trained at its density. Level 0 trains the "
    "dense network.",
    "arm": "One of the networks that are trained side by side and compared: the dense network, the ticket, "
    "and each control.",
    "control": "A network that differs from the ticket in its mask or in its start. If a control trains as well as the "
    "ticket, this difference does not explain the ticket's accuracy.",
    "re-initialised": "The control that keeps the ticket's mask and draws new initial weights. It is also "
    "called re-init or reinit.",
    "random mask": "The control that keeps the ticket's start and draws a random mask with the same number of weights "
    "in every layer as the ticket's.",
    "method": "The procedure that finds masks. Iterative magnitude pruning (imp), the default, trains, "
    "prunes a share of the weights, rewinds the rest, and repeats.",
    "criterion": "The rule that gives every eligible weight a score. Weights with higher scores are kept. "
    "The default, magnitude, is the absolute value of the trained weight.",
    "allocation": "The rule that turns scores into a mask. It prunes each layer separately (layerwise), ranks the "
    "weights of all layers together (global_top), or requires the kept weights to form a pattern.",
    "rewind": "A rewind resets the weights that survive pruning to earlier values: the initial values, or the "
    "values after step k of training.",
    "step": "One update of the weights by the optimiser.",
    "recipe": "How a network is trained: optimiser, learning rate and its schedule, batch size, number "
    "of steps.",
    "stack": "Replicates that are trained together as one batched computation, five by default, without influence on "
    "one another. Networks that cannot be stacked, and networks with convolutions on a CPU, are trained one by one "
    "unless --stacking says otherwise.",
    "verdict": "What the experiment concludes: won, not won, or inconclusive.",
    "won": "At one density or more, the ticket is shown to match the dense network and to beat both controls.",
    "not won": "At every density, the data show the opposite: the ticket is below the dense network by "
    "more than the margin, or it is below a control.",
    "inconclusive": "Neither a win nor its opposite is shown. The verdict then says how many replicates "
    "would be needed to decide, if that can be estimated.",
    "margin": "To match the dense network, a ticket must lose less accuracy than this, in percentage points "
    "(pp). It is also written δ. It is 0.5 pp by default and is fixed before the run.",
    "percentage point": "The unit of differences of accuracies, pp: from 97 % to 98 % is 1 percentage point.",
    "difference": "The accuracy of one network minus that of another, formed within each replicate and averaged. It is "
    "computed before rounding, so it may differ in the last digit from the difference of two rounded means.",
    "confidence": "How sure a bound is: if the experiment were repeated many times, a bound with 97.8 % confidence "
    "would hold in 97.8 % of the repetitions. A bound's confidence is 1 minus the level of its test. Each test needs a "
    "confidence above 95 %, so that the chance of a false win over all tests together is at most 5 %.",
    "t test": "Student's one-sided paired t test of the differences. It decides every claim about accuracies.",
    "trimmed-mean test": "A cross-check of the t test that leaves out the fifth of the differences at either end, so "
    "that single replicates do not decide (Yuen's test).",
    "sign-flip test": "A cross-check of the t test that compares the mean difference with those that arise if the "
    "signs of the differences are flipped at random. It does not assume a normal distribution.",
    "Holm's procedure": "A way to test the controls at all densities with one error rate: the smallest p-value has to "
    "be below the rate divided by the number of densities, the next one below the rate divided by that number minus "
    "one, and so on, until one fails.",
    "signed-rank test": "Wilcoxon's test of paired values by their ranks, here of ratios of steps. A training that "
    "never "
    "reaches the target ranks last.",
    "Hodges-Lehmann estimate": "The typical ratio that belongs to the signed-rank test: the median, over all pairs of "
    "replicates, of the geometric mean of their two ratios.",
    "supermask": "A mask that makes an untrained network accurate merely by removing weights (Zhou et al. 2019).",
    "matches dense": "The ticket's accuracy is shown to fall short of the dense network's by less than the margin, "
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
    "mask, but is not shown to beat the same mask with new initial weights. The mask then helps, and the initial "
    "weights are not shown to matter.",
    "trivially sparse": "A kind of result: the ticket matches the dense network, but is not shown to beat "
    "either control. Any mask of this density may then work as well.",
    "early stop": "The training step at which the validation loss is lowest. If that is the last step in most "
    "replicates, the loss was still falling when training ended, and we cannot know where it would have been lowest. "
    "The early stop is then neither compared nor drawn, but the report lists it under “All numbers”.",
    "to 95 % of dense": "The number of steps until the validation accuracy reaches 95 % of the final "
    "validation accuracy of the same replicate's dense network. It measures how soon a network learns.",
    "sooner, later, alike": "A ticket is sooner if a test shows that it takes fewer steps than the dense network, and "
    "later if a test shows that it takes more. Alike means that neither is shown.",
    "search": "An arm of methods that find the mask within one training, such as RigL: the network at the end of that "
    "training. The ticket has the same mask and is trained alone, from its start.",
    "dead unit": "A neuron or filter that has lost all its incoming weights, under a mask that keeps or "
    "prunes whole units. Its bias and the weights that take it as input are 0 as well.",
    "effective density": "The share of the weights that are kept and have an effect: their inputs can be other than 0, "
    "and they lie on a path to the output.",
    "emptied layer": "A layer that has lost every weight. In a network without shortcuts, no signal passes "
    "through such a layer.",
    "failed": "A training that ended with an error, for example because the loss was no longer finite. "
    "Means leave it out, and tests take the accuracy that is worst for the ticket.",
    "collapsed": "A replicate whose accuracy is below the median of its arm by more than four margins and more than "
    "eight robust standard deviations (1.48 times the median distance from the median). Tests of means cannot see rare "
    "collapses, so winticket looks for them one by one.",
    "sparse kernels": "Compiled code that computes a layer from its kept weights only. It is used for the "
    "layers that it makes faster on this machine.",
    "store": "The folder or URL that keeps finished trainings. A command that is repeated or extended then computes "
    "only what is missing.",
    "compact file": "The file in which winticket ship stores a trained network. It holds coded masks and only the kept "
    "weights.",
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
    "margin, false-win chance": "margin",
    "smallest winning density": "winning ticket",
    "replicates": "replicate",
    "n": "replicate",
    "replicates per stack": "stack",
    "training in stacks": "stack",
    "trained on sparse kernels": "sparse kernels",
    "as its search left it": "search",
    "as its search left it %": "search",
    "allocate": "allocation",
    "alpha": "error rate",
    "arms": "arm",
    "controls": "control",
    "gate": "trained enough",
    "levels": "level",
    "margin pp": "margin",
    "parameters kept": "density",
    "steps": "step",
    "tickets from": "source",
}
"""Headings of the page that use another form of a word."""

FORMS: Mapping[str, str] = {
    "difference": "difference",
    "Holm's procedure": "Holm",
    "Hodges-Lehmann estimate": "Hodges-Lehmann",
    "percentage point": r"percentage points?|\bpp\b",
    "re-initialised": "re-?init",
    "allocation": "allocat",
    "± and intervals": "±",
    "to 95 % of dense": "to 95 % of",
    "sooner, later, alike": "sooner|later|alike",
    "search": "as its search left it",
    "error rate": "error rate|false win|false-win",
    "source": "source of the tickets|tickets from",
}
"""Regular expressions for words that the page writes in other ways, or that also have an everyday meaning."""

_TAGS = re.compile(r"<[^>]*>")
_SECTIONS = re.compile(r"(?=<section\b|<header\b)")
_PARAGRAPHS = re.compile(r'(?P<open><p class="words">)(?P<text>.*?)(?P<close></p>)', re.DOTALL)
_HEADINGS = re.compile(r"(?P<open><(?P<tag>th|dt)\b[^>]*>)(?P<word>[^<]+)(?P<close></(?P=tag)>)")


def anchor(word: str) -> str:
    """Return the HTML anchor of a word.

    >>> anchor("random mask")
    'word-random-mask'
    """
    return "word-" + re.sub(r"\W+", "-", word).strip("-")


def words_section(html: str, meanings: Mapping[str, str] = WORDS) -> str:
    """Return the page's last section as HTML: a folded list of the words that the rest of the page uses.

    meanings: of the words, as `WORDS`, in terms of the page's metric.
    """
    used = words_in(html, meanings)
    entries = "\n".join(
        f'<dt id="{anchor(word)}">{escape(word)}</dt><dd>{escape(meaning)}</dd>'
        for word, meaning in meanings.items()
        if word in used
    )
    return (
        "<section><details><summary>Words used on this page</summary>"
        f'<dl class="wide words">{entries}</dl></details></section>'
    )


def words_in(html: str, meanings: Mapping[str, str] = WORDS) -> set[str]:
    """The words that a page uses or links to, and those that their meanings use.

    >>> sorted(words_in("<p>a plan</p>"))
    ['plan', 'run']
    """
    used = {word for word in meanings if f'href="#{anchor(word)}"' in html}
    texts = [unescape(_TAGS.sub(" ", html)), *(meanings[word] for word in used)]
    while texts:
        text = texts.pop()
        new = {word for word in meanings if word not in used and _form(word).search(text)}
        used |= new
        texts += [meanings[word] for word in new]
    return used


def _form(word: str) -> re.Pattern[str]:
    return re.compile(FORMS.get(word) or rf"\b{re.escape(word)}e?s?\b", re.IGNORECASE)


def linked(html: str, *, unit: str = "%") -> str:
    """Link words in the page's HTML to their explanations: in each table's headings, and at first in marked paragraphs.

    Headings are linked once in every section. Paragraphs of the class `words` are the page's first ones; in all of them
    together, each word is linked once. unit: of the metric, which stands behind the names of columns.
    """
    parts = _SECTIONS.split(html)
    return _in_paragraphs("".join(_in_headings(part, unit) for part in parts))


def _in_headings(part: str, unit: str) -> str:
    seen: set[str] = set()

    def link(heading: re.Match[str]) -> str:
        named = (
            re.sub(rf" {re.escape(escape(unit))}$", " %", heading["word"]) if unit else f"{heading['word']} %"
        )
        word = ALIASES.get(heading["word"]) or ALIASES.get(named, heading["word"])
        if word not in WORDS or word in seen:
            return heading[0]
        seen.add(word)
        return f"{heading['open']}{_link(word, heading['word'])}{heading['close']}"

    return _HEADINGS.sub(link, part)


def _in_paragraphs(html: str) -> str:
    seen: set[str] = set()

    def link(found: re.Match[str]) -> str:
        word = _meant(found[0])
        if word in seen:
            return found[0]
        seen.add(word)
        return _link(word, found[0])

    def paragraph(found: re.Match[str]) -> str:
        texts = _TAGS.split(found["text"])
        tags = [*_TAGS.findall(found["text"]), ""]
        linked_texts = (_ANY_WORD.sub(link, text) for text in texts)
        inner = "".join(text + tag for text, tag in zip(linked_texts, tags, strict=True))
        return found["open"] + inner + found["close"]

    return _PARAGRAPHS.sub(paragraph, html)


def _link(word: str, text: str) -> str:
    return f'<a class="word" href="#{anchor(word)}">{text}</a>'


def _meant(text: str) -> str:
    """The word of the glossary that a text in a paragraph is a form of."""
    return next(word for word, form in _LINKED.items() if form.fullmatch(text))


NOT_LINKED = frozenset(
    ("won", "not won", "open", "step", "run", "source", "plan", "store", "failed", "look", "search", "difference",
     "level", "± and intervals", "sooner, later, alike", "method", "seed", "stack", "to 95 % of dense", "compact file")
)  # fmt: skip
"""Words that have an everyday meaning as well, and headings that are no words: paragraphs do not link them."""
_OTHERWISE = {
    "re-initialised": r"re-initialised|re-init",
    "allocation": "allocation",
    "Holm's procedure": "Holm(?:'|&#x27;)s procedure",
    "Hodges-Lehmann estimate": "Hodges-Lehmann estimate",
    "percentage point": r"percentage points?(?: \(pp\))?|pp",
    "error rate": "error rate|false win",
    "confidence": "confidences?",
    "matches dense": "match(?:es)? the dense network",
    "collapsed": "collapsed|collapses",
}
_LINKED: Mapping[str, re.Pattern[str]] = {
    word: re.compile(_OTHERWISE.get(word) or rf"{re.escape(word)}(?:s|es)?", re.IGNORECASE)
    for word in sorted(WORDS, key=len, reverse=True)
    if word not in NOT_LINKED
}
"""By word, the longest first, what in a paragraph is linked to it."""
_ANY_WORD = re.compile(
    r"\b(?:" + "|".join(form.pattern for form in _LINKED.values()) + r")(?![\w-])", re.IGNORECASE
)


def glossary_page() -> str:
    """Return the text of docs/glossary.md, which `make docs` writes."""
    head = (
        "# Glossary\n\nThese are the words that the command, its results and the other documents use. Related words "
        "are next to each other. The report of every run ends with the same list.\n\n| word | meaning |\n|---|---|\n"
    )
    return head + "".join(f"| **{word}** | {meaning} |\n" for word, meaning in WORDS.items())
