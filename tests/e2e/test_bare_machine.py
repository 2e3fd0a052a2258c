"""A machine without ninja, a C++ compiler or an activated environment: the default engine needs none of them."""

import shutil

import pytest

from tests.support.command_line import ntil
from tests.support.runs import TINY_RUN

NEEDED = ("sh", "uname", "ldconfig", "env", "git")
WORDS = [*TINY_RUN, "task.source.rows={train:16,validation:4,test:4}", "optim.steps=2", "optim.batch_size=4"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["engine=zero2", "engine=zero3"])
def test_deepspeed_trains_without_a_compiler(tmp_path, engine):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in NEEDED:
        if place := shutil.which(name):
            (tools / name).symlink_to(place)
    done = ntil(
        tmp_path,
        "train",
        *WORDS,
        engine,
        "engine.device=cpu",
        PATH=str(tools),
        TORCH_EXTENSIONS_DIR=str(tmp_path / "extensions"),
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("runs/**/metrics.json"))
    assert not list(tmp_path.glob("extensions/**/*.so"))
