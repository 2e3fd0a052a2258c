"""List the active plug-ins: folders of configs outside of ntil, with the Python that they name.

    ntil plugins [--config-dir <folder>]

A plug-in is active when this process declares it: `--config-dir <folder>` of any command, NTIL_CONFIG_PATH (folders
with a colon between them), or an installed package's entry point in the group `ntil.plugins` (docs/plugins.md).
"""

from __future__ import annotations

from ntil.config.compose import register_schema
from ntil.config.errors import ConfigError
from ntil.config.plugins import Plugin, active_plugins


def main(arguments: list[str]) -> int:
    """Run `ntil plugins`; the exit code.

    Raises:
        ConfigError: a plug-in that can't be used, or an argument: there is none.
    """
    if arguments:
        raise ConfigError(f"ntil plugins: takes no {arguments[0]!r}; see --help")
    register_schema()
    plugins = active_plugins()
    for plugin in plugins:
        print(_described(plugin))
    if not plugins:
        print("no plug-in is active: see `ntil plugins --help`")
    return 0


def _described(plugin: Plugin) -> str:
    groups: dict[str, list[str]] = {}
    for name in plugin.configs:
        groups.setdefault(str(name.parent), []).append(name.stem)
    lines = [f"{plugin.name}", f"  configs  {plugin.folder}", f"  Python   {plugin.root}"]
    lines += [f"  {group}={', '.join(names)}" for group, names in sorted(groups.items())]
    return "\n".join([*lines, f"  may be named: {', '.join(sorted(plugin.modules)) or 'no module'}"])
