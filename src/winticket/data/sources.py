"""From a name or path to a decoded dataset: found, checked, decoded once, cached."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from winticket.catalogue import unknown_dataset
from winticket.data import arrays, built_in, frames, hub, images, local, text, tokens
from winticket.data import cache as disk
from winticket.data.content import Decoded, Report, Split, Target, Unread
from winticket.data.draws import kept_rows
from winticket.data.reading import Reading
from winticket.places import VARIABLE, cache_folder

# To raise when the same dataset would decode to other tensors; files that older versions cached are then ignored.
REVISION = 1

_ON_THE_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?")

_LOCK = threading.RLock()
_RECENT: dict[str, Decoded] = {}

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class DatasetInfo:
    """The description of a dataset: what is known before any training.

    `fingerprint` is the SHA-256 of the decoded content, and the same wherever that came from. `train`, `validation` and
    `test` are the split sizes that `load` uses by default. `stored_...` are the rows of the splits that the dataset
    comes with, 0 for a split that it lacks. `default_validation` and `default_test` are its own default sizes for
    splits that it lacks (None: see `sizes`). With `tokens`, examples are text: [length] whole numbers below `classes`,
    and the class of each is the next one. `target` is what the answers are; `classes` is the number of outputs that
    they need, and `target_names` are the columns of numbers or labels. `feature_names` are a table's. `split_by` is
    "rows", or "groups" or "time" if the reading asks for that. `image_column` and `label_column` name the columns of a
    table (None: not a table). Every field is plain JSON.
    """

    name: str
    fingerprint: str
    input_shape: tuple[int, ...]
    classes: int
    class_names: tuple[str, ...]
    train: int
    validation: int
    test: int
    stored_train: int
    stored_validation: int
    stored_test: int
    image_column: str | None
    label_column: str | None
    default_validation: int | None = None
    default_test: int | None = None
    tokens: bool = False
    target: Target = "classes"
    target_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    split_by: Literal["rows", "groups", "time"] = "rows"

    def sizes(self, *, validation: int | None = None, test: int | None = None) -> tuple[int, int, int]:
        """The rows of (train, validation, test) for these sizes; None means the default.

        By default, a split that the dataset comes with is used whole. Otherwise a fifth of the training rows, at most
        10 000, is for testing, and a tenth of the remaining rows, at most 5000, for validation (so 5000 for MNIST and
        CIFAR, as in the papers); for digits, 450 and 150. Raises ValueError if a size is below 1, is larger than the
        dataset's own split, or leaves no training row.

        >>> find_dataset("digits").sizes(), find_dataset("digits").sizes(test=500)
        ((1197, 150, 450), (1147, 150, 500))
        """
        train = self.stored_train
        default = self.default_test or min(train // 5, 10_000)
        test_rows = _size("test", test, stored=self.stored_test, default=default, of=train)
        train -= 0 if self.stored_test else test_rows
        default = self.default_validation or min(train // 10, 5_000)
        validation_rows = _size(
            "validation", validation, stored=self.stored_validation, default=default, of=train
        )
        train -= 0 if self.stored_validation else validation_rows
        return train, validation_rows, test_rows


def _size(split: str, request: int | None, *, stored: int, default: int, of: int) -> int:
    """The rows of one split, drawn from its `stored` rows if it has any, else from the `of` training rows."""
    rows = request if request is not None else (stored or max(1, default))
    if isinstance(rows, bool) or not isinstance(rows, int):
        raise TypeError(f"{split} is {rows!r}; give a whole number of rows, or omit it for the default size")
    most = stored or of - 1
    if not 1 <= rows <= most:
        drawn = (
            f"the dataset's own {stored} {split} rows"
            if stored
            else f"{of} training rows, leaving at least one"
        )
        raise ValueError(
            f"{split} size {rows} is not possible: it is drawn from {drawn}; "
            + (f"give 1 to {most}" if most >= 1 else "give more data, or a dataset with a split of that name")
        )
    return rows


def names() -> tuple[str, ...]:
    """The datasets known by a short name; the first ones need no network.

    >>> names()
    ('digits', 'mnist1d', 'mnist', 'fashion_mnist', 'cifar10', 'cifar100')
    """
    return (*built_in.BUILT_IN, *hub.NAMED)


def find_dataset(
    name_or_path: str | Path,
    *,
    window: int | None = None,
    reading: Reading | None = None,
    cache: Path | None = None,
    report: Report | None = None,
) -> DatasetInfo:
    """The description of the dataset at a name or path, which is decoded unless it is cached.

    The dataset can be a short name (`names()`); "user/name" or "user/name:configuration" on the Hub; a parquet file; a
    folder of parquet files in the Hub's layout (splits by file name); a folder with one folder of images per class,
    optionally inside train, validation and test folders; a text file (.txt, UTF-8) or a folder with one; a table of
    numbers and categories (CSV, TSV, parquet, arrow), or a folder of such files; or arrays (npz, npy). Text is read
    character by character, in windows of `window` characters (default: 64). `reading` says which columns of a table are
    labels, and more (see `Reading`). A short name takes precedence over a folder of the same name: write ./mnist for
    the folder. `report` is called with (images decoded, images in all).

    Decoded tensors are kept in `cache`, else in $WINTICKET_CACHE, else in the platform's cache folder. Local files are
    decoded again when their contents change; datasets from the Hub stay until their file in the cache is deleted. If
    the cache cannot be written, there is a RuntimeWarning; a damaged file in it is decoded again.

    Raises FileNotFoundError if the dataset does not exist or cannot be reached. Raises ValueError if it is not a usable
    dataset, if it is not text and `window` is given, or if `reading` asks for what such data do not have. All such
    errors are raised here, none later.

    >>> digits = find_dataset("digits")
    >>> digits.input_shape, digits.classes, digits.train
    ((1, 8, 8), 10, 1197)
    """
    return describe(
        str(name_or_path), decoded(name_or_path, window=window, reading=reading, cache=cache, report=report)
    )


def describe(name: str, content: Decoded) -> DatasetInfo:
    """The description of decoded content. Raises ValueError if it is too small to be split."""
    stored = {split: len(rows.y) for split, rows in content.splits.items()}
    info = DatasetInfo(
        name=name,
        fingerprint=content.fingerprint,
        input_shape=tuple(content.splits["train"].x.shape[1:]),
        classes=content.outputs,
        class_names=content.class_names,
        train=0,
        validation=0,
        test=0,
        stored_train=stored["train"],
        stored_validation=stored.get("validation", 0),
        stored_test=stored.get("test", 0),
        image_column=content.image_column,
        label_column=content.label_column,
        default_validation=content.validation,
        default_test=content.test,
        tokens=content.tokens,
        target=content.target,
        target_names=content.target_names,
        feature_names=content.feature_names,
        split_by="groups"
        if content.groups is not None
        else "time"
        if content.moments is not None
        else "rows",
    )
    train, validation, test = info.sizes()
    return replace(info, train=train, validation=validation, test=test)


@dataclass(frozen=True)
class _Origin:
    """Where a dataset's content comes from; contents that may differ have different keys."""

    label: str
    key: str
    decode: Callable[[Report | None], Decoded]
    quick: bool = False
    text: bool = False


