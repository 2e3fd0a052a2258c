"""Families that cut pictures into tiles: ids and inputs of their processors, pictures of many tiles in one batch."""

import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoTokenizer, InternVLProcessor, LlavaOnevisionProcessor, SmolVLMProcessor
from transformers.models.smolvlm import processing_smolvlm

from ntil.collator import Collator
from ntil.components import Components
from ntil.config.build import build
from ntil.config.compose import compose
from ntil.models.inventory import PUBLISHED
from ntil.models.tuning import Parts, adapted_layers, tune
from ntil.models.vision_cache import VisionCache
from ntil.preflight import compose_checked
from tests.support.families import without_videos
from tests.support.tiny_checkpoints import Ask, ask, words, written

NANO = ["internvl_nano", "smolvlm_nano", "llava_ov_nano"]
SMALL = ["tracker=none", "engine=local", "task=clock", "loss=ntil", "task.source.rows={train:6}", "curriculum=none"]
ANSWERS = ["12:45", "7", "1024.5 and -3", "none", "<box>[[12, 34, 567, 890]]</box>"]
SIZES = [(56, 56), (280, 112), (60, 200)]


def is_its_own_processor(checkpoint, make, text, size):
    """Compare ids and pixels; `text` is what the processor is given, with its own picture token."""
    family = Components.build(compose_checked(words(checkpoint, *SMALL))).family
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    processor = make(family, tokenizer)
    for row in ask(ANSWERS, size):
        row["image"] = Image.effect_noise(size, 90)
        batch = Collator(family, Ask(), None, "decimal")([row])
        asked = text.format(prompt=row["prompt"], answer=row["answer"])
        theirs = processor(images=[row["image"].convert("RGB")], text=[asked], return_tensors="pt")
        assert torch.equal(batch["input_ids"], theirs["input_ids"])
        pixels = theirs["pixel_values"]
        assert torch.equal(batch["pixel_values"].reshape(pixels.shape), pixels)
        length = family.picture_length(size) - 1 + len(family.encode_text(row["prompt"], None, True).prompt_ids)
        assert length == len(family.encode(row["prompt"], None, row["image"]).prompt_ids)
    return family, theirs


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["internvl3_1b", "internvl3_5_1b"])
def test_internvl_is_its_own_processor(shared, tmp_path_factory, name, size):
    def make(family, tokenizer):
        tokenizer.video_token = "<video>"
        return without_videos(InternVLProcessor)(family.image_processor, tokenizer, image_seq_length=4)

    text = "<|im_start|>user\n<IMG_CONTEXT>\n{prompt}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>"
    family, _ = is_its_own_processor(written(name, shared, tmp_path_factory), make, text, size)
    assert (family.end_id, family.tokenizer.pad_token_id) == (151645, 151643)
    boxes = family.tokenizer.convert_tokens_to_ids(["<img>", "<IMG_CONTEXT>", "<ref>", "<box>"])
    first = {"internvl3_1b": 151665, "internvl3_5_1b": 151669}[name]
    assert boxes == [first, first + 2, first + 5, first + 7]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_smolvlm_is_its_own_processor(shared, tmp_path_factory, monkeypatch, size):
    monkeypatch.setattr(processing_smolvlm, "num2words", str)  # counts of a video's frames; there are none

    def make(family, tokenizer):
        return without_videos(SmolVLMProcessor)(family.image_processor, tokenizer, image_seq_len=4)

    text = "<|im_start|>User:<image>{prompt}<end_of_utterance>\nAssistant: {answer}<end_of_utterance>"
    family, _ = is_its_own_processor(written("smolvlm2_256m", shared, tmp_path_factory), make, text, size)
    assert (family.end_id, family.tokenizer.pad_token_id) == (49279, 2)
    assert family.tokenizer.convert_tokens_to_ids(family.image_token) == 49190


@pytest.mark.slow
@pytest.mark.parametrize("size", [*SIZES, (400, 390)])
def test_llava_onevision_is_its_own_processor(shared, tmp_path_factory, size):
    def make(family, tokenizer):
        options = {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}
        return without_videos(LlavaOnevisionProcessor)(family.image_processor, tokenizer, **options)

    text = "<|im_start|>user\n<image>\n{prompt}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>"
    family, theirs = is_its_own_processor(written("llava_ov_0_5b", shared, tmp_path_factory), make, text, size)
    assert theirs["image_sizes"].tolist() == [[size[1], size[0]]]
    assert family.end_id == 151645
    assert family.tokenizer.convert_tokens_to_ids(family.image_token) == 151646


def nano(name, *more):
    config = compose_checked([f"model={name}", *SMALL, *more])
    components = Components.build(config)
    torch.manual_seed(0)
    return components, tune(components.family.load(), components.family, config.tuning).eval(), config


