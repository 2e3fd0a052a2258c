"""A run as read from its folder, with its configuration read once; for reports, plans and status."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from ntil.components import build_task
from ntil.config.errors import ConfigError
from ntil.config.schema import RunConfig
from ntil.runs.data_fingerprint import recorded
from ntil.runs.folder import RunFolder, find_runs
from tasks.base import Task

Key = tuple[str, str, str, int]


@dataclass(frozen=True, eq=False)
class Run:
    """Run folder with its configuration; a comparison may rename its loss (`with_loss`)."""

    folder: RunFolder
    config: RunConfig = field(repr=False)

    @classmethod
    def read(cls, folder: RunFolder) -> Run:
        return cls(folder, folder.config())

    @property
    def task(self) -> str:
        return self.config.task.name

    @property
    def model(self) -> str:
        return self.config.model.name

    @property
    def loss(self) -> str:
        return self.config.loss.name

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def key(self) -> Key:
        """Task, model, loss and seed."""
        return self.task, self.model, self.loss, self.seed

    @property
    def done(self) -> bool:
        return self.folder.done

    @cached_property
    def metrics(self) -> dict[str, float]:
        return self.folder.read_metrics() if self.done else {}

    @cached_property
    def data(self) -> dict[str, str]:
        """Map a split to the fingerprint of its rows, for splits that the run recorded."""
        return {split: one["fingerprint"] for split, one in recorded(self.folder.data).items()}

    @cached_property
    def built_task(self) -> Task:
        """Task of the run, with its model's coordinate format."""
        try:
            return build_task(self.config)
        except ConfigError:
            model = self.config.model
            if not model.options.get("checkpoint") or not (self.folder.model / "config.json").exists():
                raise
            # The checkpoint that the run started from may be elsewhere; the model that it saved has the same format.
            saved = replace(model, options={**model.options, "checkpoint": str(self.folder.model)})
            return build_task(replace(self.config, model=saved))

    def with_loss(self, name: str) -> Run:
        """The same run under another name of its loss."""
        return Run(self.folder, replace(self.config, loss=replace(self.config.loss, name=name)))


def read_runs(root: str) -> list[Run]:
    """All runs at or below a folder."""
    return [Run.read(folder) for folder in find_runs(root)]
