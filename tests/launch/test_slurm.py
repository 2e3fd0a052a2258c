"""The batch script that `hydra/launcher=submitit_slurm` would submit, without Slurm."""

import hydra
import pytest
from hydra.utils import instantiate

from ntil.commands.train import check_launcher
from ntil.config.compose import CONF, compose, register_schema
from ntil.config.errors import ConfigError


def test_the_batch_script_asks_for_the_ranks_of_the_engine(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit")
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    register_schema()
    words = ["hydra/launcher=submitit_slurm", "engine.processes=4", "hydra.launcher.partition=gpu", f"runs={tmp_path}"]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("config", overrides=words, return_hydra_config=True)
        params = instantiate(config.hydra.launcher).params
    general = ("nodes", "tasks_per_node", "gpus_per_node", "cpus_per_task", "timeout_min", "name", "stderr_to_stdout")
    auto = submitit.AutoExecutor(folder=tmp_path, cluster="slurm")
    left = ("submitit_folder", "max_num_timeout")
    auto.update_parameters(
        **{k if k in (*general, "mem_gb") else f"slurm_{k}": v for k, v in params.items() if k not in left}
    )
    text = auto._executor._make_submission_file_text("python -m submitit.core._submit", "uid")
    for line in ("--gpus-per-node=4", "--nodes=1", "--ntasks-per-node=1", "--partition=gpu", "--signal=USR2@180"):
        assert f"#SBATCH {line}" in text, text


def test_slurm_is_asked_for_a_number_of_gpus():
    launcher = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
    with pytest.raises(ConfigError, match=r"asks Slurm for no GPU; set engine.processes=<GPUs of a node>"):
        check_launcher(compose(["model=qwen2_vl_7b"]).engine, launcher)
    check_launcher(compose(["model=qwen2_vl_7b", "engine.processes=8"]).engine, launcher)
    check_launcher(compose([]).engine, launcher)
    check_launcher(compose(["model=qwen2_vl_7b"]).engine, "hydra._internal.core_plugins.basic_launcher.BasicLauncher")
