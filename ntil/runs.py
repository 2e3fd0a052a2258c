"""A run's folder: where its files lie and how they are written."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import yaml

from ntil.config import ConfigError


class RunFolder:
    """A run's files; the presence of metrics.json, written last, means done.

    Others: config.yaml, environment.json, data.json, skipped.txt, history.jsonl, checkpoints/, model/,
    predictions.jsonl, digits.json.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.history = self.path / "history.jsonl"
        self.predictions = self.path / "predictions.jsonl"
        self.digits = self.path / "digits.json"
        self.metrics = self.path / "metrics.json"
        self.error = self.path / "error.txt"
        self.skipped = self.path / "skipped.txt"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"
        self.stop = self.path / "stop"

    @property
    def done(self) -> bool:
        return self.metrics.exists()

    def freeze(self, config: dict[str, Any]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write(self.config_file, yaml.safe_dump(config, sort_keys=False))

    def config(self) -> dict[str, Any]:
        """
        Raises:
            ConfigError: no run lies here.
        """
        if not self.config_file.exists():
            raise ConfigError(f"{self.path} is no run folder: it has no config.yaml")
        return yaml.safe_load(self.config_file.read_text())

    def fail(self, text: str) -> None:
        """Keep why the run failed. The first of several ranks to say so wins: the others fail because of it."""
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

    def read_metrics(self) -> dict[str, Any]:
        return json.loads(self.metrics.read_text())

    def read_history(self) -> list[dict[str, Any]]:
        """Its records; a last line that a kill or a full disk cut short is none."""
        if not self.history.exists():
            return []
        lines = self.history.read_text().splitlines()
        try:
            return [json.loads(line) for line in lines]
        except ValueError:
            return list(_records(self.history, lines[:-1]))


def find(root: Path | str) -> list[RunFolder]:
    """The run at `root`, or all runs below it, in the order of their paths."""
    found = []
    for place, below, files in os.walk(root, followlinks=True):
        if "config.yaml" in files:
            found.append(RunFolder(place))
            below.clear()  # what else has a config.yaml in a run's folder (evaluations, wandb's files) is no run
    return sorted(found, key=lambda run: run.path)


def read_jsonl(file: Path) -> Iterator[dict[str, Any]]:
    """
    Raises:
        ConfigError: a line that is no JSON, with its number.
    """
    with file.open() as lines:
        yield from _records(file, lines)


def _records(file: Path, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{file}, line {number}: no JSON ({error}); the file is damaged") from error


def write(file: Path, text: str) -> None:
    """Whole or not at all: written beside and renamed over."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    with partial.open("w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(file)


def environment() -> dict[str, Any]:
    """What a result may depend on beside the config."""
    versions = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]}
    return {
        "commit": commit(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": dict(sorted(versions.items(), key=lambda item: item[0].lower())),
    }


def commit() -> str | None:
    """The commit of the checkout that this code runs from, `-dirty` where files differ from it; None without one."""
    here = Path(__file__).resolve().parents[1]
    if not (here / ".git").exists() or shutil.which("git") is None:
        return None
    words = ["git", "-C", str(here), "describe", "--always", "--dirty", "--match", "", "--abbrev=10"]
    said = subprocess.run(words, capture_output=True, text=True)
    return said.stdout.strip() or None
