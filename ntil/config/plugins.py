"""Plug-ins: configs, and classes that they name, which a user keeps outside of ntil.

A plug-in is a folder of config groups (`my_conf/loss/mine.yaml`) and the Python files beside it, active in a process
that declares it: `--config-dir my_conf`, `NTIL_CONFIG_PATH=my_conf:other`, or an installed package's entry point in the
group `ntil.plugins`. Its modules that may be imported are those that its YAML files name as a target, no others: a run
folder from elsewhere can neither make a plug-in active nor name another file beside it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

import conf
from ntil.config.config_dirs import CONFIG_PATH
from ntil.config.errors import ConfigError
from ntil.rooms import is_of_others

CONF = Path(next(iter(conf.__path__)))  # ntil's own configs
ENTRY_POINTS = "ntil.plugins"
TARGET = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):[A-Za-z_]\w*")


@dataclass(frozen=True)
class Plugin:
    """A folder of configs.

    name: of the entry point, else the folder's path. root: where its Python lies. package: the one that an entry point
        names; None where all of `root` is the plug-in's.
    """

    name: str
    folder: Path
    root: Path
    package: str | None = None

    @property
    def configs(self) -> list[Path]:
        """The YAML files of groups that ntil has, relative to the folder, sorted; runs may lie beside them."""
        groups = [group for place in CONF.iterdir() if (group := self.folder / place.name).is_dir()]
        return sorted(file.relative_to(self.folder) for group in groups for file in group.rglob("*.yaml"))

    @cached_property
    def modules(self) -> frozenset[str]:
        """The modules that its YAML files name as targets, ntil's aside."""
        files = [self.folder / name for name in self.configs]
        named = {module for file in files for module in _named_modules(file, file.stat().st_mtime_ns)}
        return frozenset(module for module in named if is_of_others(module))

    def load(self, module: str) -> ModuleType:
        """Import one of the modules; files beside the configs come after all others on the search path.

        Raises:
            ConfigError: an installed module has the name of a file of the plug-in.
            ModuleNotFoundError: there is none.
        """
        if str(self.root) not in sys.path:
            sys.path.append(str(self.root))
            importlib.invalidate_caches()
        top = module.partition(".")[0]
        spec, ours = importlib.util.find_spec(top), self._beside(top)
        places = [*(spec.submodule_search_locations or ()), spec.origin or ""] if spec else []
        if ours and not any(Path(place).resolve().is_relative_to(path) for place in places for path in ours):
            raise ConfigError(f"{ours[0]}: another module of this environment has the name {top!r}; rename the file")
        return importlib.import_module(module)

    def holds(self, name: str) -> bool:
        """Whether a loaded module is of this plug-in: of its package, or a file at its name's place below the root."""
        top = name.partition(".")[0]
        if self.package is not None:
            return top == self.package
        if not is_of_others(name) or not self._beside(top):
            return False
        place, file = self.root.joinpath(*name.split(".")), str(getattr(sys.modules[name], "__file__", None) or "")
        return Path(file).resolve() in (place.with_name(f"{place.name}.py"), place / "__init__.py")

    def _beside(self, top: str) -> list[Path]:
        """The folder and the file of a top-level name below the root that are there."""
        return [path for path in (self.root / top, self.root / f"{top}.py") if path.exists()]


def active_plugins() -> list[Plugin]:
    """The plug-ins that this process declares, those of the environment variable first.

    Raises:
        ConfigError: a folder that isn't there or holds no configs, or a package that isn't installed.
    """
    folders = [Path(name).expanduser().resolve() for name in os.environ.get(CONFIG_PATH, "").split(os.pathsep) if name]
    ours = CONF.resolve()
    declared = [Plugin(str(folder), folder, folder.parent) for folder in dict.fromkeys(folders) if folder != ours]
    installed = [plugin for plugin in map(_of_entry_point, _entry_points()) if plugin.folder.resolve() not in folders]
    plugins = [*declared, *installed]
    for plugin in plugins:
        if not plugin.folder.is_dir():
            raise ConfigError(f"{plugin.folder}: there is no such folder of configs; correct {_declared(plugin)}")
        if not plugin.configs:
            raise ConfigError(
                f"{plugin.folder}: holds no config; name the folder above the groups, in which loss/mine.yaml lies"
            )
    return plugins


def providing(module: str) -> Plugin | None:
    """The active plug-in whose YAML files name a module."""
    return next((plugin for plugin in active_plugins() if module in plugin.modules), None)


def check_names() -> None:
    """Check that no plug-in has a config of ntil's or of another plug-in's name: one word would mean two things.

    Raises:
        ConfigError: one has.
    """
    seen: dict[Path, Path] = {}
    for plugin in active_plugins():
        for name in plugin.configs:
            other = seen.get(name, CONF / name)
            if other.exists():
                raise ConfigError(f"{plugin.folder / name}: {other} has the same name; rename one of them")
            seen[name] = plugin.folder / name


def _declared(plugin: Plugin) -> str:
    return f"--config-dir or {CONFIG_PATH}" if plugin.package is None else f"its entry point in {ENTRY_POINTS}"


@lru_cache(maxsize=1)
def _entry_points() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=ENTRY_POINTS))


def _of_entry_point(entry: EntryPoint) -> Plugin:
    """The plug-in of `name = package.folder`; the package is located, not imported."""
    package, _, below = entry.value.partition(":")[0].partition(".")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"the plug-in {entry.name!r} names the package {package!r}, which isn't here; install it anew"
        )
    place = Path(next(iter(spec.submodule_search_locations)))
    return Plugin(entry.name, place.joinpath(*(below or "conf").split(".")), place.parent, package)


@lru_cache(maxsize=1024)
def _named_modules(file: Path, _changed: int) -> frozenset[str]:
    try:
        return frozenset(_modules(yaml.safe_load(file.read_text())))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: no YAML ({' '.join(str(error).split())})") from error


def _modules(part: Any) -> Iterator[str]:
    """Modules of all texts `module:Class` in values."""
    if isinstance(part, str) and (match := TARGET.fullmatch(part)):
        yield match[1]
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    for value in inner:
        yield from _modules(value)


def modules_named(part: Any) -> set[str]:
    """Modules of others that a run's configuration names as targets."""
    return {module for module in _modules(part) if is_of_others(module)}
