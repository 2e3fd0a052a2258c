"""The full-scale configs on tiny checkpoints in the releases' own layouts, with the real tokenizers."""

import json
import shutil

import pytest
import torch
from PIL import Image
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    LlavaProcessor,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessorPil,
)

from benchmarks.vision_checkpoints import YI_TOWER
from ntil.collator import Collator
from ntil.components import Components
from ntil.evaluation.generate import generate
from ntil.models.head import SupervisedHead
from ntil.models.pretrained import CheckpointError
from ntil.models.yi_vl import SYSTEM
from ntil.preflight import compose_checked
from ntil.train.trainer import build_trainer
from tests.support.tiny_checkpoints import Ask, ask, words, written

TASKS = ["clock", "grounding_nano"]
SMALL = ["tracker=none", "engine=local", "task.source.rows={train:6}", "evaluation.every_steps=0", "curriculum=none"]
ANSWERS = ["12:45", "7", "1024.5 and -3", "none"]


def components_of(checkpoint, task="clock", *more) -> Components:
    return Components.build(compose_checked(words(checkpoint, f"task={task}", "loss=ntil", *SMALL, *more)))


@pytest.fixture(scope="module")
def built(checkpoint):
    return checkpoint, {task: components_of(checkpoint, task) for task in TASKS}


def inputs_of(batch):
    names = ("positions", "targets")
    return {k: v for k, v in batch.items() if isinstance(v, torch.Tensor) and k not in names}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_numbers_are_seen_with_the_real_tokenizer(built, task):
    """Every digit of the answers (or every <loc> bin) is one token that the loss sees."""
    _, every = built
    components = every[task]
    rows = list(components.task.rows("train"))
    spans = Collator(components.family, components.task, components.vocab, "decimal")(rows)["spans"]
    answers = [components.task.answer(row) for row in rows]
    numbers: list[float]
    if components.vocab.base == 1024:
        assert answers[0].count("<loc") == 4
        assert task == "grounding_nano"
        assert int(spans.is_digit.sum()) == 4 * len(rows)
        numbers = [int(a[i * 9 + 4 : i * 9 + 8]) for a in answers for i in range(4)]
    else:
        answers = [a.replace("bbox_2d", "") for a in answers]  # a key's digit is no number
        assert int(spans.is_digit.sum()) == sum(c.isdigit() for a in answers for c in a)
        cut = "".join(c if c.isdigit() or c == "." else " " for a in answers for c in f"{a} ")
        numbers = [float(n) for n in cut.split()]
    assert spans.value[spans.is_number].tolist() == pytest.approx(numbers)
    json_boxes = task == "grounding_nano" and components.family.coords.startswith("json")
    assert components.coverage(rows) >= (0.3 if json_boxes else 0.5)  # keys and brackets are words


@pytest.mark.slow
def test_labels_decode_to_the_answer(built):
    _, every = built
    for components in every.values():
        for row in components.task.rows("train"):
            encoded = components.collator.encode(row, components.task.answer(row))
            assert components.family.decode(encoded.answer_ids).strip() == components.task.answer(row)
            assert encoded.answer_ids[-1] == components.family.end_id


@pytest.mark.slow
def test_supervised_logits_and_generation(built):
    _, every = built
    components = every["clock"]
    model = components.family.load().eval()
    collator = Collator(components.family, Ask(), components.vocab, "decimal")
    rows = ask(ANSWERS, (70, 56))
    batch = collator(rows)
    with torch.no_grad():
        full = model(**inputs_of(batch)).logits
        picked = SupervisedHead(model).logits(model, inputs_of(batch), batch["positions"])
        alone = [collator([row]) for row in rows]
        single = torch.cat([model(**inputs_of(b)).logits[0, b["positions"]] for b in alone])
    torch.testing.assert_close(picked, full.reshape(-1, full.shape[-1])[batch["positions"]], atol=1e-5, rtol=0)
    torch.testing.assert_close(picked, single, atol=1e-5, rtol=0)
    assert generate(model, collator, rows) == [generate(model, collator, [row])[0] for row in rows]


