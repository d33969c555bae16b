"""Heads and hidden neurons of Transformers' models: recognised, scored by real gates, pruned whole, and removed."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    Gemma3nTextConfig,
    GemmaConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    Starcoder2Config,
    ViTConfig,
    ViTForImageClassification,
)

import winticket
from winticket import allocate, controls, criteria, models
from winticket.causal import from_tokens
from winticket.criteria import Evidence
from winticket.ticket import Mask, State, kept_parts
from winticket.units import layouts, structures
from winticket.units.families import recognised

SIZES: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
OPT: dict[str, Any] = {"ffn_dim": 48, "word_embed_proj_dim": 32}
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES, num_key_value_heads=2),
    "qwen2": Qwen2Config(**SIZES, num_key_value_heads=2),  # biases of queries, keys and values
    "qwen3": Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8),  # norms of queries and keys
    "gemma": GemmaConfig(**SIZES, num_key_value_heads=2, head_dim=16),  # heads wider than the model
    "phi": PhiConfig(**SIZES),
    "opt": OPTConfig(**{**SIZES, **OPT}),
    "gpt_neox": GPTNeoXConfig(**SIZES),
    "gptj": GPTJConfig(
        vocab_size=20,
        n_positions=64,
        n_embd=32,
        n_inner=48,
        n_layer=2,
        n_head=4,
        rotary_dim=4,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "starcoder2": Starcoder2Config(**SIZES, num_key_value_heads=2),
}
FOUND = {
    "llama": {"heads": 2, "neurons": 48},
    "qwen2": {"heads": 2, "neurons": 48},
    "qwen3": {"heads": 2, "neurons": 48},
    "gemma": {"heads": 2, "neurons": 48},
    "phi": {"heads": 4, "neurons": 48},
    "gpt_neox": {"neurons": 48},  # its heads hold queries, keys and values in one tensor
    "gptj": {"heads": 4, "neurons": 48},
    "starcoder2": {"heads": 2, "neurons": 48},
    "opt": {"heads": 4},  # its hidden neurons are in the layer itself, with everything else
}
TOKENS = torch.randint(3, 20, (2, 12), generator=torch.Generator().manual_seed(3))


def causal_model(name: str) -> Any:
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[name])).eval()
    _shift_biases(model)
    return model


def _shift_biases(model: nn.Module) -> None:
    """So that biases count, too."""
    with torch.no_grad():
        for name, one in model.named_parameters():
            if name.endswith("bias"):
                one.add_(torch.linspace(-0.3, 0.5, one.numel()))


def classifier(kind: str) -> tuple[Any, dict[str, Tensor]]:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    if kind == "bert":
        model: Any = BertForSequenceClassification(
            BertConfig(vocab_size=20, max_position_embeddings=64, **sizes)
        ).eval()
        inputs = {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS).tril(3)}
    elif kind == "distilbert":
        config = DistilBertConfig(
            vocab_size=20, max_position_embeddings=64, dim=32, hidden_dim=48, n_layers=2, n_heads=4
        )
        model = DistilBertForSequenceClassification(config).eval()
        inputs = {"input_ids": TOKENS}
    else:
        model = ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **sizes)).eval()
        inputs = {"pixel_values": torch.randn(2, 3, 8, 8)}
    _shift_biases(model)
    return model, inputs


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_recognised(name: str) -> None:
    found = [one for one in structures(causal_model(name)) if one.kind != "tokens"]
    assert {one.kind: one.parts for one in found} == FOUND[name]
    assert len(found) == 2 * len(FOUND[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_smaller_model_computes_and_generates_what_the_masked_one_does(name: str) -> None:
    model = causal_model(name)
    ticket = winticket.prune(model, 0.5, allocate=allocate.structures)
    small = winticket.remove_parts(model, ticket, example=TOKENS)
    smaller: Any = small.module
    before = copy.deepcopy(model)
    _apply(before, ticket.mask)
    assert type(small.module) is type(model)
    with torch.no_grad():
        torch.testing.assert_close(smaller(TOKENS).logits, before(TOKENS).logits, atol=1e-5, rtol=1e-5)
    told: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    one, two = (each.generate(TOKENS, **told) for each in (smaller, before))
    assert torch.equal(one, two)
    for path, kept in kept_parts(ticket.mask).items():
        assert int(kept.sum()) == round(0.5 * len(kept)), path
    counts = [
        value
        for module in smaller.modules()
        for attribute in ("num_heads", "num_attention_heads")
        if isinstance(value := getattr(module, attribute, None), int)
    ]
    assert counts == ([2, 2] if name in ("opt", "gptj") else [])
    numbers = sum(p.numel() for p in smaller.parameters())
    gone = sum(int((~keep).sum()) for keep in ticket.mask.keep.values())
    biases = sum(
        len(small.maps[f"{path}.units"])
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer.bias is not None and f"{path}.units" in small.maps
    )  # half of them stay, so as many went
    assert numbers == sum(p.numel() for p in model.parameters()) - gone - biases
    assert all(bool(keep.all()) for keep in small.mask.keep.values())


def _apply(model: nn.Module, mask: Mask) -> None:
    with torch.no_grad():
        for name, keep in mask.keep.items():
            model.get_parameter(name).mul_(keep)


@pytest.mark.parametrize("kind", ["bert", "vit", "distilbert"])
def test_encoders(kind: str) -> None:
    model, inputs = classifier(kind)
    ticket = winticket.prune(model, 0.5, allocate=allocate.structures)
    small: Any = winticket.remove_parts(model, ticket, example=inputs).module
    before = copy.deepcopy(model)
    _apply(before, ticket.mask)
    with torch.no_grad():
        torch.testing.assert_close(small(**inputs).logits, before(**inputs).logits, atol=1e-5, rtol=1e-5)
    assert {one.kind: one.parts for one in structures(small) if one.kind != "tokens"} == {
        "heads": 2,
        "neurons": 24,
    }
    if kind == "bert":
        attention: Any = small.get_submodule("bert.encoder.layer.0.attention.self")
        assert (attention.num_attention_heads, attention.all_head_size) == (2, 16)


def test_the_importance_of_a_group_is_the_slope_of_the_loss_at_its_gate() -> None:
    """ξ is put on what a group of two query heads and their key and value head gives, before the output layer."""
    model = causal_model("llama").double()
    network = from_tokens(model)
    weights = {name: one.detach() for name, one in network.named_parameters()}
    names = [n for n in models.eligible(network) if "layers" in n]
    mask = Mask.full({n: weights[n] for n in names}, layout=layouts(network))
    state = State(weights, {}, {}, 0)
    targets = TOKENS.roll(-1, 1)
    e = Evidence(state, state, mask, torch.Generator(), network, batches=[(TOKENS, targets)])
    scores = criteria.head_importance(e)

    gates = {layer: torch.ones(2, dtype=torch.float64, requires_grad=True) for layer in range(2)}
    for layer, gate in gates.items():

        def gated(_: nn.Module, args: tuple[Tensor, ...], gate: Tensor = gate) -> tuple[Tensor]:
            return ((args[0].view(*args[0].shape[:-1], 2, 16) * gate[:, None]).flatten(-2),)

        model.get_submodule(f"model.layers.{layer}.self_attn.o_proj").register_forward_pre_hook(gated)
    total = {layer: torch.zeros(2, dtype=torch.float64) for layer in gates}
    for x, y in zip(TOKENS, targets, strict=True):
        loss = nn.functional.cross_entropy(network(x[None])[0], y)
        for layer, slope in zip(gates, torch.autograd.grad(loss, list(gates.values())), strict=True):
            total[layer] += slope.abs() / len(TOKENS)
    for layer, expected in total.items():
        for name, rows in (("q_proj", 16), ("k_proj", 8), ("v_proj", 8)):
            got = scores[f"model.layers.{layer}.self_attn.{name}.weight"]
            torch.testing.assert_close(got, expected.repeat_interleave(rows)[:, None].expand_as(got))


def test_a_random_control_draws_whole_groups() -> None:
    ticket = winticket.prune(causal_model("llama"), 0.5, allocate=allocate.structures)
    drawn = [kept_parts(controls.random_mask(ticket, seed=seed).mask) for seed in range(8)]
    heads = {tuple(one["model.layers.0.self_attn.heads"].tolist()) for one in drawn}
    assert heads == {(True, False), (False, True)}


def test_numbers_beside_the_layers_stay_true() -> None:
    model = causal_model("llama")
    ticket = winticket.prune(model, 0.5, allocate=allocate.structures)
    small: Any = winticket.remove_parts(model, ticket, example=TOKENS).module
    assert [layer.mlp.intermediate_size for layer in small.model.layers] == [24, 24]
    assert [layer.mlp.intermediate_size for layer in model.model.layers] == [48, 48]


def test_mixtures_of_experts_compute_in_float32_alone() -> None:
    """Their experts' kernel takes no float64, so the smaller model is compared in float32."""
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        **SIZES,
        num_key_value_heads=2,
        head_dim=8,
        moe_intermediate_size=16,
        num_experts=4,
        num_experts_per_tok=2,
    )
    model: Any = AutoModelForCausalLM.from_config(config).eval()
    assert {one.kind for one in structures(model)} == {"tokens", "heads"}
    ticket = winticket.prune(model, 0.5, allocate=allocate.structures, exclude=["*.experts.*"])
    small: Any = winticket.remove_parts(model, ticket, example=TOKENS).module
    _apply(model, ticket.mask)
    with torch.no_grad():
        torch.testing.assert_close(small(TOKENS).logits, model(TOKENS).logits, atol=1e-5, rtol=1e-5)


