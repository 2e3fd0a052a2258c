"""Pictures of examples: text stays inside, whatever its letters are."""

import numpy as np
import pytest
from PIL import ImageFont

from tasks.drawing import text_picture, wrapped

FONT = ImageFont.load_default(size=14)


@pytest.mark.parametrize(
    "text", ["Mia has 9 crates with 8 books each. How many books does Mia have now?", "W" * 70, "two\nlines", "i " * 90]
)
def test_lines_are_no_wider_than_asked_for_and_nothing_is_lost(text):
    lines = wrapped(text, FONT, 184)
    assert max(map(FONT.getlength, lines)) <= 184
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_a_text_of_wide_letters_ends_before_the_edge():
    ink = np.asarray(text_picture("How many WWW books does WWW have now? " * 2).convert("L")) < 128
    assert ink.any()
    assert not ink[:, -4:].any()


def test_no_text_is_no_line():
    assert wrapped("", FONT, 184) == []
