"""From a name or path to a decoded source: found, checked, decoded once, cached."""

from __future__ import annotations

import hashlib
import re
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from winticket.catalogue import unknown_dataset
from winticket.data import built_in, hub, images, local, text
from winticket.data import cache as disk
from winticket.data.content import Decoded, Report
from winticket.places import VARIABLE, cache_folder

# To raise when the same source would decode to other tensors; what older versions cached is then left alone.
REVISION = 1

_ON_THE_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?")

_LOCK = threading.RLock()
_RECENT: dict[str, Decoded] = {}

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Source:
    """A dataset that was found and can be decoded: what is known before any training.

    `fingerprint` is the SHA-256 of the decoded content, the same wherever the content came from. `train`,
    `validation` and `test` are the split sizes that `load` gives by default; `stored_...` are the rows of the
    source's own splits, 0 where it has none. With `tokens`, examples are text: [length] whole numbers below `classes`,
    and the class of each is the next one. `image_column` and `label_column` say which columns of a table
    were used (None: no table). Every field is plain JSON.
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
    wanted_validation: int | None = None
    wanted_test: int | None = None
    tokens: bool = False

    def sizes(self, *, validation: int | None = None, test: int | None = None) -> tuple[int, int, int]:
        """Rows of (train, validation, test) with these sizes asked for; None: the default.

        Defaults: the source's own split, whole; where it has none, a fifth of its training rows for testing,
        at most 10 000, and a tenth of those then left for validation, at most 5000 (so 5000 for MNIST and
        CIFAR, as in the papers); digits: 450 and 150. Raises ValueError where a size is below 1, above the
        source's own split, or leaves no training row.
        """
        train = self.stored_train
        test_rows = _size(
            "test", test, own=self.stored_test, default=self.wanted_test or min(train // 5, 10_000), of=train
        )
        train -= 0 if self.stored_test else test_rows
        default = self.wanted_validation or min(train // 10, 5_000)
        validation_rows = _size(
            "validation", validation, own=self.stored_validation, default=default, of=train
        )
        train -= 0 if self.stored_validation else validation_rows
        return train, validation_rows, test_rows


def _size(split: str, asked: int | None, *, own: int, default: int, of: int) -> int:
    """The rows of one split, drawn from its `own` rows if it has any, else from the `of` training rows."""
    rows = asked if asked is not None else (own or max(1, default))
    if isinstance(rows, bool) or not isinstance(rows, int):
        raise TypeError(
            f"{split} is {rows!r}; give a whole number of rows, or leave it out for the default size"
        )
    most = own or of - 1
    if not 1 <= rows <= most:
        drawn = f"the source's own {own} {split} rows" if own else f"{of} training rows, leaving at least one"
        raise ValueError(
            f"{split} size {rows} is not possible: it is drawn from {drawn}; "
            + (
                f"ask for 1 to {most}"
                if most >= 1
                else "give more data, or a source with a split of that name"
            )
        )
    return rows


def names() -> tuple[str, ...]:
    """The datasets known by a short name, those that need no network first."""
    return (*built_in.BUILT_IN, *hub.NAMED)


def find_source(
    name_or_path: str | Path,
    *,
    window: int | None = None,
    cache: Path | None = None,
    report: Report | None = None,
) -> Source:
    """Resolve a name or path, decode it unless that was done before, and describe it.

    A short name (`names()`), "user/name" or "user/name:configuration" of the Hub, a parquet file, a folder of
    parquet files in the Hub's layout (splits by file name), or a folder with one folder of images per class,
    optionally inside train, validation and test folders; or a text file (.txt, UTF-8) or a folder with one, which is
    read character by character, in windows of `window` characters (64 unless said). A short name goes before a folder
    of that name: write ./mnist for the folder. `report` is told (images decoded, images in all).

    Decoded tensors are kept in `cache`, else $WINTICKET_CACHE, else the platform's cache folder. Local files
    are read again when their contents change; what came from the Hub stays until its file there is deleted. A
    cache that cannot be written costs a RuntimeWarning; a damaged file there is decoded anew.

    Raises FileNotFoundError for what does not exist or cannot be reached, ValueError for what is not a usable
    dataset of classified images or text, or where a window is asked of anything but text; this is the place where every
    such error comes.
    """
    return describe(str(name_or_path), decoded(name_or_path, window=window, cache=cache, report=report))


def describe(name: str, content: Decoded) -> Source:
    """The Source of decoded content; raises ValueError where it is too small to be split."""
    stored = {split: len(rows.y) for split, rows in content.splits.items()}
    source = Source(
        name=name,
        fingerprint=content.fingerprint,
        input_shape=tuple(content.splits["train"].x.shape[1:]),
        classes=len(content.class_names),
        class_names=content.class_names,
        train=0,
        validation=0,
        test=0,
        stored_train=stored["train"],
        stored_validation=stored.get("validation", 0),
        stored_test=stored.get("test", 0),
        image_column=content.image_column,
        label_column=content.label_column,
        wanted_validation=content.validation,
        wanted_test=content.test,
        tokens=content.tokens,
    )
    train, validation, test = source.sizes()
    return replace(source, train=train, validation=validation, test=test)


@dataclass(frozen=True)
class _Found:
    """Where a source's content comes from; `key` differs wherever that content can."""

    label: str
    key: str
    decode: Callable[[Report | None], Decoded]
    quick: bool = False
    text: bool = False


