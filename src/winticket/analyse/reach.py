"""Which kept weights lie on a path from the input to the output, read off one pass through the network.

The pass computes dependence instead of numbers. A value is above 0 if it depends on the input through kept weights, and
a gradient is above 0 if the output depends on the value. So a weight whose gradient is above 0 is on a path. Products
use the mask as weights, everything else is replaced by what it does to dependence: an activation passes it on, a sum
and a product of two values unite it, and biases and other constants have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from winticket.ticket import Mask
from winticket.ticket.mask import same_layers

REVISION = 1

_UNARY = (  # of one value, possibly with what normalises it
    "relu relu_ relu6 leaky_relu leaky_relu_ prelu elu elu_ selu celu gelu silu mish tanh tanh_ sigmoid "
    "sigmoid_ softplus softsign hardtanh hardtanh_ hardswish hardsigmoid logsigmoid log_sigmoid tanhshrink "
    "erf exp log sin cos square sqrt rsqrt abs neg __neg__ pow __pow__ clamp clamp_ clip clamp_min clamp_max "
    "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout batch_norm layer_norm "
    "group_norm instance_norm rms_norm local_response_norm normalize contiguous clone detach to type type_as "
    "float double half bfloat16 cpu requires_grad_"
)
_UNITING = (  # of several values, of one shape or of shapes that broadcast
    "add add_ __add__ __radd__ iadd __iadd__ sub sub_ __sub__ __rsub__ rsub __isub__ mul mul_ __mul__ "
    "__rmul__ multiply __imul__ div div_ __truediv__ __rtruediv__ true_divide __itruediv__ divide maximum "
    "minimum where lerp"
)
_NATIVE = (  # moves, copies, adds up or averages values, which dependence follows as numbers do
    "view reshape flatten unflatten permute transpose swapaxes movedim t squeeze unsqueeze expand expand_as "
    "broadcast_to repeat repeat_interleave tile cat concat concatenate stack split chunk unbind tensor_split "
    "__getitem__ getitem select narrow index_select gather pad mean sum avg_pool1d avg_pool2d avg_pool3d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d roll flip pixel_shuffle pixel_unshuffle "
    "channel_shuffle unfold __get__ size dim ndimension numel __len__ stride is_floating_point is_contiguous "
    "storage_offset get_device is_complex"
)
_UNARY_CALLS, _UNITING_CALLS, _NATIVE_CALLS = (frozenset(x.split()) for x in (_UNARY, _UNITING, _NATIVE))
_PRODUCTS = frozenset(
    "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d".split()  # noqa: SIM905
)
_MATMULS = frozenset(("matmul", "__matmul__", "__rmatmul__", "mm", "bmm"))
_POOLS: Mapping[str, Callable[..., Tensor]] = {
    "max_pool1d": nn.functional.avg_pool1d,
    "max_pool2d": nn.functional.avg_pool2d,
    "max_pool3d": nn.functional.avg_pool3d,
    "adaptive_max_pool1d": nn.functional.adaptive_avg_pool1d,
    "adaptive_max_pool2d": nn.functional.adaptive_avg_pool2d,
    "adaptive_max_pool3d": nn.functional.adaptive_avg_pool3d,
}
_KNOWN = (
    "paths are followed through Linear and Conv layers, matrix products, embeddings, attention, elementwise "
    "activations, normalisations, pooling, reshapes, sums and products"
)


def on_paths(model: nn.Module, mask: Mask, example: Tensor) -> Mask:
    """The kept weights that lie on a path from the input to the output.

    A path leads through kept weights, and through weights that the mask does not cover. Vysogorets & Kempe 2023
    (Connectivity Matters): all other connections are inactivated, whether they were pruned or not. Their code finds
    them by SynFlow's scores in a network without activations and normalisation, as is done here; but here a value is
    clipped to "depends" or not after every layer, so nothing overflows in deep networks. As there, a kernel's position
    that sees nothing but padding is on no path. An embedding counts as input.

    example: one input of the network [N, ...], N at least 1. Its numbers do not matter, except that of an embedding
    only the rows that occur are on a path. Raises ValueError if mask and model do not fit, or if the network contains
    an operation through which paths are not followed.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> first, second = torch.tensor([[True, True], [True, False]]), torch.tensor([[True, False]])
    >>> mask = Mask({"0.weight": first, "2.weight": second})
    >>> on_paths(model, mask, torch.zeros(1, 2)).keep["0.weight"]  # nothing reads the second unit
    tensor([[ True,  True],
            [False, False]])
    """
    parameters = dict(model.named_parameters())
    same_layers("mask and model", mask.keep, {n: p for n, p in parameters.items() if n in mask.keep})
    # float64: float32 convolutions may take algorithms whose sums leave rounding errors where the result is 0.
    keep = {
        name: k.detach().to("cpu", torch.float64).requires_grad_()
        for name, k in mask.keep.items()
        if k.numel()
    }
    constants = {**parameters, **dict(model.named_buffers())}
    values = {
        name: keep.get(name, _blank(value)) for name, value in constants.items() if isinstance(value, Tensor)
    }
    example = example.detach().cpu()
    if example.is_floating_point():
        example = torch.ones_like(example[:1], dtype=torch.float64).requires_grad_()
    gradients = _gradients(model, values, keep, example)
    on = {}
    for name, k in mask.keep.items():
        gradient = gradients.get(name)
        on[name] = torch.zeros_like(k) if gradient is None else k & (gradient > 0).to(k.device)
    return Mask(on, mask.layout)


def effective_density(model: nn.Module, mask: Mask, example: Tensor) -> float:
    """The density that is left if only weights on a path from the input to the output count, in 0..1.

    Vysogorets & Kempe 2023: 1 - effective sparsity. Arguments and errors as for `on_paths`; ValueError also for a mask
    over no weights.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> first, second = torch.tensor([[True, True], [True, False]]), torch.tensor([[True, False]])
    >>> mask = Mask({"0.weight": first, "2.weight": second})
    >>> mask.density(), effective_density(model, mask, torch.zeros(1, 2))
    (0.6666666666666666, 0.5)
    """
    return on_paths(model, mask, example).density()


def _blank(value: Tensor) -> Tensor:
    """A constant: nothing depends on it, so its numbers are 0. Whole numbers may be positions, and stay."""
    if not value.is_floating_point():
        return value.detach().cpu()
    return torch.zeros(value.shape, dtype=torch.float64)


def _gradients(
    model: nn.Module, values: Mapping[str, Tensor], keep: Mapping[str, Tensor], example: Tensor
) -> dict[str, Tensor | None]:
    was, kind = model.training, type(model).__name__
    model.eval()
    try:
        with torch.enable_grad(), _Dependence(keep.values()):
            output = functional_call(model, dict(values), (example,))
        if not isinstance(output, Tensor) or not output.requires_grad:
            raise _UnknownError(
                "its output is not a tensor"
                if not isinstance(output, Tensor)
                else "its output depends on no input"
            )
        found = torch.autograd.grad(output.sum(), list(keep.values()), allow_unused=True) if keep else ()
    except _UnknownError as unknown:
        raise ValueError(f"the paths of {kind} cannot be followed: {unknown}; {_KNOWN}") from None
    except RuntimeError as error:  # such as a value changed in place that the gradient needs
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"the paths of {kind} cannot be followed: {first}; {_KNOWN}") from error
    finally:
        model.train(was)
    return dict(zip(keep, found, strict=True))


class _UnknownError(Exception):
    """Why paths cannot be followed, in words."""


class _Clipped(torch.autograd.Function):
    """1 where a value depends on the input, and 1 where the output depends on it: counts stay small."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return (gradients[0] > 0).to(gradients[0].dtype)


