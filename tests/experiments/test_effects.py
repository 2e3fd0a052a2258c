"""Effects at several scales: differences and verdicts as in the report, and which verdicts differ."""

import pytest

from experiments.analysis import analyse
from experiments.effects import effects, main, page
from ntil.config.errors import ConfigError
from ntil.runs.run import read_runs


@pytest.fixture
def worse(tmp_path, write_run):
    """Runs in which NTIL is worse than cross-entropy."""
    for seed in range(3):
        write_run(tmp_path / "worse", "ce", seed, 0.9)
        write_run(tmp_path / "worse", "ntil", seed, 0.2)
    return tmp_path / "worse/clock"


def test_they_are_those_of_the_report(runs):
    (effect,), left = effects("nano", str(runs), "ce")
    assert left == []
    (report,) = analyse(read_runs(str(runs)), {})
    (line,) = [line for line in report.lines if line.loss == "ntil"]
    assert effect.comparison == line.against["exact"]
    assert (effect.task, effect.loss, effect.scale) == ("clock", "ntil", "nano")


def test_what_isnt_compared_is_named(write_run, runs, tmp_path):
    for seed in range(2):
        write_run(tmp_path, "ce", seed, 0.3)
        write_run(tmp_path, "ntil", seed, 0.8)
        write_run(tmp_path, "ntil", seed, 0.8, ["model=yi_vl_nano"])
    write_run(tmp_path, "emd", 0, 0.8)
    compared, left = effects("nano", str(tmp_path / "clock"), "ce")
    assert {effect.loss for effect in compared} == {"ntil", "emd"}
    assert left == [
        "nano, clock, llava_nano: emd seed 1: not started",
        "nano, clock, yi_vl_nano: no finished run of ce",
    ]
    assert f"* {left[0]}" in page(compared, "ce", left)


@pytest.mark.slow
def test_the_page_has_every_scale_and_says_which_verdicts_differ(runs, worse, tmp_path, capsys):
    assert main([f"nano={runs}", f"from CE={worse}", f"to={tmp_path}/page"]) == 0
    text = (tmp_path / "page/effects.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| clock")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == ["clock", "exact", "ntil"]
    assert float(cells[3].split()[0]) > 0.5
    assert "✓" in cells[3]
    assert float(cells[4].split()[0]) < -0.5
    assert "✗" in cells[4]
    assert "The verdict differs between scales in 1 of 1 case with more than one:" in text
    assert "* clock, `ntil`: better nano, worse from CE" in text
    assert (tmp_path / "page/effects.png").stat().st_size > 5000
    assert main([f"nano={runs}", f"again={runs}", f"to={tmp_path}/same"]) == 0
    assert "in 0 of 1 case with more than one." in (tmp_path / "same/effects.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nano=a"], "needs two or more scales"),
        (["nano=a", "nano=b"], "the label 'nano' is there twice"),
        (["nano=a", "b"], "no label=folder|key=value"),
    ],
)
def test_what_cant_be_compared_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        main([*words, "to=somewhere"])


def test_a_folder_without_a_comparison_is_named(runs, tmp_path):
    with pytest.raises(ConfigError, match="nothing: no finished run of ce beside one of another loss"):
        main([f"nano={runs}", f"none={tmp_path}/nothing", f"to={tmp_path}/page"])
