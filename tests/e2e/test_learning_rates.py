"""Learning rates of parts in force: AdamW's first step moves every weight by its own, under every engine."""

import time

import pytest
import torch
from safetensors.torch import load_file

from ntil.components import Components
from ntil.config.compose import compose
from tests.support.forked import finish, freeze, start

RATES = {"language": 1e-3, "projector": 1e-4, "vision": 3e-5}
OWN = ["optim.lr=1e-3", "optim.lr_of.projector=1e-4", "optim.lr_of.vision=3e-5"]
PREFIXES = {"vision_tower": "vision", "multi_modal_projector": "projector", "language_model": "language"}
# CLIP's pooled output is no input of LLaVA, and softmax doesn't see a key's bias.
UNMOVED = ("post_layernorm", "k_proj.bias")
ENGINES = [
    pytest.param(["engine=local"], id="torch"),
    pytest.param(["engine=local", "engine.processes=2"], id="ddp", marks=pytest.mark.slow),
    *(
        pytest.param([f"engine=zero{stage}", "engine.processes=2"], id=f"zero{stage}", marks=pytest.mark.slow)
        for stage in (1, 2, 3)
    ),
]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    family = Components.build(compose(["model=llava_nano"])).family
    torch.manual_seed(0)
    family.save(family.load(), folder)
    return folder


def trained(tmp_path, checkpoint, *words):
    steps = ["optim.warmup=0", "optim.weight_decay=0", "optim.steps=1", "loss=ce", "engine.workers=0", "save_every=0"]
    run = freeze([f"runs={tmp_path}", f"model.checkpoint={checkpoint}", *steps, *words])
    codes = finish(run)
    assert not any(codes), run.error.read_text()
    return run


def part_of(name):
    return next(part for prefix, part in PREFIXES.items() if prefix in name)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_first_step_is_each_parts_own(tmp_path, checkpoint, engine):
    """Adam's first step is lr * g / (|g| + eps): the rate itself wherever the gradient isn't tiny."""
    run = trained(tmp_path, checkpoint, *OWN, *engine)
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, run.model))
    assert before.keys() == after.keys()
    seen = set()
    for name, weights in before.items():
        step = (after[name] - weights).abs().max().item()
        part = part_of(name)
        seen.add(part)
        if not any(word in name for word in UNMOVED):
            assert step == pytest.approx(RATES[part], rel=2e-2), name
    assert seen == {*RATES}
    logged = next(record for record in run.read_history() if "loss" in record)
    assert {part: logged[f"learning_rate/{part}"] for part in ("projector", "vision")} == pytest.approx(
        {part: RATES[part] for part in ("projector", "vision")}
    )
    assert logged["learning_rate"] == pytest.approx(1e-3)
    assert "learning_rate/language" not in logged


@pytest.mark.parametrize("engine", [*ENGINES[:1], *ENGINES[-2:]])
def test_adapters_and_the_projector_beside_them(tmp_path, checkpoint, engine):
    words = ["tuning=lora", "optim.lr=2e-4", "optim.lr_of.projector=2e-5", *engine]
    run = trained(tmp_path, checkpoint, *words)
    before, after = load_file(checkpoint / "model.safetensors"), load_file(run.model / "adapter_model.safetensors")
    second = [weights for name, weights in after.items() if "lora_B" in name]  # zero before the first step
    assert second
    assert max(w.abs().max().item() for w in second) == pytest.approx(2e-4, rel=2e-2)
    projector = {name: w for name, w in after.items() if "multi_modal_projector" in name}
    for name, weights in projector.items():
        old = next(w for known, w in before.items() if known.endswith(name.partition("multi_modal_projector")[2]))
        assert (weights - old).abs().max().item() == pytest.approx(2e-5, rel=2e-2), name
    assert len(projector) == 4


@pytest.mark.parametrize("engine", [*ENGINES[:1], *ENGINES[-2:]])
def test_rates_equal_to_the_common_one_change_no_bit(tmp_path, checkpoint, engine):
    equal = ["optim.lr_of={projector:1e-3,vision:1e-3}"]
    runs = [trained(tmp_path, checkpoint, "optim.steps=3", *words, *engine) for words in ([], equal)]
    assert runs[0].path != runs[1].path
    common, own = (load_file(run.model / "model.safetensors") for run in runs)
    assert all(torch.equal(common[name], own[name]) for name in common)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [ENGINES[0], ENGINES[-2]])
def test_an_interrupted_run_goes_on_with_its_rates(tmp_path, checkpoint, engine):
    words = [*OWN, "optim.steps=60", *engine]
    undisturbed = trained(tmp_path / "a", checkpoint, *words)
    run = freeze(
        [
            *(f"runs={tmp_path / 'b'}", f"model.checkpoint={checkpoint}", "optim.warmup=0", "optim.weight_decay=0"),
            *("loss=ce", "engine.workers=0", "save_every=0", *words),
        ]
    )
    processes = start(run)
    deadline = time.monotonic() + 200
    while not any(record.get("step", 0) >= 5 for record in run.read_history()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run.stop.touch()
    for process in processes:
        process.join(200)
        assert process.exitcode == 130
    run.stop.unlink()
    assert not run.done
    assert finish(run) == [0] * len(processes)
    one, two = (load_file(r.model / "model.safetensors") for r in (undisturbed, run))
    assert all(torch.equal(one[name], two[name]) for name in one)
    steps = {r["step"]: r["learning_rate/projector"] for r in run.read_history() if "learning_rate/projector" in r}
    kept = {r["step"]: r["learning_rate/projector"] for r in undisturbed.read_history() if "learning_rate/vision" in r}
    assert steps == kept
    assert len(steps) == 60


def test_epochs_become_steps_where_the_rows_are_known(tmp_path, checkpoint):
    run = trained(tmp_path, checkpoint, "optim.epochs=0.5", "optim.steps=null", "optim.warmup=0.5")
    assert run.length.read_text() == '{"rows": 64, "steps": 4, "epochs": 0.5}'
    rates = [record["learning_rate"] for record in run.read_history() if "loss" in record]
    assert rates[:3] == pytest.approx([0, 5e-4, 1e-3])  # half of four steps are warm-up
    assert len(rates) == 4
    assert (run.path / "logs" / "rank0.log").read_text().count("64 rows, 4 steps (0.5 epochs)") == 1
