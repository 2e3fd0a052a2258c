"""Families by the configs of conf/model, so that a new one is in every test that takes all of them."""

import inspect
from functools import cache
from typing import Any

import yaml

from ntil.config.compose import CONF, choices


@cache
def model_config(name: str) -> dict[str, Any]:
    """The file of a config of conf/model, not composed."""
    return dict(yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text()))


# Configs of models with a vision tower from scratch.
VISION_NANO = [n for n in choices("model") if model_config(n)["checkpoint"] is None and "vision" in model_config(n)]


def without_videos(processor_class: Any) -> Any:
    """A processor class that builds without its video processor, which needs torchvision."""

    def accept(self: Any, *arguments: Any) -> None:
        return None

    lenient = type(processor_class.__name__, (processor_class,), {"check_argument_for_proper_class": accept})
    assert "video_processor" in inspect.signature(processor_class.__init__).parameters
    return lambda *parts, **options: lenient(*parts, video_processor=None, **options)
