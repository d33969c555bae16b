"""load(): the split, normalised tensors that training takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from winticket.data.content import Decoded, Report, Split
from winticket.data.draws import order
from winticket.data.sources import Source, decoded, describe, remember


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test examples, normalised.

    x is float32 [N, *input_shape], channels first; y is int64 [N]. Of text (`Source.tokens`) both are int64 [N, T],
    mean 0 and std 1. `mean` and `std` are those of the training
    split per channel, of pixels scaled to 0..1; x = (pixel - mean) / std in every split. `fingerprint` is the
    source's. The tensors are shared by all who load the same dataset: read them, never write to them.
    """

    name: str
    fingerprint: str
    input_shape: tuple[int, ...]
    classes: int
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]


_LOADED: dict[tuple[str, str, int, int, int], Dataset] = {}


def load(
    name_or_path: str | Path,
    *,
    seed: int = 0,
    validation: int | None = None,
    test: int | None = None,
    window: int | None = None,
    cache: Path | None = None,
    report: Report | None = None,
) -> Dataset:
    """The dataset of that name or path (see `find_source`), split by `seed`.

    Each split that the source has of its own is used whole, or as many of its rows as asked for, drawn by
    `seed`. What it lacks is drawn without replacement from its training rows, uniformly and not stratified:
    the test rows first, then the validation rows, each from its own stream, so that the size of one split
    does not change what is drawn for the one before it. Rows keep their order within a split. Default sizes:
    `Source.sizes`.

    Normalised per channel by mean and standard deviation (population) of the training split; mnist1d is left
    as published, standardised over all its signals: mean 0, std 1; digits are centred and stay in counts: std 1.

    Raises what `find_source` raises; ValueError for sizes that cannot be had.
    """
    content = decoded(name_or_path, window=window, cache=cache, report=report)
    source = describe(str(name_or_path), content)
    _, validation_rows, test_rows = source.sizes(validation=validation, test=test)
    return remember(
        _LOADED,
        (source.name, source.fingerprint, seed, validation_rows, test_rows),
        lambda: _assemble(source, content, seed=seed, validation=validation_rows, test=test_rows),
        keep=2,
    )


def _assemble(source: Source, content: Decoded, *, seed: int, validation: int, test: int) -> Dataset:
    splits = dict(content.splits)
    sizes = {"test": test, "validation": validation}
    for name, rows in sizes.items():
        pool = splits.get(name, splits["train"])
        drawn = torch.zeros(len(pool.y), dtype=torch.bool)
        drawn[order(len(pool.y), "split", name, seed)[:rows]] = True
        if name not in splits:
            splits["train"] = _rows(pool, ~drawn)
        splits[name] = _rows(pool, drawn)
    if splits["train"].x.dtype != torch.uint8:
        channels = 1 if source.tokens else source.input_shape[0]
        mean, std = (0.0,) * channels, (1.0,) * channels
    else:
        mean, std = _moments(splits["train"].x, scale=content.scale, source=source)
        std = std if content.divide else (1.0,) * len(std)
    ready = {
        name: Split(_normalised(split.x, scale=content.scale, mean=mean, std=std), split.y)
        for name, split in splits.items()
    }
    return Dataset(
        name=source.name,
        fingerprint=source.fingerprint,
        input_shape=source.input_shape,
        classes=source.classes,
        class_names=source.class_names,
        train=ready["train"],
        validation=ready["validation"],
        test=ready["test"],
        mean=mean,
        std=std,
    )


def _rows(split: Split, keep: Tensor) -> Split:
    return split if bool(keep.all()) else Split(split.x[keep], split.y[keep])


def _moments(x: Tensor, *, scale: float, source: Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation of each channel of uint8 x [N, C, H, W], in units of `scale`."""
    values = torch.arange(256, dtype=torch.float64) / scale
    means, deviations = [], []
    for channel in range(x.shape[1]):
        # Counting pixel values makes the sums exact, so that no split depends on an order of addition.
        share = torch.bincount(x[:, channel].flatten(), minlength=256).double() / x[:, channel].numel()
        mean = float((share * values).sum())
        deviation = float((share * (values - mean) ** 2).sum().sqrt())
        if deviation == 0.0:
            raise ValueError(
                f"channel {channel} of {source.name} has the one value {mean:g} in all training images, so "
                "it cannot be normalised; drop that channel (convert the images to grey)"
            )
        means.append(mean)
        deviations.append(deviation)
    return tuple(means), tuple(deviations)


def _normalised(x: Tensor, *, scale: float, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    if x.dtype != torch.uint8:
        return x.contiguous()
    ready = x.to(torch.float32, memory_format=torch.contiguous_format)
    shape = (1, -1, *(1,) * (x.dim() - 2))
    centre = torch.tensor(mean, dtype=torch.float32).view(shape)
    return ready.div_(scale).sub_(centre).div_(torch.tensor(std, dtype=torch.float32).view(shape))
