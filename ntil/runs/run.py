"""A run as read from its folder, with its configuration read once; for reports, plans and status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from ntil.components import build_task
from ntil.config.build import locate
from ntil.config.errors import ConfigError
from ntil.config.permissions import without_permissions
from ntil.config.schema import RunConfig
from ntil.losses import NumberLoss
from ntil.runs.data_fingerprint import recorded
from ntil.runs.folder import RunFolder, find_runs, read_json
from tasks.base import Task

Built = TypeVar("Built")
Key = tuple[str, str, str, int]


@dataclass(frozen=True, eq=False)
class Run:
    """Run folder with its configuration; a comparison may rename its loss (`with_loss`).

    Attributes:
        member: of a mixture, the task as which it is looked at (`by_task`); empty: as one run.
    """

    folder: RunFolder
    config: RunConfig = field(repr=False)
    member: str = ""

    @classmethod
    def read(cls, folder: RunFolder) -> Run:
        return cls(folder, folder.config())

    @property
    def by_task(self) -> tuple[Run, ...]:
        """The run of a mixture once for each of its tasks; any other alone."""
        if self.member:
            return (self,)
        return tuple(Run(self.folder.of_member(name), self.config, name) for name in self.config.members) or (self,)

    @property
    def task(self) -> str:
        """Name of the task, of a mixture's as `<mixture>.<task>`."""
        return f"{self.config.task.name}.{self.member}" if self.member else self.config.task.name

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
    def steps(self) -> int | None:
        """Optimizer steps, as the run has resolved them from its rows; None where it hasn't yet."""
        steps = read_json(self.folder.length).get("steps")
        return steps if isinstance(steps, int) else self.config.optim.steps_for(None)

    @property
    def trained_steps(self) -> int | None:
        """Steps after which the training ended, perhaps early; None where it hasn't, or no record says it."""
        step = read_json(self.folder.trained).get("step")
        return step if isinstance(step, int) else None

    @property
    def trains(self) -> bool:
        """Whether it trains at all; a run that doesn't tests the model that it starts from."""
        loss: type[NumberLoss] = locate(self.config.loss.target, "loss")
        return loss.trains

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
        config = self.config.members[self.member] if self.member else self.config
        return build_from_saved(self.folder, without_permissions(config), build_task)

    def with_loss(self, name: str) -> Run:
        """The same run under another name of its loss."""
        return replace(self, config=replace(self.config, loss=replace(self.config.loss, name=name)))


def build_from_saved(folder: RunFolder, config: RunConfig, build: Callable[[RunConfig], Built]) -> Built:
    """Call `build` on a finished run's configuration, also where the checkpoint that it started from isn't here.

    The model that the run saved has the same tokenizer and format.

    Raises:
        ConfigError: what the config describes can't be built; of an adapter, which needs its base, too.
    """
    try:
        return build(config)
    except ConfigError:
        model = config.model
        if not model.options.get("checkpoint") or not (folder.model / "config.json").exists():
            raise
        saved = replace(model, options={**model.options, "checkpoint": str(folder.model)})
        return build(replace(config, model=saved))


def read_runs(root: str) -> list[Run]:
    """All runs at or below a folder."""
    return [Run.read(folder) for folder in find_runs(root)]
