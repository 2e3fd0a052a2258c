"""The README's Python runs as it stands, and its `ntil train` lines compose."""

import re
import shlex
from pathlib import Path

import pytest

from ntil.config.compose import compose
from ntil.config.identity import config_hash

README = (Path(__file__).parents[2] / "README.md").read_text()
# A line with --config-dir needs that folder: tests/config/test_plugins.py makes one.
LINES = [line for line in re.findall(r"`ntil train ([^`]*)`", README) if "--config-dir" not in line]


def test_python_blocks_run():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("line", LINES)
def test_train_commands_compose(line):
    words = [word for word in shlex.split(line) if "=" in word]
    if "-m" in shlex.split(line):
        words = [word.partition(",")[0] for word in words]
    assert config_hash(compose(words))


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))])
def test_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target
