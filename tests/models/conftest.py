"""Every model test can ask for a tiny checkpoint of each family."""

import pytest
from tiny_checkpoints import WRITERS, Checkpoint, written


@pytest.fixture(scope="session", params=WRITERS)
def checkpoint(request, shared, tmp_path_factory) -> Checkpoint:
    return written(request.param, shared, tmp_path_factory)
