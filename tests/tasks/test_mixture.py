"""A mixture answers for each row as the row's own task does, and says in one sentence what can't be one."""

import inspect
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from data.arithmetic import ArithmeticProblems
from data.clock.rendered import RenderedClocks
from data.common.errors import InvalidOption, UserError
from data.jsonl import Jsonl
from tasks.arithmetic import Arithmetic
from tasks.base import Task
from tasks.clock import Clock
from tasks.jsonl import table_task
from tasks.mixture import MEAN, Mixture

COUNTS = {"train": 8, "validation": 3, "test": 3}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NTIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def clock(**counts):
    return Clock(RenderedClocks(rows={**COUNTS, **counts}, size=24))


def arithmetic(**counts):
    return Arithmetic(ArithmeticProblems(rows={**COUNTS, **counts}))


@pytest.fixture(scope="module")
def mixture():
    return Mixture({"clock": clock(), "sums": arithmetic(train=5)})


def test_each_row_is_that_of_its_task(mixture):
    rows = mixture.rows("train")
    assert len(rows) == 13
    assert len(set(rows["id"])) == 13
    for name, part in mixture.by_member(rows).items():
        task, source = mixture.members[name], mixture.members[name].rows("train")
        assert part.features == source.features
        assert [row["id"] for row in part] == [row["id"] for row in source]
        for own, mixed in zip(source, (row for row in rows if mixture.member_of(row) == name), strict=True):
            assert mixture.prompt(mixed) == task.prompt(own)
            assert mixture.answer(mixed) == task.answer(own)
            assert (mixture.picture(mixed) is None) == (own.get("image") is None)
            record = mixture.record(task.answer(own), mixed)
            assert record == {"task": name, **task.record(task.answer(own), own)}


def table(folder, picture):
    rows = [{"prompt": f"{n} + 1?", "answer": str(n + 1)} for n in range(4)]
    if picture:
        Image.new("RGB", (8, 8)).save(folder / "one.png")
        rows = [{**row, "image": "one.png"} for row in rows]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return table_task(Jsonl("numeric", train=str(file), test=str(file)), "numeric")


@pytest.mark.parametrize("picture", [False, True])
def test_a_table_without_a_picture_is_a_task_without_pictures(tmp_path, picture):
    """Its rows have a column of pictures in any case, and a rank with such rows alone still has to feed the tower."""
    mixture = Mixture({"clock": clock(), "table": table(tmp_path, picture)})
    rows = mixture.rows("train")
    assert mixture.mixes_pictures is not picture
    assert mixture.by_member(rows)["table"].features == mixture.members["table"].rows("train").features


def test_a_mixture_can_be_sent_to_a_data_worker(mixture):
    rows = mixture.rows("test")
    assert pickle.loads(pickle.dumps(mixture)).answer(rows[0]) == mixture.answer(rows[0])