def decoded(
    name_or_path: str | Path,
    *,
    window: int | None = None,
    cache: Path | None = None,
    report: Report | None = None,
) -> Decoded:
    """The content of a source, from memory, else from the cache on disk, else decoded; see `find_source`."""
    found = _find(name_or_path, window or text.LENGTH)
    if window is not None and not found.text:
        raise ValueError(
            f"{name_or_path} is no text, which alone is cut into windows, here of {window} characters; take a model "
            "that reads such data"
        )
    digest = hashlib.sha256(f"{REVISION}\0{found.key}".encode()).hexdigest()[:24]
    path = (cache or cache_folder()) / f"{found.label}-{digest}.safetensors"
    return remember(_RECENT, str(path), lambda: _from_disk(found, path, report), keep=1)


def remember(memory: dict[K, V], key: K, make: Callable[[], V], *, keep: int) -> V:
    """The value under `key`, made where it is missing; only the `keep` most recently used stay in memory."""
    with _LOCK:
        memory[key] = memory.pop(key) if key in memory else make()
        while len(memory) > keep:
            del memory[next(iter(memory))]
        return memory[key]


def _from_disk(found: _Found, path: Path, report: Report | None) -> Decoded:
    if (content := disk.read(path)) is not None:
        return content
    content = found.decode(report)
    describe(found.label, content)
    if not content.lasting:
        warnings.warn(
            f"{found.label} points to images that it does not hold, so what was decoded is not kept: every process "
            "decodes it again; write the images' bytes into the table",
            RuntimeWarning,
            stacklevel=4,
        )
        return content
    try:
        disk.write(path, content)
    except OSError as error:
        if not found.quick:
            warnings.warn(
                f"the decoded images of {found.label} could not be kept in {path.parent} ({error}), so they "
                f"are decoded again by every process; set ${VARIABLE} to a folder that can be written",
                RuntimeWarning,
                stacklevel=4,
            )
    return content


def _find(name_or_path: str | Path, window: int) -> _Found:
    if not isinstance(name_or_path, str | Path):
        raise TypeError(
            f"a dataset is named by text or a path, not by {type(name_or_path).__name__}: {name_or_path!r}"
        )
    given = str(name_or_path)
    if not isinstance(name_or_path, Path):
        if given in built_in.BUILT_IN:
            make = built_in.BUILT_IN[given]
            return _Found(given, given, lambda _: make(), quick=True)
        if given in hub.NAMED:
            return _on_the_hub(given, hub.NAMED[given])
    path = Path(given).expanduser()
    if given.strip() and path.exists():
        label = re.sub(r"[^\w.-]+", "-", path.absolute().name) or "folder"
        if file := text.find(path):
            key = text.digest(file, length=window)
            return _Found(label, key, lambda _: text.decode(file, length=window), quick=True, text=True)
        files = local.find(path)
        return _Found(label, files.digest(), lambda report: images.decode(local.read(files), report=report))
    if not isinstance(name_or_path, Path) and _ON_THE_HUB.fullmatch(given) and not _like_a_path(given):
        return _on_the_hub(given.replace("/", "-").replace(":", "-"), given)
    if isinstance(name_or_path, Path) or _like_a_path(given):
        local.find(path)
    raise ValueError(unknown_dataset(given))


def _like_a_path(given: str) -> bool:
    """Whether text that is no existing path was meant as one rather than as a name."""
    path = Path(given)
    return (
        path.is_absolute()
        or len(path.parts) > 2
        or given.startswith((".", "~"))
        or path.suffix.lower() in (".parquet", text.ENDING)
        or (len(path.parts) == 2 and Path(path.parts[0]).is_dir())
    )


def _on_the_hub(label: str, repository: str) -> _Found:
    return _Found(
        label, f"hub {repository}", lambda report: images.decode(hub.read(repository), report=report)
    )
