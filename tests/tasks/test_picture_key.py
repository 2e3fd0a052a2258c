"""What tells pictures apart: rows of one picture have one key, whether it lies in a file or in the table."""

from typing import Any

from datasets import Dataset, Features, Image, Value
from PIL import Image as PILImage

from data.common.rows import Row, undecoded
from tasks.arithmetic import Arithmetic
from tasks.base import Task


def keys(task: Task, pictures: list[Any]) -> list[str | None]:
    rows = {"id": [str(i) for i in range(len(pictures))], "image": pictures}
    stored = undecoded(Dataset.from_dict(rows, Features({"id": Value("string"), "image": Image()})))
    return [task.picture_key(row) for row in stored]


def test_one_picture_one_key(tmp_path):
    for name, colour in (("a", "red"), ("b", "blue")):
        PILImage.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    task = object.__new__(Arithmetic)
    a, b = str(tmp_path / "a.png"), str(tmp_path / "b.png")
    by_path = keys(task, [a, b, a, None])
    assert by_path[0] == by_path[2] != by_path[1]
    assert by_path[3] is None
    red, blue = (PILImage.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    by_bytes = keys(task, [red, blue, red])
    assert by_bytes[0] == by_bytes[2] != by_bytes[1]


def test_nothing_is_known_of_a_picture_that_the_task_makes():
    class Cropped(Arithmetic):
        def picture(self, row: Row) -> PILImage.Image | None:
            return None

    assert keys(object.__new__(Cropped), [PILImage.new("RGB", (8, 8))]) == [None]
