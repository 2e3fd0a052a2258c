"""Composition of a run's configuration by Hydra, and Hydra's errors in one line with the nearest valid name."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data.common.errors import UserError
from ntil.config.errors import ConfigError, nearest, quoted, system_error, value_error
from ntil.config.loss_parts import with_parts
from ntil.config.plugins import CONF, active_plugins, check_names
from ntil.config.schema import RunConfig, RunSchema, to_plain_dict


class PluginFolders(SearchPathPlugin):
    """Hydra's search path goes on in the folders of active plug-ins."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for plugin in active_plugins():
            search_path.append(plugin.name, f"file://{plugin.folder}")


def register_schema() -> None:
    """Register `RunSchema` with Hydra as `schema`, which conf/config.yaml begins with, and the plug-ins' folders.

    Raises:
        ConfigError: a plug-in that can't be used.
    """
    check_names()
    Plugins.instance().register(PluginFolders)
    ConfigStore.instance().store(name="schema", node=_schema())
    by_part = OmegaConf.create({"options": {}})
    OmegaConf.set_struct(by_part.options, False)  # nor are the parts of a sum of losses
    ConfigStore.instance().store(group="loss", name="by_part", node=by_part)


@cache
def _schema() -> DictConfig:
    schema: DictConfig = OmegaConf.structured(RunSchema)
    for name in ("lr_of", "options", "schedule_options"):  # parts of a family, and options, that aren't known here
        OmegaConf.set_struct(schema.optim[name], False)
    return schema


_DOUBLE_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"')


def for_hydra(overrides: Iterable[str]) -> list[str]:
    r"""Overrides of ntil in the form that Hydra takes.

    `task=[a,b]` becomes `task=a+b`, and a config of that name is registered; a mixture that has a name in conf/task is
    one of its configs like any other. `loss=a+b`, as tables name a sum, is a config of these parts. In double quotes
    `\n` becomes a line break, as in YAML; Hydra would keep two characters.

    Raises:
        ConfigError: a task that is named twice.
    """
    replaced = []
    for override in overrides:
        if override.startswith("task="):
            override = re.sub(r"\[([^][]*)\]", _joined, override)
        group, _, names = override.partition("=")
        if group in _REGISTERED:
            for name in names.split(","):
                if "+" in name:
                    _REGISTERED[group](name, name.split("+"))
        replaced.append(_DOUBLE_QUOTED.sub(lambda text: re.sub(r"(?<!\\)\\n", "\n", text[0]), override))
    return replaced


def parsed_overrides(overrides: Iterable[str]) -> list[Override]:
    """Overrides as Hydra's grammar reads them, outside of its own composition.

    Raises:
        ConfigError: one that it can't read, with the quotes that it needs.
    """
    try:
        return OverridesParser.create().parse_overrides(for_hydra(overrides))
    except OverrideParseException as error:
        raise ConfigError(_unread(error.override)) from error


def _joined(listed: re.Match[str]) -> str:
    return "+".join(name.strip() for name in listed[1].split(","))


def _register_mixture(name: str, tasks: Sequence[str]) -> None:
    """Register a config of the task group that is a mixture of others."""
    if twice := next((task for task in tasks if tasks.count(task) > 1), None):
        raise ConfigError(
            f"task={name}: {twice} is named twice; a mixture in a file of conf/task can give each a name of its own, "
            "see docs/mixtures.md"
        )
    node = {
        "defaults": [*({f"/task@tasks.{task}": task} for task in tasks), "_self_"],
        "name": name,
        "target": "tasks.mixture:Mixture",
        "weights": dict.fromkeys(tasks),
        "temperature": None,
        "headline": None,
    }
    ConfigStore.instance().store(group="task", name=name, node=node)


def _register_sum(name: str, parts: Sequence[str]) -> None:
    """Register a config of the loss group that adds others; `with_parts` checks their names."""
    node = {"defaults": ["sum", "_self_"], "name": name, "parts": list(parts)}
    ConfigStore.instance().store(group="loss", name=name, node=node)


_REGISTERED = {"task": _register_mixture, "loss": _register_sum}  # what a choice `a+b` of a group is


def compose(overrides: Iterable[str]) -> RunConfig:
    """Compose the configuration of `ntil train <overrides>`; no file or device is checked.

    Raises:
        ConfigError, HydraException, OmegaConfBaseException: overrides that can't be composed; see `report_errors`.
    """
    return RunConfig.from_dict(compose_dict(overrides))


def compose_dict(overrides: Iterable[str]) -> dict[str, Any]:
    """The composed configuration as plain containers."""
    overrides = for_hydra(overrides)
    register_schema()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return plain_config(hydra.compose("config", overrides=overrides), overrides)


