"""`ntil eval` asks for what an evaluation needs, not for what the training needed."""

from dataclasses import replace

import pytest

from ntil.commands.evaluate import overridden
from ntil.config.compose import compose
from ntil.config.errors import ConfigError


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
