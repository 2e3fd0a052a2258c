"""Hydra's part: composing the config, the sweep, and errors in one line with the nearest valid name."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

import conf
from ntil.config import ConfigError, RunConfig, nearest, plain
from ntil.launch import Sweep, check

CONF = Path(next(iter(conf.__path__)))


def register() -> None:
    ConfigStore.instance().store(name="schema", node=RunConfig)


def train(words: list[str]) -> int:
    """`ntil train`: Hydra's own command line over our config; every job runs in a child."""
    register()
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sweep = Sweep()

    def job(config: DictConfig) -> None:
        sweep.run(plain(config))

    sys.argv = ["ntil train", *words]
    main = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)
    code = reported(main)
    if sweep.failed:
        print(f"\n{len(sweep.failed)} of {len(sweep.failed) + len(sweep.done)} runs failed:", file=sys.stderr)
        for folder, error in sweep.failed:
            print(f"  {folder}: {error}", file=sys.stderr)
        return 1
    if sweep.done and not code:
        from experiments.report import print_table

        print_table(sweep.done)
    return code


def compose(words: Iterable[str]) -> dict[str, Any]:
    """The plain config that `ntil train` with these overrides would run."""
    register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain(hydra.compose("config", overrides=list(words)))
    check(config)
    return config


def reported(act: Callable[[], Any]) -> int:
    """Run it; an error of the user's making becomes one line on stderr and exit code 2."""
    try:
        return act() or 0
    except ConfigError as error:
        print(f"ntil: {error}", file=sys.stderr)
    except (HydraException, OmegaConfBaseException) as error:
        print(f"ntil: {explain(error)}", file=sys.stderr)
    return 2


def explain(error: BaseException) -> str:
    """Hydra's message in one line, with the nearest valid name where it is about a name."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    text = "\n".join(str(e) for e in chain)
    choice = re.search(r"Could not find '([\w/]+)/([^/']+)'", text)
    if choice:
        group, name = choice[1], choice[2]
        return f"{group}={name}: no such config{nearest(name, (p.stem for p in (CONF / group).glob('*.yaml')))}"
    group_typo = re.search(r"Could not override '([\w/]+)'", text)
    key = re.search(r"Key '([^']+)' (?:not in|is not in struct)", text)
    if group_typo or key:
        full = re.search(r"full_key: (\S+)", text)
        shown = full[1] if full else (group_typo or key)[1]  # type: ignore[index]
        return f"no key {shown!r}{nearest(shown.rpartition('.')[2], _siblings(shown))}"
    kind = "cannot compose" if isinstance(error, ConfigCompositionException) else "bad config"
    return f"{kind}: {' '.join(str(chain[-1]).split())}"


def _siblings(key: str) -> list[str]:
    """Names that stand where `key` was meant to stand."""
    node: Any = RunConfig()
    for part in key.split(".")[:-1]:
        node = getattr(node, part, None)
    if node is None or isinstance(node, dict):
        return ["name", "target"]
    return [f.name for f in fields(node)]
