"""Qwen2.5-VL and Qwen3-VL: ids and inputs of their own processors, kept features, deepstack mergers as projector."""

import pytest
import torch
import yaml
from PIL import Image
from transformers import (
    AutoTokenizer,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
    Qwen3VLProcessor,
)

from ntil.collator import Collator
from ntil.components import Components
from ntil.config.build import build
from ntil.config.compose import compose
from ntil.models.inventory import PUBLISHED
from ntil.models.learning_rates import LearningRates
from ntil.models.tuning import Parts, tune
from ntil.preflight import compose_checked
from tests.support.families import without_videos
from tests.support.tiny_checkpoints import Ask, ask, words, written

SMALL = ["tracker=none", "engine=local", "task=clock", "loss=ntil", "task.source.rows={train:6}", "curriculum=none"]
ANSWERS = ["12:45", "7", "1024.5 and -3", "none", '{"bbox_2d": [12, 34, 567, 890]}']
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


def is_its_own_processor(checkpoint, processor_class, system, size):
    family = Components.build(compose_checked(words(checkpoint, "model.min_pixels=null", *SMALL))).family
    largest = family.image_processor.size["longest_edge"]
    images = Qwen2VLImageProcessorPil.from_pretrained(checkpoint.folder, max_pixels=largest)
    processor = without_videos(processor_class)(images, AutoTokenizer.from_pretrained(checkpoint.folder))
    for row in ask(ANSWERS, size):
        ours = Collator(family, Ask(), None, "decimal")([row])
        text = (
            f"{system}<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{row['prompt']}<|im_end|>\n"
            f"<|im_start|>assistant\n{row['answer']}<|im_end|>"
        )
        theirs = processor(images=row["image"], text=text, return_tensors="pt", return_mm_token_type_ids=True)
        for name in ("input_ids", "mm_token_type_ids", "image_grid_thw", "pixel_values"):
            assert torch.equal(ours[name].double(), theirs[name].double()), name
    assert family.end_id == 151645


@pytest.mark.slow
@pytest.mark.parametrize("size", [(56, 56), (280, 112)])
def test_qwen2_5_vl_is_its_own_processor(shared, tmp_path_factory, size):
    is_its_own_processor(written("qwen2_5_vl_3b", shared, tmp_path_factory), Qwen2_5_VLProcessor, SYSTEM, size)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(56, 56), (500, 112)])
def test_qwen3_vl_is_its_own_processor(shared, tmp_path_factory, size):
    is_its_own_processor(written("qwen3_vl_2b", shared, tmp_path_factory), Qwen3VLProcessor, "", size)


def nano(name, *more):
    config = compose_checked([f"model={name}", *SMALL, *more])
    components = Components.build(config)
    torch.manual_seed(0)
    return components, tune(components.family.load(), components.family, config.tuning)


@pytest.mark.parametrize(
    ("mode", "trained", "adapted"),
    [("tuning=freeze_vision", True, False), ("tuning=lora", True, False), ("tuning=projector", True, False)],
)
def test_deepstack_mergers_are_the_projector(mode, trained, adapted):
    components, model = nano("qwen3_vl_nano", mode)
    named = dict(model.named_parameters())
    mergers = {n: p for n, p in named.items() if "deepstack_merger_list" in n and ".original_module." not in n}
    assert len({n.partition("deepstack_merger_list.")[2][0] for n in mergers}) == 2
    assert all(p.requires_grad == trained for p in mergers.values())
    assert any("lora" in n for n in mergers) == adapted
    tower = [p for n, p in named.items() if Parts(components.family).of(n) == "vision"]
    assert tower
    assert not any(p.requires_grad for p in tower)
    rows = components.task.rows("train")
    batch = components.collator([rows[i] for i in range(2)])
    inputs = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor) and k not in ("positions", "targets")}
    inputs.pop("unmeasured", None)
    model(**inputs).logits[:, -1].sum().backward()  # of an answer, which comes after the picture
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in mergers.items() if "bias" not in n)


@pytest.mark.parametrize("name", ["qwen2_5_vl_nano", "qwen3_vl_nano"])
def test_positions_of_a_picture_come_from_its_grid(name):
    components, model = nano(name)
    batch = components.collator([components.task.rows("train")[0]])
    assert batch["image_grid_thw"].tolist() == [[1, 8, 8]]
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")}
    types = batch["mm_token_type_ids"]
    assert types.sum() == 16
    with torch.no_grad():
        logits = model.eval()(**inputs, mm_token_type_ids=types).logits
        grid = torch.tensor([[1, 4, 16]])  # as many tokens
        other = model(**{**inputs, "image_grid_thw": grid}, mm_token_type_ids=types).logits
    assert (logits - other).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["qwen2_vl_2b", "qwen2_5_vl_3b", "qwen2_5_vl_7b", "qwen3_vl_2b", "qwen3_vl_8b"])
def test_published_processors_make_the_published_tokens(name):
    facts = yaml.safe_load(PUBLISHED.read_text())[name]
    twin = build("model", compose([f"model={name.rpartition('_')[0]}_nano"]).model)
    twin.image_processor = Qwen2VLImageProcessorPil(**facts["processor"])
    picture, _ = twin.picture(Image.new("RGB", (640, 480)))
    assert int(picture["image_grid_thw"].prod()) // 4 == twin.picture_tokens((640, 480)) == facts["picture_tokens"]
    vision = facts["config"]["vision_config"]
    assert picture["pixel_values"].shape[1] == 3 * 2 * vision["patch_size"] ** 2


def test_deepstack_mergers_learn_at_the_projectors_rate():
    config = compose_checked(["model=qwen3_vl_nano", *SMALL, "optim.lr=1e-3", "optim.lr_of.projector=1e-4"])
    family = Components.build(config).family
    model = family.load()
    groups = LearningRates(family, config.optim).groups(model, [])
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    found = {name: rates[id(p)] for name, p in model.named_parameters()}
    assert {name for name, lr in found.items() if lr == 1e-4} == {name for name in found if "merger" in name}
    assert sum("deepstack_merger_list" in name for name in found) == 12
