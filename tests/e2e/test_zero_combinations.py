"""Every family, tuning and ZeRO stage from a checkpoint in its release's layout: two ranks, gradient checkpointing.

A combination trains two steps - an interrupt in the first, a resume for the second - and is tested, exported and read
again; its losses, gradient norms and test score must be those of one process with torch alone. The weights are random
and tiny, the tokenizers real.

In bfloat16 what `engine=local` trains is float32 under autocast, as DeepSpeed's masters are, but DeepSpeed's forward is
all bfloat16: only products are rounded in the one, sums and norms too in the other. A learning rate of fine-tuning
keeps the second step within the same bound. In float32 nothing but the order of sums differs.

Each family is tested with half of its tunings, each under one stage; `NTIL_ALL_COMBINATIONS=1` tests all. `python -m
tests.e2e.test_zero_combinations <folder> [<model> ...]` runs both too, and prints the table of docs/models.md.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import text_checkpoints, vision_checkpoints
from ntil.commands.export import export
from ntil.components import Components
from ntil.config.build import locate
from ntil.models.saving import load_saved
from ntil.runs.checkpoints import complete_checkpoints
from ntil.runs.folder import RunFolder
from tests.support.forked import finish, freeze
from tests.support.losses import loss_configs
from tests.support.zero_probe import probe

# Every tuning of these; of the later families one or two each, since a combination takes half a minute.
ALL_TUNINGS = ("full", "lora", "lora_all", "freeze_vision", "projector")
LATER_VISION: dict[str, tuple[str, ...]] = {
    "qwen2_5_vl_3b": ("lora",),
    "qwen3_vl_2b": ("full", "lora_all"),
    "paligemma2_3b": ("lora",),
    "gemma3_4b": ("freeze_vision",),
    "internvl3_1b": ("lora_all",),
    "smolvlm2_256m": ("full",),
    "llava_ov_0_5b": ("projector",),
}
LATER_TEXT: dict[str, tuple[str, ...]] = {
    "qwen3_0_6b": ("lora",),
    "smollm2_135m": ("full",),
    "llama3_2_1b": ("lora",),
    "gemma3_270m": ("full",),
}
VISION = ("llava15_7b", "yi_vl_6b", "qwen2_vl_2b", "paligemma_3b", *LATER_VISION)
TEXT = ("llama3_8b", "qwen25_1_5b", "yi_6b", "baichuan2_7b", "minicpm3_4b", *LATER_TEXT)
TUNINGS = {
    **dict.fromkeys(VISION, ALL_TUNINGS),
    **dict.fromkeys(TEXT, ("full", "lora")),
    **LATER_VISION,
    **LATER_TEXT,
}
LAYOUTS_OF_THEIR_OWN = ("yi_vl_6b",)  # what plain transformers has no class for
RESUMED_UNDER_ZERO2 = ("full", "lora")  # where it is cut alike for all, and tests/e2e/test_kill.py resumes it 20 times
# Relative, of the losses and the test's cross-entropy; and of the gradient norms.
TOLERANCES = {"bfloat16": (2e-4, 2e-2), "float32": (1e-5, 1e-4)}
RUN = [
    "loss=ntil",
    "optim.steps=2",
    "optim.warmup=0",
    "optim.lr=1e-5",
    "engine.gradient_checkpointing=true",
    "engine.workers=0",
    "task.source.rows={train:16,validation:4,test:4}",
    "save_every=1",
]


def checkpoint(name: str, shared: Path, place: Path) -> Path:
    folder = place / "checkpoints" / name
    if not folder.exists():
        if name in VISION:
            vision_checkpoints.write(name, shared, folder)
        else:
            # As of trained models: at the tests' usual 0.3 the roundings of bfloat16 alone change losses by 6e-4.
            text_checkpoints.write(name, shared, folder, deviation=0.05)
    return folder


def settings(place: Path, shared: Path, name: str, tuning: str, dtype: str) -> list[str]:
    start = checkpoint(name, shared, place)
    task = "clock" if name in VISION else "arithmetic"
    return [
        *RUN,
        f"model={name}",
        f"model.checkpoint={start}",
        f"model.dtype={dtype}",
        f"task={task}",
        f"tuning={tuning}",
    ]


def figures(run: RunFolder) -> dict[str, list[float]]:
    steps = [record for record in run.read_history() if "loss" in record]
    assert [record["step"] for record in steps] == [1, 2]
    return {
        "loss": [*(record["loss"] for record in steps), run.read_metrics()["ce"]],
        "norm": [record["grad_norm"] for record in steps],
    }


def checked(codes: list[int | None], expected: int, run: RunFolder) -> None:
    assert set(codes) == {expected}, (codes, run.error.read_text() if run.error.exists() else "no error")


def run_alone(place: Path, shared: Path, name: str, tuning: str, dtype: str) -> dict[str, list[float]]:
    """The figures of one process with torch alone; kept in `place`."""
    file = place / f"{name}-{tuning}-{dtype}.json"
    if not file.exists():
        runs = place / "alone"
        run = freeze([*settings(place, shared, name, tuning, dtype), f"runs={runs}", "engine=local", "save_every=0"])
        checked(finish(run), 0, run)
        file.write_text(json.dumps(figures(run)))
        shutil.rmtree(run.path)
    return dict(json.loads(file.read_text()))


def run_on_two_ranks(place: Path, shared: Path, name: str, tuning: str, zero: int, dtype: str, cut: bool) -> RunFolder:
    """A run that was interrupted in its first step and went on; under ZeRO-3 its parameters are partitioned.

    Args:
        cut: ZeRO-3 partitions every parameter; else those of a usual size, see DeepSpeed's persistence threshold.
    """
    engine = [f"engine=zero{zero}", "engine.processes=2"]
    run = freeze([*settings(place, shared, name, tuning, dtype), f"runs={place}/two", *engine])
    note = place / "partitions.json"
    if zero == 3 or tuning in RESUMED_UNDER_ZERO2:
        checked(finish(run, before=partial(probe, note, True, cut)), 130, run)
        assert [folder.name for folder in complete_checkpoints(run.checkpoints)] == ["checkpoint-1"]
        assert [record["step"] for record in run.read_history() if "loss" in record] == [1]
    checked(finish(run, before=partial(probe, note, False, cut)), 0, run)
    if zero == 3:
        sizes = json.loads(note.read_text())
        assert sizes["partitioned"] > (0 if cut else 0.9 * sizes["whole"])
        assert not cut or sizes["whole"] == 0
    return run


def compare(run: RunFolder, alone: dict[str, list[float]]) -> dict[str, float]:
    """Largest relative differences of the losses and of the gradient norms."""
    here = figures(run)
    return {
        key: max(abs(one - other) / abs(other) for one, other in zip(here[key], alone[key], strict=True))
        for key in here
    }


def read_by_others(model: Path, name: str, family: Any, base: Path | None = None) -> Any:
    """A model as plain transformers reads it, and peft an adapter on `base`."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    kind: Any = AutoModelForImageTextToText if name in VISION else AutoModelForCausalLM
    plain = name not in LAYOUTS_OF_THEIR_OWN and (base is None or name != "baichuan2_7b")
    if base is None:
        return kind.from_pretrained(model, dtype=family.dtype) if plain else family.load(model)
    whole = kind.from_pretrained(base, dtype=family.dtype) if plain else family.load()
    return PeftModel.from_pretrained(whole, str(model), autocast_adapter_dtype=False)


