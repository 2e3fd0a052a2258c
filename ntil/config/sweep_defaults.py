"""Sweeps that an experiment's config defines, reduced by the command line; and the result of a search."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, flag_override


class GivenFirst(Callback):
    """Remove keys from `hydra.sweeper.params` that the command line gives or that the config lacks, before the sweep.

    So `ntil train -m experiment=clock loss=ce` trains with cross-entropy only, and a search over `loss.sigma` omits it,
    with a message, for a loss that has none. Hydra alone would sweep both values, and fail.
    """

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        params = config.hydra.sweeper.get("params")
        if not params:
            return
        overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
        swept = {*params, *(override.get_key_element() for override in overrides if override.is_sweep_override())}
        names = {override.get_key_element() for override in overrides}
        with flag_override(config, ["struct", "readonly"], [False, False]):
            for key in list(params):
                if key in names:
                    del params[key]
                elif not _known(key, config, swept):
                    print(f"{key} is not swept: there is none in this config", file=sys.stderr)
                    del params[key]

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        results = Path(config.hydra.sweep.dir, "optimization_results.yaml")
        if "optuna" in config.hydra.sweeper._target_ and results.exists():
            print(f"the best trial, in {results}:\n{results.read_text().strip()}")


def _known(key: str, config: DictConfig, swept: set[str]) -> bool:
    """Whether the config has that key; assumed where its group is swept too, since its options are not known yet."""
    group, _, _ = key.partition(".")
    parent, dot, name = key.rpartition(".")
    if not dot or group in swept:
        return True
    node = OmegaConf.select(config, parent)
    return node is not None and name in node
