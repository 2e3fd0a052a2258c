"""What a benchmark fixes before any run: cells, losses, search, seeds, hypotheses. A YAML file, frozen beside runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data.common.files import write_text
from ntil.config.compose import choices, config_file
from ntil.config.errors import ConfigError, nearest, value_error
from ntil.runs.folder import read_json


@dataclass
class Range:
    """Values of a searched key, uniform between `low` and `high`, or uniform in their logarithm."""

    low: float = MISSING
    high: float = MISSING
    log: bool = False


@dataclass
class Pilot:
    """Runs that no table holds: losses at their defaults, on seeds that no other stage uses.

    losses: from whose spread over `seeds` the number of seeds follows.
    screened: tried on the first of `seeds` alone, to say in writing which aren't worth a place among the protocol's.
    """

    losses: list[str] = field(default_factory=lambda: ["ce", "ntil"])
    screened: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [900, 901, 902, 903])


@dataclass
class Hypothesis:
    """A claim that the tuned runs decide.

    It holds where `better` is better than each loss of `than` in at least `in_at_least` cells, and worse in at most
    `worse_in_at_most`; a verdict is the report's, with Holm's correction over the table.
    """

    claim: str = MISSING
    better: str = MISSING
    than: list[str] = MISSING
    in_at_least: int = 1
    worse_in_at_most: int = 0


@dataclass
class Protocol:
    """One benchmark.

    A file that says `extends: <name or path>` is that protocol, with what it states itself in its place.

    Attributes:
        title: of the report. base: the loss of the tables' comparisons.
        overrides: of every run, as on the command line of `ntil train`.
        cells: name -> overrides that choose task and model.
        losses: configs of the group `loss`; `a+b` is the sum of two, each with the lam of SUM_LAM.
        search: key -> its range; a loss is searched over the keys that it uses, which are not null in its config.
        trials: runs of each loss and cell in the search, the first with the loss's defaults.
        draw_seed: of the draws, which are the same for all losses. trial_seed: of the trials' training.
        seeds: of the tuned runs. untuned_seeds: of those at the losses' defaults; null: the same.
        smallest_effect: of the headline metric, that is worth knowing about; the pilot says how many seeds show it.
    """

    title: str = MISSING
    base: str = "ce"
    overrides: list[str] = field(default_factory=list)
    cells: dict[str, list[str]] = MISSING
    losses: list[str] = MISSING
    search: dict[str, Range] = MISSING
    trials: int = 8
    draw_seed: int = 0
    trial_seed: int = 1000
    seeds: list[int] = MISSING
    untuned_seeds: list[int] | None = None
    smallest_effect: float = 0.03
    pilot: Pilot = field(default_factory=Pilot)
    hypotheses: list[Hypothesis] = field(default_factory=list)

    @property
    def seeds_untuned(self) -> list[int]:
        return self.seeds if self.untuned_seeds is None else self.untuned_seeds


FROZEN = "protocol.json"
SUM_LAM = 0.3  # of each part of `a+b`, and what a search of its lam begins with; most losses' own default


def loss_overrides(loss: str) -> list[str]:
    """What a loss of a protocol is on the command line."""
    parts = loss.split("+")
    return (
        [f"loss={loss}"] if len(parts) == 1 else ["loss=sum", f"loss.parts=[{','.join(parts)}]", f"loss.lam={SUM_LAM}"]
    )


def read(file: Path) -> Protocol:
    """Read and check a protocol.

    Raises:
        ConfigError: no such file, a key or value that is not of a protocol, or one that can't decide what it claims.
    """
    try:
        stated = _load(file)
        protocol: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Protocol), stated))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{file}: {value_error(str(error), '') or str(error).splitlines()[0]}") from error
    _check(file, protocol)
    return protocol


def file_of(name: str) -> Path:
    """The file of a benchmark: a path to YAML, or a name in conf/benchmark or a plug-in."""
    return Path(name).expanduser() if name.endswith((".yaml", ".yml")) else config_file("benchmark", name)


def _load(file: Path, extending: tuple[Path, ...] = ()) -> dict[Any, Any]:
    """The keys that a file states, over those of the protocol that it extends; each replaces the other's as a whole."""
    if file in extending:
        raise ConfigError(f"{file}: extends itself, through {' and '.join(map(str, extending))}")
    try:
        stated = OmegaConf.load(file)
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    except FileNotFoundError:
        protocols = choices("benchmark")
        raise ConfigError(
            f"{file}: there is no such file{nearest(file.stem, protocols)}; there are {', '.join(protocols)}"
        ) from None
    if not isinstance(stated, DictConfig):
        raise ConfigError(f"{file}: a protocol has keys and values, this is a list")
    name = stated.pop("extends", None)
    if name is None:
        return dict(stated)
    base = file.parent / name if str(name).endswith((".yaml", ".yml")) else file_of(str(name))
    return _load(base, (*extending, file)) | dict(stated)


