"""What is known of rows before they are trained on: refusals, lengths, and the ceiling of the taught answers."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from PIL import Image

from ntil.cli import main
from ntil.components import Components
from ntil.config.compose import compose
from ntil.config.schema import RunConfig
from ntil.evaluation import usable_rows as module
from ntil.evaluation.row_check import EXAMPLES, SplitCheck, SplitChecker
from ntil.evaluation.usable_rows import cached_check, usable_rows
from tests.support.families import VISION_NANO

SKIP = "task.source.on_error=skip"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def table(answers, pictures=None):
    """my.jsonl with a row per answer; `pictures` maps the number of a row to the size of its picture, else 60 x 40."""
    for size in {(60, 40), *(pictures or {}).values()} if pictures is not None else ():
        Image.new("RGB", size, "grey").save(f"{size[0]}.png")
    with Path("my.jsonl").open("w") as file:
        for i, answer in enumerate(answers):
            image = {"image": f"{(pictures or {}).get(i, (60, 40))[0]}.png"} if pictures is not None else {}
            file.write(json.dumps({"id": f"r{i}", "prompt": f"{i}?", "answer": answer, **image}) + "\n")
    return ["task=jsonl", "task.source.train=my.jsonl", "task.source.test=my.jsonl", "tracker=none"]


def run(*words: str) -> tuple[RunConfig, Components, Dataset]:
    config = compose(words)
    components = Components.build(config)
    return config, components, components.task.rows("test")


BAD = [
    ("llava_nano", "a</s>b", r"field answer .*'a</s>b' would be read as 'a', since '</s>' ends an answer"),
    ("qwen2_vl_nano", "a<|im_end|>b", r"field answer .*'<\|im_end\|>' ends an answer of this model"),
    ("yi_vl_nano", "so\n#### 42", r"field answer .*would be read as 'so', since '###' ends an answer"),
    ("llava_nano", "<image>", r"field answer .*the task's text holds '<image>'"),
    ("qwen2_vl_nano", (3000, 14), r"field image .*differ up to 200 times, and this one is 3000 x 14; crop it"),
]


@pytest.mark.parametrize(("model", "bad", "reason"), BAD, ids=lambda value: str(value)[:16])
@pytest.mark.parametrize("pictures", [True, False])
def test_a_row_that_the_model_cannot_use_is_refused_or_left_out(model, bad, reason, pictures):
    shape = isinstance(bad, tuple)
    words = [f"model={model}", *table(["1", "2" if shape else bad, "3"], {1: bad} if shape else {})]
    config, components, rows = run(*words)
    if pictures:
        cached_check(config, components, rows, True)
    with pytest.raises(ValueError, match=rf"my\.jsonl, line 2, {reason}.*of 3 rows, 1 .*on_error=skip leaves"):
        usable_rows(config, components, "test", rows)
    config, components, rows = run(*words, SKIP)
    assert usable_rows(config, components, "test", rows)["id"] == ["r0", "r2"]
    (line,) = components.task.skipped
    assert "my.jsonl, line 2" in line


def test_a_split_without_a_row_that_can_be_used_is_refused_whatever_on_error_says():
    config, components, rows = run("model=qwen25_nano", *table(["1", "2"], {}), SKIP)
    with pytest.raises(ValueError, match=r"line 1, field image .*reads text only.*of 2 rows, 2 can't be used with"):
        usable_rows(config, components, "test", rows)


def test_without_pixels_lengths_and_scores_are_the_same(tmp_path):
    sizes = {1: (300, 20), 2: (20, 300), 3: (64, 64), 4: (3, 1)}
    for model in VISION_NANO:
        _, components, rows = run(f"model={model}", *table(["12", "x", "[1, 2]", "a\nb", "é"], sizes))
        cheap, full = (SplitChecker(components.task, components.family, p)(rows) for p in (False, True))
        assert cheap == full, model
        encoded = [components.collator.encode(row, row["answer"]) for row in rows]
        assert sorted(full.tokens.items()) == sorted(
            SplitCheck(0, tokens=_count(len(e.prompt_ids) + len(e.answer_ids) for e in encoded)).tokens.items()
        )


@pytest.mark.parametrize("prefix", ["", "table/"])
def test_a_picture_of_another_size_than_its_row_says_is_refused(prefix):
    _, components, rows = run("model=qwen2_vl_nano", *table(["1", "2"], {}), "task.metric=exact")
    rows = rows.remove_columns(["width", "height"])
    for name, sides in (("width", [60, 40]), ("height", [40, 60])):
        rows = rows.add_column(prefix + name, sides)
    check = SplitChecker(components.task, components.family, True)(rows)
    (refused,) = check.refused
    assert (refused.row_id, refused.column) == ("r1", "image")
    assert refused.problem.startswith("the picture is decoded to 60 x 40 pixels, and the row says 40 x 60; store")


def _count(values):
    values = list(values)
    return {value: values.count(value) for value in values}


@pytest.mark.parametrize(("key", "limit"), [("task.max_new_tokens", 64), ("max_length", 100)])
def test_all_rows_are_measured_and_the_longest_is_named_with_the_number_to_set(key, limit):
    rows = table(["7"] * 70 + ["8 " * 60 + "8"] + ["9"] * 70)
    words = ["model=qwen25_nano", *rows, "task.max_new_tokens=500", f"{key}={limit}"]
    config, components, rows = run(*words)
    encoded = components.collator if key != "max_length" else Components.build(compose(words[:-1])).collator
    one = encoded.encode(rows[70], rows[70]["answer"])
    need = len(one.answer_ids) + (len(one.prompt_ids) if key == "max_length" else 0)
    with pytest.raises(ValueError, match=rf"my\.jsonl, line 71 .* {need} tokens.*1 row is .*{key}={need} or more"):
        usable_rows(config, components, "test", rows)
    config, components, rows = run(*words[:-1], f"{key}={need}")
    assert usable_rows(config, components, "test", rows) is rows


def test_the_ceiling_is_what_taught_answers_reach_and_is_warned_of(capsys):
    """Words that stand upright reach their truth; turned ones, whose truth is a polygon, don't as upright boxes."""
    words = ["task=text_detection_nano", "model=llava_nano", "task.source.rows={train:2,validation:2,test:12}"]
    words += ["task.max_new_tokens=600", "tracker=none"]
    for difficulty, low in (("plain", False), ("rich", True)):
        config, components, rows = run(*words, f"task.source.difficulty={difficulty}", "task.shape=box")
        assert usable_rows(config, components, "test", rows) is rows
        out = capsys.readouterr().out
        check = cached_check(config, components, rows, False)
        assert (check.ceiling["acc_0.5"] < 0.99) == low == ("warning: test: the taught answers themselves" in out)
        assert bool(check.below) == low == ("the taught answer '[" in out)
        assert check.below_count <= len(rows)
        assert len(check.below) <= EXAMPLES


