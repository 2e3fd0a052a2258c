"""Fingerprints of the code outside ntil that a run's classes come from: no run silently goes on with other code.

A run's identity has names and options, no code. Code of ntil has the commit in environment.json.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data.common.files import write_text
from ntil.config.build import is_trusted
from ntil.config.errors import ConfigError
from ntil.config.plugins import active_plugins, modules_named, providing
from ntil.config.schema import GROUPS, RunConfig
from ntil.runs.folder import read_json


def foreign_code(config: RunConfig) -> dict[str, str]:
    """Map every loaded module of others that the run's classes come from to the SHA-256 of its file.

    Of a plug-in all loaded modules count, since its classes use each other; of a package declared with NTIL_PACKAGES
    all of that package. Call it once the components are built, which loads them.
    """
    named = {module for group in GROUPS for module in modules_named(getattr(config, group).to_dict())}
    named = {module for module in named if module in sys.modules and is_trusted(module)}
    plugins = {plugin for module in named if (plugin := providing(module))}
    packages = {module.partition(".")[0] for module in named}

    loaded = [
        name
        for name in list(sys.modules)
        if name.partition(".")[0] in packages or any(plugin.holds(name) for plugin in plugins)
    ]
    files = {name: Path(getattr(sys.modules[name], "__file__", None) or "") for name in loaded}
    return {name: _digest(file) for name, file in sorted(files.items()) if file.is_file()}


def changed_code(recorded: Mapping[str, Any]) -> list[str]:
    """The recorded modules whose file is another now, or isn't there any more; nothing of them is imported."""
    return [
        name if file else f"{name} (is gone)"
        for name, digest in recorded.items()
        if (file := _file_of(name)) is None or _digest(file) != digest
    ]


def check_classes(file: Path, config: RunConfig) -> None:
    """Check that a run's frozen config.yaml names the classes that the same components are of now.

    A target is no part of a run's identity, so that code may move; another class of the same name and options is
    another run all the same. Modules aren't compared.

    Raises:
        ConfigError: a class has another name, and `accept_changes` is not set.
    """
    if config.accept_changes or not file.exists():
        return
    before = _classes(RunConfig.read(file))
    for key, name in _classes(config).items():
        if before.get(key, name) != name:
            raise ConfigError(
                f"{file.parent}: {key} was the class {before[key]} and is {name} now, which is another run; set "
                "another name= or runs= to keep both, remove the folder to begin anew, or set accept_changes=true to "
                "go on with what is there"
            )


def check_code(file: Path, config: RunConfig, resuming: bool, accept: bool) -> None:
    """Write the fingerprints to `file`, if there are any; when resuming, compare them with the recorded ones first.

    Raises:
        ConfigError: a run would go on with other code, and `accept_changes` is not set.
    """
    if resuming and not accept and (changed := changed_code(read_json(file))):
        raise ConfigError(
            f"{file.parent}: the code of {', '.join(changed)} has changed since the run began; set accept_changes=true "
            "to go on with it, or remove the folder to start again"
        )
    if code := foreign_code(config):
        write_text(file, json.dumps(code, indent=1))


def _file_of(module: str) -> Path | None:
    """File of a module of others, loaded or not."""
    loaded = getattr(sys.modules.get(module), "__file__", None)
    parts = module.split(".")
    if loaded or not all(part.isidentifier() for part in parts):
        return Path(loaded) if loaded else None
    for root in dict.fromkeys([*(plugin.root for plugin in active_plugins()), *map(Path, sys.path)]):
        place = root.joinpath(*parts)
        for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
            if file.is_file():
                return file
    return None


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _classes(config: RunConfig) -> dict[str, str]:
    """Dotted key of every target of a config, nested ones included -> the class that it names."""
    return {key: name for group in GROUPS for key, name in _named(getattr(config, group).to_dict(), group)}


def _named(part: Any, key: str) -> Iterator[tuple[str, str]]:
    for name, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        if name == "target" and isinstance(value, str):
            yield f"{key}.{name}", value.rpartition(":")[2]
        yield from _named(value, f"{key}.{name}")