def plain_config(composed: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """A composed configuration as plain containers.

    `optim.steps` or `optim.epochs`, whichever is named on the command line, replaces the length that a default states;
    a configuration that states epochs has no use for the default's steps.
    """
    config = to_plain_dict(composed)
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    named = {override.get_key_element().partition("@")[0].lstrip("+~") for override in parsed}
    optim = config["optim"]
    replaced = [key for key in ("steps", "epochs", "max_epochs") if f"optim.{key}" not in named]
    if "optim.steps" in named and optim["steps"] is not None:
        unused = {"epochs", "max_epochs"}
    else:
        unused = {"steps", "max_epochs"} if optim["epochs"] is not None else set()
    config["optim"] = optim | dict.fromkeys(unused.intersection(replaced))
    config["loss"] = with_parts(config["loss"], _loss_config, choices("loss"))
    return config


def _loss_config(name: str) -> dict[str, Any]:
    return to_plain_dict(hydra.compose(f"loss/{name}").loss)


def choices(group: str) -> list[str]:
    """Names of the configs in a group, sorted."""
    return sorted(path.stem for folder in config_folders() for path in (folder / group).glob("*.yaml"))


def config_folders() -> list[Path]:
    """Folders of config groups: ntil's, and those of active plug-ins."""
    return [CONF, *(plugin.folder for plugin in active_plugins())]


def config_file(group: str, name: str) -> Path:
    """The YAML file of a group's choice, of ntil or of a plug-in; where there is none, the one that ntil would have."""
    files = [folder / group / f"{name}.yaml" for folder in config_folders()]
    return next((file for file in files if file.exists()), files[0])


def report_errors(act: Callable[[], Any], overrides: Iterable[str] = ()) -> int:
    """Call `act`; its exit code. Errors of the user and of Hydra become one line on stderr and code 2."""
    try:
        return act() or 0
    except UserError as error:
        print(f"ntil: {error}", file=sys.stderr)
    except (HydraException, OmegaConfBaseException) as error:
        print(f"ntil: {explain(error, overrides)}", file=sys.stderr)
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"ntil: {system_error(error)}", file=sys.stderr)
    except ValueError as error:
        sentence = _plain_error(str(error), overrides)
        if sentence is None:
            raise
        print(f"ntil: {sentence}", file=sys.stderr)
    return 2


def _plain_error(text: str, overrides: Iterable[str]) -> str | None:
    """What a plain ValueError of Hydra is about, of which it raises two; None of any other's."""
    if text.startswith("Only one of --run, --multirun"):
        return "--cfg and --info are about one run: leave -m out, name one value of each key"
    if not text.startswith("Config group override"):
        return None
    if nameless := [override for override in overrides if override.startswith("=")]:
        return _unread(nameless[0])
    unnamed = [override for override in overrides if override.lower().endswith(("=null", "=true", "=false"))]
    keys = " or ".join(override.partition("=")[0] for override in unnamed)
    return f"{' '.join(unnamed)}: a config is chosen by its name; leave {keys} out"


def explain(error: BaseException, overrides: Iterable[str] = ()) -> str:
    """Hydra's message in one line, with the nearest valid name where it is about a name."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    unread = next((e.override for e in chain if isinstance(e, OverrideParseException)), None)
    if unread is not None:
        return _unread(unread)
    text = "\n".join(str(e) for e in chain)
    full = re.search(r"full_key: (\S+)", text)
    choice = re.search(r"Could not find '([\w/]+)/([^/']+)'", text)
    if choice:
        group, name = choice[1], choice[2]
        return f"{group}={name}: no such config{nearest(name, choices(group))}"
    group_typo = re.search(r"Could not override '([\w/.]+)'", text)
    key = re.search(r"Key '([^']+)' (?:not in|is not in struct)", text)
    if group_typo or key:
        wrong = full[1] if full else (group_typo or key)[1]  # type: ignore[index]
        return f"no key {wrong!r}{_hint(wrong, overrides)}"
    if sentence := value_error(text):
        return sentence
    kind = "cannot compose" if isinstance(error, ConfigCompositionException) else "bad config"
    return f"{kind}: {' '.join(str(chain[-1]).split())}"


def _unread(word: str) -> str:
    key, equals, _ = word.partition("=")
    if not equals or not key:
        return f"{word!r} is no key=value; see `ntil train --help`"
    signs = "signs other than letters, digits and /-.:%+@?|* need quotes, within those of the shell"
    return f"{word}: {signs}: {quoted(word)}"


def _hint(key: str, overrides: Iterable[str]) -> str:
    """The key that was meant: of the same last name anywhere below its group, else the nearest on its level."""
    chosen = [w for w in overrides if re.fullmatch(r"\w+=[\w/+]+", w) and _is_group(w.partition("=")[0])]
    config: Any = _composed_or_none(chosen) or _composed_or_none([]) or asdict(RunSchema())
    group, _, rest = key.partition(".")
    deeper = [name for name in _leaves(config.get(group), group) if name.endswith(f".{rest}")] if rest else []
    if key in deeper:
        return f" in every job of this sweep; sweep {group} and {key} in two calls"
    return f"; did you mean {deeper[0]!r}?" if deeper else nearest(key, _siblings(key, config))


def _is_group(key: str) -> bool:
    return any((folder / key).is_dir() for folder in config_folders())


def _leaves(node: Any, key: str) -> list[str]:
    """Full names of all keys at or below a node."""
    inner = node.items() if isinstance(node, dict) else ()
    return [key, *(leaf for name, value in inner for leaf in _leaves(value, f"{key}.{name}"))]


def _siblings(key: str, config: Any) -> list[str]:
    """Full names of the keys on the level of `key`."""
    node, (parent, dot, _) = config, key.rpartition(".")
    for group in parent.split(".") if parent else ():
        node = node.get(group) if isinstance(node, dict) else None
    return [f"{parent}{dot}{name}" for name in node] if isinstance(node, dict) else list(asdict(RunSchema()))


def _composed_or_none(overrides: Sequence[str]) -> dict[str, Any] | None:
    GlobalHydra.instance().clear()
    try:
        return compose_dict(overrides)
    except (HydraException, OmegaConfBaseException):
        return None


def task_dict(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Compose one config of the task group with overrides of its keys."""
    for task in for_hydra([f"task={name}"])[0].removeprefix("task=").split("+"):
        if task not in choices("task"):
            raise ConfigError(f"task={name}: no such config{nearest(task, choices('task'))}")
    return compose_dict([f"task={name}", *overrides])["task"]