def logits(model: Any, family: Any) -> torch.Tensor:
    ids = torch.tensor([family.tokenizer("What time is it? 10:32").input_ids])
    with torch.no_grad():
        return torch.as_tensor(model.eval()(input_ids=ids).logits)


def exported_equals_saved(run: RunFolder, name: str, start: Path, to: Path) -> None:
    """What `ntil export` writes is read by plain transformers and peft as what the run saved."""
    family = Components.build(run.config()).family
    saved = load_saved(family, run.model)
    adapter = hasattr(saved, "peft_config")
    if adapter:
        export(run, to / "adapter", merge=False)
        assert_equal(read_by_others(to / "adapter", name, family, start), saved, name, family)
        saved = saved.merge_and_unload()
    export(run, to / "whole")
    assert_equal(read_by_others(to / "whole", name, family), saved, name, family)


def assert_equal(one: Any, other: Any, name: str, family: Any) -> None:
    # Baichuan2's own head divides by the lengths of its rows, which are one but for the roundings of what was saved.
    bounds = {torch.bfloat16: 2e-2, torch.float32: 1e-5} if name == "baichuan2_7b" else {}
    bound = bounds.get(family.dtype, 0)
    torch.testing.assert_close(logits(one, family), logits(other, family), rtol=bound, atol=bound)


def combination(
    place: Path, shared: Path, name: str, tuning: str, zero: int, dtype: str, cut: bool = False
) -> dict[str, float]:
    """Run one and check it; its differences to torch alone."""
    alone = run_alone(place, shared, name, tuning, dtype)
    run = run_on_two_ranks(place, shared, name, tuning, zero, dtype, cut)
    differences = compare(run, alone)
    exported_equals_saved(run, name, checkpoint(name, shared, place), run.path / "exported")
    shutil.rmtree(run.path)
    return differences


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zero")