def rows_of(sizes):
    """Rows whose pictures are noise of these sizes."""
    rows = ask([*ANSWERS[:4], "[1, 2, 3, 4]"][: len(sizes)])
    torch.manual_seed(0)
    return [{**row, "image": Image.effect_noise(size, 90)} for row, size in zip(rows, sizes, strict=True)]


def logits_of(model, batch):
    names = ("positions", "targets", "unmeasured")
    inputs = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor) and k not in names}
    return model(**inputs).logits[..., :64]


@pytest.mark.parametrize("name", NANO)
def test_pictures_of_many_tiles_are_in_one_batch_as_alone_with_the_cache_and_without(tmp_path, name):
    components, model, _ = nano(name, "tuning=freeze_vision")
    collator = Collator(components.family, Ask(), components.vocab, "decimal")
    rows = rows_of([(48, 48), (200, 40), (30, 96), (24, 24)])
    batch = collator(rows)
    tiles = [len(collator.encode(row, None).features["pixel_values"]) for row in rows]
    assert len(set(tiles)) > 1
    assert len(batch["pixel_values"]) == sum(tiles)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)
        plain = logits_of(model, batch)
        for row, logits in zip(rows, plain, strict=True):
            alone = logits_of(model, collator([row]))[0]
            torch.testing.assert_close(logits[: len(alone)], alone, atol=1e-4, rtol=1e-4)
        other = logits_of(model, collator([{**row, "image": rows[0]["image"]} for row in rows]))[0]
        torch.testing.assert_close(other[: len(alone)], plain[0, : len(alone)], atol=1e-4, rtol=1e-4)
        for expected_misses in (True, False):
            cache = VisionCache(components.family, model, tmp_path, 10**9)
            torch.testing.assert_close(logits_of(model, batch), plain, atol=1e-4, rtol=1e-4)
            assert (cache.misses > 0) == expected_misses
            hits = cache.hits
            torch.testing.assert_close(logits_of(model, collator(rows[::-1])).flip(0), plain, atol=1e-4, rtol=1e-4)
            assert cache.hits > hits
            cache.close()


@pytest.mark.parametrize("name", NANO)
def test_the_projector_learns_from_kept_features_as_from_pixels(tmp_path, name):
    components, model, _ = nano(name, "tuning=freeze_vision")
    collator = Collator(components.family, Ask(), components.vocab, "decimal")
    batch = collator(rows_of([(48, 48), (30, 96)]))
    gradients = []
    for root in (None, tmp_path, tmp_path):
        cache = VisionCache(components.family, model, root, 10**9) if root else None
        model.zero_grad()
        logits_of(model, batch).square().mean().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        if cache is not None:
            cache.close()
    parts = Parts(components.family)
    assert {parts.of(n) for n in gradients[0]} == {"projector", "language"}
    for other in gradients[1:]:
        for key, gradient in gradients[0].items():
            torch.testing.assert_close(other[key], gradient, atol=1e-6, rtol=1e-3, msg=key)


@pytest.mark.parametrize("name", NANO)
def test_adapters_are_in_the_layers_that_the_family_names(name):
    components, _, config = nano(name, "tuning=lora_all")
    family, parts = components.family, Parts(components.family)
    layers = adapted_layers(family.load(), family, config.tuning)
    for part, names in family.lora_targets.items():
        assert {layer.rpartition(".")[2] for layer in layers if parts.of(layer) == part} == set(names)
    _, model, _ = nano(name, "tuning=lora_all")
    moving = [n for n, p in model.named_parameters() if p.requires_grad]
    assert {parts.of(n) for n in moving if "lora_" not in n} == {"projector"}
    assert not [n for n in moving if "newline" in n]


