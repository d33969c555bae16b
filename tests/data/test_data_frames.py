"""Tables, arrays and objects of a user's own: encoded, filled, split and scaled as a few lines of numpy say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import winticket
from winticket import data, models
from winticket.data import Reading, find_dataset, load
from winticket.data.draws import kept_rows
from winticket.data.sources import decoded
from winticket.data.splits import _last, _of_groups
from winticket.experiment import Experiment
from winticket.sparse.convert import candidates

COUNT = 120
LABEL = Reading(label=("state",))


def frame(count: int = COUNT, *, seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    temperature = draw.normal(20, 5, count)
    return pd.DataFrame(
        {
            "temperature": temperature,
            "turns": draw.integers(0, 3000, count),
            "machine": draw.choice(["lathe", "drill", "saw"], count),
            "cooled": draw.random(count) < 0.5,
            "state": np.where(temperature + draw.normal(0, 1, count) > 20, "hot", "cold"),
        }
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(table: pd.DataFrame, name: str = "t.csv") -> Path:
        arrow, path = pa.Table.from_pandas(table, preserve_index=False), tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".csv", ".tsv"):
            table.to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
        elif path.suffix == ".parquet":
            pq.write_table(arrow, path)
        elif path.suffix == ".feather":
            pyarrow.feather.write_feather(arrow, path)
        else:
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, arrow.schema) as stream:
                stream.write_table(arrow)
        return path

    return write


Write = Callable[..., Path]


def saved(folder: Path, name: str = "a.npz", **arrays: Any) -> Path:
    np.savez(folder / name, allow_pickle=False, **arrays)
    return folder / name


def test_all_formats_of_one_table_are_one_dataset(write: Write) -> None:
    table = frame()
    files = [write(table, f"t.{ending}") for ending in ("csv", "tsv", "parquet", "feather", "arrow")]
    infos = [find_dataset(file, reading=LABEL) for file in [*files, Path(data.as_path(table))]]
    assert len({info.fingerprint for info in infos}) == 1
    assert infos[0].feature_names == (
        *("temperature", "turns", "machine=drill", "machine=lathe", "machine=saw"),
        *("cooled=false", "cooled=true"),
    )
    assert (infos[0].input_shape, infos[0].classes, infos[0].class_names) == ((7,), 2, ("cold", "hot"))
    # The same numbers as arrays, whose labels are numbered already.
    content = decoded(files[0], reading=LABEL).splits["train"]
    assert content.x[:, 0].tolist() == table["temperature"].tolist()
    assert content.x[:, 3].tolist() == (table["machine"] == "lathe").astype(float).tolist()
    assert content.y.tolist() == (table["state"] == "hot").astype(int).tolist()


def test_numbers_in_a_table_and_in_an_array_are_one_dataset(write: Write, tmp_path: Path) -> None:
    table = frame()[["temperature", "turns"]]
    y = (table["turns"] % 2).to_numpy()
    whole = find_dataset(write(table.assign(label=y)))
    assert find_dataset(saved(tmp_path, x=table.to_numpy(), y=y)).fingerprint == whole.fingerprint
    np.save(tmp_path / "x.npy", table.to_numpy())
    np.save(tmp_path / "y.npy", y)
    assert find_dataset(tmp_path / "x.npy").fingerprint == whole.fingerprint
    np.save(tmp_path / "answers.npy", y)
    assert (
        find_dataset(tmp_path / "x.npy", reading=Reading(label=("answers.npy",))).fingerprint
        == whole.fingerprint
    )


def test_numbers_are_scaled_by_the_training_split_alone(write: Write) -> None:
    table = frame()
    path = write(table)
    loaded = load(path, reading=LABEL, seed=3)
    test = data.rows_tested(find_dataset(path, reading=LABEL), seed=3)
    raw = table["temperature"].to_numpy()
    rest = np.setdiff1d(np.arange(COUNT), test.numpy())
    # The training rows keep their order, so those of the rest that are not for validation are known by their values.
    scaled = loaded.train.x[:, 0].double().numpy() * loaded.std[0] + loaded.mean[0]
    train = np.array([row for row in rest if np.isclose(scaled, raw[row], atol=1e-4).any()])
    assert len(train) == len(loaded.train.y) == COUNT - 24 - 9
    mean, deviation = raw[train].mean(), raw[train].std()
    assert np.allclose([loaded.mean[0], loaded.std[0]], [mean, deviation], rtol=1e-12)
    assert np.allclose(loaded.train.x[:, 0], (raw[train] - mean) / deviation, atol=1e-6)
    assert np.allclose(loaded.test.x[:, 0], (raw[test] - mean) / deviation, atol=1e-6)
    # Categories stay 0 and 1.
    assert (loaded.mean[2:], loaded.std[2:]) == ((0.0,) * 5, (1.0,) * 5)
    assert set(loaded.test.x[:, 2:].flatten().tolist()) == {0.0, 1.0}


def test_signals_are_scaled_by_channel(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal([[3.0], [-50.0]], [[1.0], [9.0]], (100, 2, 16)).astype("f4")
    y = np.arange(100) % 2
    loaded = load(
        saved(
            tmp_path,
            x_train=x[:60],
            y_train=y[:60],
            x_val=x[60:80],
            y_val=y[60:80],
            x_test=x[80:],
            y_test=y[80:],
        )
    )
    mean = x[:60].astype(float).mean((0, 2), keepdims=True)
    deviation = x[:60].astype(float).std((0, 2), keepdims=True)
    assert np.allclose(loaded.test.x, (x[80:] - mean) / deviation, atol=1e-5)
    assert (loaded.input_shape, loaded.mean) == ((2, 16), tuple(mean.ravel().tolist()))


def test_a_category_that_no_training_row_has_is_nothing(write: Write, tmp_path: Path) -> None:
    table = frame()
    train, test = table[:80], table[80:].copy()
    test.loc[test.index[0], "machine"] = "press"
    write(train, "d/train.csv")
    write(test, "d/test.csv")
    info = find_dataset(tmp_path / "d", reading=LABEL)
    assert (info.stored_train, info.stored_test, info.input_shape) == (80, 40, (7,))
    assert load(tmp_path / "d", reading=LABEL).test.x[0, 2:5].tolist() == [0, 0, 0]
    # The same if a seed draws the only row of a category for testing: networks of all seeds have the same inputs.
    rare = table.assign(machine=["saw" if n == 7 else "ab"[n % 2] for n in range(COUNT)])
    path = write(rare, "rare.csv")
    tested = [
        bool((data.rows_tested(find_dataset(path, reading=LABEL), seed=s) == 7).any()) for s in range(20)
    ]
    seed = tested.index(True)
    assert load(path, reading=LABEL, seed=seed).test.x[:, 4].tolist() == [0.0] * 24
    trained = load(path, reading=LABEL, seed=tested.index(False))
    assert 1.0 in torch.cat([trained.train.x, trained.validation.x])[:, 4].tolist()


def gaps() -> pd.DataFrame:
    table = frame()
    table.loc[[3, 50], "temperature"] = None
    table.loc[[4, 60, 61], "machine"] = None
    return table


@pytest.mark.parametrize("missing", ["mean", "median", "indicator"])
def test_missing_values_are_filled_from_the_training_split(
    write: Write, tmp_path: Path, missing: str
) -> None:
    table = gaps()
    write(table[:80], "d/train.csv")
    table.loc[100, "temperature"] = None
    write(table[80:], "d/test.csv")
    reading = Reading(label=("state",), missing=missing)
    loaded, names = (
        load(tmp_path / "d", reading=reading, validation=10),
        find_dataset(tmp_path / "d", reading=reading).feature_names,
    )
    column = loaded.test.x[20, 0].item() * loaded.std[0] + loaded.mean[0]
    # Validation rows are drawn from the training file, and the fill does not know them either.
    kept = ~np.isin(np.arange(80), _validation(tmp_path / "d", reading))
    known = table["temperature"][:80][kept]
    assert column == pytest.approx(known.median() if missing == "median" else known.mean(), abs=1e-5)
    assert not torch.cat([loaded.train.x, loaded.test.x]).isnan().any()
    assert "machine missing" in names
    assert ("temperature missing" in names) == (missing == "indicator")
    at = names.index("machine missing")
    assert float(sum(s.x[:, at].sum() for s in (loaded.train, loaded.validation, loaded.test))) == 3
    if missing == "indicator":
        assert loaded.test.x[20, names.index("temperature missing")] == 1


def _validation(path: Path, reading: Reading) -> NDArray[np.int64]:
    """The rows for validation, found by a feature that differs in every row and is never missing."""
    turns = decoded(path, reading=reading).splits["train"].x[:, 1 if reading.missing != "indicator" else 2]
    loaded = load(path, reading=reading, validation=10)
    at = 1 if reading.missing != "indicator" else 2
    values = loaded.validation.x[:, at].double() * loaded.std[at] + loaded.mean[at]
    rows = [int(torch.nonzero((turns - value).abs() < 1e-2)[0]) for value in values]
    assert len(set(rows)) == 10
    return np.array(rows)


def test_missing_categories_alone_are_a_category(write: Write) -> None:
    table = gaps().assign(temperature=frame()["temperature"])
    names = find_dataset(write(table), reading=Reading(label=("state",), missing="category")).feature_names
    assert names[2:6] == ("machine=drill", "machine=lathe", "machine=saw", "machine missing")


@pytest.mark.parametrize(
    ("labels", "task", "target", "outputs"),
    [
        (("state",), None, "classes", 2),
        (("cooled",), None, "classes", 2),
        (("few",), None, "classes", 5),
        (("few",), "regression", "numbers", 1),
        (("turns",), None, "numbers", 1),
        (("temperature",), None, "numbers", 1),
        (("temperature", "turns"), None, "numbers", 2),
        (("bit", "cooled"), None, "labels", 2),
        (("bit", "cooled"), "regression", "numbers", 2),
        (("bit",), "multi-label", "labels", 1),
    ],
)
def test_the_kind_of_target(
    write: Write, labels: tuple[str, ...], task: str | None, target: str, outputs: int
) -> None:
    table = frame().assign(few=np.arange(COUNT) % 5 * 10, bit=np.arange(COUNT) % 2)
    path, reading = write(table), Reading(label=labels, task=task)
    info, loaded = find_dataset(path, reading=reading), load(path, reading=reading)
    assert (info.target, info.classes, loaded.target, loaded.classes) == (target, outputs, target, outputs)
    if target == "classes":
        assert (loaded.train.y.dtype, loaded.train.y.ndim) == (torch.int64, 1)
        return
    assert (info.target_names, loaded.train.y.dtype) == (labels, torch.float32)
    assert loaded.train.y.shape == (len(loaded.train.x), outputs)
    setup = Experiment.of(path, label=labels, task=task, batch=20, model="lenet-8").setup()
    assert (setup.target, setup.classes) == (target, outputs)
    if target == "numbers":
        made, y = setup.loss_and_metric(), setup.dataset(torch.device("cpu")).train.y.double().numpy()
        assert made is not None
        assert made.centre is not None
        assert made.spread is not None
        assert np.allclose((made.centre, made.spread), (y.mean(0), y.std(0)))
        assert set(loaded.test.y[:, 0].tolist()) <= set(table[labels[0]].astype("f4").tolist())


def test_positions_and_several_columns_in_arrays(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (60, 3, 6, 8), dtype=np.uint8), draw.integers(0, 4, (60, 6, 8))
    loaded = load(saved(tmp_path, x=x, y=y))
    assert (loaded.target, loaded.classes, loaded.train.y.dtype) == ("positions", 4, torch.int64)
    assert (loaded.test.y.shape[1:], loaded.scale) == ((6, 8), 255.0)
    chosen = Experiment.of(tmp_path / "a.npz", batch=20)
    assert (chosen.model, chosen.setup().target) == ("fcn-32-32", "positions")
    numbers = load(saved(tmp_path, "b.npz", x=x, y=draw.normal(size=(60, 2))))
    assert (numbers.target, numbers.target_names) == ("numbers", ("y[0]", "y[1]"))


def test_the_fingerprint_covers_whatever_the_reading_changes(write: Write) -> None:
    table = frame().assign(day=np.arange(COUNT)[::-1], site=np.arange(COUNT) // 10, few=np.arange(COUNT) % 3)
    path = write(table)
    base = Reading(label=("few",), ignore=("day", "site", "state"))
    readings = [
        base,
        Reading(label=("few",), ignore=("day", "state"), group="site"),
        Reading(label=("few",), ignore=("site", "state"), time="day"),
        Reading(label=("few",), ignore=("day", "site", "state"), task="regression"),
        Reading(label=("few",), ignore=("day", "site", "state"), rows=100),
    ]
    prints = [find_dataset(path, reading=reading).fingerprint for reading in readings]
    assert len(set(prints)) == len(readings)
    assert [find_dataset(path, reading=r).input_shape for r in readings] == [(7,)] * 5


def test_rows_are_the_same_draw_each_time(write: Write, small: Path) -> None:
    table = frame()
    info = find_dataset(write(table), reading=Reading(label=("state",), rows=50))
    kept = table.iloc[kept_rows(COUNT, 50).numpy()]
    assert find_dataset(write(kept, "kept.csv"), reading=LABEL).fingerprint == info.fingerprint
    assert (info.stored_train, len(set(kept.index))) == (50, 50)
    images = find_dataset(small, reading=Reading(rows=20))
    assert (images.stored_train, images.stored_test) == (20, 10)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=30, max_size=60), st.integers(0, 99), st.integers(1, 8))
def test_no_group_is_held_out_and_trained_on(groups: list[int], seed: int, rows: int) -> None:
    info = find_dataset("digits")
    codes = torch.tensor(groups)
    counts = torch.bincount(codes)
    if int(counts.sum() - counts.max()) < rows:  # It may take all groups to have enough rows.
        return
    held, drawn = _of_groups(codes, "test", seed=seed, rows=rows, info=info)
    assert int(drawn.sum()) == rows
    assert not (drawn & ~held).any()
    assert not set(codes[held].tolist()) & set(codes[~held].tolist())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=10, max_size=40), st.integers(1, 5))
def test_the_last_rows_in_time_are_last(times: list[int], rows: int) -> None:
    last = _last(torch.tensor(times), rows)
    assert int(last.sum()) == rows
    assert min(np.array(times)[last.numpy()]) >= max(np.array(times)[~last.numpy()])


def test_splits_by_group_and_by_time_of_a_file(write: Write) -> None:
    table = frame().assign(
        site=[f"s{n // 8}" for n in range(COUNT)], day=np.random.default_rng(1).permutation(COUNT)
    )
    table["copy"], table["when"] = np.arange(COUNT) // 8, table["day"]
    path = write(table)
    loaded = load(path, reading=Reading(label=("state",), ignore=("day", "when"), group="site"), seed=5)
    names = find_dataset(
        path, reading=Reading(label=("state",), ignore=("day", "when"), group="site")
    ).feature_names
    at = names.index("copy")  # It numbers the groups, so it shows in which group an example is.
    sites = [
        {round(v * loaded.std[at] + loaded.mean[at]) for v in part.x[:, at].tolist()}
        for part in (loaded.train, loaded.validation, loaded.test)
    ]
    assert [
        len(one & other) for one, other in ((sites[0], sites[1]), (sites[0], sites[2]), (sites[1], sites[2]))
    ] == [0, 0, 0]
    assert (len(loaded.test.y), len(loaded.validation.y)) == (24, 9)
    by_time = load(path, reading=Reading(label=("state",), ignore=("site", "copy"), time="day"))
    names = find_dataset(
        path, reading=Reading(label=("state",), ignore=("site", "copy"), time="day")
    ).feature_names
    at = names.index("when")
    days = [
        [round(v * by_time.std[at] + by_time.mean[at]) for v in part.x[:, at].tolist()]
        for part in (by_time.train, by_time.validation, by_time.test)
    ]
    assert max(days[0]) < min(days[1]) <= max(days[1]) < min(days[2])
    experiment = Experiment.of(path, label="state", ignore=("day", "when"), group="site", batch=20)
    assert experiment.setup().train_examples() == len(
        load(path, reading=experiment.reading, seed=experiment.setup().split_seed()).train.y
    )


def test_images_are_resized_as_pillow_does(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    images = []
    for number, side in enumerate((8, 12, 9, 16, 8, 10)):
        file = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        images.append(Image.fromarray(draw.integers(0, 256, (side, 10), dtype=np.uint8)))
        images[-1].save(file)
    content = decoded(tmp_path / "photos", reading=Reading(size="6x5")).splits["train"]
    assert content.x.shape == (6, 1, 6, 5)
    want = images[2].resize((5, 6), Image.Resampling.BILINEAR)
    assert content.x[1, 0].tolist() == np.asarray(want).tolist()  # a/0, a/2, a/4, b/1, ...


class Pairs(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """A dataset of pairs."""

    def __init__(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(self.x[index]), int(self.y[index])


def test_objects_become_files_named_by_their_content(own_cache: Path, write: Write) -> None:
    import datasets

    x = np.random.default_rng(0).normal(size=(80, 2, 16)).astype("f4")
    y = np.arange(80) % 2
    path = Path(data.as_path((x, y)))
    assert path.parent == own_cache / "objects"
    assert data.as_path((torch.from_numpy(x), torch.from_numpy(y))) == path == data.as_path(Pairs(x, y))
    assert data.as_path((x, 1 - y)) != path
    table = frame()
    stored = [data.as_path(table), data.as_path(datasets.Dataset.from_pandas(table, preserve_index=False))]
    prints = {find_dataset(Path(one), reading=LABEL).fingerprint for one in [*stored, write(table)]}
    assert len(prints) == 1
    features = datasets.Features(
        {"v": datasets.Value("float64"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    named = datasets.Dataset.from_dict({"v": x[:, 0, 0].tolist(), "label": y.tolist()}, features=features)
    assert find_dataset(Path(data.as_path(named))).class_names == ("no", "yes")
    assert str(data.as_path("digits")) == "digits"
    for wrong, message in (
        (3, "give a name or path"),
        ((x,), "a tuple of 1 parts"),
        ((x, np.array([{}] * 80)), "y holds object"),
        (table["state"], "Series of pandas is no table"),
        ({"x": x}, "give a name or path"),
        ([x, y, y], "a list of 3 parts"),
    ):
        with pytest.raises(TypeError, match=message):
            data.as_path(wrong)
    with pytest.raises(ValueError, match="X has 80 examples, but y has 79 labels"):
        data.as_path((x, y[1:]))


def test_a_frame_of_polars_is_the_same_table(write: Write) -> None:
    polars: Any = pytest.importorskip("polars")
    table = frame()
    theirs = polars.from_arrow(pa.Table.from_pandas(table, preserve_index=False))
    path = Path(data.as_path(theirs))
    assert (
        find_dataset(path, reading=LABEL).fingerprint == find_dataset(write(table), reading=LABEL).fingerprint
    )
    categories = theirs.with_columns(polars.col("state").cast(polars.Categorical))
    assert (
        find_dataset(Path(data.as_path(categories)), reading=LABEL).class_names
        == find_dataset(path, reading=LABEL).class_names
    )
    with pytest.raises(TypeError, match=r"LazyFrame of polars is no table; give .* a DataFrame"):
        data.as_path(theirs.lazy())


SMALL: dict[str, Any] = {
    "steps": 40,
    "levels": 2,
    "replicates": 5,
    "margin_pp": 20.0,
    "gate": False,
    "batch": 20,
    "workers": 0,
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_table_is_searched_to_a_verdict_and_opened_again(here: Path, write: Write, undrawn: None) -> None:
    path = write(frame())
    result = winticket.find(path, label="state", ignore=["turns"], model="lenet-20-10", **SMALL)
    question = json.loads(Path(result.document["results"]).read_text())["experiment"]
    assert question["reading"] == {"label": ["state"], "ignore": ["turns"]}
    assert result.document["data"]["input_shape"] == [6]
    assert result.document["verdict"]["outcome"] in ("won", "not won", "inconclusive")
    again = winticket.find(frame(), label="state", ignore="turns", model="lenet-20-10", **SMALL)
    assert again.document["keys"] == result.document["keys"]  # the same content: nothing is trained again
    run = winticket.open(Path(result.document["results"]).parent)
    assert run.plan.experiment.reading == Reading(label=("state",), ignore=("turns",))


def test_signals_are_searched_by_convolutions(here: Path, undrawn: None) -> None:
    draw = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = draw.normal(size=(120, 2, 16)) + y[:, None, None] * np.sin(np.arange(16))
    assert Experiment.of((x, y)).model == "conv1d-32-64"
    result = winticket.find(saved(here, "signals.npz", x=x, y=y), model="conv1d-4", **SMALL)
    assert result.document["verdict"]["outcome"] in ("won", "not won", "inconclusive")
    planned = Experiment.of(here / "signals.npz", model="conv1d-4").setup()
    assert models.eligible(planned.module()) == ("conv1.weight", "fc1.weight", "fc2.weight")
    # The kernels know no convolution over signals, which therefore trains dense.
    assert list(candidates(planned.module())) == ["fc1.weight", "fc2.weight"]


def test_numbers_are_searched_to_a_verdict(here: Path, write: Write, undrawn: None) -> None:
    result = winticket.find(
        write(frame()), label="temperature", missing="mean", model="lenet-8", **{**SMALL, "margin_pp": 20.0}
    )
    assert result.document["verdict"]["outcome"] in ("won", "not won", "inconclusive")
    assert result.document["experiment"]["reading"] == {"label": ["temperature"], "missing": "mean"}
