"""Upgrade of configurations that earlier versions froze to the present format.

Format 1 (up to commit e5305af) had no `format` key, other import paths, and a source's options among those of its task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ntil.config.errors import ConfigError

FORMAT = 2
Config = dict[str, Any]

RENAMED = {
    "engine": {"zero": "zero_stage", "gpus": "processes"},
    "optim": {"clip": "max_grad_norm"},
    "evaluation": {"every": "every_steps"},
}
TARGETS = {"tasks.table:table_task": "tasks.jsonl:table_task"}


def upgraded(config: Config) -> Config:
    """Upgrade a run's configuration to the present format.

    Raises:
        ConfigError: a format of a later version.
    """
    version = config.get("format", 1)
    if version == FORMAT:
        return config
    if version != 1:
        raise ConfigError(f"format {version!r} is of another version of ntil; this one reads up to {FORMAT}")
    changed = {k: v for k, v in config.items() if k not in ("scale", "grid")}
    for section, names in RENAMED.items():
        if isinstance(changed.get(section), dict):
            changed[section] = {names.get(k, k): v for k, v in changed[section].items()}
    if isinstance(changed.get("task"), dict):
        changed["task"] = _upgraded_task(changed["task"])
    return {**changed, "format": FORMAT}


def _upgraded_task(task: Config) -> Config:
    target = str(task.get("target"))
    kind = target.rpartition(":")[2]
    if isinstance(task.get("source"), dict) or kind not in SOURCES:
        return task
    target = TARGETS.get(target, target)
    name, source_target, source_options, defaults = SOURCES[kind](task)
    source = {k: v for k, v in task.items() if k in source_options}
    task_options = {k: v for k, v in task.items() if k not in (*ALL_SOURCE_OPTIONS[kind], "source", "name", "target")}
    return {
        "name": task.get("name", kind.lower()),
        "target": target,
        **defaults,
        **task_options,
        "source": {"name": name, "target": source_target, **source},
    }


# (name of the source, its target, its options in the old task's config, defaults that the old YAML omitted)
Split = tuple[str, str, tuple[str, ...], Config]
_RENDERED = ("rows", "size", "difficulty", "seed")


def _clock(task: Config) -> Split:
    question = {"question": "What time is it?"}
    if task.get("source") == "photos":
        return "photos", "data.clock.photos:ClockPhotos", ("labels", "images", "on_error"), question
    return "rendered", "data.clock.rendered:RenderedClocks", (*_RENDERED, "backgrounds"), question


def _grounding(task: Config) -> Split:
    question = {"question": "Where is {expression}? Answer with its box."}
    kinds: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
        "refer": ("refcoco", "data.grounding.refcoco:RefCOCO", ("folder", "split_by", "images", "splits", "on_error")),
        "export": (
            "table",
            "data.grounding.table:ExpressionTable",
            ("files", "images", "columns", "box_format", "splits", "on_error"),
        ),
        "categories": (
            "categories",
            "data.grounding.categories:CategoryBoxes",
            ("folder", "annotations", "images", "splits", "on_error"),
        ),
        "rendered": ("rendered", "data.grounding.rendered:RenderedScenes", _RENDERED),
    }
    return (*kinds[task.get("source", "rendered")], question)


def _text_detection(task: Config) -> Split:
    if task.get("source", "rendered") == "release":
        options = ("format", "truth", "images", "holdout", "on_error")
        return "release", "data.text_detection.release:TextRelease", options, {}
    return "rendered", "data.text_detection.rendered:RenderedWords", (*_RENDERED, "backgrounds"), {}


def _mathvista(task: Config) -> Split:
    if task.get("source", "official") == "official":
        options = ("test", "train", "images", "train_images", "queries", "validation", "on_error")
        return "release", "data.mathvista.testmini:MathVistaRelease", options, {}
    return "rendered", "data.mathvista.rendered:RenderedFigures", (*_RENDERED, "kinds"), {}


def _arithmetic(_task: Config) -> Split:
    options = ("operations", "digits", "extrapolation_digits", "decimals", "negatives", "wording", "rows", "seed")
    return "problems", "data.arithmetic:ArithmeticProblems", options, {}


def _gsm8k(_task: Config) -> Split:
    return "files", "data.gsm8k:GSM8KFiles", ("files", "holdout", "calculator", "on_error"), {}


def _table(task: Config) -> Split:
    options = ("metric", "train", "validation", "test", "images", "columns", "box_format", "on_error")
    return "table", "data.jsonl:Jsonl", options, {"metric": task.get("metric", "exact")}


SOURCES: dict[str, Callable[[Config], Split]] = {
    "Clock": _clock,
    "Grounding": _grounding,
    "TextDetection": _text_detection,
    "MathVista": _mathvista,
    "Arithmetic": _arithmetic,
    "GSM8K": _gsm8k,
    "table_task": _table,
}
# Options of a source under any of its kinds: an old YAML had the keys of its other kinds too, as null.
ALL_SOURCE_OPTIONS: dict[str, tuple[str, ...]] = {
    "Clock": (*_RENDERED, "backgrounds", "labels", "images", "on_error"),
    "Grounding": (
        *_RENDERED,
        *("folder", "split_by", "images", "annotations", "files", "columns", "box_format", "splits", "on_error"),
    ),
    "TextDetection": (*_RENDERED, "backgrounds", "format", "truth", "images", "holdout", "on_error"),
    "MathVista": (
        *_RENDERED,
        *("kinds", "test", "train", "images", "train_images", "queries", "validation", "on_error"),
    ),
    "Arithmetic": (
        *("operations", "digits", "extrapolation_digits", "decimals", "negatives", "wording", "rows", "seed"),
    ),
    "GSM8K": ("files", "holdout", "calculator", "on_error"),
    "table_task": ("metric", "train", "validation", "test", "images", "columns", "box_format", "on_error"),
}
