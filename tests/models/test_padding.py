"""Boxes follow the padding: what the answer says is where the model's own input has it."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ntil.components import Components
from ntil.preflight import compose_checked
from tasks.answers.coordinates import FORMATS

WORDS = ["task=grounding_nano", "loss=ntil", "tracker=none"]


@pytest.mark.parametrize("size", [(96, 48), (40, 90), (64, 64)])
@pytest.mark.parametrize("model", ["llava_nano", "yi_vl_nano", "paligemma_nano"])
def test_the_answer_points_at_the_box_in_the_input(model, size):
    components = Components.build(compose_checked([*WORDS, f"model={model}"]))
    box = [size[0] * 0.25, size[1] * 0.5, size[0] * 0.5, size[1]]
    image = Image.new("RGB", size, "black")
    ImageDraw.Draw(image).rectangle([box[0], box[1], box[2] - 1, box[3] - 1], fill="white")
    row = {"box": box, "width": size[0], "height": size[1], "image": image}
    pixels = components.family.picture(image)[0]["pixel_values"][0].mean(0).numpy()
    rows, columns = np.nonzero(pixels > pixels.max() - 1)
    # Read as if the model's input were a picture of its own, without any frame.
    seen = FORMATS[components.family.coords].parse_box(components.task.answer(row), pixels.shape[::-1])
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert found == pytest.approx(seen, abs=1.5)
    assert components.task.parse(components.task.answer(row), row) == pytest.approx(box, abs=0.1)
