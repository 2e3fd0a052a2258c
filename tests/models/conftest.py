"""Every model test can ask for a tiny checkpoint of each family."""

import pytest

from benchmarks.vision_checkpoints import NAMES
from tests.support.chosen import slow_but
from tests.support.tiny_checkpoints import Checkpoint, written


@pytest.fixture(scope="session", params=slow_but(["llava15_7b", "qwen2_vl_2b", "paligemma_3b"], NAMES))
def checkpoint(request, shared, tmp_path_factory) -> Checkpoint:
    return written(request.param, shared, tmp_path_factory)