def test_a_check_is_read_again_for_the_same_rows_and_model_alone(monkeypatch):
    words = ["model=llava_nano", *table(["1", "2"], {})]
    config, components, rows = run(*words)
    first = cached_check(config, components, rows, True)
    made: list[SplitChecker] = []

    def checker(*arguments):
        made.append(SplitChecker(*arguments))
        return made[-1]

    monkeypatch.setattr(module, "SplitChecker", checker)
    assert cached_check(*run(*words), pictures=False) == first
    assert not made
    Image.new("RGB", (61, 40)).save("60.png")  # the same path, another picture
    cached_check(*run(*words), pictures=False)
    cached_check(*run("model=yi_vl_nano", *words[1:]), pictures=False)
    cached_check(*run(*words[:1], *table(["1", "3"], {})), pictures=False)
    assert len(made) == 3
    for file in module.cache_folder().glob("checks/*.json"):
        file.write_text("{damaged")
    assert cached_check(*run(*words[:1], *table(["1", "3"], {})), pictures=False).rows == 2


def test_processes_find_what_one_finds():
    _, components, rows = run("model=llava_nano", *table(["7", "a</s>b"] * 20, {}))
    state = torch.get_rng_state()
    one, two = (SplitChecker(components.task, components.family, True, workers)(rows) for workers in (0, 2))
    assert one == two
    assert torch.equal(torch.get_rng_state(), state)  # a check before a training changes nothing of it
    assert len(one.refused) == 20


def test_the_command_encodes_for_the_model_that_is_named(capsys):
    words = ["data", "check", *table(["1", "a</s>b", "3"], {})[:-1], "splits=test"]
    assert main(words) == 0
    assert main([*words, "model=qwen2_vl_nano"]) == 0
    assert "test: 3 rows, 0 skipped, 0 problems" in capsys.readouterr().out
    assert main([*words, "model=llava_nano"]) == 1
    out = capsys.readouterr().out
    assert "problem: my.jsonl, line 2, field answer (test, r1): the answer 'a</s>b'" in out
    assert "the taught answers reach exact 1" in out
    assert main([*words, "model=llava_nano", SKIP]) == 0
    assert "test: 2 rows, 1 skipped, 0 problems" in capsys.readouterr().out
