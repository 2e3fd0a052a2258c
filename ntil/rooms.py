"""Where the packages beside `ntil` are: on the top level of a checkout, inside `ntil` once it is installed.

An installation puts nothing but `ntil` into an environment, where a top-level `data` or `tasks` would meet the user's
(setup.py moves them). In a checkout `ntil.tasks.base` is another name of the module `tasks.base`, so that code outside
of both writes `from ntil.tasks.base import Task` everywhere. A target in a config is written `tasks.clock:Clock`
everywhere, so that run folders may travel.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

ROOMS = ("conf", "data", "experiments", "tasks")
INSTALLED = Path(__file__).with_name("tasks").is_dir()
CHECKOUT = None if INSTALLED else Path(__file__).resolve().parents[1]


def canonical(module: str) -> str:
    """A module's name in a checkout: `tasks.clock` of `ntil.tasks.clock`."""
    short = module.removeprefix("ntil.")
    return short if short.partition(".")[0] in ROOMS else module


def importable(module: str) -> str:
    """The name under which a module is imported here: `ntil.tasks.clock` of `tasks.clock` where ntil is installed."""
    short = canonical(module)
    return f"ntil.{short}" if INSTALLED and short.partition(".")[0] in ROOMS else short


def is_of_others(module: str | None) -> bool:
    """Whether a module is of another project."""
    return bool(module) and canonical(str(module)).partition(".")[0] not in ("ntil", *ROOMS)


class _Alias(Loader):
    """Loader that returns a checkout's module under its second name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.name)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system has just replaced it


class _Aliases(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        short = canonical(fullname)
        return None if short == fullname else ModuleSpec(fullname, _Alias(short))


def name_rooms() -> None:
    """Let `ntil.tasks` and the others be imported in a checkout; first, since `tasks.__path__` leads to copies."""
    if not INSTALLED and not any(isinstance(finder, _Aliases) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Aliases())