@pytest.fixture(autouse=True)
def cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NTIL_CACHE", str(place / "cache"))


# Gemma 3: its gradient norms in bfloat16 are up to 13 % from those under autocast; in float32 it is exact (EXACT).
ALL_COMBINATIONS = [
    (name, tuning, zero) for name in TUNINGS if name != "gemma3_4b" for tuning in TUNINGS[name] for zero in (2, 3)
]
# Every family with every second of its tunings, neighbours with the others, under the stages in turn: all of them take
# half an hour.
IN_TURN = [
    (name, tuning, 2 + (row + column) // 2 % 2)
    for row, name in enumerate(name for name in TUNINGS if name != "gemma3_4b")
    for column, tuning in enumerate(TUNINGS[name])
    if (row + column) % 2 == 0 or len(TUNINGS[name]) == 1
]
COMBINATIONS = ALL_COMBINATIONS if os.environ.get("NTIL_ALL_COMBINATIONS") else IN_TURN
# In float32, with every parameter partitioned: each family, each tuning.
EXACT = [
    ("llava15_7b", "lora_all", 3),
    ("yi_vl_6b", "lora", 3),
    ("qwen2_vl_2b", "freeze_vision", 3),
    ("paligemma_3b", "projector", 3),
    ("llama3_8b", "lora", 3),
    ("qwen25_1_5b", "full", 3),
    ("yi_6b", "full", 2),
    ("baichuan2_7b", "full", 3),
    ("minicpm3_4b", "lora", 3),
    ("gemma3_4b", "freeze_vision", 3),
]


def one_of_every_class() -> list[str]:
    """A loss config of every class but those on boxes, which need another task than clocks."""
    names = {config.target: name for name, config in reversed(loss_configs().items())}
    classes = {name: locate(target, "loss") for target, name in names.items()}
    return [name for name, loss in classes.items() if loss.trains and not loss.needs_shapes]


SEVERAL = ["ce", "ntil", "emo", "value_emd", "raft", "sum"]  # of every kind; NTIL_ALL_COMBINATIONS=1 takes all
LOSSES = one_of_every_class() if os.environ.get("NTIL_ALL_COMBINATIONS") else SEVERAL


def assert_within(differences: dict[str, float], dtype: str) -> None:
    loss, norm = TOLERANCES[dtype]
    assert differences["loss"] < loss
    assert differences["norm"] < norm


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tuning", "zero"), COMBINATIONS)
def test_every_combination_in_bfloat16(place: Path, shared: Path, name: str, tuning: str, zero: int) -> None:
    assert_within(combination(place, shared, name, tuning, zero, "bfloat16"), "bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tuning", "zero"), EXACT)
def test_in_float32_nothing_differs_but_the_order_of_sums(
    place: Path, shared: Path, name: str, tuning: str, zero: int
) -> None:
    assert_within(combination(place, shared, name, tuning, zero, "float32", cut=True), "float32")


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_under_zero3(place: Path, shared: Path, loss: str) -> None:
    """Of partitioned weights, which EMO looks at; one step."""
    words = [*settings(place, shared, "llava15_7b", "full", "float32"), f"loss={loss}"]
    note, steps = place / f"{loss}.json", []
    for engine in (["engine=local"], ["engine=zero3", "engine.processes=2"]):
        run = freeze([*words, f"runs={place}/{loss}-{len(engine)}", *engine])
        checked(finish(run, before=partial(probe, note, interrupt=True, partition_all=True)), 130, run)
        steps += [record for record in run.read_history() if "loss" in record]
    assert json.loads(note.read_text())["whole"] == 0
    alone, ranks = steps
    assert ranks["loss"] == pytest.approx(alone["loss"], rel=TOLERANCES["float32"][0])
    assert ranks["grad_norm"] == pytest.approx(alone["grad_norm"], rel=TOLERANCES["float32"][1])


def table(place: Path, shared: Path, names: Iterable[str]) -> None:
    print("| model | tuning | ZeRO-2 | ZeRO-3 |\n|---|---|---|---|")
    for name in names:
        for tuning in TUNINGS[name]:
            cells = [combination(place, shared, name, tuning, zero, "bfloat16") for zero in (2, 3)]
            texts = [f"{cell['loss']:.0e} ({cell['norm']:.0e})" for cell in cells]
            print(f"| `{name}` | `{tuning}` | {' | '.join(texts)} |", flush=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["NTIL_CACHE"] = str(folder / "cache")
    table(folder, Path(os.environ["NTIL_SHARED"]), sys.argv[2:] or TUNINGS)
