"""A picture is read and processed once a micro-batch."""

import numpy as np

from benchmarks.packing_checks import SCENES
from ntil.components import Components
from ntil.config.compose import compose
from ntil.config.schema import PackingConfig
from ntil.packing.collator import PackedCollator
from ntil.packing.rows import SharedPictures


def test_rows_fetched_together_hold_one_object_a_picture(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    components = Components.build(compose(["model=llava_nano", *SCENES]))
    rows = components.task.rows("train")
    shared = SharedPictures(rows, components.task)
    fetched = shared.__getitems__([0, 4, 1, 5])
    assert fetched[0]["image"] is fetched[2]["image"]
    assert fetched[1]["image"] is fetched[3]["image"]
    assert fetched[0]["image"] is not fetched[1]["image"]
    assert len(shared) == len(rows)
    for row, index in zip(fetched, [0, 4, 1, 5], strict=True):
        plain = rows[index]
        assert np.array_equal(np.asarray(row.pop("image")), np.asarray(plain.pop("image")))
        assert row == plain
    assert shared[3]["id"] == rows[3]["id"]


def test_a_picture_is_processed_once(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    components = Components.build(compose(["model=llava_nano", *SCENES]))
    family, processed = components.family, []
    process = family.picture

    def noted(image):
        processed.append(image.size)
        return process(image)

    monkeypatch.setattr(family, "picture", noted)
    collator = PackedCollator(components.collator, PackingConfig("pictures"))
    rows = SharedPictures(components.task.rows("train"), components.task).__getitems__([0, 1, 2, 3, 4, 5])
    batch = collator(rows)
    assert len(processed) == 2
    assert len(batch["pixel_values"]) == 2
    collator(rows[:4])
    assert len(processed) == 3  # nothing of another micro-batch is kept
