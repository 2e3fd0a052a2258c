"""Run folders made at e5305af (format 1) are reported, evaluated, exported, resumed and found again.

`runs_of_format_1.zip` holds finished runs of every task, one of adapters and an interrupted one, of models with about
10,000 parameters; `undisturbed.json` in it what the interrupted one came to when nobody interrupted it.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from ntil.commands import evaluate, export, status
from ntil.commands.evaluate import evaluate_run
from ntil.components import Components
from ntil.config.compose import report_errors
from ntil.config.identity import identity
from ntil.evaluation.generate import teacher_forced
from ntil.launch.sweep import Sweep
from ntil.models.head import SupervisedHead
from ntil.models.saving import load_saved
from ntil.preflight import compose_checked
from ntil.runs.folder import RunFolder, find_runs, folder_of, read_jsonl
from tests.support.command_line import ntil
from tests.support.forked import finish

ARCHIVE = Path(__file__).with_name("runs_of_format_1.zip")
LLAVA = [
    "model=llava_nano",
    "model.vision={hidden_size:8,intermediate_size:16,num_hidden_layers:1,num_attention_heads:2}",
    "model.language={hidden_size:8,intermediate_size:16,num_hidden_layers:1,num_attention_heads:2}",
    "model.image_size=24",
    "model.patch_size=12",
]
SMALL = [
    *("optim.steps=4", "optim.batch_size=4", "optim.warmup=1", "evaluation.every_steps=2", "evaluation.batch_size=8"),
    *("evaluation.validation_rows=4", "tracker=none", "log_every=1", "engine=local", "engine.threads=1"),
    *("engine.device=cpu", "engine.workers=0", "curriculum=none", "name=finished", "save_every=0"),
]
ROWS = "task.source.rows={train:16,validation:4,test:6}"
# The present words for what the old ones asked for.
SAME_RUNS = {
    "clock/llava_nano/ntil": [*LLAVA, "task=clock", ROWS, "loss=ntil"],
    "clock/llava_nano/emd": [*LLAVA, "task=clock", ROWS, "loss=emd", "tuning=lora"],
    "grounding_nano/llava_nano/value_emd": [*LLAVA, "task=grounding_nano", ROWS, "loss=value_emd"],
    "mathvista_nano/llava_nano/smmd": [*LLAVA, "task=mathvista_nano", ROWS, "loss=smmd"],
    "jsonl/llava_nano/emd": [
        *LLAVA,
        *("task=jsonl", "task.metric=time", "loss=emd"),
        *("task.source.train=times.jsonl", "task.source.test=times.jsonl"),
    ],
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    shutil.unpack_archive(ARCHIVE, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_every_finished_run_is_read_as_it_was(place, capsys):
    folders = find_runs("runs/finished")
    assert len(folders) == 12
    for folder in folders:
        config = folder.config()
        assert config.to_dict()["format"] == 2
        assert (folder.read_metrics()["examples"], folder.task_protocol()) in {(6.0, 1), (20.0, 1), (24.0, 1)}
        components = Components.build(config)
        rows = components.task.rows(config.evaluation.split)
        kept = list(read_jsonl(folder.predictions))
        assert [components.task.answer(row) for row in rows] == [record["answer"] for record in kept]
        records = [components.task.record(r["text"], row) for r, row in zip(kept, rows, strict=True)]
        again = components.task.summarize(records)
        before = {k: v for k, v in folder.read_metrics().items() if k in again}
        assert {k: again[k] for k in before} == pytest.approx(before)
        assert all("official_accuracy_nearest" in k for k in again.keys() - before.keys())  # of protocol 2
        head = SupervisedHead(model := load_saved(components.family, folder.model))
        forced, _ = teacher_forced(head, model, components.collator, rows, config.evaluation.batch_size or 1)
        assert forced == pytest.approx({k: folder.read_metrics()[k] for k in forced}, rel=1e-4, abs=1e-6)
    assert status.main(["runs"]) == 0
    assert "12 done" in capsys.readouterr().out.replace("\n", " ")


def test_report_and_comparison(place, capsys):
    from experiments.report import main

    assert main(["runs=runs/finished/clock", "examples=2"]) == 0
    table = Path("runs/finished/clock/report/table.md").read_text()
    assert "| ce | 2 | 0.0000 ± 0.0000 |" in table
    assert "| ntil | 2 | 0.0000 ± 0.0000 |" in table
    assert "the runs differ" in table  # one of them has adapters


def test_evaluation_and_export(place):
    for folder in find_runs("runs/finished")[::4]:
        path, metrics = evaluate_run(folder, evaluate.overridden(folder.config(), ["evaluation.batch_size=3"]))
        assert metrics["examples"] == folder.read_metrics()["examples"]
        assert RunFolder(path).config().to_dict()["format"] == 2
    assert export.main(["run=runs/finished/clock", "to=out/{loss}-{seed}"]) == 0
    assert len(list(Path("out").glob("*/README.md"))) == 5


@pytest.mark.parametrize("name", SAME_RUNS)
def test_the_same_command_finds_the_run(place, name, capsys):
    config = compose_checked([*SMALL, *SAME_RUNS[name]])
    folder = folder_of(config)
    assert folder.path.parent == Path("runs/finished", name)
    assert folder.done
    assert identity(folder.config()) == identity(config)
    Sweep().run(config)
    assert "done before, skipped" in capsys.readouterr().out
    assert not folder_of(compose_checked([*SMALL, *SAME_RUNS[name], "optim.lr=0.1"])).done


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_what_it_would_have_been(place):
    (folder,) = find_runs("runs/interrupted")
    folder.freeze(folder.config())
    assert finish(folder) == [0]
    kept = json.loads(Path("undisturbed.json").read_text())
    history = folder.read_history()
    for key, values in kept["history"].items():
        logged = [record[key] for record in history if key in record]
        assert len(logged) == len(values)
        # The second record's mean is of the steps since the interruption alone. A thousand steps enlarge what another
        # processor rounds otherwise: 0.5 % of the loss were seen, and 140 % of a gradient's norm.
        assert logged[0] == values[0], key
        assert logged[2] == pytest.approx(values[2], rel=2e-3), key
        if key in ("loss", "loss/ce"):
            assert logged[3:] == pytest.approx(values[3:], rel=3e-2), key
    metrics = folder.read_metrics()
    assert kept["metrics"].keys() <= metrics.keys()
    # Of 20-odd clocks one that is read otherwise moves every score of answers; those of all digits' probabilities stay.
    forced = ("ce", "digit_nll", "digit_mass", "expected_error")
    assert {k: metrics[k] for k in forced} == pytest.approx({k: kept["metrics"][k] for k in forced}, rel=5e-2)


def test_a_format_of_the_future_is_refused(place, capsys):
    (file, *_) = place.glob("runs/finished/**/config.yaml")
    file.write_text(file.read_text() + "format: 3\n")
    assert report_errors(lambda: status.main(["runs"])) == 2
    assert "11 done, 1 interrupted, 1 damaged" in capsys.readouterr().out
    assert report_errors(lambda: status.main([str(file.parent)])) == 2
    assert "format 3 is of another version" in capsys.readouterr().err


@pytest.mark.slow
def test_the_commands_as_a_user_calls_them(place):
    done = ntil(place, "eval", "run=runs/finished/arithmetic", "evaluation.split=interpolation")
    assert done.returncode == 0, done.stderr
    resumed = [*LLAVA, "task=clock", ROWS, "loss=ntil", "name=interrupted", "optim.steps=1200", "optim.batch_size=4"]
    resumed += ["optim.warmup=1", "evaluation.every_steps=0", "evaluation.batch_size=8", "tracker=none", "log_every=50"]
    resumed += ["engine=local", "engine.threads=1", "engine.device=cpu", "engine.workers=0", "curriculum=none"]
    done = ntil(place, "train", *resumed, "save_every=50", timeout=1200)
    assert done.returncode == 0, done.stderr
    assert "resumed from checkpoint-51" in done.stdout
    assert len(find_runs("runs/interrupted")) == 1
    assert torch.isfinite(torch.tensor(list(find_runs("runs/interrupted")[0].read_metrics().values()))).all()
