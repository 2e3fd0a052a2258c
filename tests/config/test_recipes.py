"""A full-size model brings its recipe; what is named on the command line wins; sweeps give every model its own."""

import re

import pytest
import yaml
from PIL import Image

from ntil.cli import main
from ntil.config.compose import CONF, choices, compose, task_dict
from ntil.config.identity import config_hash
from ntil.launch.plan import plan
from tests.support.chosen import slow_but
from tests.support.families import model_config

CONFIGS = {name: model_config(name) for name in choices("model")}
FULL_SIZE = [name for name, config in CONFIGS.items() if "/" in (config["checkpoint"] or "")]
TEXT = [name for name in FULL_SIZE if "language" in CONFIGS[name]]
DRAWN = [name for name in choices("task") if "size" in task_dict(name, []).get("source", {})]
NUMBERS = sorted(file for group in ("recipe", "optim", "rates") for file in (CONF / group).glob("*.yaml"))


def in_force(*words):
    """What a recipe decides: engine, optimizer, evaluation, curriculum, and the side of a drawn picture."""
    config = compose(words)
    engine, optim, evaluation = config.engine, config.optim, config.evaluation
    return {
        "engine": (engine.zero_stage, engine.processes, engine.gradient_checkpointing, engine.workers),
        "length": (optim.steps, optim.epochs, optim.max_epochs, optim.batch_size),
        "lr": (optim.lr, optim.lr_of, optim.min_lr_ratio, optim.warmup, optim.weight_decay),
        "evaluation": (evaluation.batch_size, evaluation.every_steps, config.save_every),
        "stages": len(config.curriculum.stages),
        "size": config.task.options["source"].get("size"),
    }


RECIPE = {
    "engine": (2, None, True, 4),
    "length": (2000, None, 30, 64),
    "lr": (1e-5, None, 0.0, 0.05, 0.0),
    "evaluation": (None, 500, 1000),
    "stages": 0,
    "size": 448,
}
NANO_TABLE = {
    "engine": (None, 1, False, 0),
    "length": (2400, None, None, 32),
    "lr": (1e-3, None, 0.05, 50, 0.01),
    "evaluation": (240, 200, 400),
    "stages": 3,
    "size": 48,
}


def test_full_size_models_are_recognised():
    assert {"qwen2_vl_7b", "qwen3_vl_8b", "paligemma2_3b", "gemma3_4b", "llama3_8b", "qwen3_8b"} <= {*FULL_SIZE}
    assert {"llama3_8b", "qwen3_8b"} <= {*TEXT}
    assert not {"qwen3_vl_8b", "gemma3_4b"} & {*TEXT}


@pytest.mark.slow
@pytest.mark.parametrize("model", FULL_SIZE)
def test_a_full_size_model_brings_its_recipe(model):
    task = "arithmetic" if model in TEXT else "clock"
    assert in_force(f"model={model}", f"task={task}") == {**RECIPE, **({"size": None} if model in TEXT else {})}
    rates = in_force(f"model={model}", f"task={task}", "tuning=lora")["lr"]
    assert rates[:2] == (2e-4, None if model in TEXT else {"projector": 2e-5})
    assert in_force(f"model={model}", f"task={task}", "tuning=lora_all")["lr"] == rates
    assert in_force(f"model={model}", f"task={task}", "tuning=freeze_vision")["lr"] == RECIPE["lr"]


@pytest.mark.parametrize("task", slow_but(["clock", "grounding_nano"], DRAWN))
def test_every_drawn_picture_is_large_enough_for_a_full_size_tower(task):
    assert in_force("model=llava15_7b", f"task={task}")["size"] == 448
    assert in_force("model=llava_nano", f"task={task}")["size"] == (48 if task == "clock" else 64)
    assert in_force("model=llava15_7b", f"task={task}", "task.source.size=96")["size"] == 96


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["engine=zero3"], "engine", (3, None, True, 4)),
        (["engine=zero1", "engine.processes=2"], "engine", (1, 2, True, 4)),
        (["engine=local"], "engine", (None, None, True, 4)),
        (["engine.gradient_checkpointing=false"], "engine", (2, None, False, 4)),
        (["scale=full", "engine=zero3"], "engine", (3, None, True, 4)),
        (["scale=nano", "engine=zero1"], "engine", (1, None, True, 4)),
        (["curriculum=clock"], "stages", 3),
        (["optim.lr=2e-5"], "lr", (2e-5, None, 0.0, 0.05, 0.0)),
        (["optim=adamw"], "lr", (1e-3, None, 0.05, 100, 0.01)),
        (["optim=adamw", "tuning=lora"], "lr", (1e-3, None, 0.05, 100, 0.01)),
        (["tuning=lora", "optim.lr=1e-4"], "lr", (1e-4, {"projector": 2e-5}, 0.0, 0.05, 0.0)),
        (["tuning=lora", "optim.lr_of.projector=null"], "lr", (2e-4, None, 0.0, 0.05, 0.0)),
        (["tuning=lora", "optim.lr_of.language=1e-4"], "lr", (2e-4, {"projector": 2e-5, "language": 1e-4}, 0, 0.05, 0)),
        (["tuning=projector"], "lr", (2e-5, None, 0.0, 0.05, 0.0)),
        (["evaluation.batch_size=8"], "evaluation", (8, 500, 1000)),
        (["recipe=nano_table", "scale=nano"], "lr", (1e-3, None, 0.05, 50, 0.01)),
    ],
)
def test_the_command_line_wins(words, key, value):
    assert in_force("model=qwen2_vl_7b", *words)[key] == value
    assert in_force(*words, "model=qwen2_vl_7b")[key] == value  # in any order