def test_metrics_are_those_of_the_tasks_and_their_mean(mixture):
    rows = mixture.rows("test")
    records = [mixture.record(mixture.answer(row) if i != 0 else "no idea", row) for i, row in enumerate(rows)]
    metrics = mixture.summarize(records)
    for name, task in mixture.members.items():
        mine = [{k: v for k, v in r.items() if k != "task"} for r in records if r["task"] == name]
        of_task = {k.removeprefix(f"{name}/"): v for k, v in metrics.items() if k.startswith(f"{name}/")}
        assert of_task == task.summarize(mine)
    assert metrics[MEAN] == pytest.approx((2 / 3 + 1) / 2)
    assert metrics["examples"] == len(rows)
    assert mixture.metric == MEAN


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({}, [8 / 13, 5 / 13]),
        ({"temperature": 1.0}, [8 / 13, 5 / 13]),
        ({"temperature": 2.0}, np.sqrt([8, 5]) / np.sqrt([8, 5]).sum()),
        ({"weights": {"clock": 1, "sums": 3}}, [0.25, 0.75]),
        ({"weights": {"clock": None, "sums": None}}, [8 / 13, 5 / 13]),
    ],
)
def test_shares(options, shares):
    mixture = Mixture({"clock": clock(), "sums": arithmetic()}, **options)
    assert list(mixture.shares({"clock": 8, "sums": 5}).values()) == pytest.approx(list(shares))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"clock": 1}}, r"set task\.weights\.sums too"),
        ({"weights": {"clock": 1, "sums": 0}}, r"task\.weights\.sums must be above 0"),
        ({"weights": {"clock": 1, "some": 2}}, r"task\.weights\.some: the mixture has no such task"),
        ({"weights": {"clock": 1, "sums": 1}, "temperature": 2.0}, "take one away"),
        ({"temperature": 0.5}, r"task\.temperature must be at least 1"),
        ({"headline": "some"}, r"task\.headline=some"),
    ],
)
def test_what_is_no_mixture(options, message):
    with pytest.raises(InvalidOption, match=message):
        Mixture({"clock": clock(), "sums": arithmetic()}, **options)


def test_a_mixture_needs_two_tasks_with_usable_names():
    with pytest.raises(InvalidOption, match="two tasks or more, and has clock"):
        Mixture({"clock": clock()})
    with pytest.raises(InvalidOption, match=r"task\.tasks\.a/b"):
        Mixture({"clock": clock(), "a/b": clock()})


def test_headlines_that_point_both_ways_have_no_mean():
    lower = clock()
    lower.metric, lower.greater_is_better = "deviation", False
    with pytest.raises(InvalidOption, match="less is better in the headline metric of lower"):
        Mixture({"sums": arithmetic(), "lower": lower})
    chosen = Mixture({"sums": arithmetic(), "lower": lower}, headline="lower")
    assert (chosen.metric, chosen.greater_is_better) == ("lower/deviation", False)


def test_a_split_that_one_task_lacks(mixture):
    with pytest.raises(UserError, match="clock: "):
        mixture.check_split("extrapolation")
    assert set(mixture.by_member(mixture.rows("extrapolation"))["sums"]["range"]) == {"extrapolation"}
    with pytest.raises(UserError):
        mixture.rows("nowhere")


def test_pictures_are_not_augmented_since_boxes_would_stay_behind(mixture):
    with pytest.raises(InvalidOption, match=r"augment.scale would make answers of Mixture false; it takes none"):
        mixture.check_augmentation(["scale"])


def test_where_its_rows_come_from_is_said_for_each_task(monkeypatch):
    mixed = Mixture({"clock": clock(), "sums": arithmetic()})
    assert mixed.origins(iter(["train"])) == {"train": None}
    monkeypatch.setattr(type(mixed.members["sums"].source), "origin", lambda _self, split: f"somewhere/{split}")
    assert mixed.origins(iter(["train"])) == {"train": "sums: somewhere/train"}


def test_every_method_on_a_row_is_that_of_the_rows_task():
    """Else a default of `Task` would answer for all of them, as it did for distances of decodings."""
    methods = {name: method for name, method in vars(Task).items() if inspect.isfunction(method)}
    of_rows = {name for name, method in methods.items() if "row" in inspect.signature(method).parameters}
    assert {"answer", "distance", "groups_thousands", "shapes"} <= of_rows
    # A record has the task's name beside; a mixture has no fixed count of numbers to be written.
    assert of_rows - {"record", "written"} <= vars(Mixture).keys()


def test_distances_are_those_of_the_rows_task(mixture):
    (row,) = mixture.by_member(mixture.rows("test"))["clock"].select([0])
    mixed = next(r for r in mixture.rows("test") if mixture.member_of(r) == "clock")
    early, late = (mixture.parse(f"0{hour}:00", mixed) for hour in (1, 3))
    assert mixture.distance(early, late, mixed) == mixture.members["clock"].distance(early, late, row) != 1
