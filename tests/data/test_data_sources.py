"""Finding, decoding and caching sources; every way in which that can fail."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from winticket.data import cache as disk
from winticket.data import find_dataset, images, load, names
from winticket.data.sources import decoded
from winticket.places import cache_folder

Pictures = Callable[..., list[bytes]]
Write = Callable[..., Path]
Encode = Callable[..., bytes]

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5) * 10
COLOUR = np.arange(60, dtype=np.uint8).reshape(4, 5, 3) * 4


# Reading


def test_pixels_labels_and_columns(tmp_path: Path, write_parquet: Write, encode: Encode) -> None:
    images = [encode(GREY), encode(255 - GREY)] * 3
    path = write_parquet(tmp_path / "one.parquet", images, [0, 1] * 3, image="img")
    found = find_dataset(path)
    assert (found.input_shape, found.classes, found.class_names) == ((1, 4, 5), 2, ("no", "yes"))
    assert (found.image_column, found.label_column) == ("img", "label")
    assert found.name == str(path)
    train = decoded(path).splits["train"]
    assert train.x[0, 0].tolist() == GREY.tolist()
    assert train.x[1, 0].tolist() == (255 - GREY).tolist()
    assert train.y.tolist() == [0, 1] * 3


def test_colour_is_channels_first(tmp_path: Path, write_parquet: Write, encode: Encode) -> None:
    path = write_parquet(tmp_path / "c.parquet", [encode(COLOUR)] * 4, [0, 1, 0, 1])
    assert find_dataset(path).input_shape == (3, 4, 5)
    assert decoded(path).splits["train"].x[2].tolist() == COLOUR.transpose(2, 0, 1).tolist()


@pytest.mark.parametrize("colour_at", [0, 3])
def test_grey_among_colour_becomes_colour(
    tmp_path: Path, write_parquet: Write, encode: Encode, colour_at: int
) -> None:
    images = [encode(GREY)] * 4
    images[colour_at] = encode(COLOUR)
    path = write_parquet(tmp_path / "mixed.parquet", images, [0, 1, 0, 1])
    x = decoded(path).splits["train"].x
    assert x.shape == (4, 3, 4, 5)
    assert x[1].tolist() == [GREY.tolist()] * 3
    assert x[colour_at].tolist() == COLOUR.transpose(2, 0, 1).tolist()


def test_colour_in_one_split_makes_all_colour(tmp_path: Path, write_parquet: Write, encode: Encode) -> None:
    write_parquet(tmp_path / "d" / "train.parquet", [encode(GREY)] * 4, [0, 1, 0, 1])
    write_parquet(tmp_path / "d" / "test.parquet", [encode(COLOUR)] * 2, [0, 1])
    splits = decoded(tmp_path / "d").splits
    assert splits["train"].x.shape == (4, 3, 4, 5)
    assert splits["test"].x.shape == (2, 3, 4, 5)


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("LA", 1), ("P", 3), ("RGBA", 3), ("CMYK", 3)])
def test_other_8_bit_modes(
    tmp_path: Path, write_parquet: Write, encode: Encode, mode: str, channels: int
) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    images = [encode(COLOUR, mode=mode, format=kind), encode(255 - COLOUR, mode=mode, format=kind)] * 2
    path = write_parquet(tmp_path / "m.parquet", images, [0, 1, 0, 1])
    assert find_dataset(path).input_shape == (channels, 4, 5)


def test_photographs_are_turned_upright(tmp_path: Path, write_parquet: Write) -> None:
    import io

    image, exif, buffer = Image.fromarray(GREY), Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # orientation: turn by a quarter, clockwise
    image.save(buffer, "PNG", exif=exif)
    path = write_parquet(tmp_path / "turned.parquet", [buffer.getvalue()] * 4, [0, 1, 0, 1])
    assert decoded(path).splits["train"].x[0, 0].tolist() == np.rot90(GREY, -1).tolist()


def test_the_hubs_own_writer_and_decoder_agree(tmp_path: Path, encode: Encode, own_cache: Path) -> None:
    import datasets

    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    features = datasets.Features(
        {"image": datasets.Image(), "coarse_label": datasets.ClassLabel(names=["x", "y", "z"])}
        | {"fine_label": datasets.ClassLabel(names=["a", "b"])}
    )
    rows = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": encode(one, format="JPEG"), "path": None} for one in pixels],
            "coarse_label": [2, 1, 0] * 2,
            "fine_label": [0, 1] * 3,
        },
        features=features,
    )
    path = tmp_path / "cifar100-like.parquet"
    rows.with_format("arrow")
    pq.write_table(rows.with_format("arrow")[:].cast(features.arrow_schema), path)
    found = find_dataset(path)
    assert (found.label_column, found.class_names) == ("fine_label", ("a", "b"))
    wanted = [np.asarray(row["image"]).transpose(2, 0, 1).tolist() for row in rows]
    assert decoded(path).splits["train"].x.tolist() == wanted


def test_files_without_declared_features(tmp_path: Path, write_parquet: Write, pictures: Pictures) -> None:
    path = write_parquet(
        tmp_path / "bare.parquet", pictures(4), ["dog", "cat", "cat", "dog"], classes=None, declared=False
    )
    assert find_dataset(path).class_names == ("cat", "dog")
    assert decoded(path).splits["train"].y.tolist() == [1, 0, 0, 1]


def test_undeclared_numbers_are_classes_in_sorted_order(
    tmp_path: Path, write_parquet: Write, pictures: Pictures
) -> None:
    path = write_parquet(tmp_path / "pm.parquet", pictures(4), [1, -1, 10, 1], classes=None)
    assert find_dataset(path).class_names == ("-1", "1", "10")
    assert decoded(path).splits["train"].y.tolist() == [1, 0, 2, 1]


def test_plain_binary_columns(tmp_path: Path, pictures: Pictures) -> None:
    path = tmp_path / "binary.parquet"
    pq.write_table(pa.table({"picture": pictures(4), "labels": [0, 1, 0, 1], "note": ["", "", "", ""]}), path)
    found = find_dataset(path)
    assert (found.image_column, found.label_column) == ("picture", "labels")


@pytest.mark.parametrize("absolute", [False, True])
def test_images_by_path_only(tmp_path: Path, pictures: Pictures, absolute: bool) -> None:
    files = []
    path = tmp_path / "t" / "paths.parquet"
    path.parent.mkdir()
    for row, data in enumerate(pictures(4)):
        file = path.parent / f"{row}.png"
        file.write_bytes(data)
        files.append({"bytes": None, "path": str(file) if absolute else file.name})
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(files, type=struct), "label": [0, 1, 0, 1]}), path)
    with pytest.warns(RuntimeWarning, match="points to images that it does not hold"):
        assert find_dataset(path).train == 3 - 1


@pytest.mark.parametrize(
    "layout",
    [
        ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"),
        ("data/train-0.parquet", "data/train-1.parquet", "data/test-0.parquet"),
        ("plain_text/train/0000.parquet", "plain_text/train/0001.parquet", "plain_text/test/0000.parquet"),
        ("training.parquet", "a.parquet", "eval.parquet"),
    ],
)
def test_the_hubs_layouts(
    tmp_path: Path, write_parquet: Write, pictures: Pictures, layout: tuple[str, ...]
) -> None:
    folder = tmp_path / "hub"
    for number, file in enumerate(layout):
        write_parquet(folder / file, pictures(5, seed=number), [0, 1, 0, 1, 0])
    (folder / "README.md").write_text("about")
    found = find_dataset(folder)
    assert (found.stored_train, found.stored_validation, found.stored_test) == (10, 0, 5)
    if layout[0] < layout[1]:
        whole = decoded(folder).splits["train"].x
        assert whole[:5].tolist() == decoded(folder / layout[0]).splits["train"].x.tolist()


def test_withheld_test_labels_count_as_no_test_split(
    small: Path, write_parquet: Write, pictures: Pictures
) -> None:
    write_parquet(small / "test-00000-of-00001.parquet", pictures(10, seed=1), [-1] * 10)
    found = find_dataset(small)
    assert (found.stored_test, found.test) == (0, 8)


def test_folders_of_images(tmp_path: Path, pictures: Pictures) -> None:
    drawn = iter(pictures(14))
    for split, count in (("train", 5), ("test", 2)):
        for name in ("cat", "ant"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                (tmp_path / "photos" / split / name / f"{number}.png").write_bytes(next(drawn))
    found = find_dataset(tmp_path / "photos")
    assert found.class_names == ("ant", "cat")
    assert (found.stored_train, found.stored_test, found.image_column) == (10, 4, None)
    alone = find_dataset(tmp_path / "photos" / "train")
    assert (alone.stored_train, alone.stored_test, alone.class_names) == (10, 0, ("ant", "cat"))


# Fingerprints and the cache


def test_the_fingerprint_is_that_of_the_content(
    tmp_path: Path, small: Path, write_parquet: Write, pictures: Pictures
) -> None:
    first = find_dataset(small).fingerprint
    moved = tmp_path / "elsewhere"
    shutil.copytree(small, moved)
    assert find_dataset(moved).fingerprint == first
    train, test = (moved / f"{split}-00000-of-00001.parquet" for split in ("train", "test"))
    labels = [row % 2 for row in range(40)]
    write_parquet(train, pictures(40), labels, label="labels", image="img")
    write_parquet(test, pictures(10, seed=1), labels[:10], label="labels", image="img")
    assert find_dataset(moved).fingerprint == first
    labels[7] = 1 - labels[7]
    write_parquet(train, pictures(40), labels, label="labels", image="img")
    assert find_dataset(moved).fingerprint != first
    (small / test.name).rename(small / "validation.parquet")
    assert find_dataset(small).fingerprint != first


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Calls of the decoder from here on."""
    calls: list[Any] = []
    real = images.decode

    def decode(unread: Any, *, size: Any = None, report: Any = None) -> Any:
        calls.append(unread)
        return real(unread, report=report)

    monkeypatch.setattr("winticket.data.images.decode", decode)
    return calls