def test_tiles_follow_in_rows_then_the_whole_view():
    """A picture of four greys: each tile has its own, the view of all has them all."""
    picture = Image.new("L", (48, 48))
    for index, grey in enumerate((20, 90, 160, 230)):
        picture.paste(grey, (index % 2 * 24, index // 2 * 24, index % 2 * 24 + 24, index // 2 * 24 + 24))
    for name in NANO:
        family = build("model", compose([f"model={name}"]).model)
        tiles = family.picture(picture)[0]["pixel_values"].flatten(0, -4)
        whole, tiles = (tiles[0], tiles[1:]) if name == "llava_ov_nano" else (tiles[-1], tiles[:-1])
        means, spread = tiles.mean((1, 2, 3)), tiles.flatten(1).std(1)
        assert len(tiles) == 4
        assert means.tolist() == sorted(means.tolist())
        assert whole.std() > 3 * spread.max()


def test_a_lower_longest_edge_makes_fewer_tiles_and_the_text_of_a_single_one():
    tokens = {}
    for edge in (24, 48, 72):
        family = build("model", compose(["model=smolvlm_nano", f"model.longest_edge={edge}"]).model)
        tokens[edge] = family.picture_tokens((40, 30))
        _, text = family.picture(Image.new("RGB", (40, 30)))
        assert text.count("<global-img>") == 1
        assert text.count("<row_") == tokens[edge] // 4 - 1
    assert tokens == {24: 4, 48: 20, 72: 40}


def test_smaller_grids_of_llava_onevision_are_the_models_too(tmp_path):
    """Of a checkpoint as of a model from scratch: its own config has larger ones."""
    words, picture = ["model=llava_ov_nano"], Image.effect_noise((96, 96), 90)
    family = build("model", compose(words).model)
    assert family.picture_tokens(picture.size) == 16 + 12 * 13  # 16 squares, scaled down to 9
    family.save(family.load(), tmp_path)
    for start in ("null", tmp_path):
        family = build("model", compose([*words, f"model.checkpoint={start}", "model.max_side=2"]).model)
        features, text = family.picture(picture)
        with torch.no_grad():
            (seen,) = family.load().get_image_features(**features, return_dict=True).pooler_output
        assert len(seen) == text.count(family.image_token) == family.picture_tokens(picture.size) == 16 + 8 * 9


@pytest.mark.parametrize(
    ("model", "option", "message"),
    [
        ("smolvlm_nano", "longest_edge=50", r"longest_edge 50 must be a multiple of a tile's 24 pixels, at most 144"),
        ("smolvlm_nano", "longest_edge=168", r"longest_edge 168 must be a multiple of a tile's 24 pixels, at most 144"),
        ("smolvlm_nano", "scale_factor=3", r"whole cells of 18 pixels"),
        ("internvl_nano", "min_tiles=13", r"1 <= model.min_tiles 13 <= model.max_tiles 12 must hold"),
        ("internvl_nano", "image_size=30", r"model.image_size 30 must be an even number of patches of 6 pixels"),
        ("llava_ov_nano", "max_side=-1", r"model.max_side -1 leaves no grid of squares; it must be at least 1"),
        ("llava_ov_nano", "image_size=25", r"model.image_size 25 is no multiple of model.patch_size 6"),
    ],
)
def test_sizes_that_make_no_tiles_are_refused(model, option, message):
    with pytest.raises(ValueError, match=message):
        build("model", compose([f"model={model}", f"model.{option}"]).model)


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("internvl3_1b", "internvl_nano"),
        ("internvl3_5_8b", "internvl_nano"),
        ("smolvlm2_256m", "smolvlm_nano"),
        ("smolvlm2_2_2b", "smolvlm_nano"),
        ("llava_ov_7b", "llava_ov_nano"),
    ],
)
def test_published_processors_make_the_published_tokens(name, twin):
    facts, options = yaml.safe_load(PUBLISHED.read_text())[name], compose([f"model={name}"]).model.options
    family = build("model", compose([f"model={twin}"]).model)
    tower = facts["config"]["vision_config"]
    family.tile, family.side = tower["image_size"], tower["image_size"] // tower["patch_size"]
    family.tile_tokens = (family.side // facts["config"].get("scale_factor", 2)) ** 2
    tiles = {"max_patches": options["max_tiles"]} if "max_tiles" in options else {}
    family.image_processor = type(family.image_processor)(**facts["processor"] | tiles)
    if twin == "llava_ov_nano":
        family.config.image_grid_pinpoints = family.image_processor.image_grid_pinpoints
    picture, text = family.picture(Image.new("RGB", (640, 480)))
    assert picture["pixel_values"].shape[-1] == family.tile
    assert text.count(family.image_token) == family.picture_tokens((640, 480)) == facts["picture_tokens"]


def test_boxes_of_internvl_are_thousandths_of_the_picture_however_it_is_cut():
    row = {"box": (24.0, 16.0, 72.0, 48.0), "width": 96, "height": 64, "id": "1", "image": Image.new("RGB", (96, 64))}
    for tiles in (1, 4, 12):
        task = Components.build(
            compose(["model=internvl_nano", "task=grounding_nano", f"model.max_tiles={tiles}"])
        ).task
        assert task.answer(row) == "<box>[[250, 250, 750, 750]]</box>"
        assert task.parse(task.answer(row), row) == pytest.approx(row["box"])
        text = "<ref>the red one</ref><box>[[250, 250, 750, 750]]</box>"
        assert task.parse(text, row) == pytest.approx(row["box"])