class Single(nn.Module):
    """Hidden neurons that are summed in float32, also in a network of float64, as Transformers' norms are."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(64, 512), nn.Linear(512, 64)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x).relu()
        return nn.functional.linear(hidden.float(), self.fc2.weight.float()).to(x.dtype)


def test_rounding_in_float32_is_no_difference() -> None:
    torch.manual_seed(0)
    module = Single().eval()
    ticket = winticket.prune(module, 0.5, allocate=allocate.structures)
    small = winticket.remove_parts(module, ticket, example=torch.randn(64, 64)).module
    assert small.get_parameter("fc1.weight").shape == (256, 64)


class Second(nn.Module):
    """What it returns first says nothing of its neurons."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.mlp = between

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        hidden = self.mlp.fc1(x)  # type: ignore[operator]
        return x, self.mlp(x), [hidden]


def test_all_tensors_of_a_result_are_compared() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4)
    for between, fits in ((Mlp(), True), (Mixed(), False)):
        module = Second(between).eval()
        ticket = winticket.prune(module, 0.5, allocate=allocate.structures)
        if fits:
            assert winticket.remove_parts(module, ticket, example=x).mask.density() == 1
        else:
            with pytest.raises(ValueError, match="its parts depend on one another"):
                winticket.remove_parts(module, ticket, example=x)


