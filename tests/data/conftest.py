"""Folders that several readers' tests need."""

import pytest
from PIL import Image


@pytest.fixture
def walls(tmp_path):
    """A folder of three photographs of one colour, one for each split."""
    folder = tmp_path / "walls"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (80, 60), (1, 254, 3)).save(folder / f"wall{number}.png")
    return folder
