"""Train one run, or a sweep of runs.

    ntil train model=llava_nano task=clock loss=ntil seed=3
    ntil train -m loss=ce,emd,ntil seed=0,1      a sweep: one child process per job, done ones skipped
    ntil train ... --cfg job                     print the composed config and stop
    ntil train -m ... --dry-run                  the runs of a sweep with their state, time and memory
    ntil train --help                            every group and its choices

This is Hydra's own command line: overrides are `key=value`, `-m` sweeps over lists of values.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from ntil.commands.summary import print_metrics
from ntil.components import build_task
from ntil.config.compose import CONF, choices, config_folders, for_hydra, plain_config, register_schema, report_errors
from ntil.config.errors import ConfigError
from ntil.config.schema import EngineConfig, RunConfig
from ntil.launch.plan import check_multirun, dry_run
from ntil.launch.sweep import Sweep
from ntil.runs.folder import folder_of


def main(arguments: list[str]) -> int:
    """Run `ntil train`; the exit code. Every job runs in its own processes, and its errors are reported one by one."""
    overrides: list[str] = []
    if code := report_errors(register_schema) or report_errors(lambda: overrides.extend(for_hydra(arguments))):
        return code
    arguments = overrides
    if {"-h", "--help"} & {*arguments}:
        return report_errors(lambda: _show_choices([word for word in arguments if not word.startswith("-")]))
    if "--dry-run" in arguments:
        return report_errors(lambda: _dry_run([word for word in arguments if word != "--dry-run"]), arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # Hydra's parser takes overrides in one piece: `loss=ce -m seed=0,1` would be refused.
    sweeping = [word for word in arguments if word in ("-m", "--multirun")]
    arguments = [*sweeping[:1], *(word for word in arguments if word not in sweeping)]
    sweep = Sweep()

    def job(composed: DictConfig) -> float | None:
        # Reported here: Hydra would stop the sweep at the first job that can't be run, and print more than is helpful.
        configs: list[RunConfig] = []

        def run() -> None:
            named = HydraConfig.get().overrides.task
            configs.append(RunConfig.from_dict(plain_config(composed, named)))
            check_launcher(configs[0].engine, HydraConfig.get().launcher._target_)
            sweep.run(configs[0])

        refused = report_errors(run) != 0
        sweep.refused += refused
        return objective(configs[0]) if configs and not refused else None

    if code := report_errors(lambda: check_storage(arguments)):
        return code
    sys.argv = ["ntil train", *arguments]
    hydra_main = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)
    code = report_errors(hydra_main, arguments) or 2 * bool(sweep.refused)
    sweep.collect()
    return _conclude(sweep, code)


def _show_choices(overrides: list[str]) -> int:
    """Print the groups with their choices, and the configuration as it is composed.

    Hydra's own help also lists what is internal, which can't be chosen.
    """
    files = [file for folder in config_folders() for file in folder.glob("*/*.yaml")]
    groups = sorted({file.parent.name for file in files} - {"benchmark"})
    print("\n== Groups, group=choice ==\n")
    print("\n".join(f"{group}: {', '.join(choices(group))}" for group in groups))
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        composed = hydra.compose("config", overrides=overrides)
    print(f"\n== Configuration, key=value ==\n\n{OmegaConf.to_yaml(composed)}")
    return 0


def _conclude(sweep: Sweep, code: int) -> int:
    if sweep.failed and len(sweep.failed) + len(sweep.done) == 1:
        return 1  # its error has just been shown
    if sweep.failed:
        print(f"\n{len(sweep.failed)} of {len(sweep.failed) + len(sweep.done)} runs failed:", file=sys.stderr)
        for folder, error in sweep.failed:
            print(f"  {folder}: {error}", file=sys.stderr)
        return 1
    if sweep.done and not code:
        print_metrics(sweep.done)
    return code


def objective(config: RunConfig) -> float | None:
    """The headline metric of the job's run, for a sweeper that searches; None for a run that isn't done.

    Optuna takes None as a failed trial and goes on; it ends at a value that is not a number.
    """
    folder = folder_of(config)
    return float(folder.read_metrics()[build_task(config).metric]) if folder.done else None


def check_launcher(engine: EngineConfig, launcher: str) -> None:
    """Check that Slurm was asked for the GPUs of a run that takes all of a host's.

    Raises:
        ConfigError: it wasn't, since there is no number.
    """
    if engine.processes is None and "submitit" in launcher:
        raise ConfigError("engine.processes=null asks Slurm for no GPU; set engine.processes=<GPUs of a node>")


def check_storage(arguments: list[str]) -> None:
    """Check that the installed Optuna can use the database that a search is to be kept in.

    Raises:
        ConfigError: Optuna 2, which Hydra's sweeper needs, with SQLAlchemy 2, under which it fails at its first query.
    """
    words = [word.lstrip("+").partition("=") for word in arguments]
    storage = [value for key, _, value in words if key == "hydra.sweeper.storage" and value not in ("", "null")]
    try:
        versions = [int(version(name).partition(".")[0]) for name in ("optuna", "sqlalchemy")]
    except PackageNotFoundError:
        return  # Hydra says that the sweeper isn't there
    if storage and versions[0] < 3 and versions[1] >= 2:
        raise ConfigError(
            f"hydra.sweeper.storage={storage[-1]}: Optuna {version('optuna')} can't use SQLAlchemy "
            f"{version('sqlalchemy')}; install 'sqlalchemy<2', or leave the storage out: trials that are done "
            "are not run again by the same command"
        )


def _dry_run(arguments: list[str]) -> int:
    with Console().status("composing the runs"):
        check_multirun(arguments)
        planned = dry_run(arguments)
    planned.table.print()
    for remark in planned.remarks:
        print(f"ntil: {remark}", file=sys.stderr)
    return 2 if planned.refused else 0