def test_parts_that_depend_on_others_are_left_alone() -> None:
    """Gemma 3n switches neurons off by the spread of all, and layers read the keys of other layers."""
    config = Gemma3nTextConfig(
        **SIZES,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size_per_layer_input=20,
        hidden_size_per_layer_input=4,
        laurel_rank=4,
        num_kv_shared_layers=1,
        layer_types=["sliding_attention"] * 2,
        activation_sparsity_pattern=[0.5, 0.5],
    )
    model: Any = AutoModelForCausalLM.from_config(config)
    assert "heads" not in {one.kind for one in structures(model)}
    assert "neurons" not in {one.kind for one in structures(model)}


class Mlp(nn.Module):
    def __init__(self, hidden: int = 6, between: nn.Module | None = None) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, hidden), nn.Linear(6, 4)
        self.norm = between or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.fc2(self.norm(self.fc1(x)).relu())
        return value


class Sinks(nn.Module):
    """Heads with a parameter for each, as of gpt-oss."""

    def __init__(self, **numbers: int) -> None:
        super().__init__()
        self.head_dim = 4
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(8, 8) for _ in range(3))
        self.o_proj = nn.Linear(8, 8)
        self.sinks = nn.Parameter(torch.zeros(4))


def test_what_is_not_recognised() -> None:
    assert recognised(Mlp()) is not None
    assert recognised(Mlp(between=nn.LayerNorm(6))) is None  # every neuron depends on all
    assert recognised(Mlp(hidden=12)) is None  # a gate is cut out of the first layer's result
    assert recognised(Sinks()) is None
    with warnings.catch_warnings(action="ignore"):  # PyTorch says that it draws nothing
        assert recognised(Mlp(hidden=0)) is None
    del (whole := Sinks()).sinks
    assert recognised(whole) is not None
    whole.head_dim = 3  # does not divide
    assert recognised(whole) is None
    whole.head_dim = 0
    assert recognised(whole) is None
    torch.manual_seed(0)
    fused = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=20, n_embd=32, n_layer=1, n_head=4))
    assert {one.kind for one in structures(fused)} == {"tokens"}


