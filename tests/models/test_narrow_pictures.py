"""Pictures a hundred times as long as they are wide: the tower sees the padded square, which is never made."""

import numpy as np
import pytest
import torch
from PIL import Image

from ntil.config.build import build
from ntil.config.compose import compose
from ntil.models import llava
from tests.support.families import VISION_NANO

STEP = 1 / 255 / 0.26  # one value of 256 after the normalisation


def noise(width, height):
    values = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.fixture(scope="module", params=["llava_nano", "yi_vl_nano"])
def family(request):
    return build("model", compose([f"model={request.param}"]).model)


@pytest.mark.parametrize("size", [(900, 300), (901, 30), (700, 1), (300, 900), (30, 901), (1, 700)])
def test_scaled_before_padding_is_padded_before_scaling(family, size, monkeypatch):
    square = family.picture(noise(*size))[0]["pixel_values"]
    monkeypatch.setattr(llava, "LARGE_SQUARE", 0)
    narrow = family.picture(noise(*size))[0]["pixel_values"]
    if size[0] > size[1]:
        assert torch.equal(narrow, square)
    else:
        assert 0 < (narrow - square).abs().max() < 1.1 * STEP


def test_checkpoints_processors_scale_the_short_side(family, monkeypatch):
    """Published ones say `shortest_edge` and crop the centre; one that scales to no square keeps the padded picture."""
    monkeypatch.setattr(family.image_processor, "size", {"shortest_edge": 48})
    assert family._scaled_side() == 48
    monkeypatch.setattr(family.image_processor, "size", {"height": 48, "width": 96})
    assert family._scaled_side() is None


@pytest.mark.parametrize("size", [(30000, 300), (300, 30000)])
def test_memory_is_near_the_pictures(family, size, monkeypatch):
    picture, sizes, new = noise(*size), [], Image.new

    def recording(mode, size, *more):
        sizes.append(size)
        return new(mode, size, *more)

    monkeypatch.setattr(Image, "new", recording)
    family.picture(picture)
    assert max(w * h for w, h in sizes) < size[0] * size[1]


def test_ordinary_pictures_are_padded_as_ever(family, monkeypatch):
    monkeypatch.setattr(family, "_scaled_square", None)
    for size in ((4000, 3000), (1080, 2400), (2000, 100)):
        family.picture(noise(*size))


@pytest.mark.parametrize("size", [(60, 48), (1, 1), (2000, 10), (10, 2000), (900, 700), (3000, 15)])
@pytest.mark.parametrize("name", VISION_NANO)
def test_the_tokens_of_a_picture_are_known_by_its_size(name, size):
    family = build("model", compose([f"model={name}"]).model)
    assert family.picture_tokens(size) == family.picture(noise(*size))[1].count(family.image_token)


@pytest.mark.parametrize("size", [(3000, 14), (14, 3000)])
@pytest.mark.parametrize("name", ["qwen2_vl_nano", "qwen2_5_vl_nano", "qwen3_vl_nano"])
def test_qwen_refuses_what_its_preprocessing_refuses(name, size):
    family = build("model", compose([f"model={name}"]).model)
    for refused in (lambda: family.picture_tokens(size), lambda: family.picture(noise(*size))):
        with pytest.raises(ValueError, match=f"up to 200 times, and this one is {size[0]} x {size[1]}; crop it"):
            refused()
