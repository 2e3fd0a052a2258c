"""Rows of a split: written to disk as they are read, and samples of them."""

from __future__ import annotations

import atexit
import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from datasets import Dataset, Features, Image, LargeList, List
from datasets.arrow_writer import ArrowWriter

from data.common.cache import cache_folder
from data.common.contradictions import Contradictions
from data.common.counts import counted
from data.common.errors import InvalidData, RowErrors, short
from data.common.fields import require_unicode

Row = dict[str, Any]
SAMPLE = 64
LOCATIONS = "locations.jsonl"  # beside the rows of a table: the id and the place (file and line) of each
log = logging.getLogger(__name__)


class RowWriter:
    """Writer of the rows of one split: ids are unique, and an empty split is an error.

    Rows are written to disk at once (they may hold pictures: RefCOCOg's validation split holds 1.3 GB), into a folder
    under the cache that is removed when the process ends.

    Args:
        features: of the columns.
        where: the files, for messages.
        row_errors: what happens to broken rows.
        question, truth: the columns of what is asked of the picture and of the answer; given, it is noted where a
            question is answered in two ways.
    """

    def __init__(
        self, features: Features, where: str, row_errors: RowErrors, question: str = "", truth: Sequence[str] = ()
    ) -> None:
        self.features, self.where, self.row_errors = features, where, row_errors
        self._writer: ArrowWriter | None = None
        self._file = Path()
        self._locations: IO[str] | None = None
        self._where_of_id: dict[str, str] = {}
        self._question, self._truth, self._contradictions = question, truth, Contradictions()
        self._skipped_before = len(row_errors.skipped)

    def add(self, where: str, row: Row) -> None:
        """Write one row.

        Raises:
            InvalidData: another place has used the row's id, or a text can't be stored.
        """
        for name, value in row.items():
            require_unicode(value, where, name)
        if first := self._where_of_id.get(row["id"]):
            problem = f"{short(row['id'])} was already used in {first}"
            raise InvalidData(where, "id", problem, "give every row its own id")
        self._where_of_id[row["id"]] = where
        if self._writer is None:
            self._file = _scratch_folder() / "rows.arrow"
            self._writer = ArrowWriter(path=str(self._file), features=self.features, writer_batch_size=100)
            self._locations = self._file.with_name(LOCATIONS).open("w")
        self._writer.write(row)
        if self._question:
            answer = [row[name] for name in self._truth]
            self._contradictions.add(where, row["image"], row[self._question], answer)
        assert self._locations is not None
        self._locations.write(f"{json.dumps([row['id'], where])}\n")

    def distinct(self, name: str, place: str) -> str:
        """An id of a row: its name, with its place in the files where another row has the name already.

        For data sets whose ids are of pictures or objects, which several rows share.
        """
        return f"{name}@{place}" if name in self._where_of_id else name

    @property
    def empty(self) -> bool:
        """Whether no row was added."""
        return self._writer is None

    def dataset(self) -> Dataset:
        """The rows as a typed dataset.

        Raises:
            InvalidData: not one row is left.
        """
        skipped = len(self.row_errors.skipped) - self._skipped_before
        if self._writer is None or self._locations is None:
            remedy = "see why in the list of skipped rows" if skipped else "choose another split or check the folder"
            raise InvalidData(self.where, None, f"the split is empty ({counted(skipped, 'row')} skipped)", remedy)
        if skipped:
            # Logged whenever rows are read, also in training; `ntil data check` lists them all.
            first = self.row_errors.skipped[self._skipped_before]
            count = len(self._where_of_id)
            rows = counted(count, "row")
            log.warning("%s: %s kept, %d skipped, the first: %s", self.where, rows, skipped, first)
        self._contradictions.note(self.where, self.row_errors)
        self._writer.finalize()
        self._writer.close()
        self._locations.close()
        return Dataset.from_file(str(self._file))


def locations(rows: Dataset) -> dict[str, str]:
    """Map the ids of rows that came from files to their place there, such as `my.jsonl, line 7`."""
    files = {Path(part["filename"]).with_name(LOCATIONS) for part in rows.cache_files}
    return {name: where for file in files if file.is_file() for name, where in map(json.loads, file.open())}


def _scratch_folder() -> Path:
    root = cache_folder() / "tables"
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=root))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def sample_rows(rows: Dataset, most: int = SAMPLE) -> list[Row]:
    """Take at most `most` rows, evenly spread from the first on; pictures as stored (path and bytes), not decoded.

    Files are often sorted, so the first rows don't represent a split.
    """
    stored = undecoded(rows)
    return [stored[index] for index in spread(len(rows), most)]


def spread(size: int, most: int) -> list[int]:
    """At most `most` indices of `size` rows, evenly spread from the first on."""
    count = min(most, size)
    return [index * size // count for index in range(count)]


def undecoded(rows: Dataset) -> Dataset:
    """The same rows with pictures as stored."""
    for name in image_columns(rows):
        feature = rows.features[name]
        as_stored = Image(decode=False)
        rows = rows.cast_column(name, as_stored if isinstance(feature, Image) else type(feature)(as_stored))
    return rows


def image_columns(rows: Dataset) -> list[str]:
    """Names of the columns that hold a picture, or a list of them."""
    inner = {n: f.feature if isinstance(f, List | LargeList) else f for n, f in rows.features.items()}
    return [name for name, feature in inner.items() if isinstance(feature, Image)]
