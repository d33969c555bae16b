"""Local datasets: a parquet file, a folder of parquet files, or a folder of image files sorted by class."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winticket.data.content import SPLITS, Encoded, Unread
from winticket.data.reading import Reading
from winticket.data.tables import split_called, unread
from winticket.text import alike

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")


@dataclass(frozen=True)
class Files:
    """Files by split, each split sorted; `parquet` says whether they are tables or single images."""

    root: Path
    splits: Mapping[str, tuple[Path, ...]]
    parquet: bool

    def digest(self) -> str:
        """SHA-256 (hexadecimal) of split names and file contents, and of the names of image files."""
        digest = hashlib.sha256()
        for split, files in self.splits.items():
            for file in files:
                state = file.stat()
                name = "" if self.parquet else file.relative_to(self.root).as_posix()
                digest.update(
                    f"{split}\0{name}\0{_content(file, state.st_size, state.st_mtime_ns)}\0".encode()
                )
        return digest.hexdigest()


@functools.lru_cache(maxsize=100_000)
def _content(file: Path, size: int, changed: int) -> str:  # noqa: ARG001
    """SHA-256 of a file; a process reads it again only if its size or modification time changes."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error}); check its permissions") from error


def find(path: Path) -> Files:
    """The files of a local dataset, sorted into splits by the names of files and folders.

    A single parquet file is one training split, whatever its name. Raises FileNotFoundError for a missing
    path and for a folder with neither parquet files nor images, and ValueError for a file that is empty or not
    parquet.
    """
    if not path.exists():
        raise FileNotFoundError(_missing(path))
    if path.is_file():
        if path.suffix.lower() != ".parquet":
            raise ValueError(
                f"{path} is not a parquet file; give a table (.parquet, .csv, .tsv, .arrow), a folder of them, arrays "
                "(.npz, .npy), a folder with one folder of images per class, or text in a .txt file"
            )
        return filled(Files(path.parent, {"train": (path,)}, parquet=True))
    files = files_within(path)
    if tables := [file for file in files if file.suffix.lower() == ".parquet"]:
        return filled(Files(path, tables_by_split(path, tables), parquet=True))
    if images := [file for file in files if file.suffix.lower() in IMAGE_ENDINGS]:
        return filled(Files(path, _images_by_split(path, images), parquet=False))
    first = ", ".join(file.relative_to(path).as_posix() for file in files[:5])
    raise FileNotFoundError(
        f"no parquet file and no image in folder {path} ({f'it holds {first}' if first else 'it is empty'}); "
        "give a folder of .parquet files in the Hub's layout, or one with a folder of images per class"
    )


def files_within(folder: Path) -> list[Path]:
    """The files of a folder and its subfolders, sorted, without hidden ones.

    Links to folders inside it are followed. Raises ValueError for a link that leads outside or in a circle, and for an
    image or parquet entry that is not a regular file: nothing is skipped silently.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is neither a file nor a folder; give one of the two")
    return sorted(_within(folder, folder.resolve(), ()))


def _within(folder: Path, root: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    real = folder.resolve()
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_symlink() and entry.is_dir():
            target = entry.resolve()
            if not target.is_relative_to(root):
                raise ValueError(
                    f"{entry} is a link to the folder {target}, outside the dataset; copy it here, or give that folder"
                )
            if target in (*above, real):
                raise ValueError(f"{entry} is a link to a folder that it lies in; remove it")
        if entry.is_dir():
            yield from _within(entry, root, (*above, real))
        elif entry.is_file():
            yield entry
        elif entry.suffix.lower() in (*IMAGE_ENDINGS, ".parquet"):
            what = "a link that leads nowhere" if entry.is_symlink() else "not a regular file"
            raise ValueError(f"{entry} is {what}; remove it, or replace it with the data")


def _missing(path: Path) -> str:
    parent = path.absolute().parent
    near = alike(path.name, sorted(file.name for file in parent.iterdir()), most=3) if parent.is_dir() else []
    hint = f"; {parent} has {', '.join(near)}" if near else ""
    possible = "give a table (.csv, .parquet, ...), arrays (.npz, .npy), a folder of tables or images, or a text file"
    return f"no such file or folder: {path}{hint}; {possible}"


def filled(files: Files) -> Files:
    """The same files. Raises ValueError if one is empty, or if none is for training."""
    for split in files.splits.values():
        for file in split:
            if file.stat().st_size == 0:
                raise ValueError(f"{file} is empty (0 bytes); download or write it again")
    if "train" not in files.splits:
        raise ValueError(
            f"{files.root} has no training split, only {' and '.join(files.splits)}; name the training file "
            "train.parquet or train-00000-of-00001.parquet, or give one parquet file to draw all splits from"
        )
    return files


def tables_by_split(root: Path, files: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Splits by the first word in a file's path that names one; files without such a word are for training."""
    sorted_out: dict[str, list[Path]] = {}
    groups = set()
    for file in files:
        relative = file.relative_to(root)
        words = re.split(r"[^A-Za-z]+", relative.as_posix())
        split = next((name for word in words if (name := split_called(word))), "train")
        sorted_out.setdefault(split, []).append(file)
        groups.add(tuple(part for part in relative.parent.parts if split_called(part) is None))
    if len(groups) > 1:
        folders = ", ".join(sorted("/".join(group) or "." for group in groups))
        raise ValueError(
            f"{root} holds several datasets or configurations ({folders}); give the folder of one of them"
        )
    return {split: tuple(sorted_out[split]) for split in SPLITS if split in sorted_out}


