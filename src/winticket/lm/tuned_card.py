"""The README of a tuned model's folder, and the lines that the command prints."""

from __future__ import annotations

import json
from collections.abc import Iterator

from winticket.lm.card import compared
from winticket.lm.record import Tuned
from winticket.text import counted


def card(result: Tuned) -> str:
    """README.md: what was done."""
    name = json.dumps(result["model"], ensure_ascii=False)[1:-1]
    return f"# {name}, tuned\n\n{chr(10).join(sentences(result))}\n"


def sentences(result: Tuned) -> Iterator[str]:
    """What was done, in words, a sentence each."""
    both = result["perplexity"]
    yield (
        f"winticket {result['winticket']} tuned {result['how']} of {result['model']} ({result['trained']:,} numbers) "
        f"for {counted(result['steps'], 'step')} of {counted(result['batch'], 'window')} of {result['length']} tokens "
        f"(AdamW, learning rate {result['lr']:g}, seed {result['seed']})."
    )
    if result["lota"] is not None:
        calibration = counted(result["lota"]["calibration_steps"], "step")
        yield (
            f"They are those that {calibration} of tuning all weights changed most, "
            f"rewound to the start (LoTA, Panda et al. 2024). All other {result['lota']['unchanged']:,} numbers of "
            "the model are bit for bit what they were."
        )
    if not result["pruned"]:
        yield compared(both)
        return
    yield (
        f"Exactly {result['zeros']:,} of {result['total']:,} weights of the pruned layers are 0, those that the mask "
        f"prunes; {result['kept']:,} are kept."
    )
    yield compared(both)
