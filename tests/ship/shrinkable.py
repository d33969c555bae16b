"""Networks and masks on which shrinking is tried."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from winticket import models
from winticket.ticket import Mask
from winticket.units import dead_parameters, layouts, zeroed


def warmed(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in evaluation, as after training: every bias, scale, shift and running statistic is something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, _BatchNorm):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.normal_(0, 0.3, generator=generator)
                part.running_var.uniform_(0.5, 2, generator=generator)
                part.weight.uniform_(0.5, 1.5, generator=generator)
                part.bias.normal_(0, 0.3, generator=generator)
            elif isinstance(getattr(part, "bias", None), nn.Parameter):
                part.bias.normal_(0, 0.2, generator=generator)  # type: ignore[operator]
    return module.eval()


def built(name: str, shape: tuple[int, ...]) -> nn.Module:
    return models.build(name, input_shape=shape, classes=10, generator_seed=1)


def random_mask(module: nn.Module, density: float, seed: int = 0) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    names = models.eligible(module)
    weights = {n: p for n, p in module.named_parameters() if n in names}
    keep = {n: torch.rand(w.shape, generator=generator) < density for n, w in weights.items()}
    return Mask(keep, layouts(module))


def unit_mask(module: nn.Module, share: float = 0.5, seed: int = 0) -> Mask:
    """Whole units of every layer but the last, at random."""
    generator = torch.Generator().manual_seed(seed)
    laid_out, keep = layouts(module), {}
    for name in models.eligible(module):
        weight = module.get_parameter(name)
        mask = Mask({name: torch.ones(weight.shape, dtype=torch.bool)}, laid_out)
        units = mask.laid_out(name).by_unit(mask.keep[name]).clone()
        if name != models.output_layer(module):
            lost = torch.randperm(len(units), generator=generator)[: round((1 - share) * len(units))]
            units[lost] = False
        keep[name] = mask.laid_out(name).from_units(units, weight)
    return Mask(keep, laid_out)


@torch.no_grad()
def mask_in_place(module: nn.Module, mask: Mask) -> nn.Module:
    """Pruned weights 0, and with units that are pruned whole everything that dies with them."""
    parameters = dict(module.named_parameters())
    dead = dead_parameters(module, mask)
    for name, value in zeroed(mask.apply(parameters), dead).items():
        parameters[name].copy_(value)
    return module


class Residual(nn.Module):
    """A convolution, a block with a way round it, the mean over pixels, a linear layer."""

    def __init__(self, stream: int = 8, hidden: int = 6) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, stream, 3, padding=1, bias=False), nn.BatchNorm2d(stream)
        self.conv1, self.bn1 = nn.Conv2d(stream, hidden, 3, padding=1), nn.BatchNorm2d(hidden)
        self.conv2, self.bn2 = nn.Conv2d(hidden, stream, 3, padding=1), nn.BatchNorm2d(stream)
        self.fc = nn.Linear(stream, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn(self.conv(x)), inplace=True)
        h = F.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(h))))) + h)
        logits: Tensor = self.fc(h.mean((-2, -1)))
        return logits


class Joined(nn.Module):
    """Two branches over the same image, concatenated; a view that says its size; functional dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 5, 3)
        self.c = nn.Conv2d(11, 7, 1)
        self.fc = nn.Linear(7 * 9, 10)
        self.out = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cat([F.relu(self.a(x)), torch.sigmoid(self.b(x))], dim=1)
        h = F.max_pool2d(F.leaky_relu(self.c(h)), 2)
        h = F.dropout(self.fc(h.view(-1, 63)), 0.4, self.training)
        logits: Tensor = self.out(torch.tanh(h))
        return logits


class Attentive(nn.Module):
    """Squeeze-and-excitation: channels are scaled by numbers that two linear layers compute from their means."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(3, 8, 3), nn.Linear(8, 4), nn.Linear(4, 8)
        self.out = nn.Conv2d(8, 5, 3, padding=1, padding_mode="replicate")

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.conv(x))
        s = torch.sigmoid(self.up(F.relu(self.down(h.mean((2, 3))))))
        logits: Tensor = self.out(h * s.view(s.shape[0], 8, 1, 1)).amax((2, 3))
        return logits


class Tokens(nn.Module):
    """Linear layers over the last of three dimensions, LayerNorm and a sum: half a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(6, 8), nn.LayerNorm(8)
        self.up, self.down, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        h = h + self.down(F.gelu(self.up(self.norm(h))))
        logits: Tensor = self.head(h.mean(1))
        return logits


def conv1d() -> nn.Module:
    """What a user may bring for sensor data."""
    return nn.Sequential(
        *(nn.Conv1d(6, 32, 5), nn.BatchNorm1d(32), nn.ReLU(), nn.MaxPool1d(2)),
        *(nn.Conv1d(32, 64, 5, padding=2), nn.ReLU(inplace=True), nn.AdaptiveAvgPool1d(4)),
        *(nn.Flatten(), nn.Linear(256, 64), nn.ELU(), nn.Dropout(0.3), nn.Linear(64, 5)),
    )


def mlp() -> nn.Module:
    return nn.Sequential(
        *(nn.Linear(20, 120), nn.BatchNorm1d(120), nn.Sigmoid(), nn.Linear(120, 90, bias=False)),
        *(nn.BatchNorm1d(90), nn.ReLU(), nn.Linear(90, 4)),
    )


def mobile() -> nn.Module:
    """Depthwise, pointwise and transposed convolutions, one in two groups, PReLU and InstanceNorm."""
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.PReLU(8)),
        *(nn.Conv2d(8, 16, 3, padding=1, groups=8), nn.BatchNorm2d(16), nn.ReLU6()),
        *(nn.Conv2d(16, 8, 1, bias=False), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2), nn.ReLU()),
        *(nn.ConvTranspose2d(6, 10, 3, stride=2), nn.InstanceNorm2d(10, affine=True), nn.ReLU()),
        *(
            nn.Conv2d(10, 5, 3, padding="same"),
            nn.AvgPool2d(3, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet-300-100": (lambda: built("lenet-300-100", (1, 28, 28)), (1, 28, 28)),
    "conv-2": (lambda: built("conv-2", (1, 28, 28)), (1, 28, 28)),
    "conv-4": (lambda: built("conv-4", (3, 32, 32)), (3, 32, 32)),
    "vgg-11": (lambda: built("vgg-11", (3, 32, 32)), (3, 32, 32)),
    "resnet-20": (lambda: built("resnet-20", (3, 32, 32)), (3, 32, 32)),
    "mlp1d": (lambda: built("mlp1d", (40,)), (40,)),
    "mlp": (mlp, (20,)),
    "conv1d": (conv1d, (6, 50)),
    "residual": (Residual, (3, 8, 8)),
    "joined": (Joined, (3, 8, 8)),
    "attentive": (Attentive, (3, 8, 8)),
    "tokens": (Tokens, (5, 6)),
    "mobile": (mobile, (3, 9, 9)),
}
"""Name -> how to build it, and the shape of one example."""
