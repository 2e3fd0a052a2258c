"""`ntil compare <run> <run>`: any two runs or folders of one loss's runs, paired by seed, on the same test examples."""

from __future__ import annotations

from experiments.analysis import analyse
from experiments.collect import Run, require_comparable, told_apart
from experiments.page import words
from experiments.report import print_table
from experiments.tables import cell_tables
from ntil.config import ConfigError
from ntil.runs import find


def main(places: list[str]) -> int:
    """
    Raises:
        ConfigError: not two, nothing finished there, several losses on a side, or runs that are no comparison.
    """
    if len(places) != 2:
        raise ConfigError("ntil compare needs two runs or folders of runs: ntil compare runs/a runs/b")
    sides = [_side(place) for place in places]
    require_comparable([run for side in sides for run in side])
    names = [side[0].loss for side in sides]
    if names[0] == names[1]:
        # The same loss with other settings of its own: told apart by their folders.
        names = [f"{name} ({place})" for name, place in zip(names, places, strict=True)]
    runs = [run.with_loss(name) for side, name in zip(sides, names, strict=True) for run in side]
    seeds = [sorted({run.seed for run in side}) for side in sides]
    if not set(seeds[0]) & set(seeds[1]):
        raise ConfigError(f"no seed in common: {seeds[0]} and {seeds[1]}; comparisons are paired by seed")
    # The first is the base.
    found = analyse(runs, {}, base=names[0])[0]
    if found.refused:
        raise ConfigError(f"no comparison: {found.refused}")
    for table in cell_tables(found, found.metrics):
        print_table(table)
    for line in words(found):
        print(line)
    return 0


def _side(place: str) -> list[Run]:
    runs = [Run.read(run) for run in find(place) if run.done]
    if not runs:
        raise ConfigError(f"{place}: no finished run there")
    losses = sorted({run.loss for run in told_apart(runs)})
    if len(losses) > 1:
        raise ConfigError(f"{place} holds runs of several losses ({', '.join(losses)}); name one of their folders")
    return runs
