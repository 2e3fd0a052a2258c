"""Write a loss, task, model or source to start from: its config, its Python file, and a test that passes.

    ntil new loss huber                      here: conf/loss/huber.yaml, huber_loss.py, tests/test_huber_loss.py
    ntil new task bar --into my_project      in another folder
    ntil new source regions                  a data set for the task of grounding: its config is conf/task/regions.yaml

The files are a plug-in: `ntil train --config-dir conf loss=huber` (docs/plugins.md). In the top folder of a checkout of
ntil they become part of it: conf/loss/huber.yaml, ntil/losses/huber.py, tests/losses/test_huber.py.
What is there is never overwritten.

--into: the folder, made if need be; by default the working folder.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from keyword import iskeyword
from pathlib import Path
from string import Template

from data.common.files import write_text
from ntil.config.compose import choices
from ntil.config.errors import ConfigError, nearest
from ntil.rooms import CHECKOUT

TEMPLATES = Path(__file__).with_name("templates")
INTO = "--into"
# Kind -> the group of its config, and the folder of its Python file in a checkout.
KINDS = {
    "loss": ("loss", "ntil/losses"),
    "task": ("task", "tasks"),
    "model": ("model", "ntil/models"),
    "source": ("task", "data"),
}
USE = {
    "loss": "ntil train{plugin} task=clock loss={name}",
    "task": "ntil data show{plugin} task={name}",
    "model": "ntil show{plugin} model={name} task=clock loss=ntil",
    "source": "ntil data check{plugin} task={name}",
}


@dataclass(frozen=True)
class Scaffold:
    """What is written for a kind and a name.

    in_checkout: the folder is that of ntil's checkout, of which the files become a part.
    """

    kind: str
    name: str
    folder: Path
    in_checkout: bool

    @property
    def title(self) -> str:
        """Name of its class."""
        return "".join(part[:1].upper() + part[1:] for part in self.name.split("_"))

    @property
    def names_something_else(self) -> bool:
        """Whether the name is a value in a command, or that of the class a word of Python or of what it imports."""
        imported = re.findall(r"^(?:from .*)?import (.*)$", self._text("py").template, re.MULTILINE)
        names = {name.strip() for line in imported for name in line.split(",")}
        return self.name in ("true", "false", "null") or iskeyword(self.title) or self.title in names

    @property
    def files(self) -> dict[Path, str]:
        """Paths relative to the folder, each with its text."""
        group, room = KINDS[self.kind]
        if self.in_checkout:
            python, tests = Path(room, f"{self.name}.py"), Path("tests", Path(room).name)
            test = (tests if self.kind != "source" else Path("tests/data")) / f"test_{self.name}.py"
        else:
            python = Path(f"{self.name}_{self.kind}.py")
            test = Path("tests", f"test_{python.name}")
        names = {
            "name": self.name,
            "title": self.title,
            "module": ".".join(python.with_suffix("").parts),
            "rooms": "" if self.in_checkout else "ntil.",
            "depth": str(len(test.parts) - 1),
        }
        templates = {Path("conf", group, f"{self.name}.yaml"): "yaml", python: "py", test: "test.py"}
        texts = {path: self._text(suffix).substitute(names) for path, suffix in templates.items()}
        return {path: _sorted_imports(text, apart=self.in_checkout) for path, text in texts.items()}

    def _text(self, suffix: str) -> Template:
        dot = "_" if suffix.startswith("test") else "."
        return Template((TEMPLATES / f"{self.kind}{dot}{suffix}.txt").read_text())

    def write(self) -> list[Path]:
        """Write the files; their paths.

        Raises:
            ConfigError: one of them is there.
        """
        paths = {self.folder / path: text for path, text in self.files.items()}
        for path in paths:
            if path.exists():
                raise ConfigError(f"{path}: is there, and nothing is overwritten; take another name or {INTO}")
        for path, text in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
        return list(paths)


def _sorted_imports(text: str, apart: bool) -> str:
    """Python text whose imports of ntil are sorted, as linters ask: apart in a checkout, else among other packages'."""
    blocks = text.split("\n\n")
    for place, block in enumerate(blocks):
        if block and all(re.match(r"from (ntil|tasks|data)\.", line) for line in block.splitlines()):
            before = [] if apart or "__future__" in blocks[place - 1] else blocks[place - 1].splitlines()
            plain = [line for line in before if line.startswith("import ")]
            others = [line for line in [*before, *block.splitlines()] if line not in plain]
            blocks[place - bool(before) : place + 1] = [
                "\n".join([*sorted(plain), *sorted(others, key=lambda line: line.split()[1].lower())])
            ]
            break
    return "\n\n".join(blocks)


def main(arguments: list[str]) -> int:
    """Run `ntil new`; the exit code.

    Raises:
        ConfigError: no such kind, a name that can't be one or that a config has, or a file that is there.
    """
    scaffold = _parse(arguments)
    for path in scaffold.write():
        print(path)
    folder = shlex.quote(str(scaffold.folder / "conf"))
    plugin = "" if scaffold.in_checkout else f" --config-dir {folder}"
    test = next(path for path in scaffold.files if "tests" in path.parts)
    print(f"\n  python -m pytest {shlex.quote(str(scaffold.folder / test))}")
    print(f"  {USE[scaffold.kind].format(plugin=plugin, name=scaffold.name)}")
    return 0


def _parse(arguments: list[str]) -> Scaffold:
    words, folder = list(arguments), "."
    for place, word in enumerate(words):
        if word == INTO and len(words) > place + 1:
            folder = words[place + 1]
            del words[place : place + 2]
            break
        if word.startswith(f"{INTO}="):
            folder = words.pop(place).partition("=")[2]
            break
    if len(words) != 2:
        raise ConfigError(f"ntil new takes a kind ({', '.join(KINDS)}) and a name, as in `ntil new loss huber`")
    kind, name = words
    if kind not in KINDS:
        raise ConfigError(f"ntil new: no kind {kind!r}{nearest(kind, KINDS)}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"ntil new: {name!r} is no name of a module; take small letters, digits and _")
    group = KINDS[kind][0]
    if name in choices(group):
        raise ConfigError(f"{group}={name} is there already; take another name")
    into = Path(folder).expanduser()
    scaffold = Scaffold(kind, name, into, into.resolve() == CHECKOUT)
    if scaffold.names_something_else:
        raise ConfigError(f"ntil new: {name!r} means something else in a command or in Python; take another name")
    return scaffold
