"""A causal language model's folder as a format of `winticket ship`: Transformers' `from_pretrained` loads it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from winticket import causal
from winticket.atomic import filling
from winticket.results import Shipment
from winticket.ship.format import Format, Logits, Source, Written, torch_logits
from winticket.ship.hub_files import CARD, MODEL
from winticket.trouble import of_the_machine
from winticket.units import Structure, structures
from winticket.units.structures import TOKENS

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def fitted(config: Any, model: nn.Module) -> Any:
    """A copy of a configuration of Transformers whose models have the layers of `model`, which has fewer parts.

    Raises ValueError if the layers differ in how many parts they have, for which a configuration has one number alone,
    or if models of this kind cannot be configured so.
    """
    new = copy.deepcopy(config)
    for name, values in _numbers(model).items():
        if len(values) > 1:
            raise ValueError(
                f"config.json has one {name} for all layers, and these keep {' or '.join(map(str, sorted(values)))}; "
                "--allocate structures keeps as many in each layer, and --to torch --shrink writes any numbers"
            )
        setattr(new, name, values.pop())
    try:
        type(new).from_dict(new.to_dict())  # as it will be read; what does not go together is refused then
        shapes = {name: one.shape for name, one in causal.skeleton(new).named_parameters()}
    except Exception as error:  # Transformers and its parts raise errors of many kinds; all are refusals
        if of_the_machine(error):
            raise
        first = str(error).strip().splitlines()[-1].strip()
        raise ValueError(
            f"config.json cannot describe the smaller model: {first}; use --to torch --shrink"
        ) from error
    for name, parameter in model.named_parameters():
        if shapes.get(name) != parameter.shape:
            raise ValueError(
                f"config.json of {config.model_type} models cannot describe the smaller model: {name} would have shape "
                f"{list(shapes.get(name, ()))}, and has {list(parameter.shape)}; use --to torch --shrink"
            )
    return new


def _numbers(model: nn.Module) -> dict[str, set[int]]:
    """What a configuration says about heads and hidden neurons -> the numbers that the layers have."""
    found: dict[str, set[int]] = {}
    for one in structures(model):
        for name, value in _described(one).items() if one.kind != TOKENS else ():
            found.setdefault(name, set()).add(value)
    return found


def _described(one: Structure) -> Mapping[str, int]:
    """The entries of a configuration that say how many parts a structure has."""
    size = getattr(one.module, "head_dim", None)
    if one.kind == "neurons":
        return {"intermediate_size": one.parts}
    if not isinstance(size, int):
        return {}
    heads = one.units[0].out_features // size
    return {"num_key_value_heads": one.parts, "num_attention_heads": heads, "head_dim": size}


def _check(source: Source, path: Path, values: str) -> None:
    """ValueError for values that a model of Transformers does not have, and for the folder that the model came from."""
    if values not in DTYPES:
        raise ValueError(
            f"a folder that Transformers loads holds values in {', '.join(DTYPES)}, not in {values}"
        )
    if path.parent.resolve() == Path(causal.local(source.pretrained).folder).resolve():
        raise ValueError(
            f"{path.parent} is the folder of the pretrained model, which would be lost; give another --name or --out"
        )


def _write(source: Source, path: Path, values: str) -> Written:
    folder, module = path.parent, source.module()
    assert module is not None, "a language model is a module"
    model: Any = copy.copy(module) if values == "fp32" else copy.deepcopy(module).to(DTYPES[values])
    model.config = fitted(model.config, model) if source.shrunk else copy.deepcopy(model.config)
    words = causal.tokenizer(causal.local(source.pretrained))
    path.unlink(missing_ok=True)  # a folder that is half old and half new has no weights, so it does not load
    with filling(folder) as new:
        causal.saved_beside(new, model, words)
        names = {file.name for file in new.iterdir()}
    with filling(folder) as new:
        causal.saved(new, model)
        names |= {file.name for file in new.iterdir()}
    return Written(beside=tuple(folder / name for name in sorted(names - {path.name})))


def _logits(_: Source, path: Path, x: NDArray[Any]) -> Logits:
    return torch_logits(causal.from_tokens(causal.load(causal.local(path.parent)).float()), x)


def _use(source: Source, name: str) -> tuple[str, ...]:
    folder, zeros = str(Path(name).parent), "" if source.shrunk else "  # pruned weights are 0"
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f"model = AutoModelForCausalLM.from_pretrained({folder!r}){zeros}",
        f"tokenizer = AutoTokenizer.from_pretrained({folder!r})",
    )


def _header(shipment: Shipment, about: Mapping[str, Any]) -> str:
    """The YAML that the Hub reads at the top of a card."""
    del shipment, about
    tags = ("winticket", "lottery-ticket-hypothesis", "pruning", "sparsity")
    lines = ("library_name: transformers", "pipeline_tag: text-generation", f"tags: {json.dumps(tags)}")
    return "\n".join(["---", *lines, "---", "", ""])


TRANSFORMERS = Format(
    "a folder that from_pretrained of Transformers loads, in which weights that are pruned and not removed are 0",
    lambda name, values: f"{name if values == 'fp32' else f'{name}-{values}'}/{MODEL}",
    _write,
    _logits,
    _use,
    card=CARD,
    header=_header,
    check=_check,
)
"""The format, in which `--to hub` writes a language model of Transformers."""
