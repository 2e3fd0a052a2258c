"""Interface of a source: the rows of one data set, from files or a renderer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset

from data.common.errors import InvalidData, InvalidOption, RowErrors
from data.common.table_files import matching

# The random streams of a renderer's splits: they share no picture whatever the seed.
STREAMS = {"train": 0, "validation": 1, "test": 2}


class Source(ABC):
    """Source of rows: one subclass in `data/`, named by `task.source.target` in a task's YAML.

    Attributes:
        splits: names of the splits that `rows` gives.
        row_errors: what happens to broken rows, and which were skipped.
        allow_urls: fetch pictures that a table gives by web address; `cached_rows` sees to it.
    """

    splits: tuple[str, ...] = ("train", "validation", "test")
    row_errors: RowErrors
    allow_urls: bool = False

    def __init__(self) -> None:
        self.row_errors = RowErrors()

    @abstractmethod
    def rows(self, split: str) -> Dataset:
        """The split's rows, with the columns that the task's schema names (`data/<task>/schema.py`).

        Raises:
            InvalidOption: there is no such split.
            InvalidData: a file, or (on_error=raise) a row that can't be used.
        """

    def expected_rows(self, split: str) -> int | None:
        """About how many rows a split has, without reading data; None where that isn't known."""
        return None

    def expected_rows_per_picture(self, split: str) -> float | None:
        """About how many rows show one picture, without reading data; None where that isn't known."""
        return None

    def origin(self, split: str) -> str | None:
        """Where a split comes from and in which revision, as `owner/name@<commit>`; None for files and renderers."""
        return None

    def check_split(self, split: str) -> None:
        """Check that a split exists, without reading data.

        Raises:
            InvalidOption: there is no such split, as far as can be known without reading anything.
        """
        if split not in self.splits:
            raise InvalidOption(
                f"the task's data has no split {split!r}, only {', '.join(self.splits)}: choose another "
                f"(evaluation.split=...), or where the source takes files give it one (task.source.{split}=...)"
            )

    def check_files(self) -> None:  # noqa: B027  a renderer has none
        """Check that the files of the source exist, without reading them.

        Raises:
            InvalidData, InvalidOption: a file or folder that the source names isn't there.
        """


class RenderedSource(Source):
    """A source that draws its rows: `counts` says how many of each split."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        super().__init__()
        for split, count in counts.items():
            if count < 0:
                raise InvalidOption(f"task.source.rows.{split} must be at least 0, got {count}")
        self.counts, self.splits = dict(counts), tuple(counts)

    def expected_rows(self, split: str) -> int | None:
        return self.counts.get(split)

    def check_split(self, split: str) -> None:
        self.count(split)

    def count(self, split: str) -> int:
        """Number of rows of a split.

        Raises:
            InvalidOption: no rows of that split were asked for.
        """
        if not self.counts.get(split):
            raise InvalidOption(
                f"task.source.rows has no count for the split {split!r}; set task.source.rows.{split}=..."
            )
        return self.counts[split]


def optional_path(path: str | None) -> Path | None:
    """Path with `~` expanded; None for None or an empty text."""
    return Path(path).expanduser() if path else None


def without_nulls(options: Mapping[str, str | None] | None) -> dict[str, str]:
    """The entries that a YAML file, which names all keys, gives a value."""
    return {key: value for key, value in (options or {}).items() if value is not None}


def matching_files(files: Mapping[str, str], split: str, key: str = "files") -> list[Path]:
    """The files of a split, which `task.source.<key>.<split>` names by path or glob.

    Raises:
        InvalidOption: the split has none.
        InvalidData: no such file.
    """
    if split not in files:
        raise InvalidOption(f"there is no file for the split {split!r}; set task.source.{key}.{split}=<file>")
    return matching(files[split], f"task.source.{key}.{split}")


def matching_file(files: Mapping[str, str], split: str, key: str = "files") -> Path:
    """The one file of a split, see `matching_files`.

    Raises:
        InvalidOption: the split has none.
        InvalidData: no such file, or several.
    """
    paths = matching_files(files, split, key)
    if len(paths) > 1:
        problem = f"matches {len(paths)} files, {paths[0].name} and {paths[1].name} among them"
        raise InvalidData(files[split], None, problem, f"set task.source.{key}.{split} to one of them")
    return paths[0]


def require_file(path: Path, remedy: str) -> None:
    """Check that a file exists and isn't empty.

    Raises:
        InvalidData: there is no such file, or nothing in it.
    """
    if path.is_dir():
        raise InvalidData(str(path), None, "is a folder where a file belongs", remedy)
    if not path.exists():
        raise InvalidData(str(path), None, "there is no such file", remedy)
    if path.is_file() and not path.stat().st_size:
        raise InvalidData(str(path), None, "the file is empty", remedy)


def require_folder(path: Path, remedy: str) -> None:
    """Check that a folder exists.

    Raises:
        InvalidData: there is no such folder.
    """
    if not path.is_dir():
        problem = "is a file where a folder belongs" if path.exists() else "there is no such folder"
        raise InvalidData(str(path), None, problem, remedy)
