"""Hydra's part: composing the config, the sweep, and errors in one line with the nearest valid name."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

import conf
from ntil.config import ConfigError, RunConfig, nearest, plain, run_folder
from ntil.launch import Sweep, check
from ntil.runs import RunFolder

CONF = Path(next(iter(conf.__path__)))


def register() -> None:
    ConfigStore.instance().store(name="schema", node=RunConfig)


def train(words: list[str]) -> int:
    """`ntil train`: Hydra's own command line over our config; every job runs in a child."""
    register()
    if "--dry-run" in words:
        return reported(lambda: _dry_run([word for word in words if word != "--dry-run"]), words)
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sweep = Sweep()

    def job(config: DictConfig) -> float | None:
        # Reported here: Hydra would stop the sweep at the first job that can't be run, and print more than is helpful.
        one = {k: v for k, v in plain(config).items() if k not in ("scale", "grid")}
        sweep.refused += reported(lambda: sweep.run(one)) != 0
        return objective(one)

    sys.argv = ["ntil train", *words]
    main = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)
    code = reported(main, words) or 2 * bool(sweep.refused)
    sweep.collect()
    if sweep.failed and len(sweep.failed) + len(sweep.done) == 1:
        return 1  # whose traceback has just been shown
    if sweep.failed:
        print(f"\n{len(sweep.failed)} of {len(sweep.failed) + len(sweep.done)} runs failed:", file=sys.stderr)
        for folder, error in sweep.failed:
            print(f"  {folder}: {error}", file=sys.stderr)
        return 1
    if sweep.done and not code:
        from experiments.report import summary

        summary(sweep.done)
    return code


def objective(config: dict[str, Any]) -> float | None:
    """The headline metric of the job's run, for a sweeper that searches; None for a run that isn't done.

    Optuna takes None as a failed trial and goes on; it ends at a value that is not a number.
    """
    folder = RunFolder(run_folder(config))
    if not folder.done:
        return None
    from ntil.data_commands import built

    return float(folder.read_metrics()[built(config).metric])


def _dry_run(words: list[str]) -> int:
    from rich.console import Console

    from experiments.plan import dry_run
    from experiments.report import print_table

    with Console().status("composing the runs"):
        table = dry_run(words)
    print_table(table)
    return 0


def compose(words: Iterable[str], here: bool = True) -> dict[str, Any]:
    """The plain config that `ntil train` with these overrides would run; `here`: on this machine."""
    config = _compose(list(words))
    check(config, here)
    return config


def _compose(words: list[str]) -> dict[str, Any]:
    register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return plain(hydra.compose("config", overrides=words))


def reported(act: Callable[[], Any], words: Iterable[str] = ()) -> int:
    """Run it; an error of the user's making becomes one line on stderr and exit code 2."""
    try:
        return act() or 0
    except ConfigError as error:
        print(f"ntil: {error}", file=sys.stderr)
    except (HydraException, OmegaConfBaseException) as error:
        print(f"ntil: {explain(error, words)}", file=sys.stderr)
    except ValueError as error:
        if not str(error).startswith("Config group override"):  # Hydra's own, of no class of its own
            raise
        null = [word.partition("=")[0] for word in words if word.endswith("=null")]
        print(f"ntil: a group of configs can't be null: leave {' or '.join(null)} out", file=sys.stderr)
    return 2


def explain(error: BaseException, words: Iterable[str] = ()) -> str:
    """Hydra's message in one line, with the nearest valid name where it is about a name."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    text = "\n".join(str(e) for e in chain)
    choice = re.search(r"Could not find '([\w/]+)/([^/']+)'", text)
    if choice:
        group, name = choice[1], choice[2]
        return f"{group}={name}: no such config{nearest(name, (p.stem for p in (CONF / group).glob('*.yaml')))}"
    group_typo = re.search(r"Could not override '([\w/.]+)'", text)
    key = re.search(r"Key '([^']+)' (?:not in|is not in struct)", text)
    if group_typo or key:
        full = re.search(r"full_key: (\S+)", text)
        shown = full[1] if full else (group_typo or key)[1]  # type: ignore[index]
        return f"no key {shown!r}{nearest(shown, _siblings(shown, words))}"
    kind = "cannot compose" if isinstance(error, ConfigCompositionException) else "bad config"
    return f"{kind}: {' '.join(str(chain[-1]).split())}"


def _siblings(key: str, words: Iterable[str]) -> list[str]:
    """Full names of the keys that stand where `key` was meant to stand, in the config these words choose."""
    choices = [w for w in words if re.fullmatch(r"\w+=[\w/]+", w) and (CONF / w.partition("=")[0]).is_dir()]
    node: Any = _composed(choices) or _composed([]) or asdict(RunConfig())
    parent, dot, _ = key.rpartition(".")
    for part in parent.split(".") if parent else ():
        node = node.get(part) if isinstance(node, dict) else None
    return [f"{parent}{dot}{name}" for name in node] if isinstance(node, dict) else list(asdict(RunConfig()))


def _composed(words: list[str]) -> dict[str, Any] | None:
    GlobalHydra.instance().clear()
    try:
        return _compose(words)
    except (HydraException, OmegaConfBaseException):
        return None
