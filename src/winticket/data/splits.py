"""load(): the tensors that training uses, split and normalised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from winticket.data.content import Decoded, Report, Split, Target
from winticket.data.draws import order
from winticket.data.reading import Reading
from winticket.data.scaling import moments_of_pixels, normalised, standardised
from winticket.data.sources import DatasetInfo, decoded, describe, remember


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test examples, normalised.

    x is float32 [N, *input_shape], channels first; y are classes, int64 [N], or what `target` says (see `Split`). For
    text (`DatasetInfo.tokens`) both are int64 [N, T], and `mean` is 0 and `std` 1. `mean` and `std` are the training
    split's, per channel, of pixels divided by `scale`; in every split x = (pixel / scale - mean) / std. In a table they
    are those of each feature. `fingerprint` is that of `DatasetInfo`. Everyone who loads the same dataset shares its
    tensors: read them, never write to them.

    Numbers (`target` "numbers") keep their own unit in y. `target_names` are the columns that numbers or labels come
    from, and `classes` is how many there are.
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
    target: Target = "classes"
    target_names: tuple[str, ...] = ()


_LOADED: dict[tuple[str, str, int, int, int], Dataset] = {}


def load(
    name_or_path: str | Path,
    *,
    seed: int = 0,
    validation: int | None = None,
    test: int | None = None,
    window: int | None = None,
    reading: Reading | None = None,
    cache: Path | None = None,
    report: Report | None = None,
) -> Dataset:
    """The dataset of that name or path (see `find_dataset`), split by `seed`.

    A split that the dataset comes with is used whole, or `seed` draws as many of its rows as `validation` or `test`
    says. A split that it lacks is drawn without replacement from its training rows, uniformly and not stratified. Test
    rows are drawn first, then validation rows, each from a separate random stream, so the size of one split does not
    change which rows are drawn for the split before it. Rows keep their order within a split. For the default sizes see
    `DatasetInfo.sizes`. `reading` may ask for splits by group or by time instead: whole groups are held out in random
    order until they have enough rows, of which as many are drawn as the size says (the others are not used); or the
    last rows in time are for testing, and those before them for validation.

    Each channel (of a table, each feature that is a number) is normalised by the training split's mean and (population)
    standard deviation. Exceptions: mnist1d is left as published, standardised over all its signals (mean 0, std 1), and
    digits are centred but not scaled (std 1).

    Raises the errors of `find_dataset`, and ValueError for sizes that are not possible.

    >>> digits = load("digits")
    >>> digits.train.x.shape, digits.validation.x.shape, digits.test.x.shape, digits.classes
    (torch.Size([1197, 1, 8, 8]), torch.Size([150, 1, 8, 8]), torch.Size([450, 1, 8, 8]), 10)
    """
    content = decoded(name_or_path, window=window, reading=reading, cache=cache, report=report)
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
    they say which examples the test splits of two seeds share. Data that are split by group or by time have one split
    for all replicates; of these, the rows count within the test split. ValueError for a size that is not possible.

    >>> from winticket.data import find_dataset
    >>> rows_tested(find_dataset("digits"), seed=0)[:4]
    tensor([1, 2, 3, 4])
    """
    _, _, rows = info.sizes(test=test)
    if info.split_by != "rows" and not info.stored_test:
        return torch.arange(rows)
    return torch.nonzero(_drawn(info.stored_test or info.stored_train, "test", seed=seed, rows=rows)).squeeze(
        1
    )


def _drawn(count: int, name: str, *, seed: int, rows: int) -> Tensor:
    """Which of `count` examples are drawn for a split, bool [count]."""
    drawn = torch.zeros(count, dtype=torch.bool)
    drawn[order(count, "split", name, seed)[:rows]] = True
    return drawn


def _assemble(info: DatasetInfo, content: Decoded, *, seed: int, validation: int, test: int) -> Dataset:
    splits = _drawn_splits(info, content, seed=seed, sizes={"test": test, "validation": validation})
    if content.scaled is not None:
        ready, (mean, std) = standardised(splits, content)
    else:
        if splits["train"].x.dtype != torch.uint8:
            channels = 1 if info.tokens else info.input_shape[0]
            mean, std = (0.0,) * channels, (1.0,) * channels
        else:
            mean, std = moments_of_pixels(splits["train"].x, scale=content.scale, name=info.name)
            std = std if content.divide else (1.0,) * len(std)
        ready = {
            name: Split(normalised(split.x, scale=content.scale, moments=(mean, std)), split.y)
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
        target=info.target,
        target_names=info.target_names,
    )


def _drawn_splits(
    info: DatasetInfo, content: Decoded, *, seed: int, sizes: Mapping[str, int]
) -> dict[str, Split]:
    """The content's splits, with those of `sizes` drawn: the test split before the validation split."""
    splits = dict(content.splits)
    left = torch.arange(
        len(splits["train"].y)
    )  # rows of the stored training split that are still for training
    for name, rows in sizes.items():
        if name in splits:
            splits[name] = _rows(splits[name], _drawn(len(splits[name].y), name, seed=seed, rows=rows))
            continue
        if content.moments is not None:
            drawn = held = _last(content.moments[left], rows)
        elif content.groups is not None:
            held, drawn = _of_groups(content.groups[left], name, seed=seed, rows=rows, info=info)
        else:
            drawn = held = _drawn(len(left), name, seed=seed, rows=rows)
        pool = splits["train"]
        splits["train"], splits[name] = _rows(pool, ~held), _rows(pool, drawn)
        left = left[~held]
    return splits


def _last(moments: Tensor, rows: int) -> Tensor:
    """Which examples are the last `rows` in time, bool [N]; of equal times, the later row counts as later."""
    last = torch.zeros(len(moments), dtype=torch.bool)
    last[torch.argsort(moments, stable=True)[len(moments) - rows :]] = True
    return last


def _of_groups(
    groups: Tensor, name: str, *, seed: int, rows: int, info: DatasetInfo
) -> tuple[Tensor, Tensor]:
    """Which examples are in the groups that are held out for a split, and which `rows` of them are drawn; bool [N]."""
    names, counts = torch.unique(groups, return_counts=True)
    shuffled = order(len(names), "group", name, seed)
    enough = int((counts[shuffled].cumsum(0) < rows).sum()) + 1
    held = torch.isin(groups, names[shuffled[:enough]])
    if bool(held.all()):
        raise ValueError(
            f"{info.name} has {len(names)} groups left for the {name} split of {rows} rows, and none would remain for "
            f"training; give a smaller --{name}, or split by rows"
        )
    drawn = torch.zeros_like(held)
    candidates = torch.nonzero(held).flatten()
    drawn[candidates[_drawn(len(candidates), name, seed=seed, rows=rows)]] = True
    return held, drawn


def _rows(split: Split, keep: Tensor) -> Split:
    return split if bool(keep.all()) else Split(split.x[keep], split.y[keep])
