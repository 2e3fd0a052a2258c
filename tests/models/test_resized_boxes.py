"""Boxes in pixels are those of the picture that a family's processor makes: other bounds, other boxes."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ntil.commands.data import seen_by
from ntil.components import Components, build_task
from ntil.config.compose import compose

SIZE = (96, 64)
ROW: dict[str, Any] = {
    "box": (24.0, 16.0, 72.0, 48.0),
    "width": SIZE[0],
    "height": SIZE[1],
    "expression": "it",
    "id": "1",
}
ROW["image"] = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*SIZE[::-1], 3), dtype=np.uint8))
# Of pictures of any shape: bounds of their pixels. Of squares: sides, of the padded or stretched picture.
CASES = [
    ("qwen2_vl_nano", ["model.min_pixels=784", "model.max_pixels=6400"]),
    ("qwen2_vl_nano", ["model.min_pixels=784", "model.max_pixels=3000"]),
    ("qwen2_vl_nano", ["model.min_pixels=30000", "model.max_pixels=60000"]),
    ("qwen2_5_vl_nano", ["model.min_pixels=2500", "model.max_pixels=5000"]),
    ("qwen2_5_vl_nano", ["model.min_pixels=20000", "model.max_pixels=30000"]),
    ("qwen3_vl_nano", ["model.min_pixels=12000", "model.max_pixels=20000"]),
    ("qwen3_vl_nano", ["model.min_pixels=1000", "model.max_pixels=4000"]),
    ("internvl_nano", []),
    ("internvl_nano", ["model.max_tiles=4"]),
    ("smolvlm_nano", []),
    ("smolvlm_nano", ["model.longest_edge=144"]),
    ("llava_ov_nano", ["model.image_size=30"]),
    ("llava_ov_nano", ["model.image_size=36", "model.max_side=3"]),
    ("paligemma_nano", ["model.image_size=64", "model.patch_size=16"]),
    ("paligemma_nano", ["model.image_size=128", "model.patch_size=16"]),
    ("paligemma2_nano", ["model.image_size=96", "model.patch_size=16"]),
    ("gemma3_nano", ["model.image_size=96"]),
    ("llava_nano", ["model.image_size=64", "model.patch_size=16"]),
    ("llava_nano", ["model.image_size=128", "model.patch_size=16"]),
    ("yi_vl_nano", ["model.image_size=72", "model.patch_size=12"]),
]


def build(model, options):
    words = [f"model={model}", "model.coords=json_pixels", "task=grounding_nano", *options]
    config = compose(words)
    return config, Components.build(config)


def pixels_of(family, image):
    """Width and height of the picture that the model is given."""
    features, _ = family.picture(image)
    if "image_grid_thw" not in features:
        return pixels_of_tiles(features["pixel_values"].flatten(0, -4))
    _, high, wide = features["image_grid_thw"][0].tolist()
    return wide * family.image_processor.patch_size, high * family.image_processor.patch_size


def pixels_of_tiles(tiles):
    """Width and height of the picture that was cut; the layout of its tiles is the one that looks like the view"""
    side, layouts = tiles.shape[-1], []
    if len(tiles) == 1:
        return side, side
    for view, rest in ((tiles[-1], tiles[:-1]), (tiles[0], tiles[1:])):
        for rows in (r for r in range(1, len(rest) + 1) if len(rest) % r == 0):
            joined = torch.cat([torch.cat(list(row), -1) for row in rest.split(len(rest) // rows)], -2)
            colour = joined != joined[:, :1, :1]  # where a picture is padded, the corner is padding
            down, across = (colour.any(0).any(d).nonzero().flatten() for d in (1, 0))
            seen = joined[:, down[0] : down[-1] + 1, across[0] : across[-1] + 1]
            small = torch.nn.functional.interpolate(seen[None], (side, side), mode="bicubic", antialias=True)[0]
            layouts.append(((small - view).abs().mean().item(), seen.shape[:0:-1]))
    return min(layouts)[1]


@pytest.mark.parametrize(("model", "options"), CASES)
def test_boxes_follow_the_processor(model, options):
    config, components = build(model, options)
    family, task = components.family, components.task
    wide, high = family.resized(SIZE)
    assert (wide, high) == pixels_of(family, ROW["image"])
    frame = family.frame(SIZE)
    numbers = [round((v + frame[2 + i % 2]) / frame[i % 2] * (wide, high)[i % 2]) for i, v in enumerate(ROW["box"])]
    assert task.answer(ROW) == f'{{"bbox_2d": {numbers}}}'
    assert task.parse(task.answer(ROW), ROW) == pytest.approx(ROW["box"], abs=max(SIZE) / min(wide, high))
    # The task that is built without its family asks the same processor.
    assert build_task(config).answer(ROW) == task.answer(ROW)


@pytest.mark.slow
def test_bounds_change_the_answer():
    answers = {(model, build(model, options)[1].task.answer(ROW)) for model, options in CASES}
    assert len(answers) == len(CASES)


def test_a_sheet_shows_no_more_than_the_model_sees():
    family = build("qwen2_vl_nano", ["model.min_pixels=144", "model.max_pixels=576"])[1].family
    wide, high = family.resized(SIZE)
    seen = seen_by(family, ROW)["image"]
    assert seen.size == SIZE
    assert wide < SIZE[0]
    again = seen.resize((wide, high), Image.Resampling.BICUBIC)
    first = ROW["image"].resize((wide, high), Image.Resampling.BICUBIC)
    # The same to the model, and less to the eye.
    assert np.abs(np.asarray(again, dtype=float) - np.asarray(first)).mean() < 8
    assert np.abs(np.asarray(seen, dtype=float) - np.asarray(ROW["image"])).mean() > 30
    assert seen_by(None, ROW) is ROW


def test_a_loss_sees_the_four_numbers_of_a_json_box(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    words = ["model=qwen2_vl_nano", "model.coords=json1000", "task=grounding_nano", "loss=ntil"]
    components = Components.build(compose([*words, "task.source.rows={train:6,validation:2,test:2}"]))
    rows = components.task.rows("train")
    batch = components.collator([rows[i] for i in range(6)])
    assert batch["numbers"] == 6 * 4
    values = batch["spans"].value[batch["spans"].is_number].reshape(6, 4)
    for row, numbers in zip(rows, values, strict=True):
        assert components.task.answer(row) == f'{{"bbox_2d": {[int(v) for v in numbers]}}}'
    # The twos of the keys are supervised as words.
    assert len(batch["unmeasured"]) == 6
    two = components.family.tokenizer.convert_tokens_to_ids("2")
    assert batch["targets"][batch["unmeasured"]].tolist() == [two] * 6
    assert components.coverage([rows[i] for i in range(6)]) == pytest.approx(batch["digits"] / len(batch["targets"]))


def test_digit_statistics_leave_the_same_digits_out():
    from ntil import NumberVocab
    from ntil.evaluation.digits import DigitTally

    vocab = NumberVocab(digit_ids=range(10))
    labels = torch.tensor([2, 11, 1, 5, 12])
    logits = torch.nn.functional.one_hot(labels, 13).float() * 50
    counts = []
    for hidden in ((), [0]):
        statistics = DigitTally(vocab)
        statistics.add(logits, labels, hidden)
        counts.append(statistics.sums()["totals"][:1] + statistics.sums()["totals"][3:4])
    assert counts == [[3, 2], [2, 1]]
