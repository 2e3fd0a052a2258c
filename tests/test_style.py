"""What CONTRIBUTING.md asks for and no linter knows: functions of one screen, names that name something."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("ntil", "tasks", "data", "experiments")
LONGEST = 50
# Words of no field: what was found, whose own, the whole of what?
VAGUE = {
    "found",
    "own",
    "said",
    "whole",
    "every",
    "kept",
    "given",
    "told",
    "made",
    "heard",
    "wanted",
    "things",
    "stuff",
}


def functions():
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.FunctionDef):
                    yield file.relative_to(ROOT), node


def local_names(function: ast.FunctionDef) -> set[str]:
    stored = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return stored | {a.arg for a in ast.walk(function) if isinstance(a, ast.arg)}


def test_a_function_fits_on_a_screen():
    too_long = [f"{file}:{f.name}" for file, f in functions() if f.end_lineno - f.lineno >= LONGEST]
    assert not too_long


def test_names_say_what_a_thing_is():
    vague = [f"{file}:{f.name}: {', '.join(names)}" for file, f in functions() if (names := local_names(f) & VAGUE)]
    assert not vague


@pytest.mark.parametrize("name", ["utils.py", "helpers.py", "misc.py", "common.py"])
def test_a_file_has_a_subject(name):
    assert not [file for room in ROOMS for file in (ROOT / room).rglob(name)]
