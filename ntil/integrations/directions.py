"""Whether more of a task's metric is better, also of metrics that no report compares."""

from __future__ import annotations

from tasks.base import Task

ERRORS = ("error", "deviation", "mae", "failure", "duplicates")  # in the names of metrics of which less is better


def greater_is_better(task: Task, metric: str) -> bool:
    """Whether more of it is better: by the task's word, else by its name."""
    stated = {task.metric: task.greater_is_better, **task.secondary_metrics}
    return stated.get(metric, not any(word in metric for word in ERRORS))
