"""A whole benchmark of a few steps: pilot, search, seeds, report; the second call runs nothing."""

import pytest

from experiments.benchmark.command import main
from ntil.config.errors import ConfigError
from ntil.runs.folder import find_runs

PROTOCOL = """
title: a small one
overrides: [engine=local, tracker=none, engine.threads=1, engine.workers=0, evaluation.every_steps=0, save_every=0]
cells:
  sums: [model=qwen25_nano, task=arithmetic, optim.steps=2, optim.batch_size=8, optim.warmup=0,
         "task.source.rows={train:32,validation:6,test:8}"]
losses: [ce, emd, emd+value_emd_rescaled]
search:
  optim.lr: {low: 1.0e-4, high: 1.0e-2, log: true}
trials: 2
seeds: [0, 1]
untuned_seeds: [0, 2]
pilot: {losses: [ce, emd], seeds: [7, 8], screened: [ntil, box_iou]}
hypotheses:
  - {claim: EMD is better than cross-entropy., better: emd, than: [ce]}
"""


@pytest.mark.slow
def test_from_the_pilot_to_the_report(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "small.yaml"
    file.write_text(PROTOCOL)
    words = [f"of={file}", f"runs={tmp_path}/runs"]
    assert main([*words, "stage=pilot"]) == 0
    printed = capsys.readouterr().out
    assert "seeds needed" in printed
    screened = printed[printed.index("screened: ") :]
    scores = {line.split()[1]: line.split()[3] for line in screened.splitlines() if line.startswith("│")}
    assert set(scores) == {"ce", "emd", "ntil", "box_iou"}
    assert scores["box_iou"] == "-"  # there are no boxes in arithmetic
    assert float(scores["ntil"]) >= 0
    with pytest.raises(ConfigError, match="still to be run"):
        main([*words, "stage=seeds"])
    assert main(words) == 0
    report = tmp_path / "runs/small/report"
    text = (report / "benchmark.md").read_text()
    assert "EMD is better than cross-entropy." in text
    assert text.index("## Hypotheses") < text.index("## Tuned") < text.index("## Untuned")
    assert "No comparison" not in text  # losses may have different learning rates here
    assert (report / "budgets.png").stat().st_size > 1000
    runs = list(find_runs(str(tmp_path / "runs")))
    stages = {stage: [run for run in runs if run.path.parts[-5] == stage] for stage in ("tuned", "untuned")}
    assert len(stages["tuned"]) + len(stages["untuned"]) == len({*stages["tuned"], *stages["untuned"]})
    chosen_defaults = 3 - len(stages["tuned"]) // 2
    assert len(stages["untuned"]) == 3 * 2 + chosen_defaults  # their seed 1 is a tuned run
    for loss in ("ce", "emd", "emd+value_emd_rescaled"):
        assert f"| {loss} |" in text
    # The pilot's run of a loss of boxes has failed, since there are none.
    times = {run.path: run.metrics.stat().st_mtime_ns for run in runs if run.metrics.exists()}
    assert len(times) == len(runs) - 1
    capsys.readouterr()
    assert main(words) == 0
    assert {path: (path / "metrics.json").stat().st_mtime_ns for path in times} == times
    file.write_text(PROTOCOL.replace("trials: 2", "trials: 3"))
    with pytest.raises(ConfigError, match="trials changed since the search began"):
        main(words)