def _check(file: Path, protocol: Protocol) -> None:
    losses = choices("loss")
    pilot = protocol.pilot
    if not protocol.cells or not protocol.losses:
        raise ConfigError(f"{file}: cells and losses must name one or more each")
    if len(pilot.losses) < 2 or protocol.smallest_effect <= 0:
        raise ConfigError(f"{file}: pilot.losses must be two or more, and smallest_effect above 0")
    for name in "+".join((*protocol.losses, *pilot.losses, *pilot.screened)).split("+"):
        if name not in losses:
            raise ConfigError(f"{file}: there is no loss {name!r}{nearest(name, losses)}")
    compared = [protocol.base, *(name for h in protocol.hypotheses for name in (h.better, *h.than))]
    if absent := [name for name in compared if name not in protocol.losses]:
        raise ConfigError(f"{file}: {absent[0]!r} is compared, but is not among losses")
    for hypothesis in protocol.hypotheses:
        if not 1 <= hypothesis.in_at_least <= len(protocol.cells):
            raise ConfigError(f"{file}: in_at_least={hypothesis.in_at_least} of {len(protocol.cells)} cells")
    untuned = protocol.seeds_untuned
    for name, seeds in (("seeds", protocol.seeds), ("untuned_seeds", untuned), ("pilot.seeds", pilot.seeds)):
        if len(set(seeds)) != len(seeds) or len(seeds) < 2:
            raise ConfigError(f"{file}: {name} must be two or more different ones, got {seeds}")
    used = {protocol.trial_seed, *pilot.seeds} & {*protocol.seeds, *untuned}
    if used or protocol.trial_seed in pilot.seeds:
        raise ConfigError(f"{file}: seeds, pilot.seeds and trial_seed must have no seed in common")
    if protocol.trials < 1:
        raise ConfigError(f"{file}: trials must be at least 1, got {protocol.trials}")
    for key, values in protocol.search.items():
        if not values.low < values.high or (values.log and values.low <= 0):
            raise ConfigError(f"{file}: search.{key}: low must be below high, and above 0 where log is true")


def freeze(protocol: Protocol, folder: Path) -> None:
    """Write the protocol beside its runs.

    Raises:
        ConfigError: another one is there already.
    """
    check_frozen(protocol, folder)
    file = folder / FROZEN
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(asdict(protocol), indent=1))


def check_frozen(protocol: Protocol, folder: Path) -> None:
    """Check that the protocol is still the one that lies beside its runs, where one does.

    Raises:
        ConfigError: it was changed after the search began, so hypotheses and search aren't of before the runs.
    """
    file = folder / FROZEN
    if not file.exists():
        return
    content, before = asdict(protocol), read_json(file)
    changed = [key for key in {**before, **content} if before.get(key) != content.get(key)]
    if changed:
        raise ConfigError(
            f"{file}: {_and(changed)} changed since the search began; undo that, or give the new benchmark "
            "another name= to start it anew"
        )


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)
