"""The rows of a split that a run's model can use, by the check of `row_check.py`, whose results are kept on disk.

Key: the rows' content, the task and its protocol, the model's options, its tokenizer and picture processor, and the
source of this project. `ntil data check model=...` writes what a training's start then reads; where there is nothing to
read, the start checks what needs no pixels.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from tqdm.auto import tqdm

import data
import ntil
import tasks
from data.common.cache import cache_folder
from data.common.cores import usable_cores
from data.common.files import write_text
from data.common.rows import undecoded
from ntil.components import Components
from ntil.config.errors import ConfigError
from ntil.config.schema import RunConfig
from ntil.distributed.interrupt import Interrupt
from ntil.distributed.ranks import Ranks
from ntil.evaluation.row_check import (
    Places,
    Progress,
    SplitCheck,
    SplitChecker,
    check_lengths,
    context_warning,
    low_ceilings,
    without_refused,
)
from ntil.models.base import Family
from ntil.runs.data_fingerprint import fingerprint
from ntil.runs.folder import read_json
from tasks.mixture import named

FEW = 500  # rows that aren't worth starting processes for
LEVELS = ("pictures", "texts")  # checks with and without the pictures' pixels; the first says more


def usable_rows(
    config: RunConfig,
    components: Components,
    split: str,
    rows: Dataset,
    ranks: Ranks | None = None,
    interrupt: Interrupt | None = None,
    key: str = "task",
) -> Dataset:
    """The rows that the model can use, the same on all ranks; rank 0 prints what is worth a warning.

    Args:
        key: of the task in the configuration, which remedies name.

    Raises:
        UserError: rows that can't be used and may not be left out; an answer or a row that is too long.
        KeyboardInterrupt: an interrupt was requested.
    """
    ranks, task = ranks or Ranks(), components.task
    if task.members:
        configs, members = config.members, components.members
        parts = task.by_member(rows)
        return task.mixed(
            {
                name: named(
                    name, usable_rows, configs[name], members[name], split, part, ranks, interrupt, f"task.tasks.{name}"
                )
                for name, part in parts.items()
            }
        )
    check = ranks.gather(_checked_on_first(config, components, split, rows, interrupt) if ranks.first else None)[0]
    if check is None:
        raise KeyboardInterrupt
    places = Places(split, rows)
    usable = without_refused(task, split, rows, check)
    check_lengths(check, places, task.max_new_tokens, config.max_length, length_option(config, key))
    if ranks.first:
        if check.refused:
            first = places.line(check.refused[0])
            print(f"{split}: {len(check.refused)} of {check.rows} rows left out, the first: {first}", flush=True)
        for line in warnings(components, check, places):
            print(f"warning: {line}", flush=True)
    return usable


def warnings(components: Components, check: SplitCheck, places: Places) -> list[str]:
    """What doesn't prevent a training but should be known before it: a low ceiling, rows beyond the context."""
    lines = ceiling_warnings(components.task, check, places)
    context = context_warning(check, places, components.family)
    return [*lines, context] if context else lines


def ceiling_warnings(task: Any, check: SplitCheck, places: Places) -> list[str]:
    """One line for each metric that the taught answers themselves don't reach, with an example."""
    example = f", as {places.line(check.below[0])}" if check.below else ""
    return [
        f"{places.split}: the taught answers themselves reach {name} {value:.4g}, so no model can be expected to do "
        f"better ({check.below_count} of {check.rows} rows{example})"
        for name, value in low_ceilings(task, check).items()
    ]


def length_option(config: RunConfig, key: str = "task") -> str:
    """How to set `max_new_tokens`; a task without the option fixes it in its class, so the remedy names that.

    Args:
        key: of the task in the configuration; that of a mixture's member is longer.
    """
    where = f"set {key}" if "max_new_tokens" in config.task.options else config.task.target
    return f"{where}.max_new_tokens"


