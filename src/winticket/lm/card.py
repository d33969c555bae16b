"""The README of a pruned model's folder, and the lines that the command prints."""

from __future__ import annotations

import json
from collections.abc import Iterator

from winticket.lm.perplexity import Estimate
from winticket.lm.record import Comparison, Perplexity, Pruned
from winticket.text import counted

PAPERS = {
    "magnitude": "by magnitude in each layer",
    "wanda": "with Wanda (Sun et al. 2024, https://arxiv.org/abs/2306.11695)",
    "sparsegpt": "with SparseGPT (Frantar & Alistarh 2023, https://arxiv.org/abs/2301.00774)",
}
OWL = "OWL (Yin et al. 2024, https://arxiv.org/abs/2310.05175)"


def sentences(result: Pruned) -> Iterator[str]:
    """What was done, in words, a sentence each."""
    density = result["kept"] / result["total"]
    yield (
        f"winticket {result['winticket']} pruned {result['model']} {PAPERS[result['method']]}: "
        f"{result['kept']:,} of {result['total']:,} weights in the linear layers of its {len(result['blocks'])} blocks "
        f"are kept (density {density:.4g}). Embeddings and the output layer are as they were."
    )
    if result["pattern"]:
        n, m = result["pattern"].split(":")
        yield f"At most {n} of every {m} consecutive inputs of a unit are kept ({result['pattern']})."
    if result["owl"]:
        low, high = (f(block["density"] for block in result["blocks"]) for f in (min, max))
        yield f"Each block has a density of its own, from {low:.3f} to {high:.3f}, by {OWL}."
    if result["samples"] is not None:
        yield (
            f"The calibration text was {counted(result['samples'], 'window')} of {result['length']} tokens "
            f"(seed {result['seed']})."
        )
    if result["perplexity"] is not None:
        yield compared(result["perplexity"])


def compared(both: Comparison) -> str:
    """The perplexity before and after in a sentence."""
    return (
        f"Perplexity on {windows_in_words(both['before'], 'held-out window')}: "
        f"{number(both['before']['perplexity'])} before, {number(both['after']['perplexity'])} after; "
        f"{number(both['ratio'])} times as much."
    )


def windows_in_words(one: Perplexity, what: str = "window") -> str:
    """How many windows there are, and what intervals are over if that is not windows.

    >>> estimate = {"value": 2.0, "interval": None}
    >>> windows_in_words({"windows": 9, "documents": 4, "length": 64, "tokens": 567, "perplexity": estimate})
    '9 windows of 64 tokens from 4 documents (intervals are over documents)'
    """
    many = (
        f" from {one['documents']} documents (intervals are over documents)" if one["documents"] > 1 else ""
    )
    return f"{counted(one['windows'], what)} of {one['length']} tokens{many}"


def number(estimate: Estimate) -> str:
    """A perplexity or ratio with its 95 % interval.

    >>> number({"value": 12.3456, "interval": [11.0, 13.5]})
    '12.35 (95 % interval 11 to 13.5)'
    """
    if estimate["interval"] is None:
        return f"{estimate['value']:.4g}"
    low, high = estimate["interval"]
    return f"{estimate['value']:.4g} (95 % interval {low:.4g} to {high:.4g})"


def card(result: Pruned) -> str:
    """README.md: the header that the Hub reads, what was done, and how to load it."""
    listed = "\n".join(f"- {sentence}" for sentence in sentences(result))
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags:
- winticket
- pruning
- sparsity
---

# {json.dumps(result["model"], ensure_ascii=False)[1:-1]}, pruned

{listed}

Pruned weights are exactly 0 in the files. `masks.safetensors` says which weights are pruned, one bit each, and
`result.json` has every number. Whatever licence and limits the original model has hold for this one too.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/of/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")
```
"""
