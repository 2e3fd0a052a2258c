"""Run folder: paths of its files, and how they are read and written."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from data.common.files import check_size_on_disk, write_text
from ntil.config.errors import ConfigError
from ntil.config.identity import config_hash, identity, run_path
from ntil.config.json_files import read_json, read_text
from ntil.config.schema import RunConfig
from ntil.runs.metric_names import PREFIX, decoding_and_metric

JSONL_BYTES = 2 << 30  # of history.jsonl and predictions.jsonl
PREDICTION = {"id": object, "answer": str, "text": str, "scores": dict, "lenient": dict}  # keys of a record
_OUR_ERROR = re.compile(r"^(?:data|tasks|ntil)(?:\.\w+)+: ")  # the class before the sentence
EVALUATIONS = "evaluations"
PROTOCOL = "task_protocol"  # the key of metrics.json beside the metrics


class RunFolder:
    """A run's files; the presence of metrics.json, written last, means done.

    Others: config.yaml, environment.json, data.json, inputs.json, code.json (of plug-ins), length.json, tracking.json,
    skipped.txt, history.jsonl, best_validations.json (of several validated splits or tasks), checkpoints/, model/,
    trained.json (written when the model is saved), predictions.jsonl, digits.json (of a mixture digits-<task>.json);
    error.txt and replay/ of a failure, stop to interrupt, evaluations/ of `ntil eval`.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.environment = self.path / "environment.json"
        self.data = self.path / "data.json"
        self.inputs = self.path / "inputs.json"
        self.code = self.path / "code.json"
        self.length = self.path / "length.json"
        self.tracking = self.path / "tracking.json"
        self.history = self.path / "history.jsonl"
        self.predictions = self.path / "predictions.jsonl"
        self.digits = self.path / "digits.json"
        self.best_validations = self.path / "best_validations.json"
        self.metrics = self.path / "metrics.json"
        self.error = self.path / "error.txt"
        self.skipped = self.path / "skipped.txt"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"
        self.unfinished_model = self.path / "model.unfinished"
        self.best = self.path / "best"
        self.trained = self.path / "trained.json"
        self.replay = self.path / "replay"
        self.evaluations = self.path / EVALUATIONS
        self.stop = self.path / "stop"

    @property
    def done(self) -> bool:
        return self.metrics.exists()

    def finished_evaluations(self) -> list[RunFolder]:
        """Folders of `ntil eval` that have results: one that was killed, or a file of the system's, has none."""
        return [one for path in sorted(self.evaluations.glob("*")) if (one := RunFolder(path)).done]

    @property
    def evaluated(self) -> RunFolder | None:
        """The run that this folder is an evaluation of; None of a run's own folder."""
        above = self.path.parent
        return RunFolder(above.parent) if above.name == EVALUATIONS else None

    def freeze(self, config: RunConfig) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.config_file, yaml.safe_dump(config.to_dict(), sort_keys=False))

    def config(self) -> RunConfig:
        """Read the run's configuration, upgraded to the present format.

        Raises:
            ConfigError: there is no run here.
        """
        return RunConfig.read(self.config_file)

    def fail(self, text: str) -> None:
        """Write error.txt, unless another rank has: the first failure is the cause of the others."""
        partial = self.path / f".error-{socket.gethostname()}-{os.getpid()}"
        try:
            partial.write_text(text)
            os.link(partial, self.error)
        except FileExistsError:
            pass
        except OSError:  # a disk too full even for this
            sys.stderr.write(text)
        finally:
            partial.unlink(missing_ok=True)

    @property
    def diverged(self) -> bool:
        """Whether it failed since its loss or gradient was not finite, which no other machine or retry would change."""
        return bool(self.divergence)

    @property
    def divergence(self) -> str:
        """The line of the error that says that loss or gradient was not finite; empty where none does."""
        text = self.error.read_text() if self.error.exists() else ""
        return next((line for line in text.splitlines() if line.startswith("FloatingPointError:")), "")

    def last_error(self) -> str:
        """The last line of the traceback, or how the process ended; of an error of ours the sentence alone."""
        lines = self.error.read_text().strip().splitlines() if self.error.exists() else []
        return _OUR_ERROR.sub("", lines[-1]) if lines else "failed without a message"

    def write_metrics(self, metrics: dict[str, float], protocol: int, **of_tasks: int) -> None:
        """Write metrics.json, the last file of a run: with it the run is done.

        Args:
            protocol: of the task. of_tasks: of each task of a mixture.
        """
        protocols = {PROTOCOL: protocol, **{f"{name}/{PROTOCOL}": number for name, number in of_tasks.items()}}
        write_text(self.metrics, json.dumps({**protocols, **metrics}, indent=1))

    def write_digits(self, tables: Mapping[str, dict[str, Any]]) -> None:
        """Write the digit tables of every task; that of a single one has an empty name."""
        for name, table in tables.items():
            write_text(self.of_member(name).digits if name else self.digits, json.dumps(table))

    def of_member(self, name: str) -> RunFolder:
        """This run as one task of its mixture."""
        return MemberFolder(self.path, name)

    def read_metrics(self) -> dict[str, float]:
        return {k: v for k, v in self._metrics().items() if k.rpartition("/")[2] != PROTOCOL}

    def task_protocol(self) -> int:
        """Version of the task's protocol (reading and scoring of answers) of the metrics; 1 in runs of format 1."""
        return int(self._metrics().get(PROTOCOL, 1))

    def _metrics(self) -> dict[str, Any]:
        metrics = read_json(self.metrics)
        for name, value in metrics.items():
            if not _is_number(value):
                raise ConfigError(f"{self.metrics}: {name}={value!r} is no number; the file is damaged")
        return metrics

    def read_predictions(self) -> Iterator[dict[str, Any]]:
        """Yield the records of predictions.jsonl, as `Task.record` wrote them.

        Raises:
            InvalidData: the file is too large.
            ConfigError: a line that is no such record, with its number.
        """
        for number, record in enumerate(read_jsonl(self.predictions), 1):
            for key, kind in PREDICTION.items():
                if not isinstance(record.get(key), kind) or record.get(key) is None:
                    raise ConfigError(f"{self.predictions}, line {number}: no {key}; the file is damaged")
            for key in ("scores", "lenient"):
                for name, value in record[key].items():
                    if not _is_number(value):
                        problem = f"{key}.{name}={value!r} is no number; the file is damaged"
                        raise ConfigError(f"{self.predictions}, line {number}: {problem}")
            yield record

    def read_history(self) -> list[dict[str, Any]]:
        """Records of history.jsonl, without a last line that a kill or a full disk truncated."""
        if not self.history.exists():
            return []
        check_size_on_disk(self.history, JSONL_BYTES)
        lines = read_text(self.history).splitlines()
        if lines and not _is_json(lines[-1]):
            lines.pop()
        records = list(_records(self.history, lines))
        for number, record in enumerate(records, 1):
            if not _is_number(record.get("step")) or not _is_number(record.get("time", 0)):
                raise ConfigError(f"{self.history}, line {number}: no step or time; the file is damaged")
        return records