def decoded(
    name_or_path: str | Path,
    *,
    window: int | None = None,
    reading: Reading | None = None,
    cache: Path | None = None,
    report: Report | None = None,
) -> Decoded:
    """The content of a dataset, from memory, else from the cache on disk, else decoded; see `find_dataset`."""
    reading = reading or Reading()
    if None not in (window, reading.window) and window != reading.window:
        raise ValueError(
            f"window is {reading.window}, but the model reads windows of {window}; leave window out, or choose a model "
            "that reads any length"
        )
    window = window or reading.window
    origin = _origin(name_or_path, window, reading)
    if window is not None and not origin.text:
        raise ValueError(
            f"{name_or_path} is not text, and only text is cut into windows, here of {window} characters; use a model "
            "that reads such data"
        )
    digest = hashlib.sha256(f"{REVISION}\0{origin.key}{_suffix(reading)}".encode()).hexdigest()[:24]
    path = (cache or cache_folder()) / f"{origin.label}-{digest}.safetensors"
    return remember(_RECENT, str(path), lambda: _from_disk(origin, path, reading.rows, report), keep=1)


def _suffix(reading: Reading) -> str:
    # The key of a text holds its tokenizer's content and its window already.
    chosen = {name: value for name, value in reading.chosen().items() if name not in ("tokenizer", "window")}
    return f"\0{json.dumps(chosen, sort_keys=True)}" if chosen else ""


def _fewer(content: Decoded, rows: int | None) -> Decoded:
    """Content with so many of its training rows, drawn from a fixed seed; they keep their order."""
    if rows is None or rows == len(content.splits["train"].y):  # tables and arrays choose before they encode
        return content
    split = content.splits["train"]
    kept = kept_rows(len(split.y), rows)
    train = Split(split.x[kept], split.y[kept])
    return replace(
        content,
        splits={**content.splits, "train": train},
        groups=None if content.groups is None else content.groups[kept],
        moments=None if content.moments is None else content.moments[kept],
    )


def remember(memory: dict[K, V], key: K, make: Callable[[], V], *, keep: int) -> V:
    """The value under `key`, made if it is missing; only the `keep` most recently used values stay in memory."""
    with _LOCK:
        memory[key] = memory.pop(key) if key in memory else make()
        while len(memory) > keep:
            del memory[next(iter(memory))]
        return memory[key]