def _images_by_split(root: Path, files: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Splits by top-level folder if every such folder names a split; otherwise all images are for training."""
    if not _split_by_folder(root, files):
        return {"train": tuple(files)}
    sorted_out: dict[str, list[Path]] = {}
    for file in files:
        sorted_out.setdefault(str(split_called(file.relative_to(root).parts[0])), []).append(file)
    return {split: tuple(sorted_out[split]) for split in SPLITS if split in sorted_out}


def read(files: Files, reading: Reading | None = None) -> Unread:
    """Open the files. Raises ValueError for corrupt parquet, wrong columns, and images outside class folders."""
    if files.parquet:
        return _read_tables(files, reading or Reading())
    if reading is not None:
        reading.require_only("size", "rows", of="a folder with a folder of images for each class")
    return _read_images(files)


def _read_tables(files: Files, reading: Reading) -> Unread:
    first = files.splits["train"][0]
    schema = opened_parquet(first, lambda opened: opened.schema_arrow)

    def reader(paths: tuple[Path, ...]) -> Callable[[list[str]], Any]:
        return lambda names: _table(paths, names, first=first)

    read_by_split = {split: reader(paths) for split, paths in files.splits.items()}
    origin = str(files.root if len(list(_all(files))) > 1 else first)
    return unread(schema, read_by_split, origin=origin, folders=[files.root], label=reading.label)


def _all(files: Files) -> Iterator[Path]:
    for split in files.splits.values():
        yield from split


def _table(paths: Sequence[Path], names: list[str], *, first: Path) -> Any:
    import pyarrow as pa

    tables = []
    for path in paths:
        table = opened_parquet(path, lambda opened: opened.read(columns=names))
        if lacking := sorted(set(names) - set(table.column_names)):
            raise ValueError(
                f"{path} lacks column {', '.join(lacking)}, which {first} has; all files of a dataset must have "
                "the same columns; give the folder of one dataset"
            )
        tables.append(table.replace_schema_metadata(None))
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise ValueError(
            f"the files {', '.join(map(str, paths))} differ in type ({error}); write them with the same types"
        ) from error


def opened_parquet(path: Path, use: Callable[[Any], Any]) -> Any:
    """What `use` makes of an open parquet file. Raises ValueError if the file cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as opened:
            return use(opened)
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise ValueError(
            f"{path} is not a readable parquet file ({error}); download or write it again"
        ) from error


def _read_images(files: Files) -> Unread:
    inside = 1 if _split_by_folder(files.root, list(_all(files))) else 0
    splits = {}
    for split, paths in files.splits.items():
        labels = [_class_of(path, files.root, inside=inside) for path in paths]
        splits[split] = Encoded(_Contents(paths), labels, f"{split} of {files.root}", tuple(map(str, paths)))
    return Unread(splits, None, None, None)


def _split_by_folder(root: Path, files: Sequence[Path]) -> bool:
    return all(split_called(file.relative_to(root).parts[0]) for file in files)


def _class_of(path: Path, root: Path, *, inside: int) -> str:
    folders = path.relative_to(root).parts[inside:-1]
    if not folders:
        raise ValueError(
            f"{path} is not in a class folder, so it has no label; put each image into a folder named after "
            f"its class, for example {root / 'train' / 'cat' / path.name}"
        )
    return folders[0]


@dataclass(frozen=True)
class _Contents:
    paths: Sequence[Path]

    def __iter__(self) -> Iterator[bytes | None]:
        for path in self.paths:
            yield path.read_bytes()
