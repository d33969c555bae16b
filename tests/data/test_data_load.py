"""Splits and normalisation."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from winticket.data import Dataset, DatasetInfo, find_dataset, load
from winticket.data.draws import order

Pictures = Callable[..., list[bytes]]


def rows(data: Dataset) -> list[tuple[float, ...]]:
    return [
        tuple(row.tolist())
        for split in (data.train, data.validation, data.test)
        for row in split.x.flatten(1)
    ]


def test_digits_are_scikit_learns_split_by_seed() -> None:
    data = load("digits")
    assert (len(data.train.y), len(data.validation.y), len(data.test.y)) == (1197, 150, 450)
    assert data.train.x.shape == (1197, 1, 8, 8)
    assert data.train.x.dtype == torch.float32
    assert data.train.x.is_contiguous()
    assert data.train.y.dtype == torch.int64
    assert data.classes == 10

    from sklearn.datasets import load_digits

    bunch = load_digits()
    back = torch.cat([s.x for s in (data.train, data.validation, data.test)]) * data.std[0] + data.mean[0]
    there = sorted(
        (*image.flatten().tolist(), label)
        for image, label in zip(bunch.images.astype(int), bunch.target.tolist(), strict=True)
    )
    labels = torch.cat([s.y for s in (data.train, data.validation, data.test)]).tolist()
    here = sorted(
        (*image, label) for image, label in zip(back.round().int().flatten(1).tolist(), labels, strict=True)
    )
    assert here == there


def test_preprocessing_of_the_raw_pixels_gives_the_same_bits() -> None:
    from sklearn.datasets import load_digits

    from winticket.ship import Preprocessing

    data = load("digits")
    ready = Preprocessing(data.scale, data.mean, data.std).apply(load_digits().images[:, None])
    rows = {row.tobytes() for row in ready.reshape(len(ready), -1)}
    for split in (data.train, data.validation, data.test):
        assert {row.tobytes() for row in split.x.flatten(1).numpy()} <= rows


def test_preprocessing_of_colour_images_gives_the_same_bits(tmp_path: Path) -> None:
    from PIL import Image

    from winticket.ship import Preprocessing

    pixels = np.random.default_rng(0).integers(0, 256, (40, 5, 4, 3), np.uint8)
    for number, image in enumerate(pixels):
        file = tmp_path / "set" / ("a", "b")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    data = load(tmp_path / "set", cache=tmp_path / "cache")
    assert (data.scale, len(data.mean), data.class_names) == (255.0, 3, ("a", "b"))
    ready = Preprocessing(data.scale, data.mean, data.std).apply(pixels.transpose(0, 3, 1, 2))
    rows = {row.tobytes() for row in ready.reshape(len(ready), -1)}
    for split in (data.train, data.validation, data.test):
        assert {row.tobytes() for row in split.x.flatten(1).numpy()} <= rows


def test_normalised_by_the_training_split_alone() -> None:
    data = load("digits")
    train = data.train.x.double()
    # float32 rounding of 76 608 values up to 16: the mean of the errors stays far below 1e-5.
    assert abs(float(train.mean())) < 1e-5
    # Digits keep their unit, one count of 0..16.
    assert data.std == (1.0,)
    assert float(train.max() - train.min()) == pytest.approx(16, abs=1e-5)
    assert abs(float(data.test.x.double().mean())) > 1e-6
    again = load("digits", validation=600, test=600)
    assert again.mean != data.mean


def test_moments_are_exact(small: Path) -> None:
    data = load(small, validation=4)
    raw = (data.train.x.double() * data.std[0] + data.mean[0]).mul(255).round()
    assert data.mean[0] == pytest.approx(float(raw.mean()) / 255, rel=1e-12)
    assert data.std[0] == pytest.approx(float(raw.std(correction=0)) / 255, rel=1e-12)


def test_the_seed_decides_the_split() -> None:
    assert torch.equal(load("digits", seed=1).train.y, load("digits", seed=1).train.y)
    assert not torch.equal(load("digits", seed=1).test.x, load("digits", seed=2).test.x)
    assert load("digits", seed=1).fingerprint == load("digits", seed=2).fingerprint


def test_the_validation_size_leaves_the_test_rows_alone() -> None:
    few, many = load("digits", validation=50), load("digits", validation=400)
    assert torch.equal(few.test.y, many.test.y)
    assert (len(few.train.y), len(many.train.y)) == (1297, 947)


def test_own_test_rows_are_kept_whole_and_validation_comes_from_training(small: Path) -> None:
    data = load(small)
    assert (len(data.train.y), len(data.validation.y), len(data.test.y)) == (36, 4, 10)
    assert data.test.y.tolist() == [row % 2 for row in range(10)]
    assert len(set(rows(data))) == 50
    fewer = load(small, test=3)
    assert (len(fewer.train.y), len(fewer.test.y)) == (36, 3)
    kept = {tuple(row) for row in (fewer.test.x * fewer.std[0]).flatten(1).round(decimals=4).tolist()}
    assert kept < {tuple(row) for row in (data.test.x * data.std[0]).flatten(1).round(decimals=4).tolist()}


def test_own_validation_rows_are_used(
    tmp_path: Path, small: Path, write_parquet: Callable[..., Path], pictures: Pictures
) -> None:
    write_parquet(small / "validation-0.parquet", pictures(6, seed=2), [0, 0, 0, 1, 1, 1])
    data = load(small)
    assert (len(data.train.y), len(data.validation.y), len(data.test.y)) == (40, 6, 10)
    assert data.validation.y.tolist() == [0, 0, 0, 1, 1, 1]


def test_without_test_rows_a_fifth_is_drawn(small: Path) -> None:
    source = find_dataset(small / "train-00000-of-00001.parquet")
    assert (source.train, source.validation, source.test) == (29, 3, 8)
    data = load(small / "train-00000-of-00001.parquet")
    assert (len(data.train.y), len(data.validation.y), len(data.test.y)) == (29, 3, 8)
    assert len(set(rows(data))) == 40


def source(train: int, validation: int = 0, test: int = 0) -> DatasetInfo:
    found = find_dataset("digits")
    return dataclasses.replace(
        found,
        stored_train=train,
        stored_validation=validation,
        stored_test=test,
        default_validation=None,
        default_test=None,
    )


@pytest.mark.parametrize(
    ("stored", "sizes"),
    [
        ((60_000, 0, 10_000), (55_000, 5_000, 10_000)),  # MNIST in the 2019 paper
        ((50_000, 0, 10_000), (45_000, 5_000, 10_000)),  # CIFAR-10 likewise
        ((200_000, 0, 0), (185_000, 5_000, 10_000)),
        ((1_000, 0, 0), (720, 80, 200)),
        ((1_000, 100, 0), (800, 100, 200)),
        ((3, 0, 0), (1, 1, 1)),
    ],
)
def test_default_sizes(stored: tuple[int, int, int], sizes: tuple[int, int, int]) -> None:
    assert source(*stored).sizes() == sizes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 1347}, "validation size 1347 .* 1347 training rows, .*; give 1 to 1346"),
        ({"validation": 0}, "validation size 0"),
        ({"test": -1}, "test size -1"),
        ({"test": 1797}, "test size 1797 .* give 1 to 1796"),
    ],
)
def test_sizes_that_cannot_be_had(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load("digits", **options)  # type: ignore[arg-type]


def test_more_test_rows_than_the_source_has(small: Path) -> None:
    with pytest.raises(ValueError, match=r"test size 11 .* the dataset's own 10 test rows; give 1 to 10"):
        load(small, test=11)


@pytest.mark.parametrize("size", [2.0, True, "5"])
def test_sizes_are_whole_numbers(size: object) -> None:
    with pytest.raises(TypeError, match="give a whole number of rows"):
        load("digits", validation=size)  # type: ignore[arg-type]


def test_loading_again_in_one_process_gives_the_same_tensors(small: Path) -> None:
    assert load(small).train.x is load(small).train.x
    assert load(small).train.x is not load(small, seed=1).train.x


def test_a_source_is_json() -> None:
    found = dataclasses.asdict(find_dataset("digits"))
    assert json.loads(json.dumps(found))["train"] == 1197


def test_importing_is_light() -> None:
    heavy = "('datasets', 'sklearn', 'pyarrow', 'scipy')"
    code = (
        f"import sys, winticket.data, winticket.experiment; print([m for m in {heavy} if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


@pytest.mark.parametrize(("channels", "dropped"), [(3, 1), (3, 2)])
def test_a_channel_without_variation(
    tmp_path: Path,
    write_parquet: Callable[..., Path],
    encode: Callable[..., bytes],
    channels: int,
    dropped: int,
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 4, 4, channels), dtype=np.uint8)
    pixels[..., dropped] = 51
    path = write_parquet(tmp_path / "flat.parquet", [encode(one) for one in pixels], [0, 1] * 10)
    with pytest.raises(ValueError, match=rf"channel {dropped} of all images in .* has the same value 51"):
        find_dataset(path)
    pixels[-1, ..., dropped] = 52  # an only exception, drawn for testing
    path = write_parquet(tmp_path / "flat.parquet", [encode(one) for one in pixels], [0, 1] * 10)
    seed = next(seed for seed in range(99) if 19 in order(20, "split", "test", seed)[:4].tolist())
    with pytest.raises(ValueError, match=rf"channel {dropped} of .* has the same value 0\.2 in all training"):
        load(path, seed=seed)


SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="../shared/data/mnist is absent")
def test_mnist_has_the_known_mean_and_deviation() -> None:
    told: list[tuple[int, int]] = []
    data = load(SHARED / "mnist", report=lambda done, total: told.append((done, total)))
    # .1307 and .3081 are of all 60 000 training images; those of 55 000 of them differ by about 1e-4.
    assert data.mean[0] == pytest.approx(0.1307, abs=3e-4)
    assert data.std[0] == pytest.approx(0.3081, abs=3e-4)
    assert (len(data.train.y), len(data.validation.y), len(data.test.y)) == (55_000, 5_000, 10_000)
    assert data.test.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]  # the well-known first ten
    assert told[-1] == (70_000, 70_000)
    assert told == sorted(told)


@pytest.mark.skipif(not (SHARED / "cifar10").is_dir(), reason="../shared/data/cifar10 is absent")
def test_cifar10_test_rows_are_coloured_and_named() -> None:
    found = find_dataset(SHARED / "cifar10" / "test-00000-of-00001.parquet")
    assert found.input_shape == (3, 32, 32)
    assert found.class_names[:3] == ("airplane", "automobile", "bird")
    assert (found.image_column, found.label_column) == ("img", "label")
    assert found.stored_train == 10_000
