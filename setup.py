"""Packages of the wheel: the rooms of the checkout's top level lie inside `ntil` there, and so do their imports.

All else is in pyproject.toml. Why it is done while building: docs/install.md.
"""

import ast
import re
from pathlib import Path
from typing import Any

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOMS = ("conf", "data", "experiments", "tasks")


def packages(root: str) -> list[str]:
    """A top-level package of the checkout and all below it."""
    return find_packages(include=[root, f"{root}.*"])


def moved_imports(source: str, file: str) -> str:
    """Python source whose imports of a room are those of `ntil.<room>`.

    Raises:
        ValueError: an import that names no module of its own, such as `import data.common`, which binds `data`.
    """
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        row = getattr(node, "lineno", 0) - 1
        if isinstance(node, ast.ImportFrom) and not node.level and _room(node.module):
            lines[row] = re.sub(r"from\s+", r"from ntil.", lines[row], count=1)
        elif isinstance(node, ast.Import) and any(_room(alias.name) for alias in node.names):
            (alias, *others) = node.names
            if others or "." in alias.name:
                raise ValueError(f"{file}, line {row + 1}: write `from {alias.name} import ...`")
            lines[row] = re.sub(r"import\s+", "from ntil import ", lines[row], count=1)
    return "".join(lines)


def _room(module: str | None) -> bool:
    return (module or "").partition(".")[0] in ROOMS


class BuildInside(build_py):
    """`build_py` that moves imports along with the rooms."""

    def build_module(self, module: Any, module_file: Any, package: Any) -> Any:
        outfile, copied = super().build_module(module, module_file, package)
        built = Path(outfile)
        built.write_text(moved_imports(built.read_text(encoding="utf-8"), str(module_file)), encoding="utf-8")
        return outfile, copied


class EditableAsItIs(editable_wheel):
    """An editable installation leaves the packages on the top level, where the checkout has them."""

    def finalize_options(self) -> None:
        self.distribution.packages = [name for root in ("ntil", *ROOMS) for name in packages(root)]
        # A folder on the path: a finder of setuptools' comes after the user's `conf/`, which has no __init__.py.
        self.distribution.package_dir = {"": "."}
        super().finalize_options()


setup(
    packages=[*packages("ntil"), *(f"ntil.{name}" for room in ROOMS for name in packages(room))],
    package_dir={"ntil": "ntil", **{f"ntil.{room}": room for room in ROOMS}},
    package_data={
        "ntil": ["models/*.json", "models/*.yaml", "estimates/*.yaml", "commands/templates/*.txt"],
        "ntil.conf": ["**/*.yaml"],
        "ntil.experiments": ["paper/*.yaml", "templates/*.j2"],
    },
    cmdclass={"build_py": BuildInside, "editable_wheel": EditableAsItIs},
)
