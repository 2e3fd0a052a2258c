"""`ntil eval` asks for what an evaluation needs, not for what the training needed."""

import os
from dataclasses import replace

import pytest

from ntil.commands.evaluate import evaluate_run, overridden
from ntil.config.answering import ServerConfig
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.config.identity import config_hash
from ntil.config.permissions import without_permissions
from ntil.runs.folder import RunFolder


@pytest.mark.parametrize(
    "engine",
    [{"hostfile": "/cluster/hostfile"}, {"processes": 8}, {"device": "cuda"}, {"processes": 3, "accumulation": 5}],
)
def test_where_it_was_trained_does_not_matter(engine, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    config = compose(["engine=local"])
    trained = replace(config, engine=replace(config.engine, **engine))
    changed = overridden(trained, ["evaluation.split=validation"])
    assert changed.evaluation.split == "validation"
    assert changed.engine == trained.engine


def test_a_folder_of_somebody_else_names_no_server():
    words = ["evaluation.backend=openai", "evaluation.server.url=http://localhost:1/v1", "evaluation.server.model=m"]
    theirs = compose([*words, "evaluation.server.key_variable=HOME", "task=jsonl", "task.source.allow_urls=true"])
    config = without_permissions(theirs)
    assert (config.evaluation.backend, config.evaluation.server) == (None, ServerConfig())
    assert config.task.options["source"]["allow_urls"] is False
    asked = overridden(config, [*words, "task.source.allow_urls=true"])
    assert (asked.evaluation.backend, asked.evaluation.server.key_variable) == ("openai", None)
    assert asked.task.options["source"]["allow_urls"] is True


def test_a_link_among_the_evaluations_leads_to_no_other_folder(tmp_path):
    mine, theirs = tmp_path / "mine", RunFolder(tmp_path / "theirs")
    config = compose(["engine=local"])
    RunFolder(mine).freeze(config)
    before = (mine / "config.yaml").read_text()
    theirs.evaluations.mkdir(parents=True)
    (theirs.evaluations / config_hash(config)).symlink_to(mine)
    with pytest.raises(ConfigError, match="is a link to another folder"):
        evaluate_run(theirs, config)
    assert (mine / "config.yaml").read_text() == before


@pytest.mark.parametrize("processes", [1, 2])
def test_an_evaluation_is_made_once_at_a_time(tmp_path, monkeypatch, processes):
    """Two commands at once, whose ranks would write and join each other's parts."""
    folder, config = RunFolder(tmp_path), compose(["engine=local"])
    made = []

    def begin(*_):
        made.append(1)
        with pytest.raises(ConfigError, match=rf"process {os.getpid()} on .* is making this evaluation; run the comm"):
            evaluate_run(folder, config, processes)
        (folder.evaluations / config_hash(config) / "metrics.json").write_text("{}")
        return 0

    monkeypatch.setattr("ntil.commands.evaluate.evaluate", begin)
    monkeypatch.setattr("ntil.commands.evaluate.spawn", begin)
    evaluate_run(folder, config, processes)
    assert made == [1]


def test_longer_prompts_of_another_split_have_their_key():
    assert overridden(compose([]), ["max_length=9000"]).max_length == 9000


def test_other_groups_stay_as_they_were():
    with pytest.raises(ConfigError, match=r"not 'loss\.lam=1'"):
        overridden(compose([]), ["loss.lam=1"])
    with pytest.raises(ConfigError, match=r"'task\.source\.difficult' .*did you mean 'task\.source\.difficulty'"):
        overridden(compose([]), ["task.source.difficult=rich"])


def test_another_source_takes_the_place_of_the_runs_own():
    trained = compose(["task.source.rows={train:8,test:4}", "loss=ce", "seed=3"])
    changed = overridden(trained, ["task=clock_photos", "task.source.labels=labels.csv", "evaluation.split=validation"])
    assert changed.task.options["source"]["labels"] == "labels.csv"
    assert "rows" not in changed.task.options["source"]
    assert changed.evaluation.split == "validation"
    assert (changed.model, changed.loss, changed.seed) == (trained.model, trained.loss, 3)
    with pytest.raises(ConfigError, match="did you mean 'clock_photos'"):
        overridden(trained, ["task=clock_photo"])


def test_overrides_are_read_as_those_of_a_training():
    config = compose(["task=arithmetic", "model=qwen25_nano", "engine=local"])
    changed = overridden(config, ["task.source.rows={train:8,validation:4,test:4}", "evaluation.decoding=[median]"])
    assert changed.task.options["source"]["rows"] == {"train": 8, "validation": 4, "test": 4}
    assert changed.evaluation.decoding == ["median"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("task.source.rows={test:4", "task.source.rows={test:4: signs other than letters.* need quotes"),
        ("evaluation.decoding=[median", "need quotes"),
        ("evaluation.server.url=http://a/v1 #b", "need quotes"),
        ("evaluation.split=test,validation", "an evaluation takes one value; call ntil eval once for each"),
        ("evaluation.splt=test", "no key 'evaluation.splt' .*did you mean 'evaluation.split'"),
    ],
)
def test_an_override_that_is_none_is_one_sentence(words, message):
    with pytest.raises(ConfigError, match=message):
        overridden(compose(["engine=local"]), [words])
