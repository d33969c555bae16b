"""load(): the tensors that training uses, split and normalised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from winticket.data.content import Decoded, Report, Split
from winticket.data.draws import order
from winticket.data.sources import DatasetInfo, decoded, describe, remember


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test examples, normalised.

    x is float32 [N, *input_shape], channels first; y is int64 [N]. For text (`DatasetInfo.tokens`) both are int64 [N,
    T], and `mean` is 0 and `std` 1. `mean` and `std` are the training split's, per channel, of pixels divided by
    `scale`; in every split x = (pixel / scale - mean) / std. `fingerprint` is that of `DatasetInfo`. Everyone who loads
    the same dataset shares its tensors: read them, never write to them.
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
    scale: float


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
    """The dataset of that name or path (see `find_dataset`), split by `seed`.

    A split that the dataset comes with is used whole, or `seed` draws as many of its rows as `validation` or `test`
    says. A split that it lacks is drawn without replacement from its training rows, uniformly and not stratified. Test
    rows are drawn first, then validation rows, each from a separate random stream, so the size of one split does not
    change which rows are drawn for the split before it. Rows keep their order within a split. For the default sizes see
    `DatasetInfo.sizes`.

    Each channel is normalised by the training split's mean and (population) standard deviation. Exceptions: mnist1d is
    left as published, standardised over all its signals (mean 0, std 1), and digits are centred but not scaled (std 1).

    Raises the errors of `find_dataset`, and ValueError for sizes that are not possible.

    >>> digits = load("digits")
    >>> digits.train.x.shape, digits.validation.x.shape, digits.test.x.shape, digits.classes
    (torch.Size([1197, 1, 8, 8]), torch.Size([150, 1, 8, 8]), torch.Size([450, 1, 8, 8]), 10)
    """
    content = decoded(name_or_path, window=window, cache=cache, report=report)
    info = describe(str(name_or_path), content)
    _, validation_rows, test_rows = info.sizes(validation=validation, test=test)
    return remember(
        _LOADED,
        (info.name, info.fingerprint, seed, validation_rows, test_rows),
        lambda: _assemble(info, content, seed=seed, validation=validation_rows, test=test_rows),
        keep=2,
    )


def rows_tested(info: DatasetInfo, *, seed: int, test: int | None = None) -> Tensor:
    """The rows that `load` puts into the test split, int64 [test], rising: `load(...).test` has them in this order.

    They count from 0, among the test rows that the dataset comes with, or among its training rows if it has none. So
    they say which examples the test splits of two seeds share. ValueError for a size that is not possible.

    >>> from winticket.data import find_dataset
    >>> rows_tested(find_dataset("digits"), seed=0)[:4]
    tensor([1, 2, 3, 4])
    """
    _, _, rows = info.sizes(test=test)
    return torch.nonzero(_drawn(info.stored_test or info.stored_train, "test", seed=seed, rows=rows)).squeeze(
        1
    )


def _drawn(count: int, name: str, *, seed: int, rows: int) -> Tensor:
    """Which of `count` examples are drawn for a split, bool [count]."""
    drawn = torch.zeros(count, dtype=torch.bool)
    drawn[order(count, "split", name, seed)[:rows]] = True
    return drawn


def _assemble(info: DatasetInfo, content: Decoded, *, seed: int, validation: int, test: int) -> Dataset:
    splits = dict(content.splits)
    sizes = {"test": test, "validation": validation}
    for name, rows in sizes.items():
        pool = splits.get(name, splits["train"])
        drawn = _drawn(len(pool.y), name, seed=seed, rows=rows)
        if name not in splits:
            splits["train"] = _rows(pool, ~drawn)
        splits[name] = _rows(pool, drawn)
    if splits["train"].x.dtype != torch.uint8:
        channels = 1 if info.tokens else info.input_shape[0]
        mean, std = (0.0,) * channels, (1.0,) * channels
    else:
        mean, std = _moments(splits["train"].x, scale=content.scale, info=info)
        std = std if content.divide else (1.0,) * len(std)
    ready = {
        name: Split(_normalised(split.x, scale=content.scale, mean=mean, std=std), split.y)
        for name, split in splits.items()
    }
    return Dataset(
        name=info.name,
        fingerprint=info.fingerprint,
        input_shape=info.input_shape,
        classes=info.classes,
        class_names=info.class_names,
        train=ready["train"],
        validation=ready["validation"],
        test=ready["test"],
        mean=mean,
        std=std,
        scale=content.scale if splits["train"].x.dtype == torch.uint8 else 1.0,
    )


def _rows(split: Split, keep: Tensor) -> Split:
    return split if bool(keep.all()) else Split(split.x[keep], split.y[keep])


def _moments(x: Tensor, *, scale: float, info: DatasetInfo) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation of each channel of uint8 x [N, C, H, W], in units of `scale`."""
    values = torch.arange(256, dtype=torch.float64) / scale
    means, deviations = [], []
    for channel in range(x.shape[1]):
        # Counting pixel values makes the sums exact, so they do not depend on the order of addition.
        share = torch.bincount(x[:, channel].flatten(), minlength=256).double() / x[:, channel].numel()
        mean = float((share * values).sum())
        deviation = float((share * (values - mean) ** 2).sum().sqrt())
        if deviation == 0.0:
            raise ValueError(
                f"channel {channel} of {info.name} has the same value {mean:g} in all training images, so "
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