def _clipped(x: Tensor) -> Tensor:
    clipped: Tensor = _Clipped.apply(x)  # type: ignore[no-untyped-call]
    return clipped


class _Dependence(TorchFunctionMode):
    """Replaces every call on values that depend on the input by what it does to dependence."""

    def __init__(self, weights: Sequence[Tensor] | Any) -> None:
        super().__init__()
        self.weights = {id(weight) for weight in weights}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name, options = getattr(func, "__name__", str(func)), dict(kwargs or {})
        if name == "embedding":
            return self.embedded(func, args, options)
        dependent = [t for t in _tensors((*args, *options.values())) if t.requires_grad]
        if not dependent or name in _NATIVE_CALLS:
            return func(*args, **({**options, "value": 0} if name == "pad" else options))
        first = args[0] if args else dependent[0]
        if name in _UNARY_CALLS:
            return dependent[0].clone()
        if name in _UNITING_CALLS:
            return self.united(name, first, args, dependent)
        if name in _PRODUCTS:
            return self.product(func, args, options)
        if name in _MATMULS or name == "addmm":
            return self.multiplied(*(args[1:3] if name == "addmm" else args[:2]))
        if name in ("softmax", "log_softmax", "softmin"):
            dim = options.get("dim", args[1] if len(args) > 1 else None)
            return first.sum(-1 if dim is None else dim, keepdim=True).expand_as(first)
        if name == "amax":
            return torch.sum(*args, **options)
        if name in ("masked_fill", "masked_fill_"):
            return first.masked_fill(args[1], 0.0)
        if name in _POOLS:
            return self.pooled(name, args, options)
        if name == "scaled_dot_product_attention":
            return _attended(*args[:3])
        raise _UnknownError(f"it calls {name}")

    def is_weight(self, value: Any) -> bool:
        """True for a masked weight, and for a view of one, such as its transpose."""
        return isinstance(value, Tensor) and (
            id(value) in self.weights or (value._base is not None and id(value._base) in self.weights)
        )

    def embedded(self, func: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
        weight = args[1] if len(args) > 1 else options["weight"]
        rows: Tensor = func(args[0], weight)
        return rows if self.is_weight(weight) else torch.ones_like(rows).requires_grad_()

    def product(self, func: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
        x, weight = args[0], args[1] if len(args) > 1 else options["weight"]
        if not isinstance(x, Tensor) or not x.requires_grad:
            x = torch.zeros_like(x)
        weight = weight if weight.requires_grad else torch.ones_like(weight)
        rest = [None, *args[3:]] if len(args) > 2 else []
        options = {name: value for name, value in options.items() if name not in ("weight", "bias")}
        return _clipped(func(x, weight, *rest, **options))

    def multiplied(self, one: Tensor, other: Tensor) -> Tensor:
        """A matrix product: of values with weights, with constants, or of two values, either of which is passed on."""
        ones = [torch.ones_like(one), torch.ones_like(other)]
        if self.is_weight(one) or self.is_weight(other):
            return _clipped(one @ other)
        parts = [a @ b for a, b in ((one, ones[1]), (ones[0], other)) if a.requires_grad or b.requires_grad]
        return _clipped(parts[0] if len(parts) == 1 else parts[0] + parts[1])

    def united(self, name: str, first: Any, args: tuple[Any, ...], dependent: list[Tensor]) -> Tensor:
        if name.endswith("_") and not name.endswith("__"):  # in place
            others = [t for t in _tensors(args[1:]) if t.requires_grad]
            for other in others:
                first.add_(other)
            united: Tensor = first
            return united
        alike = torch.broadcast_tensors(*dependent, *_tensors(args))  # type: ignore[no-untyped-call]
        return torch.stack(alike[: len(dependent)]).sum(0)

    def pooled(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
        usual = "input kernel_size stride padding dilation ceil_mode return_indices"
        names = ("input output_size return_indices" if name.startswith("adaptive") else usual).split()
        call = {**dict(zip(names, args, strict=False)), **options}
        dilation = call.pop("dilation", 1)
        if call.pop("return_indices", False) or set(
            dilation if isinstance(dilation, tuple) else (dilation,)
        ) != {1}:
            raise _UnknownError(f"it calls {name} with a dilation or for positions")
        return _POOLS[name](call.pop("input"), **call)


def _attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention: every position takes values of all positions, as queries and keys choose."""
    chosen = query.sum(-1, keepdim=True) + key.sum((-2, -1), keepdim=True)
    return _clipped(value.sum(-2, keepdim=True) + chosen)


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