@pytest.mark.slow
def test_a_step_of_training_then_saved_and_loaded_again(built, tmp_path):
    checkpoint, every = built
    components = every["grounding_nano"]
    more = ["optim.steps=2", "optim.batch_size=3", "optim.warmup=0", "save_every=0"]
    config = compose_checked(words(checkpoint, "task=grounding_nano", "loss=ntil", *SMALL, *more))
    rows = components.task.rows("train")
    model = components.family.load()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = build_trainer(config, components, model, rows, tmp_path / "checkpoints")
    trainer.train()
    still = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    # What comes after the layer that is read (CLIP's last, its last norm) can't move.
    assert [n for n in still if "vision_tower" not in n] == []
    components.family.save(model, tmp_path / "model")
    batch = components.collator([rows[i] for i in range(3)])
    again = Components.build(
        compose_checked(
            [f"model={checkpoint.config}", f"model.checkpoint={tmp_path / 'model'}", "model.dtype=float32", *SMALL]
        )
    )
    with torch.no_grad():
        wanted = model.eval()(**inputs_of(batch)).logits
        for loaded in (components.family.load(tmp_path / "model"), again.family.load()):
            torch.testing.assert_close(loaded.eval()(**inputs_of(batch)).logits, wanted, atol=0, rtol=0)
    assert again.family.encode("How many?", "12", rows[0]["image"]).prompt_ids == (
        components.family.encode("How many?", "12", rows[0]["image"]).prompt_ids
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paligemma_3b", "paligemma2_3b"])
def test_paligemma_is_its_own_processor(shared, tmp_path_factory, name):
    checkpoint = written(name, shared, tmp_path_factory)
    family = components_of(checkpoint).family
    images = SiglipImageProcessorPil.from_pretrained(checkpoint.folder, image_seq_length=16)
    processor = PaliGemmaProcessor(images, AutoTokenizer.from_pretrained(checkpoint.folder))
    rows = ask([*ANSWERS, "<loc0012><loc0034><loc1023><loc0000>"], (90, 50))
    batch = Collator(family, Ask(), None, "decimal")(rows)
    theirs = processor(
        images=[row["image"] for row in rows],
        text=[f"<image>answer en {row['prompt']}" for row in rows],
        suffix=[row["answer"] for row in rows],
        padding="longest",
        padding_side="right",
        return_tensors="pt",
    )
    assert torch.equal(batch["input_ids"], theirs["input_ids"])
    assert torch.equal(batch["attention_mask"], theirs["attention_mask"])
    shown = batch["attention_mask"].bool()
    assert torch.equal(batch["token_type_ids"][shown], theirs["token_type_ids"][shown])
    torch.testing.assert_close(batch["pixel_values"], theirs["pixel_values"])
    labels = torch.full_like(batch["input_ids"], -100)
    labels.view(-1)[batch["positions"] + 1] = batch["targets"]
    assert torch.equal(labels[shown], theirs["labels"][shown])


@pytest.mark.slow
def test_llava_is_its_own_processor(shared, tmp_path_factory):
    checkpoint = written("llava15_7b", shared, tmp_path_factory)
    family = components_of(checkpoint).family
    processor = LlavaProcessor(
        CLIPImageProcessorPil.from_pretrained(checkpoint.folder),
        AutoTokenizer.from_pretrained(checkpoint.folder),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    for row in ask([*ANSWERS, "[0.123, 0.456, 0.789, 1.000]"]):
        ours = family.encode(row["prompt"], row["answer"], row["image"])
        text = f"USER: <image>\n{row['prompt']} ASSISTANT: {row['answer']}</s>"
        theirs = processor(images=row["image"], text=text, return_tensors="pt")
        assert ours.prompt_ids + ours.answer_ids == theirs["input_ids"][0].tolist()
        torch.testing.assert_close(ours.features["pixel_values"], theirs["pixel_values"])


@pytest.mark.slow
def test_yi_vl_is_the_releases_own_way(shared, tmp_path_factory):
    """Text before and after the picture is tokenised apart, as the release does, by the tokenizer file itself."""
    checkpoint = written("yi_vl_6b", shared, tmp_path_factory)
    family = components_of(checkpoint).family
    raw = PreTrainedTokenizerFast(tokenizer_file=str(shared / "assets" / "tokenizers" / "yi" / "tokenizer.json"))
    for row in ask([*ANSWERS, "[0.123, 0.456, 0.789, 1.000]"]):
        ours = family.encode(row["prompt"], row["answer"], row["image"])
        conversation = (
            f"{SYSTEM}\n\n### Human: <image_placeholder>\n{row['prompt']}\n### Assistant: {row['answer']}\n###"
        )
        before, after = (raw(part).input_ids for part in conversation.split("<image_placeholder>"))
        image = family.config.image_token_id
        assert ours.prompt_ids + ours.answer_ids == before + [image] * 16 + after
        assert image not in before + after
    assert raw.convert_ids_to_tokens([family.end_id]) == ["###"]


def by_hand(row, cells):
    """The chat template of Qwen2-VL, written out."""
    return (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n<|vision_start|>{'<|image_pad|>' * cells}<|vision_end|>{row['prompt']}<|im_end|>\n"
        f"<|im_start|>assistant\n{row['answer']}<|im_end|>"
    )


QWEN_ANSWERS = [*ANSWERS, "<|box_start|>(12,34),(567,1000)<|box_end|>"]


@pytest.mark.slow
@pytest.mark.parametrize(("size", "cells"), [((56, 56), 4), ((280, 112), 40), ((100, 300), 44)])
def test_qwen2_vl_is_its_chat_template(shared, tmp_path_factory, size, cells):
    checkpoint = written("qwen2_vl_2b", shared, tmp_path_factory)
    family = components_of(checkpoint, "clock", "model.min_pixels=3136").family
    raw = PreTrainedTokenizerFast(tokenizer_file=str(shared / "assets" / "tokenizers" / "qwen2_vl" / "tokenizer.json"))
    rows = ask(QWEN_ANSWERS, size)
    for row in rows:
        ours = family.encode(row["prompt"], row["answer"], row["image"])
        assert ours.prompt_ids + ours.answer_ids == raw(by_hand(row, cells)).input_ids
        assert int(ours.features["image_grid_thw"].prod()) == 4 * cells == len(ours.features["pixel_values"])
    batch = Collator(family, Ask(), None, "decimal")(rows)
    assert torch.equal(batch["mm_token_type_ids"] == 1, batch["input_ids"] == 151655)


@pytest.mark.slow
def test_qwen2_vl_is_its_own_processor(shared, tmp_path_factory):
    pytest.importorskip("torchvision", reason="Qwen2VLProcessor can't be built without torchvision")
    from transformers import Qwen2VLImageProcessorPil, Qwen2VLProcessor, Qwen2VLVideoProcessor

    checkpoint = written("qwen2_vl_2b", shared, tmp_path_factory)
    family = components_of(checkpoint, "clock", "model.min_pixels=3136").family
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessorPil.from_pretrained(checkpoint.folder),
        AutoTokenizer.from_pretrained(checkpoint.folder),
        Qwen2VLVideoProcessor(),
    )
    for row in ask(QWEN_ANSWERS, (280, 112)):
        ours = Collator(family, Ask(), None, "decimal")([row])
        theirs = processor(images=row["image"], text=by_hand(row, 1), return_tensors="pt")
        for name in ("input_ids", "mm_token_type_ids", "image_grid_thw", "pixel_values"):
            assert torch.equal(ours[name].double(), theirs[name].double()), name


@pytest.mark.slow
def test_qwen2_vl_keeps_to_its_pixels(shared, tmp_path_factory):
    checkpoint = written("qwen2_vl_2b", shared, tmp_path_factory)
    family = components_of(checkpoint, "clock", "model.min_pixels=12544", "model.max_pixels=50176").family
    for size in ((28, 28), (60, 400), (1000, 900)):
        grid = family.picture(Image.new("RGB", size))[0]["image_grid_thw"]
        assert 12544 <= int(grid.prod()) * 14**2 <= 50176
    with pytest.raises(ValueError, match=r"min_pixels 12544 <= model\.max_pixels 784 must hold"):
        components_of(checkpoint, "clock", "model.min_pixels=12544", "model.max_pixels=784")


@pytest.mark.slow
def test_a_checkpoint_of_another_family_is_refused(checkpoint, shared, tmp_path_factory):
    other = "qwen2_vl_2b" if checkpoint.config.startswith("paligemma") else "paligemma_3b"
    wrong = written(other, shared, tmp_path_factory)
    with pytest.raises(CheckpointError, match=r"take the config of its own family|isn't Yi-VL's"):
        Components.build(compose_checked([f"model={checkpoint.config}", f"model.checkpoint={wrong.folder}", *SMALL]))


@pytest.mark.slow
def test_yi_vl_weights_that_are_missing_are_named(shared, tmp_path_factory, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(written("yi_vl_6b", shared, tmp_path_factory).folder, folder)
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    del weights["model.mm_projector.3.weight"]
    torch.save(weights, folder / "pytorch_model.bin")
    family = Components.build(compose_checked(["model=yi_vl_6b", f"model.checkpoint={folder}", *SMALL])).family
    with pytest.raises(
        CheckpointError, match=r"1 weight of .* is missing \(the first is model\.mm_projector\.3\.weight\)"
    ):
        family.load()


@pytest.mark.slow
def test_yi_vl_is_saved_in_the_releases_layout(shared, tmp_path_factory, tmp_path):
    from safetensors.torch import load_file

    checkpoint = written("yi_vl_6b", shared, tmp_path_factory)
    family = components_of(checkpoint).family
    family.save(family.load(), tmp_path)
    first = torch.load(checkpoint.folder / "pytorch_model.bin", weights_only=True)
    second = load_file(tmp_path / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(
        (checkpoint.folder / "config.json").read_text()
    )
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= {
        path.name for path in (tmp_path / YI_TOWER).iterdir()
    }