class Fixed(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.fc2(self.fc1(x).view(len(x), 6).relu())
        return value


class Mixed(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.fc2(self.fc1(x).softmax(-1))
        return value


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Linear(4, 4)), "Sequential has no parts that could be removed"),
        (Fixed(), "does not compute the example with smaller layers: its forward seems to take their sizes"),
        (Mixed(), "its parts depend on one another"),
    ],
)
def test_refusals(module: nn.Module, message: str) -> None:
    names = {name: one for name, one in module.named_parameters() if name.startswith("fc") and one.ndim == 2}
    mask = Mask.full(names or {"0.weight": module.get_parameter("0.weight")}, layout=layouts(module))
    if names:
        keep = {
            "fc1.weight": torch.ones(6, 4, dtype=torch.bool),
            "fc2.weight": torch.ones(4, 6, dtype=torch.bool),
        }
        keep["fc1.weight"][2:] = False
        keep["fc2.weight"][:, 2:] = False
        mask = Mask(keep, mask.layout)
    with pytest.raises(ValueError, match=message):
        winticket.remove_parts(module.eval(), mask, example=torch.randn(3, 4))
    with pytest.raises(ValueError, match=r"training mode.*call model.eval\(\)"):
        winticket.remove_parts(module.train(), mask, example=torch.randn(3, 4))


def test_the_example_is_what_the_model_takes() -> None:
    model = causal_model("llama")
    ticket = winticket.prune(model, 0.5, allocate=allocate.structures)
    for example in (TOKENS, (TOKENS,), {"input_ids": TOKENS}):
        assert winticket.remove_parts(model, ticket, example=example).notes == ()
    with pytest.raises(
        ValueError, match="LlamaForCausalLM does not compute the example with its pruned weights at 0"
    ):
        winticket.remove_parts(model, ticket, example=torch.randn(3, 4))
    with pytest.raises(TypeError, match="takes a Ticket or a Mask, not a dict"):
        winticket.remove_parts(model, {}, example=TOKENS)  # type: ignore[arg-type]


def test_compact_trusts_no_names() -> None:
    """It follows neurons through the graph; of one that it cannot follow it removes nothing."""
    torch.manual_seed(0)
    keep = {
        name: torch.ones(shape, dtype=torch.bool)
        for name, shape in (("fc1.weight", (6, 4)), ("fc2.weight", (4, 6)))
    }
    keep["fc1.weight"][2:] = False
    keep["fc2.weight"][:, 2:] = False
    for module, neurons in ((Mlp(), 2), (Mixed(), 6)):
        mask = Mask(keep, layouts(module))
        small = winticket.compact(module.eval(), mask, example=torch.randn(3, 4))
        assert small.get_parameter("fc2.weight").shape == (4, neurons)
        _apply(module, mask)
        x = torch.randn(5, 4)
        torch.testing.assert_close(small(x), module(x))
