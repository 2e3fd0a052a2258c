"""Contents, not names and times, say whether a finished run is the one that the same command would make."""

import json
import os

import pytest

from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.config.identity import run_path
from ntil.launch.sweep import Sweep
from ntil.runs import inputs as module
from ntil.runs.folder import RunFolder
from ntil.runs.inputs import changed_inputs, inputs, missing_inputs

WORDS = [
    "task=jsonl",
    "model=llama3_nano",
    "task.source.train=train.jsonl",
    "'task.source.test=part-*.jsonl'".strip("'"),
]


@pytest.fixture
def done(tmp_path, monkeypatch):
    """A finished run of two tables in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("train", "part-0", "part-1"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"prompt": "{name}", "answer": "1"}}')
    config = compose([*WORDS, "runs=runs"])
    run = RunFolder(run_path(config))
    run.freeze(config)
    run.inputs.write_text(json.dumps(inputs(config)))
    run.metrics.write_text("{}")
    return run, config


def replaced(path, text, time):
    """Replace a file by one of the same size and of any time."""
    other = path.with_suffix(".new")
    other.write_text(text)
    os.utime(other, (time, time))
    other.replace(path)


@pytest.mark.parametrize("name", ["train", "part-1"])
@pytest.mark.parametrize("later", [-1e6, 0, 1e6])
def test_other_content_is_another_run_whatever_its_time(done, name, later, tmp_path):
    run, config = done
    file = tmp_path / f"{name}.jsonl"
    text, status = file.read_text(), file.stat()
    replaced(file, text.replace("1", "2"), status.st_mtime + later)
    assert file.stat().st_size == status.st_size
    with pytest.raises(ConfigError, match=f"{name}.jsonl changed since: remove the folder"):
        Sweep().run(config)
    replaced(file, text, status.st_mtime + later)
    sweep = Sweep()
    sweep.run(config)
    assert sweep.done == [run.path]


def test_a_file_of_a_glob_that_came_or_went_is_a_change(done, tmp_path):
    _, config = done
    recorded = inputs(config)
    (tmp_path / "part-2.jsonl").write_text("{}")
    assert changed_inputs(recorded, config) == ["part-2.jsonl"]
    (tmp_path / "part-2.jsonl").unlink()
    (tmp_path / "part-0.jsonl").unlink()
    assert changed_inputs(recorded, config) == ["part-*.jsonl (part-0.jsonl is gone)"]


def test_another_project_with_the_same_runs_is_not_done(done, tmp_path, monkeypatch):
    run, _ = done
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    for name in ("train", "part-0", "part-1"):
        (other / f"{name}.jsonl").write_text(f'{{"prompt": "{name}?", "answer": "1"}}')
    there = compose([*WORDS, f"runs={tmp_path}/runs"])
    with pytest.raises(ConfigError, match="set another name= or runs="):
        Sweep().run(there)
    accepted = Sweep()
    accepted.run(compose([*WORDS, f"runs={tmp_path}/runs", "accept_changes=true"]))
    assert accepted.done == [tmp_path / run.path]


def test_a_file_that_is_the_recorded_one_on_the_disk_is_not_read_again(done, tmp_path, monkeypatch):
    _, config = done
    monkeypatch.setattr(module, "_SETTLED", -1.0)
    recorded = inputs(config)
    monkeypatch.setattr(module, "_digest", lambda file, identity: pytest.fail(f"{file} is read again"))
    assert changed_inputs(recorded, config) == []


def test_data_that_are_gone_tell_nothing_and_are_named(done, tmp_path):
    _, config = done
    recorded = inputs(config)
    (tmp_path / "train.jsonl").unlink()
    assert changed_inputs(recorded, config) == []
    assert missing_inputs(recorded, config) == ["task.source.train"]


def test_folders_of_a_source_and_the_weights_that_a_run_starts_from(tmp_path):
    release, start = tmp_path / "release", tmp_path / "starts" / "ce"
    for folder in (release, start):
        folder.mkdir(parents=True)
        (folder / "a.json").write_text("1")
    (release / "a.jpg").write_bytes(b"123")
    config = compose(["task=refcoco", f"task.source.folder={release}", f"model.checkpoint={start}"])
    recorded = inputs(config)
    assert {key: sorted(files) for key, files in recorded.items()} == {
        "task.source.folder": ["a.jpg", "a.json"],
        "model.checkpoint": ["a.json"],
    }
    (start / "a.json").write_text("2")
    assert changed_inputs(recorded, config) == [str(start / "a.json")]
    (release / "a.jpg").write_bytes(b"1234")
    assert len(changed_inputs(recorded, config)) == 2


def test_of_a_folder_of_pictures_other_files_and_runs_do_not_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = compose([*WORDS, "task.source.images=.", "runs=runs"])
    for name in ("a.jpg", "notes.txt", "runs/report/curves.png", ".cache/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    assert [*inputs(config)["task.source.images"]] == ["a.jpg"]