def workers_for(rows: Dataset, most: int | None = None) -> int:
    """How many processes should check the rows, `most` at most (by default one a processor, up to 8)."""
    return 0 if len(rows) < FEW else min(usable_cores(), 8) if most is None else most


def _checked_on_first(
    config: RunConfig, components: Components, split: str, rows: Dataset, interrupt: Interrupt | None
) -> SplitCheck | None:
    """The check; None where an interrupt was requested meanwhile."""
    progress = partial(_progress, title=f"checking {split}", interrupt=interrupt)
    try:
        return cached_check(config, components, rows, False, workers_for(rows, config.engine.workers), progress)
    except KeyboardInterrupt:
        return None


def _progress(results: Iterable[Any], total: int, title: str, interrupt: Interrupt | None) -> Iterator[Any]:
    for result in tqdm(results, total=total, desc=title, unit="row", delay=2):
        if interrupt is not None:
            interrupt.check()
        yield result


def cached_check(
    config: RunConfig,
    components: Components,
    rows: Dataset,
    pictures: bool,
    workers: int = 0,
    progress: Progress = lambda results, _total: results,
) -> SplitCheck:
    """Check the rows, or read what an earlier check of the same found.

    Args:
        pictures: decode and encode the pictures too, whatever an earlier check found; without, such a check will do.
    """
    key = _key(config, components, rows)
    files = {level: cache_folder() / "checks" / f"{key}-{level}.json" for level in LEVELS}
    for level in () if pictures else LEVELS:
        stored = _read(files[level])
        if stored is not None:
            return stored
    check = SplitChecker(components.task, components.family, pictures, workers, progress)(rows)
    write_text(files[LEVELS[0] if pictures else LEVELS[1]], json.dumps(check.to_dict()))
    return check


def _read(file: Path) -> SplitCheck | None:
    try:
        stored = read_json(file)
        return SplitCheck.from_dict(stored) if stored else None
    except (ConfigError, KeyError, TypeError, ValueError):
        return None  # another version's, or damaged; it is written again


def _key(config: RunConfig, components: Components, rows: Dataset) -> str:
    task, family = components.task, components.family
    options = {name: value for name, value in config.task.options.items() if name != "source"}
    parts = {
        "rows": fingerprint(rows),
        "pictures": _pictures(rows),
        "task": [type(task).__qualname__, task.protocol, options],
        "model": [type(family).__qualname__, config.model.options],
        "processors": _processors(family),
        "source": [_source(), _text_of(type(task)), _text_of(type(family))],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _pictures(rows: Dataset) -> str | None:
    """Hash of the pictures: bytes, or path, size and time of change of a file."""
    if "image" not in rows.column_names:
        return None
    digest = hashlib.blake2b(digest_size=16)
    for row in undecoded(rows.select_columns(["image"])):
        picture = row["image"] or {}
        if picture.get("bytes"):
            digest.update(picture["bytes"])
        elif picture.get("path"):
            digest.update(f"{picture['path']} {_changed(Path(picture['path']))}".encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _changed(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _processors(family: Family) -> list[Any]:
    """What texts and pictures become ids and pixels by: the tokenizer's rules and the picture processor's options."""
    tokenizer: Any = family.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    chat = getattr(tokenizer, "chat_template", None)
    processor = family.image_processor.to_dict() if family.image_processor is not None else None
    return [hashlib.sha256(rules.encode()).hexdigest(), tokenizer.special_tokens_map, chat, family.coords, processor]


@cache
def _source() -> str:
    """Hash of the Python files of this project, so that editing one never serves an old result."""
    digest = hashlib.sha256()
    for package in (data, ntil, tasks):
        for file in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _text_of(kind: type) -> str:
    """Source of a class that may be the user's own; empty where there is no file."""
    try:
        return inspect.getsource(inspect.getmodule(kind) or kind)
    except (OSError, TypeError):
        return ""
