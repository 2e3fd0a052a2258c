"""The tutorials as they stand: their files are written into a copy of the project, their commands are run there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("conf", "ntil", "tasks", "data", "experiments")
TUTORIALS = sorted(path.name for path in (ROOT / "docs").glob("add-a-*.md"))


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(name):
    """Lines of a tutorial's `sh` blocks."""
    text = (ROOT / "docs" / name).read_text()
    return [line for block in blocks(text, "sh") for line in block.splitlines() if line]


def shell_words(line, folder):
    """Words that bash makes of a line, braces and globs expanded; a glob without a match is an error, as in zsh."""
    print_words = 'words() { printf "%s\\0" "$@"; }; ntil() { words ntil "$@"; }; python() { words python "$@"; }'
    script = f"shopt -s failglob; {print_words}; {line}"
    done = subprocess.run(["bash", "--norc", "-c", script], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done.stdout.split("\0")[:-1]


def test_there_are_four():
    assert TUTORIALS == ["add-a-data-set.md", "add-a-loss.md", "add-a-model.md", "add-a-task.md"]


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_shell_changes_no_word(name, tmp_path):
    for line in commands(name):
        assert shell_words(line, tmp_path) == shlex.split(line)


def test_words_are_expanded_as_in_a_shell(tmp_path):
    assert shell_words("ntil rows={train:8,test:4}", tmp_path) == ["ntil", "rows=train:8", "rows=test:4"]
    assert shell_words("ntil 'rows={train:8,test:4}'", tmp_path) == ["ntil", "rows={train:8,test:4}"]
    with pytest.raises(AssertionError, match="no match"):
        shell_words("ntil augment=[flip,crop]", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_every_block_works(name, tmp_path):
    text = (ROOT / "docs" / name).read_text()
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    work = tmp_path / "work"
    work.mkdir()
    files = [*blocks(text, "python"), *blocks(text, "yaml")]
    assert len(files) >= 2
    for block in files:
        path = tmp_path / block.splitlines()[0].removeprefix("# ")
        assert not path.exists()
        path.write_text(block.partition("\n")[2])
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NTIL_CACHE": str(tmp_path / "cache")}
    lines = commands(name)
    assert len(lines) >= 3
    for line in lines:
        words = shell_words(line, work)
        assert words[0] in ("ntil", "python")
        command = [sys.executable, *(["-m", "ntil.cli"] if words[0] == "ntil" else []), *words[1:]]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    assert list(work.glob("tutorial/**/metrics.json"))
