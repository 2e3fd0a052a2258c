"""docs/papers.md lists every loss, and every config and test that it names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/papers.md").read_text()


def test_every_loss_is_listed():
    named = set(re.findall(r"`loss=(\w+)`", PAGE))
    assert named == {file.stem for file in (ROOT / "conf/loss").glob("*.yaml")}


def test_what_is_named_exists():
    configs = set(re.findall(r"`(loss|task|experiment)=(\w+)`", PAGE))
    assert len(configs) > 50
    assert not [f"{group}={name}" for group, name in configs if not (ROOT / f"conf/{group}/{name}.yaml").exists()]
    tests = set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE))
    assert not [name for name in tests if not (ROOT / name).exists()]
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "`loss=" in line]
    assert not [line for line in rows if "`tests/" not in line], "a row names the test that shows it"
