"""A table of one's own from the command line, and a search over it in which one trial fails."""

import json
from pathlib import Path

import pytest

from tests.support.command_line import ntil
from tests.support.runs import TINY_RUN

WORDS = [*TINY_RUN, "optim.steps=3", "optim.batch_size=4", "engine=local", "model=llama3_nano", "task=jsonl"]


@pytest.fixture
def table(tmp_path) -> list[str]:
    rows = [{"id": f"sum-{i}", "prompt": f"{i} + {i}?", "answer": str(2 * i)} for i in range(24)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["task.metric=numeric", *(f"task.source.{split}=t.jsonl" for split in ("train", "validation", "test"))]


def _metrics(place: Path) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted(place.glob("runs/**/metrics.json"))]


@pytest.mark.slow
def test_a_table_without_code(tmp_path, table):
    words = ["train", *WORDS, *table, "loss=ntil"]
    for _ in range(2):  # the second time it is done before
        done = ntil(tmp_path, *words)
        assert done.returncode == 0, done.stderr
    (found,) = _metrics(tmp_path)
    assert found["examples"] == 24
    assert "exact" in found


@pytest.mark.slow
def test_a_mistake_in_the_config_that_only_the_data_shows_is_one_sentence(tmp_path, table):
    done = ntil(tmp_path, "train", *WORDS, *table, "loss=ntil", "task.max_new_tokens=2")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.rstrip().endswith("set task.max_new_tokens=4 or more (this is the longest of 24 rows looked at)")


@pytest.mark.slow
def test_a_search_goes_on_after_a_trial_that_fails(tmp_path, table):
    pytest.importorskip("optuna")
    words = ["train", "-m", "experiment=search", *WORDS, *table, "loss=ce", "hydra.sweeper.n_trials=3"]
    words += ["optim.lr=0.001,1e38"]  # weights that are not finite after a step
    done = ntil(tmp_path, *words)
    assert done.returncode == 1, done.stderr
    assert "failed" in done.stderr, done.stderr
    failed = list(tmp_path.glob("runs/**/error.txt"))
    assert failed
    assert len(_metrics(tmp_path)) + len(failed) >= 2
    assert "optim.lr" in done.stdout.split("the best trial")[1]
    assert "loss.sigma is not swept" in done.stderr