class MemberFolder(RunFolder):
    """A mixture's run as one of its tasks: the same files, of which only what is of that task is read.

    Args:
        member: name of the task in the mixture.
    """

    def __init__(self, path: Path | str, member: str) -> None:
        super().__init__(path)
        self.member, self._prefix = member, f"{member}/"
        self.digits = self.path / f"digits-{member}.json"

    def _metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = {}
        for key, value in super()._metrics().items():
            decoding, metric = decoding_and_metric(key)
            if metric.startswith(self._prefix):
                start = f"{PREFIX}{decoding}/" if decoding else ""
                metrics[start + metric.removeprefix(self._prefix)] = value
            elif key == "train_seconds":
                metrics[key] = value
        return metrics

    def read_predictions(self) -> Iterator[dict[str, Any]]:
        return (record for record in super().read_predictions() if record.get("task") == self.member)

    def read_history(self) -> list[dict[str, Any]]:
        """The records, with the task's values under the names that a single task's have."""
        return [self._of_task(record) for record in super().read_history()]

    def _of_task(self, record: dict[str, Any]) -> dict[str, Any]:
        values = {k: v for k, v in record.items() if not k.startswith(("eval_", "loss/")) and "/" not in k}
        for key, value in record.items():
            for start in ("", "eval_"):
                if key.startswith(start + self._prefix):
                    values[start + key.removeprefix(start + self._prefix)] = value
        return values


def find_runs(root: Path | str) -> list[RunFolder]:
    """The run at `root`, or all runs below it, in the order of their paths; none in hidden folders (of rehearsals).

    A folder that several links lead to is looked into once.
    """
    runs, seen = [], set()
    for folder, below, files in os.walk(Path(root).expanduser(), followlinks=True):
        below.sort(key=lambda name: (Path(folder, name).is_symlink(), name))
        if (real := os.path.realpath(folder)) in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = [name for name in below if not name.startswith(".")]
        if "config.yaml" in files:
            runs.append(RunFolder(folder))
            below.clear()  # other folders with a config.yaml in a run's folder (evaluations, wandb's files) are no runs
    return sorted(runs, key=lambda run: run.path)


def folder_of(config: RunConfig) -> RunFolder:
    """Folder of a config's run; an existing one of the same identity under another hash is found too."""
    return _existing(run_path(config), f"seed{config.seed}-*", config)


def evaluation_of(run: RunFolder, config: RunConfig) -> RunFolder:
    """Folder of a run's evaluation under another config; an existing one of the same identity is found too."""
    return _existing(run.evaluations / config_hash(config), "*", config)


def _existing(path: Path, pattern: str, config: RunConfig) -> RunFolder:
    """The folder, or where there is none, one beside it of the same run: an earlier version's, or with 1 for 1.0."""
    if not path.exists():
        for other in sorted(path.parent.glob(pattern)):
            if (other / "config.yaml").exists() and _same_run(RunFolder(other), config):
                return RunFolder(other)
    return RunFolder(path)


def _same_run(folder: RunFolder, config: RunConfig) -> bool:
    try:
        return identity(folder.config()) == identity(config)
    except ConfigError:
        return False


def read_jsonl(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file.

    Raises:
        ConfigError: a line that is no JSON, with its number.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: there is no such file; put it back, or remove the folder and run it again")
    check_size_on_disk(file, JSONL_BYTES)
    with file.open() as lines:
        try:
            yield from _records(file, lines)
        except UnicodeDecodeError as error:
            raise ConfigError(f"{file}: no UTF-8 ({error.reason}); the file is damaged") from error


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _records(file: Path, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{file}, line {number}: no JSON ({error}); the file is damaged") from error
        if not isinstance(record, dict):
            raise ConfigError(f"{file}, line {number}: no JSON object; the file is damaged")
        yield record
