"""Tasks as reward functions of TRL's GRPOTrainer: an answer is read and scored as in an evaluation.

    from ntil.integrations.rewards import TaskReward, prompt_rows

    near = TaskReward.of("iou", "task=refcoco", "model=qwen2_5_vl_3b")
    trainer = GRPOTrainer(model, reward_funcs=near, train_dataset=prompt_rows(near.task, "train"), ...)

Every reward lies between 0 and 1, an answer that can't be read gets 0:

| name | of tasks | reward |
|---|---|---|
| `iou` | `grounding`, tables of boxes and polygons | intersection over union |
| `minutes_off` | `clock`, tables of times | 1 - minutes off / 360, the short way round the dial |
| `exact` | clocks, numbers, texts | 1 for the right answer |
| `relative_error` | numbers | 1 - relative error, at most 1 |

Any other score of a task by its name, where greater is better; or with `worst`, the score that means reward 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from data.common.rows import Row
from ntil.components import build_task
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.integrations.directions import greater_is_better
from tasks.base import ParseFailure, Task

# Name of a reward -> the task's score, and the worst value where less is better.
NAMED = {"minutes_off": ("deviation", 360.0), "relative_error": ("relative_error", 1.0)}


class TaskReward:
    """A reward function: the score of each completion, with the row's other columns as its truth.

    Args:
        task: reads and scores.
        name: of the reward, see the module's docstring; by it trainers log the reward.
        worst: the score that means reward 0, where less is better.
        lenient: score what the lenient reading finds, too, instead of rewarding the exact form of an answer.

    Raises:
        ConfigError: a score of which less is better, without `worst`.
    """

    def __init__(self, task: Task, name: str, worst: float | None = None, lenient: bool = False) -> None:
        self.task, self.__name__, self.lenient = task, name, lenient
        self.score, usual = NAMED.get(name, (name, None))
        self.worst: float | None = usual if worst is None else worst
        if self.worst is None and not greater_is_better(task, self.score):
            raise ConfigError(f"reward {name}: less of it is better; give worst=<the score that means reward 0>")

    @classmethod
    def of(cls, name: str, *overrides: str, worst: float | None = None, lenient: bool = False) -> TaskReward:
        """The reward of a task that is named as for `ntil train`: "task=clock", with the model whose format it takes.

        Raises:
            ConfigError: a task that can't be built; a score of which less is better, without `worst`.
        """
        return cls(build_task(compose(overrides)), name, worst, lenient)

    def __call__(self, completions: Sequence[Any], prompts: Sequence[Any] | None = None, **columns: Any) -> list[float]:
        """The reward of each completion: a text, or messages of which the last counts.

        Args:
            columns: of the rows, each as long as `completions`; others (a trainer's state) are no part of a row.

        Raises:
            ConfigError: the task has no such score, or the rows lack its truth.
        """
        count = len(completions)
        lists = {n: v for n, v in columns.items() if isinstance(v, list | tuple) and len(v) == count}
        rows = [{name: values[i] for name, values in lists.items()} for i in range(count)]
        return [self.reward(_text(completion), row) for completion, row in zip(completions, rows, strict=True)]

    def reward(self, text: str, row: Row) -> float:
        """The reward of one text."""
        try:
            read = (self.task.parse_lenient if self.lenient else self.task.parse)(text, row)
            scores = self.task.score(read, row)
        except KeyError as error:
            raise ConfigError(
                f"reward {self.__name__}: the rows have no column {error}; make them with prompt_rows, and let the "
                "trainer hand on all columns (remove_unused_columns=False)"
            ) from error
        if self.score not in scores:
            raise ConfigError(
                f"reward {self.__name__}: {type(self.task).__name__} has no score {self.score!r}, only "
                f"{', '.join(sorted(scores))}"
            )
        if isinstance(read, ParseFailure):  # whose error is bounded in some tasks, below that of a bad answer
            return 0.0
        value = scores[self.score]
        return value if self.worst is None else max(0.0, 1 - value / self.worst)


def prompt_rows(task: Task, split: str) -> Dataset:
    """The rows of a split with the task's question as the column `prompt`, for GRPOTrainer."""
    rows = task.rows(split)
    prompts = [task.prompt(row) for row in _without_pictures(rows)]
    if "prompt" in rows.column_names:
        rows = rows.remove_columns("prompt")
    return rows.add_column("prompt", prompts)


def _without_pictures(rows: Dataset) -> Dataset:
    return rows.remove_columns("image") if "image" in rows.column_names else rows


def _text(completion: Any) -> str:
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") or ""  # null where the model called tools alone
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)
