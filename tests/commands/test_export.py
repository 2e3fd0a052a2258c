"""Where exported runs go: known for all of them before anything is written."""

from pathlib import Path

import pytest

from ntil.commands.export import main, targets
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.config.identity import run_path
from ntil.runs.data_fingerprint import described
from ntil.runs.folder import RunFolder, find_runs


@pytest.fixture
def runs(tmp_path):
    for words in (["model=llava_nano"], ["model=yi_vl_nano"]):
        config = compose([f"runs={tmp_path}/runs", "loss=ce", "seed=7", *words])
        RunFolder(run_path(config)).freeze(config)
    return find_runs(tmp_path / "runs")


def test_names_in_the_target_keep_runs_apart(runs):
    to = list(targets(runs, "starts/{task}/{model}-{loss}-{seed}").values())
    assert to == [Path("starts/clock/llava_nano-ce-7"), Path("starts/clock/yi_vl_nano-ce-7")]


@pytest.mark.parametrize(
    ("pattern", "message"), [("starts/{task}", "several of the 2 runs"), ("{size}", "takes {task}")]
)
def test_targets_that_do_not_work(runs, pattern, message):
    with pytest.raises(ConfigError, match=message):
        targets(runs, pattern)


def test_nothing_is_written_for_an_unfinished_run(runs, tmp_path):
    with pytest.raises(ConfigError, match="not finished"):
        main([f"run={tmp_path}/runs", f"to={tmp_path}/to/{{model}}"])
    assert not (tmp_path / "to").exists()


def test_nothing_is_written_where_one_of_several_is_unfinished(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("ntil.commands.export.export", lambda run, to, merge: to.mkdir(parents=True))
    runs[0].metrics.write_text("{}")
    with pytest.raises(ConfigError, match=r"yi_vl_nano.*not finished"):
        main([f"run={tmp_path}/runs", f"to={tmp_path}/to/{{model}}"])
    assert not (tmp_path / "to").exists()


def test_what_was_exported_before_is_left(runs, tmp_path, monkeypatch, capsys):
    written = []

    def export(run, to, merge):
        written.append(to.name)
        return to

    monkeypatch.setattr("ntil.commands.export.export", export)
    for run in runs:
        run.metrics.write_text("{}")
    (tmp_path / "to/llava_nano").mkdir(parents=True)
    assert main([f"run={tmp_path}/runs", f"to={tmp_path}/to/{{model}}"]) == 0
    assert written == ["yi_vl_nano"]
    assert "llava_nano: exists, left as it is" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ('{"train": {"rows": 4000, "fingerprint": "ab12"}, "test": {"rows": 9}}', "4,000 rows, fingerprint ab12"),
        ('{"train": "ab12", "rows": 4000}', "4,000 rows, fingerprint ab12 (of 64 of them)"),
        (None, "not recorded"),
    ],
)
def test_the_card_says_what_the_train_split_was(runs, kept, said):
    if kept:
        runs[0].data.write_text(kept)
    assert described(runs[0].data) == said
