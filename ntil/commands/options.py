"""Options of a command, apart from overrides of a run's configuration: `key=value` words, typed by a dataclass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ntil.config.errors import ConfigError, nearest, value_error

Options = TypeVar("Options")


def parse_options(command: str, kind: type[Options], arguments: Sequence[str]) -> Options:
    """Read a command's options into `kind`, a dataclass; fields without a default (`MISSING`) must be given.

    Raises:
        ConfigError: a word that is no `key=value`, a key that isn't there (with the nearest), a value of another type.
    """
    values = dict(_key_and_value(command, word) for word in arguments)
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            raise ConfigError(f"ntil {command}: no option {name!r}{nearest(name, names)}")
    missing = [f.name for f in fields(kind) if f.default is MISSING and f.name not in values]  # type: ignore[arg-type]
    if missing:
        raise ConfigError(f"ntil {command} needs {' and '.join(f'{name}=...' for name in missing)}; see --help")
    options = OmegaConf.structured(kind)
    for name, value in values.items():
        try:
            setattr(options, name, _escaped(value))
        except OmegaConfBaseException as error:
            reason = value_error(str(error), name) or f"{name}={value}: {str(error).splitlines()[0]}"
            raise ConfigError(f"ntil {command}: {reason}") from error
    return _object(options)


def split_options(kind: type[Any], arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split words into those that set an option of `kind`, and all others."""
    names = {f.name for f in fields(kind)}
    ours = [word for word in arguments if word.partition("=")[0] in names]
    return ours, [word for word in arguments if word not in ours]


def _key_and_value(command: str, word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals:
        raise ConfigError(f"ntil {command}: {word!r} is no key=value; see `ntil {command} --help`")
    return name, value


def _escaped(value: str) -> str:
    return value.replace("${", "\\${")


def _object(options: Any) -> Any:
    return OmegaConf.to_object(options)
