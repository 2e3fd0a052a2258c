"""Effects at several scales: differences and verdicts as in the report, and where effects differ between scales."""

import pytest

from experiments.analysis import analyse
from experiments.effects import Effect, effects, main, page
from experiments.significance import Comparison
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
def test_the_page_has_every_scale_and_says_where_effects_differ(runs, worse, tmp_path, capsys):
    assert main([f"nano={runs}", f"from CE={worse}", f"to={tmp_path}/page"]) == 0
    text = (tmp_path / "page/effects.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| clock")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == ["clock", "exact", "ntil"]
    assert float(cells[3].split()[0]) > 0.5
    assert "✓" in cells[3]
    assert float(cells[4].split()[0]) < -0.5
    assert "✗" in cells[4]
    assert "Of 1 case at more than one scale, effects differ in 1, that is two 95 % intervals" in text
    assert f"* clock, `ntil`: {cells[3].split()[0]} nano and {cells[4].split()[0]} from CE" in text
    assert (tmp_path / "page/effects.png").stat().st_size > 5000
    assert main([f"nano={runs}", f"again={runs}", f"to={tmp_path}/same"]) == 0
    assert "effects differ in 0, that is" in (tmp_path / "same/effects.md").read_text()


def test_the_two_effects_that_are_farthest_apart_are_named():
    def effect(scale, low, high):
        comparison = Comparison((low + high) / 2, low, high, p=0.01, p_holm=0.01, seeds=3, examples=100, seeds_needed=3)
        return Effect("clock", "exact", "ntil", scale, comparison)

    apart = [effect("a", 0.1, 0.3), effect("b", -0.2, 0.05), effect("c", -0.4, -0.1), effect("d", -0.1, 0.4)]
    assert "effects differ in 1" in page(apart, "ce")
    assert "* clock, `ntil`: +0.2 a and -0.25 c\n" in page(apart, "ce")
    # A verdict beside none is no difference of effects.
    assert "effects differ in 0" in page([apart[0], apart[3]], "ce")
    # What is left of equal sums.
    assert "| +0 [-0.1, +0.1] (3 seeds) |" in page([effect("a", -0.1, 0.1 + 2e-17), effect("b", -0.1, 0.1)], "ce")


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
