"""The report of a folder of runs: tables, verdicts, what is missing, what is no comparison, one self-contained page."""

import json
import re
import shutil

import pytest

from experiments import paper
from experiments.analysis import Line, analyse
from experiments.collect import Run, differences, require_comparable
from experiments.errors import numbers, signed_errors
from experiments.report import main
from experiments.tables import Table, cell_tables, spread
from ntil.cli import main as ntil
from ntil.config import ConfigError
from ntil.runs import RunFolder, find


def read(folder):
    return [Run.read(run) for run in find(folder)]


def test_a_clear_difference_is_called_and_a_tie_is_not(runs):
    (report,) = analyse(read(runs), {}, draws=500)
    assert report.metrics == ("exact", "deviation")
    assert (report.base, report.headline, report.missing, report.refused) == ("ce", "exact", (), None)
    line = next(line for line in report.lines if line.loss == "ntil")
    assert line.against["exact"].verdict == "better"
    assert line.against["deviation"].verdict == "better" and line.against["deviation"].difference < 0
    mean = sum(run.metrics["exact"] for run in read(runs) if run.loss == "ntil") / 3
    assert line.mean("exact") == pytest.approx(mean)
    cells = {row[0]: row for row in cell_tables(report, ["exact"])[0].rows}
    assert cells["ntil"][5] == "better" and cells["ce"][3] == "-"


def test_the_whole_report(runs, capsys):
    assert main(["experiment=clock", f"runs={runs.parent}", "examples=6"]) == 0
    folder = runs / "report"
    page = (folder / "report.html").read_text()
    assert "ntil is better than ce in exact" in page
    assert "95.1" in page and "published" in page
    assert page.count('class="example"') == 6
    # Self-contained: nothing is fetched.
    assert not re.search(r"""(?:src|href)=["']?https?:""", page)
    assert "<link" not in page and "@import" not in page
    markdown = (folder / "table.md").read_text()
    assert "| ntil | 3 |" in markdown and "yi_vl_nano | missing" in markdown
    latex = (folder / "table.tex").read_text()
    assert r"\toprule" in latex and r"$\pm$" in latex and r"llava\_nano" in latex
    # All in one, first: 0.9 against 0.2 is marked, in a right answer's direction and in the deviation's.
    first = markdown.split("\n\n")[1]
    assert re.search(r"clock \| llava_nano \| exact \| 0\.[0-9]+ ± [0-9.]+ \| 0\.[0-9]+ ± [0-9.]+ ✓ \|", first)
    assert re.search(r"deviation .* ✓ \|", first) and "✗" not in first
    assert r"$\checkmark$" in latex and 'class="better">0.' in page
    assert "6 of 6 runs are finished" in markdown and "6 of 6 runs" in page
    assert (
        "clock, llava_nano: 2600 steps of 64 rows, learning rate 0.001, seeds 0, 1, 2, from random weights" in markdown
    )
    for name in ("curves", "errors", "predictions"):
        assert f"]({name}.png)" in markdown
    assert (folder / "curves.png").stat().st_size > 5000
    assert (folder / "predictions.png").stat().st_size > 5000
    assert "ntil is better than ce" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.7896, 0.8009, 0.8120], "0.801 ± 0.011"),
        ([80.0, 81.1, 82.3], "81.1 ± 1.2"),
        ([900.0, 1000.0, 1130.0], "1010 ± 115"),
        ([0.99947, 0.99951, 0.99954], "0.999507 ± 0.000035"),
        ([0.0, 0.0, 0.0], "0.0000 ± 0.0000"),
        ([0.5], "0.5"),
        ([], "missing"),
    ],
)
def test_a_spread_has_the_figures_that_its_deviation_allows(values, shown):
    assert spread(Line("ce", tuple(range(len(values))), {"exact": values}), "exact") == shown


def test_a_report_can_be_written_elsewhere(runs, tmp_path):
    folder = tmp_path / "results" / "clock"
    folder.mkdir(parents=True)
    (folder / "table.md").write_text("an older report's\n\n![curves-clock-yi](curves-clock-yi.png)\n")
    for name in ("curves-clock-yi.png", "mine.png"):
        (folder / name).touch()
    assert main([f"runs={runs}", "examples=2", f"to={folder}"]) == 0
    # The older report's pictures are gone, whatever else lies there is not.
    assert not (folder / "curves-clock-yi.png").exists() and (folder / "mine.png").exists()
    assert {"report.html", "table.md", "table.tex", "curves.png"} <= {file.name for file in folder.iterdir()}