def test_decoded_once_and_cached(
    small: Path, own_cache: Path, forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch)
    first = find_dataset(small)
    forget()
    assert find_dataset(small) == first
    assert load(small).fingerprint == first.fingerprint
    assert len(calls) == 1
    assert [file.suffix for file in own_cache.iterdir()] == [".safetensors"]
    assert disk.read(next(own_cache.iterdir())) is not None


def test_a_changed_file_is_decoded_again(
    small: Path, write_parquet: Write, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch)
    before = load(small).test.y.tolist()
    write_parquet(small / "test-00000-of-00001.parquet", pictures(10, seed=1), [1] * 10)
    assert load(small).test.y.tolist() != before
    assert len(calls) == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "foreign"])
def test_a_damaged_cache_file_is_decoded_anew(
    small: Path, own_cache: Path, forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    calls = counted(monkeypatch)
    wanted = find_dataset(small)
    file = next(own_cache.iterdir())
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    changed = {"cut": bytes(data[:-9]), "flip": bytes(data), "empty": b"", "foreign": b"PK\x03\x04" * 99}
    file.write_bytes(changed[damage])
    forget()
    assert find_dataset(small) == wanted
    assert len(calls) == 2
    forget()
    assert find_dataset(small) == wanted
    assert len(calls) == 2


def test_an_unwritable_cache_is_a_warning(tmp_path: Path, small: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.warns(RuntimeWarning, match=r"could not be kept in .*; set \$WINTICKET_CACHE"):
        found = find_dataset(small, cache=blocked / "cache")
    assert found.train == 36
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_dataset("digits", cache=blocked / "cache").train == 1197  # costs nothing to make again


def test_a_failed_write_leaves_nothing_behind(
    small: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        find_dataset(small)
    assert list(own_cache.iterdir()) == []


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINTICKET_CACHE", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"
    monkeypatch.delenv("WINTICKET_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "winticket"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "winticket"


# Names


def test_a_name_goes_before_a_folder_of_that_name(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small, tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert find_dataset("digits").input_shape == (1, 8, 8)
    assert find_dataset("./digits").input_shape == (1, 4, 5)
    assert find_dataset(Path("digits")).input_shape == (1, 4, 5)
    assert find_dataset("small").input_shape == (1, 4, 5)


@pytest.mark.parametrize(
    ("given", "near"),
    [("digit", "digits"), ("MNIST", "mnist"), ("cifar-10", "cifar10"), ("fashion-mnist", "fashion_mnist")],
)
def test_unknown_names_offer_the_nearest(given: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"unknown dataset '{given}' .did you mean '.*{near}"):
        find_dataset(given)


@pytest.mark.parametrize("given", ["", " ", "qqqqqqqq"])
def test_unknown_names_list_what_is_known(given: str) -> None:
    with pytest.raises(ValueError, match=r"known names are digits, mnist1d, mnist, .*user/name.*path"):
        find_dataset(given)
    assert names()[:2] == ("digits", "mnist1d")


@pytest.mark.parametrize("given", [None, 5, b"digits"])
def test_names_are_text(given: object) -> None:
    with pytest.raises(TypeError, match="named by text or a path, not by"):
        find_dataset(given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given", ["./smal", "/nowhere/at/all", "smal.parquet", "~/nowhere-at-all", "small/absent"]
)
def test_paths_that_do_not_exist(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no such file or folder: .*give a table .*a folder"):
        find_dataset(given)
    with pytest.raises(FileNotFoundError, match="has small"):
        find_dataset(Path("smal"))


# Sources that cannot be used; nothing is cached


@pytest.fixture
def nothing_kept(own_cache: Path) -> Any:
    yield
    assert not own_cache.exists()


def refused(path: Path, message: str, kind: type[Exception] = ValueError) -> None:
    with pytest.raises(kind, match=message):
        find_dataset(path)


@pytest.mark.usefixtures("nothing_kept")
class TestRefused:
    def test_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        refused(
            tmp_path / "d", r"no parquet file and no image in folder .*\(it is empty\)", FileNotFoundError
        )

    def test_folder_without_images(self, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "notes.md").write_text("x")
        refused(tmp_path / "d", r"it holds notes\.md.*Hub's layout", FileNotFoundError)

    def test_another_kind_of_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.xlsx").write_text("x")
        refused(tmp_path / "a.xlsx", r"a\.xlsx is not a parquet file; give a table")

    def test_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.parquet").touch()
        refused(tmp_path / "a.parquet", r"a\.parquet is empty \(0 bytes\)")

    def test_not_parquet_inside(self, tmp_path: Path) -> None:
        (tmp_path / "a.parquet").write_bytes(b"not parquet at all, only called so")
        refused(tmp_path / "a.parquet", r"a\.parquet is not a readable parquet file .*download")

    def test_cut_off_parquet(self, small: Path) -> None:
        file = small / "test-00000-of-00001.parquet"
        file.write_bytes(file.read_bytes()[:-20])
        refused(small, r"test-00000-of-00001\.parquet is not a readable parquet file")

    def test_damaged_pages(self, small: Path) -> None:
        file = small / "train-00000-of-00001.parquet"
        data = bytearray(file.read_bytes())
        data[4:400] = b"\xff" * 396
        file.write_bytes(bytes(data))
        refused(small, r"train-00000-of-00001\.parquet is not a readable parquet file")

    def test_no_rows(self, tmp_path: Path, write_parquet: Write) -> None:
        path = write_parquet(tmp_path / "a.parquet", [], pa.array([], pa.int64()))
        refused(path, "has no rows")

    def test_too_few_rows_to_split(self, tmp_path: Path, write_parquet: Write, pictures: Pictures) -> None:
        path = write_parquet(tmp_path / "a.parquet", pictures(2), [0, 1])
        refused(path, "validation size 1 is not possible: .* give more data")

    def test_no_labels(self, tmp_path: Path, write_parquet: Write, pictures: Pictures) -> None:
        path = write_parquet(tmp_path / "a.parquet", pictures(4), None)
        refused(path, r"has no label column; it has image \(struct<.*named label, labels, fine_label")

    def test_no_images(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": ["a", "b"], "answer": [0, 1]}), tmp_path / "a.parquet")
        refused(
            tmp_path / "a.parquet",
            r"which column of .*a\.parquet is the label\?.*the columns are text, answer",
        )

    def test_several_image_columns(self, tmp_path: Path, pictures: Pictures) -> None:
        table = pa.table({"left": pictures(4), "right": pictures(4), "label": [0, 1, 0, 1]})
        pq.write_table(table, tmp_path / "a.parquet")
        refused(tmp_path / "a.parquet", "2 columns that could hold the images: left, right; name the one")

    @pytest.mark.parametrize(
        ("labels", "kind"), [([0.5, 1.0, 2.0, 3.0], "double"), ([[0], [1], [0], [1]], "list")]
    )
    def test_labels_of_another_kind(
        self, tmp_path: Path, write_parquet: Write, pictures: Pictures, labels: list[object], kind: str
    ) -> None:
        path = write_parquet(tmp_path / "a.parquet", pictures(4), labels, classes=None)
        refused(path, f"column 'label' of .* holds {kind}.*whole numbers or text")

    def test_labels_of_two_kinds(self, small: Path, write_parquet: Write, pictures: Pictures) -> None:
        write_parquet(small / "train-00000-of-00001.parquet", pictures(4), [0, 1, 0, 1], classes=None)
        write_parquet(small / "test-00000-of-00001.parquet", pictures(2), ["a", "b"], classes=None)
        refused(small, "holds int and str values; labels must be all whole numbers or all text")

    @pytest.mark.parametrize(("labels", "count"), [([0, None, 1, None], 2), ([0, 1, 1, -1], 1)])
    def test_labels_missing(
        self, tmp_path: Path, write_parquet: Write, pictures: Pictures, labels: list[object], count: int
    ) -> None:
        path = write_parquet(tmp_path / "a.parquet", pictures(4), labels)
        first = 1 if count == 2 else 3
        refused(path, rf"{count} of 4 labels are missing in train of .* \(the first is in row {first}\)")

    def test_labels_beyond_the_declared(
        self, tmp_path: Path, write_parquet: Write, pictures: Pictures
    ) -> None:
        path = write_parquet(tmp_path / "a.parquet", pictures(4), [0, 1, 7, 1])
        refused(path, r"label 7 in column 'label' is not among the 2 declared classes 0\.\.1")

    def test_one_class(self, tmp_path: Path, write_parquet: Write, pictures: Pictures) -> None:
        path = write_parquet(tmp_path / "a.parquet", pictures(4), [1, 1, 1, 1])
        refused(path, "all 4 rows of train of .* have the same label, 1; .* at least two classes")

    def test_bytes_that_are_no_image(self, tmp_path: Path, write_parquet: Write, pictures: Pictures) -> None:
        images = [*pictures(3), b"\x89PNGbroken"]
        path = write_parquet(tmp_path / "a.parquet", images, [0, 1, 0, 1])
        refused(
            path, r"row 3 of train of .*a\.parquet: the image cannot be decoded \(no known .*; 10 bytes .*PNG"
        )

    def test_image_cut_off(self, tmp_path: Path, write_parquet: Write, pictures: Pictures) -> None:
        images = pictures(4, size=(30, 30))
        images[1] = images[1][: len(images[1]) // 2]
        path = write_parquet(tmp_path / "a.parquet", images, [0, 1, 0, 1])
        refused(path, r"row 1 of train of .*: the image cannot be decoded \(image file is truncated")

    def test_image_missing(self, tmp_path: Path, write_parquet: Write, pictures: Pictures) -> None:
        path = write_parquet(tmp_path / "a.parquet", [*pictures(3), None], [0, 1, 0, 1])
        refused(path, "row 3 of train of .* holds no image bytes")

    def test_images_of_two_sizes(self, small: Path, write_parquet: Write, pictures: Pictures) -> None:
        images = [*pictures(3), *pictures(1, size=(6, 5))]
        path = write_parquet(small / "train-00000-of-00001.parquet", images, [0, 1, 0, 1])
        refused(
            path, "differ in size: row 3 of train of .* is 5×6 pixels, row 0 of train of .* is 5×4 pixels"
        )

    def test_splits_of_two_sizes(self, small: Path, write_parquet: Write, pictures: Pictures) -> None:
        write_parquet(small / "test-00000-of-00001.parquet", pictures(2, size=(3, 3)), [0, 1])
        refused(small, "row 0 of test of .* is 3×3 pixels, row 0 of train of .* is 5×4 pixels")

    def test_16_bit_images(self, tmp_path: Path, write_parquet: Write, encode: Encode) -> None:
        deep = encode(GREY.astype(np.uint16) * 257)
        path = write_parquet(tmp_path / "a.parquet", [deep] * 4, [0, 1, 0, 1])
        refused(path, "row 0 of train of .*: the image has pixels of mode 'I;16', but only 8-bit")

    def test_images_all_alike(self, tmp_path: Path, write_parquet: Write, encode: Encode) -> None:
        path = write_parquet(tmp_path / "a.parquet", [encode(np.zeros_like(GREY))] * 4, [0, 1, 0, 1])
        refused(path, "channel 0 of all images in train of .* has the same value 0, .* nothing to learn")

    def test_no_training_split(self, small: Path) -> None:
        (small / "train-00000-of-00001.parquet").unlink()
        refused(small, r"has no training split, only test; name the training file train\.parquet")

    def test_several_configurations(self, tmp_path: Path, small: Path) -> None:
        shutil.copytree(small, tmp_path / "both" / "first")
        shutil.copytree(small, tmp_path / "both" / "second")
        refused(tmp_path / "both", r"several datasets or configurations \(first, second\); give")

    def test_columns_that_differ_between_files(
        self, small: Path, write_parquet: Write, pictures: Pictures
    ) -> None:
        write_parquet(small / "test-00000-of-00001.parquet", pictures(2), [0, 1], label="labels")
        refused(small, r"test-00000-of-00001\.parquet lacks column label, which .*train-00000")

    def test_images_outside_class_folders(self, tmp_path: Path, pictures: Pictures) -> None:
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "a.png").write_bytes(pictures(1)[0])
        refused(tmp_path / "d", r"a\.png is not in a class folder, so it has no label; put each image")

    def test_a_broken_image_file_is_named(self, tmp_path: Path, pictures: Pictures) -> None:
        for name in ("a", "b"):
            (tmp_path / "d" / name).mkdir(parents=True)
            (tmp_path / "d" / name / "1.png").write_bytes(pictures(1)[0] if name == "a" else b"no image")
        refused(tmp_path / "d", r"d.b.1\.png: the image cannot be decoded")
