"""What a rehearsal takes of a run: its config with few steps, the longest rows, drawn rows where data isn't here."""

import pytest

from data.grounding.rendered import RenderedScenes
from ntil.components import Components
from ntil.config.build import build
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.evaluation.row_check import SplitCheck
from ntil.rehearsal.drawn import FEWEST, with_drawn_rows
from ntil.rehearsal.prepare import SplitRows, longest_rows, rehearsal_config, rows_needed


def test_the_longest_rows_are_taken_from_the_longest_on_again():
    check = SplitCheck(rows=5, tokens={10: 3, 30: 1, 20: 1}, answer_tokens={4: 5}, longest_rows=[3, 1, 0, 2, 4])
    rows = SplitRows.of(check, 7)
    assert rows.indices == [3, 1, 0, 2, 4, 3, 1]
    assert rows.longest == 30
    assert rows.mean == 80 / 5
    assert rows.taken == (30 + 20 + 10 + 10 + 10 + 30 + 20) / 7
    assert rows.answer == 4


def test_rows_are_the_longest_of_the_real_split(monkeypatch, tmp_path):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    words = ["model=llava_nano", "task=text_detection_nano", "task.source.rows={train:60,validation:20,test:20}"]
    config = compose([*words, "optim.batch_size=4", "evaluation.batch_size=5", "evaluation.validation_rows=10"])
    components = Components.build(config)
    chosen = longest_rows(config, components, 3)
    assert {name: len(split.indices) for name, split in chosen.items()} == {"train": 12, "validation": 5, "test": 5}
    rows = components.task.rows("train")
    lengths = [len(components.collator.encode(row, components.task.answer(row)).prompt_ids) for row in rows]
    lengths = [
        length + len(components.collator.encode(row, components.task.answer(row)).answer_ids)
        for length, row in zip(lengths, rows, strict=True)
    ]
    taken = sorted((lengths[i] for i in chosen["train"].indices), reverse=True)
    assert taken == sorted(lengths, reverse=True)[:12]
    assert chosen["train"].longest == max(lengths)
    assert chosen["train"].mean == pytest.approx(sum(lengths) / len(lengths))
    # Validation during training is of the first rows alone.
    assert max(chosen["validation"].indices) < 10


def test_a_rehearsal_has_few_steps_and_its_own_folder(tmp_path):
    config = compose(["model=qwen2_vl_2b", "task=refcoco", "optim.epochs=2", "tracker=all"])
    short = rehearsal_config(config, tmp_path, 3, cache_features=False)
    assert short.optim.steps_for(None) == 3
    assert short.evaluation.every_steps == 3
    assert (short.runs, short.tracker.kinds, short.save_every, short.vision_cache_gb) == (str(tmp_path), [], 0, 0.0)
    assert short.engine == config.engine
    assert short.optim.batch_size == config.optim.batch_size


def test_rows_needed_are_those_of_the_steps_and_one_batch_a_rank():
    words = ["model=llava_nano", "task=clock", "optim.batch_size=6", "engine.processes=2", "engine.device=cpu"]
    config = compose([*words, "evaluation.batch_size=5", "evaluation.validation_rows=7"])
    assert rows_needed(config, 4) == {"train": 24, "validation": 7, "test": 10}
    assert rows_needed(compose([*words, "evaluation.every_steps=0", "evaluation.batch_size=5"]), 4) == {
        "train": 24,
        "test": 10,
    }


def test_drawn_rows_take_the_place_of_the_source_and_keep_the_task():
    config = compose(["model=qwen2_vl_2b", "task=refcoco", "task.question='Box of {expression}'"])
    drawn = with_drawn_rows(config, {"train": 70, "test": 2}, 320)
    source = build("task", drawn.task).source
    assert isinstance(source, RenderedScenes)
    assert (source.size, source.difficulty) == (320, "rich")
    assert source.counts == {"train": 70, "test": FEWEST}
    assert drawn.task.name == "refcoco"
    assert drawn.task.options["question"] == "Box of {expression}"
    already = compose(["task=clock"])
    assert with_drawn_rows(already, {"train": 5}, 320) is already


def test_a_task_that_nothing_draws_is_refused():
    config = compose(["model=qwen25_nano", "task=jsonl"])
    with pytest.raises(ConfigError, match="no config of conf/task draws rows for tasks"):
        with_drawn_rows(config, {"train": 5}, 320)
