"""Runs without their weights: an archive from which the same report comes, and a sweep goes on."""

import tarfile

import pytest

from experiments.analysis import analyse
from experiments.records import main
from ntil.cli import main as ntil
from ntil.config.errors import ConfigError
from ntil.launch.plan import plan
from ntil.runs.folder import find_runs
from ntil.runs.run import read_runs


@pytest.fixture
def archive(runs, tmp_path, write_run):
    run = write_run(tmp_path, "ce", 0, 0.4)
    write_run(tmp_path, "emd", 0, 0.6)
    (run.path / "model").mkdir()
    (run.path / "model" / "model.safetensors").write_bytes(b"weights")
    (run.path / "tracking.json").write_text('{"id": "of an account"}')
    (run.path / "error.txt").write_text("")
    evaluation = run.evaluations / "0123abcd"
    evaluation.mkdir(parents=True)
    (evaluation / "metrics.json").write_text('{"exact": 0.5}')
    (run.evaluations / "broken").mkdir()
    (run.evaluations / "broken" / "config.yaml").write_text("{}")
    write_run(tmp_path, "ntil", 0, 0.5).metrics.unlink()
    return tmp_path / "clock", tmp_path / "records" / "clock.tar.xz"


def test_the_same_report_comes_from_the_records(archive, tmp_path, capsys):
    folder, file = archive
    assert main([f"runs={folder}", f"to={file}"]) == 0
    assert "2 runs, " in (shown := capsys.readouterr().out)
    assert "1 run not finished, left out" in shown
    with tarfile.open(file) as opened:
        members = opened.getmembers()
        opened.extractall(tmp_path / "elsewhere", filter="data")
    names = {member.name.rpartition("/")[2] for member in members}
    assert names == {"config.yaml", "history.jsonl", "metrics.json", "predictions.jsonl"}
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {(0, 0, "", "")}
    assert sum("/evaluations/" in member.name for member in members) == 1
    kept = [run for run in read_runs(str(folder)) if run.done]
    again, before = (analyse(runs, {}, draws=100) for runs in (read_runs(str(tmp_path / "elsewhere/clock")), kept))
    assert [report.lines for report in again] == [report.lines for report in before]


def test_paths_of_this_machine_are_named(tmp_path, write_run, capsys):
    write_run(tmp_path / "some", "ce", 0, 0.4, [f"runs={tmp_path}/some", "tracker=none"])
    assert main([f"runs={tmp_path / 'some'}", f"to={tmp_path}/some.tar.xz"]) == 0
    assert f"the records name paths of this machine: runs={tmp_path}/some\n" in capsys.readouterr().out


def test_a_sweep_goes_on_from_the_records(archive, tmp_path):
    folder, file = archive
    main([f"runs={folder}", f"to={file}"])
    with tarfile.open(file) as opened:
        opened.extractall(tmp_path / "elsewhere", filter="data")
    words = ["-m", f"runs={tmp_path / 'elsewhere'}", "name=clock", "engine=local", "tracker=none", "loss=ce,emd,ntil"]
    jobs = plan([*words, "task.source.rows={train:8,validation:4,test:80}"])
    assert [job.run.done for job in jobs] == [True, True, False]


def test_a_benchmark_can_be_reported_again_from_its_records(archive, tmp_path, capsys, write_run):
    """The frozen protocol, and a trial that diverged, which counts as the worst: nothing else of what failed."""
    folder, file = archive
    (folder / "protocol.json").write_text("{}")
    diverged = write_run(tmp_path, "ntil", 1, 0.5)
    diverged.metrics.unlink()
    diverged.error.write_text("Traceback: File /home/me/x.py\nFloatingPointError: the loss is nan at step 3\n")
    assert main([f"runs={folder}", f"to={file}"]) == 0
    assert "; and that 1 run diverged; 1 run not finished, left out" in capsys.readouterr().out
    with tarfile.open(file) as opened:
        opened.extractall(tmp_path / "elsewhere", filter="data")
    again = tmp_path / "elsewhere/clock"
    assert (again / "protocol.json").read_text() == "{}"
    (run,) = [run for run in find_runs(again) if not run.done]
    assert run.diverged
    assert run.error.read_text() == "FloatingPointError: the loss is nan at step 3\n"
    assert {path.name for path in run.path.iterdir()} == {"config.yaml", "error.txt"}


def test_linked_runs_are_kept_once(archive, tmp_path, capsys):
    folder, file = archive
    (folder / "all").symlink_to(".")
    elsewhere = tmp_path / "linked"
    elsewhere.mkdir()
    (elsewhere / "clock").symlink_to(folder)
    (elsewhere / "again").symlink_to(folder / "clock")
    assert len(find_runs(folder)) == len(find_runs(elsewhere)) == 3
    assert main([f"runs={elsewhere}", f"to={file}"]) == 0
    assert "2 runs, " in capsys.readouterr().out
    with tarfile.open(file) as opened:
        names = opened.getnames()
        assert all(member.isfile() for member in opened.getmembers())
    assert len(names) == len(set(names))


def test_what_cant_be_kept_is_refused(archive, tmp_path):
    folder, file = archive
    with pytest.raises(ConfigError, match=r"ends in \.tar\.xz"):
        main([f"runs={folder}", f"to={tmp_path / 'records.zip'}"])
    for run in find_runs(folder):
        run.metrics.unlink(missing_ok=True)
    with pytest.raises(ConfigError, match="no finished run"):
        main([f"runs={folder}", f"to={file}"])
    assert not file.exists()
    assert ntil(["records", "runs=nowhere", f"to={file}"]) == 2
