"""Run folders: files appear whole, runs are found."""

import json

import pytest

from data.common.files import write_text
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.evaluation.generate import evaluate_to
from ntil.runs.folder import RunFolder, find_runs, read_jsonl


def test_a_failed_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "metrics.json"
    write_text(file, "old")
    with pytest.raises(TypeError):
        write_text(file, None)  # type: ignore[arg-type]
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_an_evaluation_that_breaks_leaves_no_predictions(tmp_path):
    def broken():
        yield {"id": 1}
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        evaluate_to(tmp_path / "predictions.jsonl", broken(), lambda records: {})
    assert list(tmp_path.iterdir()) == []


def test_runs_are_found_below_a_folder_but_not_their_evaluations(tmp_path):
    # The second is what W&B writes of an online run.
    for name in ("b/seed1", "b/seed1/wandb/run-1/files", "a/seed0", "a/seed0/evaluations/x"):
        RunFolder(tmp_path / name).freeze(compose([]))
    assert [r.path for r in find_runs(tmp_path)] == [tmp_path / "a/seed0", tmp_path / "b/seed1"]
    assert [r.path for r in find_runs(tmp_path / "a/seed0")] == [tmp_path / "a/seed0"]
    with pytest.raises(ConfigError, match=r"no config\.yaml"):
        RunFolder(tmp_path).config()


def test_runs_may_lie_below_any_name(tmp_path):
    run = RunFolder(tmp_path / "checkpoints/wandb/evaluations/clock/seed0")
    run.freeze(compose([]))
    assert [r.path for r in find_runs(tmp_path / "checkpoints")] == [run.path]
    assert find_runs(tmp_path / "nothing") == []


def test_a_history_that_was_cut_short_is_read_up_to_there(tmp_path):
    run = RunFolder(tmp_path)
    run.history.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert run.read_history() == [{"step": 1}, {"step": 2}]
    run.history.write_text('{"step": 1}\n{"st\n{"step": 2}\n')
    with pytest.raises(ConfigError, match=r"history\.jsonl, line 2: no JSON"):
        run.read_history()


HISTORY, METRICS, PREDICTIONS = "history.jsonl", "metrics.json", "predictions.jsonl"
RECORD = '{"id": 1, "answer": "a", "text": "b", "scores": {"exact": %s}, "lenient": {"exact": 0.0}}'


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        (METRICS, b'{"exact": "high"}', "exact='high' is no number"),
        (METRICS, b'{"exact": null}', "exact=None is no number"),
        (METRICS, b"\xff", "no UTF-8"),
        (PREDICTIONS, (RECORD % '"x"').encode(), "line 1: scores.exact='x' is no number"),
        (PREDICTIONS, b"\xff", "no UTF-8"),
        (PREDICTIONS, None, "there is no such file"),
        (HISTORY, b'{"step": 1}\n{"a": 1}\n', "line 2: no step"),
        (HISTORY, b'{"step": 1, "time": "y"}\n', "line 1: no step or time"),
        (HISTORY, b"[1]\n{}\n", "line 1: no JSON object"),
        (HISTORY, b"\xff\n", "no UTF-8"),
    ],
)
def test_files_edited_by_hand_are_named(tmp_path, file, content, problem):
    run = RunFolder(tmp_path)
    if content is not None:
        (tmp_path / file).write_bytes(content)
    read = {HISTORY: run.read_history, METRICS: run.read_metrics, PREDICTIONS: lambda: list(run.read_predictions())}
    with pytest.raises(ConfigError, match=f"{file}.*{problem}"):
        read[file]()


def test_the_last_error_of_ours_is_the_sentence_alone(tmp_path):
    run = RunFolder(tmp_path)
    for line, shown in [
        ("data.common.errors.InvalidData: a.csv: bad", "a.csv: bad"),
        ("KeyError: 'x'", "KeyError: 'x'"),
    ]:
        run.error.write_text(f"Traceback\n{line}\n")
        assert run.last_error() == shown


def test_damaged_predictions_are_named(tmp_path):
    file = tmp_path / "predictions.jsonl"
    file.write_text('{"id": 1}\n{"id": ')
    with pytest.raises(ConfigError, match=r"predictions\.jsonl, line 2: no JSON"):
        list(read_jsonl(file))


def test_a_mixtures_decodings_are_those_of_its_tasks(tmp_path):
    (tmp_path / METRICS).write_text(
        json.dumps(
            {
                "clock/exact": 0.25,
                "arithmetic/exact": 0.5,
                "decoding/median/clock/exact": 1.0,
                "decoding/median/clock/short/exact": 0.75,
                "decoding/median/arithmetic/exact": 0.0,
                "decoding/clock/clock/exact": 0.125,
                "train_seconds": 3.0,
            }
        )
    )
    of_clock = {
        "exact": 0.25,
        "decoding/median/exact": 1.0,
        "decoding/median/short/exact": 0.75,
        "decoding/clock/exact": 0.125,
        "train_seconds": 3.0,
    }
    assert RunFolder(tmp_path).of_member("clock").read_metrics() == of_clock
