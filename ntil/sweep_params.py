"""What an experiment sweeps by itself, beside what the command line says; and what a search has found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, flag_override


class GivenFirst(Callback):
    """Takes out of `hydra.sweeper.params`, before the sweep, what the command line gives and what the config has not.

    So `ntil train -m experiment=clock loss=ce` trains with cross-entropy only, and a search over `loss.sigma` leaves it
    out, and says so, where the loss has none. Hydra alone would sweep both values, and fail.
    """

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        params = config.hydra.sweeper.get("params")
        if not params:
            return
        given = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
        swept = {*params, *(override.get_key_element() for override in given if override.is_sweep_override())}
        names = {override.get_key_element() for override in given}
        with flag_override(config, ["struct", "readonly"], [False, False]):
            for key in list(params):
                if key in names:
                    del params[key]
                elif not _known(key, config, swept):
                    print(f"{key} is not swept: there is none in this config", file=sys.stderr)
                    del params[key]

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        found = Path(config.hydra.sweep.dir, "optimization_results.yaml")
        if "optuna" in config.hydra.sweeper._target_ and found.exists():
            print(f"the best trial, in {found}:\n{found.read_text().strip()}")


def _known(key: str, config: DictConfig, swept: set[str]) -> bool:
    """Whether the config has that key; what hangs on a choice that is swept too is not known yet."""
    group, _, _ = key.partition(".")
    parent, dot, name = key.rpartition(".")
    if not dot or group in swept:
        return True
    node = OmegaConf.select(config, parent)
    return node is not None and name in node
