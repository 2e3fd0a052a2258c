"""Pictures of every mode come out as a viewer shows them, and those that need nothing as Pillow makes them."""

import numpy as np
import pytest
from PIL import Image

from data.common.errors import InvalidData
from data.common.images import check_bytes, check_picture
from data.common.rgb import rgb

NOISE = np.random.default_rng(0).integers(0, 256, (8, 6, 4), dtype=np.uint8)
OPAQUE = np.where(np.arange(4) == 3, 255, NOISE).astype(np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr", "HSV"])
def test_plain_pictures_stay_as_they_are_bit_for_bit(mode):
    picture = Image.fromarray(NOISE[..., :3]).convert(mode)
    assert rgb(picture).mode == "RGB"
    assert rgb(picture).tobytes() == picture.convert("RGB").tobytes()


def test_opaque_alpha_changes_nothing():
    assert rgb(Image.fromarray(OPAQUE)).tobytes() == OPAQUE[..., :3].tobytes()


def palette_with_a_hole():
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([0, 0, 0, 0, 0, 0])
    picture.putpixel((1, 1), 1)
    picture.info["transparency"] = 0
    return picture


def ink(mode, nothing, black):
    picture = Image.new(mode, (4, 4), nothing)
    picture.putpixel((1, 1), black)
    return picture


def colour_key():
    picture = ink("RGB", (1, 2, 3), (0, 0, 0))
    picture.info["transparency"] = (1, 2, 3)
    return picture


@pytest.mark.parametrize(
    "picture",
    [ink("RGBA", (0, 0, 0, 0), (0, 0, 0, 255)), ink("LA", (0, 0), (0, 255)), palette_with_a_hole(), colour_key()],
    ids=["RGBA", "LA", "P", "RGB"],
)
def test_ink_on_nothing_is_ink_on_white(picture):
    shown = np.asarray(rgb(picture))
    assert shown[1, 1].tolist() == [0, 0, 0]
    assert (np.delete(shown.reshape(-1, 3), 5, axis=0) == 255).all()


def test_half_transparent_is_half_white():
    assert rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 128))).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("kind", [np.dtype("<u2"), np.dtype(">u2"), np.dtype("i4")])
def test_16_bits_of_grey_become_8(kind):
    picture = Image.fromarray(np.arange(0, 65536, 257, dtype=kind)[None])
    assert np.asarray(rgb(picture))[0, :, 0].tolist() == list(range(256))


def test_a_16_bit_file(tmp_path):
    Image.fromarray(np.array([[0, 0x8080, 0xFFFF]], dtype=np.uint16)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert np.asarray(rgb(picture))[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]


@pytest.mark.parametrize("values", [np.array([[0.5]], dtype=np.float32), np.array([[70000]], dtype=np.int32)])
def test_what_has_no_known_range_is_refused(values):
    with pytest.raises(ValueError, match=r"floating-point|from 70000 to 70000, beyond 16 bits"):
        rgb(Image.fromarray(values))


def test_floating_point_files_are_refused_on_reading(tmp_path):
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InvalidData, match="here, field image: the picture holds floating-point"):
        check_picture(tmp_path / "a.tif", "here")
    with pytest.raises(InvalidData, match="here, field image: the picture holds floating-point"):
        check_bytes((tmp_path / "a.tif").read_bytes(), "here")
