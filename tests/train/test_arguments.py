"""Engine configs: what they become, and what is refused before anything starts."""

import pytest
import torch

from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.config.identity import config_hash
from ntil.distributed.ranks import ranks_on_this_host
from ntil.launch.processes import _environments
from ntil.preflight import compose_checked, rank_count
from ntil.train.arguments import deepspeed_config, training_arguments
from tests.support.command_line import ntil
from tests.support.runs import TINY_RUN


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["engine.dtype=float16", "engine.device=cpu"], "float16 can't run on engine.device=cpu"),
        (["engine=zero2", "+engine.offload=true"], "engine.offload needs ZeRO-3"),
        (["engine=local", "+engine.offload=true"], "engine.zero_stage is None; take engine=zero3_offload"),
        (["engine=zero3", "engine.compile=true"], "engine.compile"),
        (["engine.processes=0"], "engine.processes must be at least 1"),
        (["engine.accumulation=0"], "engine.accumulation must be at least 1"),
        (["engine.device=tpu"], "engine.device must be auto, cpu, cuda"),
        (["engine.processes=3", "engine.device=cpu"], "doesn't divide over 3 rank(s) x engine.accumulation=1; take"),
        (["engine.accumulation=3"], "take optim.batch_size=63 or 66"),
        (["engine.hostfile=/nowhere/hosts"], "/nowhere/hosts: no such file"),
        (["engine.hostfile=/nowhere/hosts", "engine.processes=2"], "leave engine.processes out"),
        (["model.dtype=float16"], "take engine.dtype=float16"),
        (["optim.max_grad_norm=-1"], "optim.max_grad_norm must be at least 0"),
    ],
)
def test_conflicts_are_refused_in_one_sentence(words, message):
    words = [w.lstrip("+") for w in words]
    with pytest.raises(ConfigError) as error:
        compose_checked(words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_needs_a_gpu_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    for words, message in (
        (["engine.dtype=float16"], "float16 needs a CUDA device"),
        (["engine.device=cuda"], "no CUDA"),
    ):
        with pytest.raises(ConfigError, match=message):
            compose_checked(words)
    compose_checked(["engine.processes=2"])  # on the CPU, ranks are processes
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"1 CUDA device\(s\) are here; take engine.processes=1"):
        compose_checked(["engine.processes=2"])


def test_ranks_are_as_many_as_gpus_where_none_are_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    engine = compose_checked(["engine.processes=null"]).engine
    assert engine.processes is None
    assert (ranks_on_this_host(engine), rank_count(engine)) == (4, 4)
    assert ranks_on_this_host(compose(["engine.processes=null", "engine.device=cpu"]).engine) == 1
    assert ranks_on_this_host(compose(["engine.processes=2"]).engine) == 2
    assert [e["WORLD_SIZE"] for e in _environments(engine)] == ["4"] * 4
    with pytest.raises(ConfigError, match=r"take optim.batch_size=60 or 64, or engine.processes=2"):
        compose_checked(["engine.processes=null", "optim.batch_size=62"])
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert ranks_on_this_host(engine) == 1
    assert config_hash(compose(["engine.processes=null"])) == config_hash(compose([]))


def test_a_hostfile_says_how_many_ranks_there_are(tmp_path):
    file = tmp_path / "hosts"
    file.write_text("# two hosts\nnode1 slots=4\n\nnode2 slots=2\n")
    with pytest.raises(ConfigError, match=r"64 doesn't divide over 6 rank"):
        compose_checked([f"engine.hostfile={file}"])
    compose_checked([f"engine.hostfile={file}", "optim.batch_size=60"])
    for text in ("node1\n", "node1 slots=four\n", "node1 slots=1\nnode1 slots=1\n", "# nobody\n"):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"hosts"):
            compose_checked([f"engine.hostfile={file}"])


def test_where_a_run_is_computed_is_no_part_of_its_identity():
    base = config_hash(compose(["engine=zero2"]))
    for word in (
        "engine.processes=2",
        "engine.accumulation=4",
        "engine.gradient_checkpointing=true",
        "engine.threads=1",
    ):
        assert config_hash(compose(["engine=zero2", "engine.device=auto", word])) == base, word
    for word in ("engine.zero_stage=3", "engine.dtype=bfloat16", "engine.compile=true", "optim.batch_size=32"):
        assert config_hash(compose(["engine=zero2", word])) != base, word


@pytest.mark.parametrize(("engine", "stage"), [("zero1", 1), ("zero2", 2), ("zero3", 3), ("zero3_offload", 3)])
def test_deepspeed_gets_what_the_config_says(engine, stage):
    run = compose([f"engine={engine}", "optim.max_grad_norm=0.5", "engine.dtype=bfloat16"])
    made = deepspeed_config(run.engine, run.optim.max_grad_norm)
    zero = made["zero_optimization"]
    assert (zero["stage"], made["gradient_clipping"], made["bf16"]) == (stage, 0.5, {"enabled": True})
    assert ("offload_param" in zero and "offload_optimizer" in zero) == (engine == "zero3_offload")
    assert zero.get("stage3_gather_16bit_weights_on_model_save", False) == (stage == 3)


def test_a_step_is_cut_over_ranks_and_accumulation(tmp_path, monkeypatch):
    run = compose(["engine=local", "optim.batch_size=24", "engine.accumulation=3"])
    assert training_arguments(run, tmp_path).per_device_train_batch_size == 8
    monkeypatch.setenv("WORLD_SIZE", "5")
    with pytest.raises(ConfigError, match="doesn't divide by 15"):
        training_arguments(run, tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_bfloat16_needs_no_gpu(tmp_path, device):
    run = compose(["engine=zero2", "engine.dtype=bfloat16", f"engine.device={device}"])
    assert training_arguments(run, tmp_path).bf16


@pytest.mark.parametrize("engine", ["engine=local", "engine.zero_stage=0", "engine=zero2", "engine=zero3"])
def test_weights_in_bfloat16_are_stepped_as_such_under_every_engine(tmp_path, engine):
    run = compose([engine, "model.dtype=bfloat16", "engine.device=cpu"])
    arguments = training_arguments(run, tmp_path, torch.bfloat16)
    assert arguments.bf16
    if engine != "engine=local":
        assert isinstance(arguments.deepspeed, dict)
        assert arguments.deepspeed["bf16"] == {"enabled": True}


@pytest.mark.slow
def test_a_run_has_the_threads_that_it_asks_for(tmp_path):
    """OMP_NUM_THREADS=0 is to accelerate what no variable is: it would set the number of cores."""
    words = [*TINY_RUN, "task.source.rows={train:8,validation:2,test:2}", "engine=local", "optim.steps=1"]
    done = ntil(tmp_path, "train", *words, "loss=ce", "engine.threads=1", OMP_NUM_THREADS="0")
    assert done.returncode == 0, done.stderr
    assert "we set it at" not in done.stderr