def test_every_task_that_draws_is_known():
    assert {"clock", "grounding_single", "text_detection_single", "mathvista_nano", "detection_nano"} <= {*DRAWN}


def test_a_checkpoint_of_a_recipe_is_of_a_validated_step():
    config = compose(["model=qwen2_vl_7b"])
    assert config.save_every % config.evaluation.every_steps == 0
    assert config.save_minutes == 30


def test_a_scale_is_a_grid_and_nothing_else():
    assert in_force("scale=full") == in_force()
    assert in_force("scale=full", "engine=zero3")["engine"] == (3, 1, False, 1)
    assert in_force("experiment=clock") == NANO_TABLE
    assert in_force("experiment=clock", "engine=zero2")["engine"] == (2, 1, False, 0)
    assert in_force("experiment=clock", "engine=zero3_offload")["engine"] == (3, 1, False, 0)


@pytest.mark.slow
def test_a_sweep_gives_every_model_its_own_recipe():
    words = ["experiment=clock", "loss=ce", "seed=0"]
    for scale, models in (("nano", {"llava_nano", "yi_vl_nano", "qwen2_vl_nano"}), ("full", set())):
        jobs = plan(["-m", *words, f"scale={scale}", "model=llava_nano,qwen2_vl_2b,yi_vl_nano"])
        optims = {job.run.model: job.run.config.optim for job in jobs}
        assert optims["qwen2_vl_2b"] == compose(["model=qwen2_vl_2b"]).optim, scale
        if models:
            assert optims["llava_nano"].steps == optims["yi_vl_nano"].steps == 2400
    full = plan(["-m", *words, "scale=full"])
    assert {job.run.model for job in full} == {"llava15_7b", "yi_vl_6b", "qwen2_vl_2b"}
    for job in full:
        config = job.run.config
        assert (config.optim.lr, config.task.options["source"]["size"], config.curriculum.stages) == (1e-5, 448, [])


def test_a_sweep_of_small_models_draws_on_photographs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "starts/aligned/dino_smol").mkdir(parents=True)  # the start is made by experiment=align or an export
    for number in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    # The sweep is composed before its models, and these before their recipe, which has the keys too.
    words = ["-m", "experiment=grounding", "scale=small", "init=aligned", f"drawn.backgrounds={tmp_path}"]
    jobs = plan([*words, "drawn.background_share=1", "loss=ce,ntil", "seed=0"])
    assert len(jobs) == 2
    for job in jobs:
        source = job.run.config.task.options["source"]
        assert (source["size"], source["backgrounds"], source["background_share"]) == (224, str(tmp_path), 1)
        assert source["rows"]["train"] == 2400
        assert job.run.config.model.options["checkpoint"] == "starts/aligned/dino_smol"
        assert (job.run.config.optim.steps, job.run.config.tuning.freeze) == (150, ["vision"])
        assert job.run.config.optim.lr == 2e-5


def test_a_start_is_taught_other_pictures_than_those_of_the_tables():
    config = compose(["experiment=align", "drawn.backgrounds=photographs"])
    for name, task in config.task.options["tasks"].items():
        source = task["source"]
        assert (source["seed"], source["size"], source["backgrounds"]) == (1000, 224, "photographs"), name
    assert compose(["model=dino_smol", "task=grounding_single"]).task.options["source"]["seed"] == 0


def test_nano_runs_are_those_of_before():
    """Hashes of runs made before models had recipes."""
    known = {"": "28bf9c67", "experiment=clock": "cda314cf", "tuning=lora": "4c386f96", "experiment=demo": "98abf5b3"}
    for word, value in known.items():
        assert config_hash(compose([word] if word else [])) == value, word


def test_the_composed_config_shows_the_numbers(capsys, monkeypatch):
    assert main(["train", "model=qwen2_vl_7b", "tuning=lora", "task=clock", "--cfg", "job"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["optim"]["lr"], shown["optim"]["lr_of"]) == (2e-4, {"projector": 2e-5})
    assert (shown["engine"]["zero_stage"], shown["engine"]["processes"]) == (2, None)


@pytest.mark.parametrize("file", NUMBERS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_number_has_its_source(file):
    """A number is ours, or says whose it is: beside it, or above all of them."""
    text = file.read_text()
    head = re.split(r"^\w", text, maxsplit=1, flags=re.MULTILINE)[0]
    named = re.compile(r"\b(ours|by us|bv|LLaVA|QLoRA)\b|from scratch", re.IGNORECASE)
    for line in text.splitlines():
        value = re.match(r"\s*\w+:\s*(?:\{.*\d.*\}|[\d.e+-]+|true)\s*(#.*)?$", line)
        if value:
            assert named.search(value[1] or "") or named.search(head), line
