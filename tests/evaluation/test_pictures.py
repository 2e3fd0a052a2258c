"""Records say which rows have one picture."""

from types import SimpleNamespace
from typing import Any

from ntil.components import build_task
from ntil.config.compose import compose
from ntil.evaluation.pictures import with_pictures
from ntil.evaluation.sets import EvaluationSet


def evaluation_set(*words: str) -> EvaluationSet:
    task = build_task(compose(list(words)))
    components: Any = SimpleNamespace(task=task)
    return EvaluationSet("", components, task.rows("test"))


def test_rows_of_one_picture_have_one_name_for_it():
    scenes = evaluation_set("task=grounding_nano", "task.source.questions=3", "task.source.rows={train:3,test:9}")
    sums = evaluation_set("task=arithmetic", "task.source.rows={train:2,test:2}")
    records = [(index, {"id": index}) for index in range(11)]
    named = list(with_pictures(reversed(records), [scenes, sums]))
    assert [index for index, _ in named] == list(range(10, -1, -1))
    pictures = {index: record.get("picture") for index, record in named}
    assert pictures[9] is None
    assert pictures[10] is None
    assert [len({pictures[3 * scene + i] for i in range(3)}) for scene in range(3)] == [1, 1, 1]
    assert len({pictures[i] for i in range(9)}) == 3
    assert all(len(str(pictures[i])) == 16 for i in range(9))
