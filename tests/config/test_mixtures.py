"""Mixtures on the command line."""

from pathlib import Path

import pytest
import yaml
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException

from data.common.errors import UserError
from ntil.components import build_task
from ntil.config.compose import compose, explain, task_dict
from ntil.config.errors import ConfigError
from ntil.config.identity import config_hash, identity
from ntil.config.schema import RunConfig
from ntil.launch.plan import plan


def test_a_list_of_tasks_is_a_mixture_of_their_configs():
    config = compose(["task=[clock,arithmetic]", "task.tasks.clock.source.rows.train=7", "task.weights.clock=2"])
    assert config.task.name == "clock+arithmetic"
    assert list(config.members) == ["clock", "arithmetic"]
    assert config.members["clock"].task.options["source"]["rows"]["train"] == 7
    assert config.members["arithmetic"].task == compose(["task=arithmetic"]).task
    assert config.task.options["weights"] == {"clock": 2, "arithmetic": None}
    assert config_hash(compose(["task=clock+arithmetic"])) == config_hash(compose(["task=[clock, arithmetic]"]))


def test_a_frozen_config_is_the_same_mixture():
    config = compose(["task=[clock,arithmetic]", "task.temperature=2"])
    again = RunConfig.from_dict(config.to_dict())
    assert identity(again) == identity(config)
    assert config_hash(config) != config_hash(compose(["task=[clock,arithmetic]"]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=[clock,clock]"], "clock is named twice"),
        (["task=[clock,arithmetic]", "task.weights.clock=2"], r"set task\.weights\.arithmetic too"),
        (["task=[clock,arithmetic]", "task.weights={clock:1,arithmetic:-1}"], "must be above 0"),
        (["task=[clock,arithmetic]", "task.tasks.clock.source.size=x"], r"task\.tasks\.clock\.source\.size=x"),
        (["task=[clock,arithmetic]", "+task.tasks.clock.colour=red"], r"task\.tasks\.clock\.colour.*no such option"),
    ],
)
def test_what_is_refused_before_anything_starts(words, message):
    with pytest.raises(UserError, match=message):
        build_task(compose(words))


def test_an_unknown_task_is_named_with_the_nearest():
    with pytest.raises(HydraException) as raised:
        compose(["task=[clock,arithmetik]"])
    assert explain(raised.value) == "task=arithmetik: no such config; did you mean 'arithmetic'?"
    with pytest.raises(ConfigError, match="did you mean 'arithmetic'"):
        task_dict("[clock,arithmetik]", [])


def test_a_sweep_may_have_mixtures_among_its_tasks(tmp_path):
    jobs = plan(["-m", "task=clock,[clock,arithmetic]", "tracker=none", f"runs={tmp_path}"], on_this_machine=False)
    assert [job.run.task for job in jobs] == ["clock", "clock+arithmetic"]
    assert [run.task for run in jobs[1].run.by_task] == ["clock+arithmetic.clock", "clock+arithmetic.arithmetic"]


def test_validation_splits_are_named_once():
    with pytest.raises(ConfigError, match=r"evaluation\.validation_splits must name splits, each once"):
        compose(["evaluation.validation_splits=[test,test]"])
    assert compose([]).evaluation.validated == ["validation"]
    assert compose(["evaluation.validation_splits=[a,b]"]).evaluation.validated == ["a", "b"]


def test_the_file_of_the_page_is_a_mixture_with_one_task_twice():
    page = (Path(__file__).parents[2] / "docs/mixtures.md").read_text()
    node = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    ConfigStore.instance().store(group="task", name="clocks_and_sums", node=node)
    config = compose(["task=clocks_and_sums", "task.tasks.easy.source.size=24"])
    assert config.task.name == "clocks_and_sums"
    sources = {name: one.task.options["source"] for name, one in config.members.items()}
    assert [sources[name]["difficulty"] for name in ("easy", "hard")] == ["plain", "rich"]
    assert sources["easy"]["size"] == 24
    assert list(build_task(config).members) == ["easy", "hard", "sums"]