def test_missing_and_failed_runs_are_shown(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "clock")
    found = {(run.loss, run.seed): run.folder for run in read(tmp_path / "clock")}
    found["ntil", 1].metrics.unlink()
    found["ntil", 1].error.write_text("Traceback\nRuntimeError: it broke\n")
    shutil.rmtree(found["ce", 2].path)
    planned = [("clock", "llava_nano", "emd", 0), ("clock", "yi_vl_nano", "ce", 0)]
    here, other = analyse(read(tmp_path / "clock"), {}, planned, draws=200)
    assert "ntil seed 1: failed: RuntimeError: it broke" in here.missing
    assert "ce seed 2: not started" in here.missing
    assert "emd seed 0: not started" in here.missing
    assert next(line for line in here.lines if line.loss == "ntil").against["exact"].seeds == 1
    assert other.missing == ("ce seed 0: not started",)


def test_other_settings_are_no_comparison(runs, tmp_path, write_run):
    shutil.copytree(runs, tmp_path / "clock")
    write_run(tmp_path, "ntil", 7, 0.5, words=["optim.lr=0.002"])
    every = read(tmp_path / "clock")
    assert differences(every) == {"optim.lr": [0.002 if run.seed == 7 else 0.001 for run in every]}
    (report,) = analyse(every, {}, draws=50)
    assert "optim.lr: 0.001, 0.002" in report.refused
    assert all(not line.against for line in report.lines)
    with pytest.raises(ConfigError, match=r"outside loss and seed \(optim\.lr"):
        require_comparable(every)


def test_compare_two_folders(runs, capsys):
    cell = next(runs.glob("*/llava_nano"))
    assert ntil(["compare", str(cell / "ce"), str(cell / "ntil")]) == 0
    assert "ntil is better than ce in exact" in capsys.readouterr().out
    assert ntil(["compare", str(cell), str(cell / "ntil")]) == 2
    assert "several losses" in capsys.readouterr().err


def test_other_examples_are_no_comparison(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "clock")
    run = next(run for run in read(tmp_path / "clock") if run.loss == "ntil")
    lines = run.folder.predictions.read_text().splitlines()
    run.folder.predictions.write_text("\n".join(lines[:-1]) + "\n")
    (report,) = analyse(read(tmp_path / "clock"), {}, draws=50)
    assert "of other examples" in report.refused


def test_nothing_there_is_one_line(tmp_path, runs):
    for words in (["runs=" + str(tmp_path)], ["experiment=clok", f"runs={runs.parent}"], [], ["what=1"]):
        with pytest.raises(ConfigError):
            main(words)


def test_latex_escapes():
    text = Table("a_b", ["x%", "y"], ["l", "r"], [["<loc0001>", "1 ± 2"]]).latex()
    assert r"a\_b" in text and r"x\%" in text and r"$<$loc0001$>$" in text and r"1 $\pm$ 2" in text


def test_the_papers_figures(shared):
    """Every published number of the notes stands in our tables, and nothing else does."""
    notes = (shared / "docs" / "paper.md").read_text().split("## Known: the loss")[0]
    published = sorted(float(x) for x in re.findall(r"(?<=\| )\d+\.\d+(?= \|)", notes))
    ours = []
    for name in paper.available():
        table = paper.load(name)
        ours += [x for row in table.rows for figures in row.figures.values() for x in figures.values()]
    assert sorted(ours) == published
    assert paper.load("nothing") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [("[103, 877]", [103, 877]), ("12:45", [12, 45]), ("-3.5", [-3.5]), ("3-4", [3, 4]), ("<loc0012>", [12]), ("", [])],
)
def test_numbers_in_texts(text, found):
    assert numbers(text) == found


def test_errors_are_paired_or_left_out():
    assert signed_errors({"answer": "[1, 20]", "text": "[3, 15]"}) == [2, -5]
    assert signed_errors({"answer": "[1, 20]", "text": "[3]"}) == []


def test_metrics_of_a_run_are_read_once(runs):
    run = Run.read(RunFolder(find(runs)[0].path))
    assert run.metrics == json.loads(run.folder.metrics.read_text())
