"""`ntil eval` asks for what an evaluation needs, not for what the training needed."""

import pytest

from ntil.compose import compose
from ntil.config import ConfigError
from ntil.reevaluate import overridden


@pytest.mark.parametrize(
    "engine", [{"hostfile": "/cluster/hostfile"}, {"gpus": 8}, {"device": "cuda"}, {"gpus": 3, "accumulation": 5}]
)
def test_where_it_was_trained_does_not_matter(engine, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    config = compose(["engine=local"])
    trained = {**config, "engine": {**config["engine"], **engine}}
    changed = overridden(trained, {"evaluation": {"split": "validation"}})
    assert changed["evaluation"]["split"] == "validation" and changed["engine"] == trained["engine"]


def test_longer_prompts_of_another_split_have_their_key():
    assert overridden(compose([]), {"max_length": 9000})["max_length"] == 9000


def test_other_groups_stay_as_they_were():
    with pytest.raises(ConfigError, match="not 'loss'"):
        overridden(compose([]), {"loss": {"lam": 1}})
    with pytest.raises(ConfigError, match="difficult"):
        overridden(compose([]), {"task": {"difficult": "rich"}})
