"""The built W&B workspace and report show what an experiment is about; nothing is sent."""

import json

import pytest
import wandb

from experiments.dashboard import main
from ntil.config.errors import ConfigError


def test_the_built_spec_has_the_promised_panels(runs, capsys):
    assert main(["experiment=clock", f"runs={runs.parent}", "entity=somebody"]) == 0
    assert "publish=true" in capsys.readouterr().out
    spec = json.loads((runs / "dashboard.json").read_text())
    bank = spec["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    sections = {section["name"]: json.dumps(section["panels"]) for section in bank}
    for name, key in {
        "metrics by loss": '"test/exact"',
        "loss components": '"loss/ce"',
        "parse failures": '"test/parse_failure_rate"',
        "predictions": "test/predictions",
        "hyper-parameters": "Parallel Coordinates",
    }.items():
        assert key in sections[name], name
    # By what runs are tracked with (`Trackers`): a key that no run has would show none.
    (only,) = spec["workspace"]["spec"]["section"]["runSets"][0]["filters"]["filters"]
    assert only["key"] == {"section": "run", "name": "group"}
    assert only["value"] == ["clock/clock/llava_nano"]
    report = json.dumps(spec["report"])
    assert "clock/clock/llava_nano" in report
    assert "gradient_share/ce" in report


def test_publishing_without_a_key_is_one_sentence(runs, monkeypatch):
    def refuse(*_arguments):
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr("experiments.dashboard.build_dashboard", refuse)
    with pytest.raises(ConfigError, match=r"W&B: No API key configured\.; `wandb login`, or leave publish=true out"):
        main(["experiment=clock", f"runs={runs.parent}", "publish=true", "entity=me"])


def test_mistakes_are_named(runs):
    with pytest.raises(ConfigError, match="entity"):
        main(["experiment=clock", f"runs={runs.parent}", "publish=true"])
    with pytest.raises(ConfigError, match="no run lies there"):
        main(["experiment=nothing", f"runs={runs.parent}"])
    with pytest.raises(ConfigError, match="needs experiment"):
        main([])