def _from_disk(origin: _Origin, path: Path, rows: int | None, report: Report | None) -> Decoded:
    if (content := disk.read(path)) is not None:
        return content
    content = _fewer(origin.decode(report), rows)
    describe(origin.label, content)
    if not content.lasting:
        warnings.warn(
            f"{origin.label} points to images that it does not hold, so the decoded images are not cached, and every "
            "process decodes them again; write the images' bytes into the table",
            RuntimeWarning,
            stacklevel=4,
        )
        return content
    try:
        disk.write(path, content)
    except OSError as error:
        if not origin.quick:
            warnings.warn(
                f"the decoded images of {origin.label} could not be kept in {path.parent} ({error}), so every process "
                f"decodes them again; set ${VARIABLE} to a folder that can be written",
                RuntimeWarning,
                stacklevel=4,
            )
    return content


def _origin(name_or_path: str | Path, window: int | None, reading: Reading) -> _Origin:
    if not isinstance(name_or_path, str | Path):
        raise TypeError(
            f"a dataset is named by text or a path, not by {type(name_or_path).__name__}: {name_or_path!r}"
        )
    name = str(name_or_path)
    if not isinstance(name_or_path, Path):
        if name in built_in.BUILT_IN:
            make = built_in.BUILT_IN[name]
            reading.require_only("rows", of=f"{name}, whose columns are fixed")
            return _Origin(name, name, lambda _: make(), quick=True)
        if name in hub.NAMED:
            return _on_the_hub(name, hub.NAMED[name], reading)
    path = Path(name).expanduser()
    if name.strip() and path.exists():
        label = re.sub(r"[^\w.-]+", "-", path.absolute().name) or "folder"
        # By a tokenizer, any file is read as text; otherwise the name says whether it is.
        whole = reading.tokenizer and (path.is_file() or tokens.several(path))
        if file := path if whole else text.find(path):
            return _of_text(label, file, window, reading)
        if arrays.find(path):
            return _Origin(
                label, arrays.digest(path, reading), lambda _: arrays.decode(path, reading), quick=True
            )
        files = frames.find(path) or local.find(path)
        if frames.are_numbers(files):
            return _Origin(label, frames.digest(files), lambda _: frames.decode(files, reading), quick=True)
        reading.require_only("label", "size", "rows", of=f"images, as in {path.name}")
        return _Origin(
            label, files.digest(), lambda report: _images(local.read(files, reading), reading, report)
        )
    if not isinstance(name_or_path, Path) and _ON_THE_HUB.fullmatch(name) and not like_a_path(name):
        return _on_the_hub(name.replace("/", "-").replace(":", "-"), name, reading)
    if isinstance(name_or_path, Path) or like_a_path(name):
        local.find(path)
    raise ValueError(unknown_dataset(name))


def _of_text(label: str, file: Path, window: int | None, reading: Reading) -> _Origin:
    """A text, in characters or in the tokens of a tokenizer."""
    reading.require_only("rows", "alphabet", "tokenizer", "window", of=f"text, as in {file.name}")
    if (folder := reading.tokenizer) is not None:
        length = window or tokens.usual_length(folder)
        key = tokens.digest(file, folder=folder, length=length)
        return _Origin(label, key, lambda _: tokens.decode(file, folder=folder, length=length), text=True)
    characters = window or text.LENGTH
    other = None if reading.alphabet is None else Path(reading.alphabet)
    key = text.digest(file, length=characters, alphabet=other)
    return _Origin(
        label, key, lambda _: text.decode(file, length=characters, alphabet=other), quick=True, text=True
    )


def like_a_path(name: str) -> bool:
    """True if text that is not an existing path looks like a path rather than a name.

    >>> like_a_path("sensors.npz"), like_a_path("user/name")
    (True, False)
    """
    path = Path(name)
    return (
        path.is_absolute()
        or len(path.parts) > 2
        or name.startswith((".", "~"))
        or path.suffix.lower() in (".parquet", text.ENDING, *frames.ENDINGS, *arrays.ENDINGS)
        or (len(path.parts) == 2 and Path(path.parts[0]).is_dir())
    )


def _on_the_hub(label: str, repository: str, reading: Reading) -> _Origin:
    reading.require_only("label", "size", "rows", of=f"{repository}, which is read as images with labels")
    return _Origin(
        label, f"hub {repository}", lambda report: _images(hub.read(repository, reading), reading, report)
    )


def _images(unread: Unread, reading: Reading, report: Report | None) -> Decoded:
    return images.decode(unread, size=reading.pixels(), report=report)
