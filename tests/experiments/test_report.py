"""The report of a folder of runs: tables, verdicts, what is missing, what is no comparison, one self-contained page."""

import json
import math
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from matplotlib import pyplot

from experiments import paper
from experiments.analysis import CellReport, Line, analyse
from experiments.cells import Cell, cells, differences, require_comparable
from experiments.render import html
from experiments.render.examples import Example, build_gallery, headline_score
from experiments.render.number_errors import numbers, signed_errors
from experiments.render.plots import band, curves, error_histograms, line_styles
from experiments.render.tables import cell_tables, mean_and_deviation, overview, paper_table
from experiments.report import _expected, evaluations, main
from ntil.cli import main as ntil
from ntil.commands.summary import labels
from ntil.components import Components, build_task
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.config.schema import Component
from ntil.console import Table
from ntil.runs.folder import RunFolder, find_runs
from ntil.runs.run import Run, read_runs
from tasks.clock import Clock


def with_model(config, **changed):
    model = {**config.model.to_dict(), **changed}
    return replace(config, model=Component.from_dict("model", model))


def test_a_clear_difference_is_called_and_a_tie_is_not(runs):
    (report,) = analyse(read_runs(runs), {}, draws=500)
    assert report.metrics == ("exact", "deviation")
    assert (report.base, report.headline, report.missing, report.refused) == ("ce", "exact", (), None)
    line = next(line for line in report.lines if line.loss == "ntil")
    assert line.against["exact"].verdict == "better"
    assert line.against["deviation"].verdict == "better"
    assert line.against["deviation"].difference < 0
    mean = sum(run.metrics["exact"] for run in read_runs(runs) if run.loss == "ntil") / 3
    assert line.mean("exact") == pytest.approx(mean)
    cells = {row[0]: row for row in cell_tables(report, ["exact"])[0].rows}
    assert cells["ntil"][5] == "better"
    assert cells["ce"][3] == "-"


@pytest.mark.slow
def test_the_whole_report(runs, capsys):
    assert main(["experiment=clock", f"runs={runs.parent}", "examples=6"]) == 0
    folder = runs / "report"
    page = (folder / "report.html").read_text()
    assert "ntil is better than ce in exact" in page
    assert "95.1" in page
    assert "published" in page
    assert page.count('class="example"') == 6
    # Self-contained: nothing is fetched.
    assert not re.search(r"""(?:src|href)=["']?https?:""", page)
    assert "<link" not in page
    assert "@import" not in page
    markdown = (folder / "table.md").read_text()
    assert "| ntil | 3 |" in markdown
    assert "yi_vl_nano | missing" in markdown
    latex = (folder / "table.tex").read_text()
    assert r"\toprule" in latex
    assert r"$\pm$" in latex
    assert r"llava\_nano" in latex
    # All in one, first: 0.9 against 0.2 is marked, in a right answer's direction and in the deviation's.
    first = markdown.split("\n\n")[1]
    assert re.search(r"clock \| llava_nano \| exact \| 0\.[0-9]+ ± [0-9.]+ \| 0\.[0-9]+ ± [0-9.]+ ✓ \|", first)
    assert re.search(r"deviation .* ✓ \|", first)
    assert "✗" not in first
    assert r"$\checkmark$" in latex
    assert 'class="better">0.' in page
    assert "6 of 6 runs are finished" in markdown
    assert "6 of 6 runs" in page
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
    assert mean_and_deviation(Line("ce", tuple(range(len(values))), {"exact": values}), "exact") == shown


def panels(cell):
    figure = curves(cell, "exact")
    assert figure is not None
    return [axis.get_title() for axis in figure.axes]


def test_what_was_not_logged_has_no_panel(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "clock")
    (cell,) = cells(read_runs(tmp_path / "clock"))
    assert [title.split()[0] for title in panels(cell)] == ["training", "validation", "validation"]
    for run in cell.runs:
        run.folder.history.write_text('{"step": 1, "loss/ce": 2.0}\n')
    assert panels(cell) == ["training cross-entropy (nats per token)"]
    for run in cell.runs:
        run.folder.history.write_text("")
    assert curves(cell, "exact") is None


def test_a_report_can_be_written_elsewhere(runs, tmp_path):
    folder = tmp_path / "results" / "clock"
    folder.mkdir(parents=True)
    (folder / "table.md").write_text(
        "an older report's\n\n![curves-clock-yi](curves-clock-yi.png)\n\n![a photo](mine.png)\n"
    )
    for name in ("curves-clock-yi.png", "mine.png"):
        (folder / name).touch()
    assert main([f"runs={runs}", "examples=2", f"to={folder}"]) == 0
    assert "<title>clock" in (folder / "report.html").read_text()
    # The older report's pictures are gone, whatever else lies there is not.
    assert not (folder / "curves-clock-yi.png").exists()
    assert (folder / "mine.png").exists()
    assert {"report.html", "table.md", "table.tex", "curves.png"} <= {file.name for file in folder.iterdir()}


def test_an_untrained_run_stands_beside_every_seed(write_run, runs, tmp_path):
    for seed in (1, 2):
        write_run(tmp_path, "ce", seed, 0.6)
        write_run(tmp_path, "ntil", seed, 0.9)
    write_run(tmp_path, "untrained", 0, 0.1)
    (report,) = analyse(read_runs(str(tmp_path / "clock")), {}, draws=200)
    assert report.missing == ()
    line = next(line for line in report.lines if line.loss == "untrained")
    assert (line.against["exact"].seeds, line.against["exact"].verdict) == (2, "worse")
    gallery = build_gallery(report.cell, "exact", 4)
    assert {loss for example in gallery.examples for loss in example.texts} == {"untrained", "ce", "ntil"}


@pytest.mark.slow
def test_rows_of_one_picture_are_one_example_of_the_statistics(runs, tmp_path):
    """Twenty rows a picture, which answers alike: what 80 rows say, 4 pictures don't."""
    folder = shutil.copytree(runs, tmp_path / "clock")
    for file in folder.rglob("predictions.jsonl"):
        records = [json.loads(line) for line in file.read_text().splitlines()]
        lines = [json.dumps({**record, "picture": f"p{i // 20}"}) for i, record in enumerate(records)]
        file.write_text("\n".join(lines) + "\n")
    (alone,), (joined,) = (analyse([Run.read(f) for f in find_runs(place)], {}) for place in (runs, folder))
    (by_row,), (by_picture,) = ([line.against["exact"] for line in r.lines if line.against] for r in (alone, joined))
    assert (by_row.examples, by_row.pictures) == (80, None)
    assert (by_picture.examples, by_picture.pictures) == (80, 4)
    assert by_picture.difference == pytest.approx(by_row.difference)
    assert by_picture.p > 0.05 > by_row.p
    assert "3 seeds, 80 examples of 4 pictures)" in html.sentences(joined)[0]


def test_what_trains_nothing_is_no_base_and_another_base_is_named(runs, tmp_path, write_run):
    """Where plain cross-entropy is missing: its first setting, or the first loss that trains."""
    write_run(tmp_path, "untrained", 0, 0.1)
    for loss in ("ntil", "emd"):
        write_run(tmp_path, loss, 0, 0.6)
    (without,) = analyse(read_runs(str(tmp_path / "clock")), {}, draws=100)
    assert without.base == "emd"
    for smoothing in ("0.1", "0.2"):
        write_run(tmp_path, "ce", 0, 0.4, [f"loss.smoothing={smoothing}"])
    (split,) = analyse(read_runs(str(tmp_path / "clock")), {}, draws=100)
    assert split.base in ("ce smoothing=0.1", "ce smoothing=0.2")
    other = replace(without, cell=replace(without.cell, model="other"))
    table = overview([split, other])
    assert table is not None
    assert next(row[2] for row in table.rows if row[1] == "other") == "exact (against emd)"
    assert table.rows[0][2] == f"exact (against {split.base})"


def test_a_difference_over_fewer_seeds_than_the_means_says_so(runs, tmp_path, write_run):
    write_run(tmp_path, "ntil", 0, 0.9)
    write_run(tmp_path, "emd", 5, 0.9)
    shutil.copytree(runs / "clock/llava_nano/ce", tmp_path / "clock/clock/llava_nano/ce")
    (report,) = analyse(read_runs(str(tmp_path / "clock")), {}, draws=100)
    table = next(t for t in cell_tables(report, ["exact"]) if t.title.endswith("exact"))
    of = {row[0]: row[3] for row in table.rows}
    assert of["ntil"].endswith("] over 1 common seed")
    assert of["emd"] == "-"
    (even,) = analyse(read_runs(str(runs)), {}, draws=100)
    assert "common" not in cell_tables(even, ["exact"])[0].markdown()


def test_no_two_of_many_losses_look_alike():
    styles = line_styles([f"loss{i}" for i in range(32)])
    assert len({tuple(style.values()) for style in styles.values()}) == 32


def test_a_run_that_stopped_early_cuts_no_curve():
    """It is a line of its own; of seeds that logged other steps every step is drawn."""
    figure, axis = pyplot.subplots()
    long = [{"step": step, "loss/ce": 1.0} for step in range(10, 160, 10)]
    band(axis, [long, long[:9]], [long[:2]], "loss/ce", "ce", line_styles(["ce"])["ce"])
    assert [np.size(line.get_xdata()) for line in axis.lines] == [15, 2]
    assert axis.get_legend_handles_labels()[1] == ["ce"]
    pyplot.close(figure)


def test_the_gallery_scores_by_the_headline():
    task = build_task(compose(["task=mathvista_nano", "task.source.rows={train:2,validation:2,test:4}"]))
    row = next(row for row in task.rows("test") if row["answer_type"] == "integer")
    record = task.record(f"The answer is {row['answer']}.", row)
    assert record["scores"]["accuracy"] == 0
    assert headline_score(task, record, task.metric) == 1


def test_of_many_losses_a_clear_one_is_called(runs, write_run, tmp_path):
    for seed in range(2):
        write_run(tmp_path, "ce", seed, 0.0, examples=20)
        write_run(tmp_path, "ntil", seed, 1.0, examples=20)
    one = read_runs(str(tmp_path / "clock"))
    many = [run.with_loss(f"{run.loss} {n}") if run.loss == "ntil" else run for n in range(60) for run in one]
    many = list({(run.loss, run.seed): run for run in many}.values())
    (report,) = analyse(many, {}, draws=200)
    assert len(report.lines) == 61
    assert {line.against["exact"].verdict for line in report.lines if line.loss != "ce"} == {"better"}


def test_a_score_that_is_no_number_has_a_name_in_json():
    example = Example("a", "12:04", {"ce": "?", "ntil": "12:04"}, {"ce": math.nan, "ntil": 1.0}, {})
    cell = {"title": "t", "task": "t", "model": "m", "examples": [html.example_part(example)], "losses": ["ce", "ntil"]}
    (scores,) = re.findall("data-scores='(.*)'", html.page("a", "b", [cell]))
    assert json.loads(scores, parse_constant=pytest.fail) == {"ce": None, "ntil": 1.0}


def test_missing_and_failed_runs_are_shown(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "clock")
    found = {(run.loss, run.seed): run.folder for run in read_runs(tmp_path / "clock")}
    found["ntil", 1].metrics.unlink()
    found["ntil", 1].error.write_text("Traceback\nRuntimeError: it broke\n")
    shutil.rmtree(found["ce", 2].path)
    planned = [("clock", "llava_nano", "emd", 0), ("clock", "yi_vl_nano", "ce", 0)]
    here, other = analyse(read_runs(tmp_path / "clock"), {}, planned, draws=200)
    assert "ntil seed 1: failed: RuntimeError: it broke" in here.missing
    assert "ce seed 2: not started" in here.missing
    assert "emd seed 0: not started" in here.missing
    assert next(line for line in here.lines if line.loss == "ntil").against["exact"].seeds == 1
    assert other.missing == ("ce seed 0: not started",)


def test_other_settings_are_no_comparison(runs, tmp_path, write_run):
    shutil.copytree(runs, tmp_path / "clock")
    write_run(tmp_path, "ntil", 7, 0.5, words=["optim.lr=0.002"])
    every = read_runs(tmp_path / "clock")
    assert differences(every) == {"optim.lr": [0.002 if run.seed == 7 else 0.001 for run in every]}
    (report,) = analyse(every, {}, draws=50)
    assert report.refused is not None
    assert "optim.lr: 0.001, 0.002" in report.refused
    assert all(not line.against for line in report.lines)
    with pytest.raises(ConfigError, match=r"outside loss and seed \(optim\.lr"):
        require_comparable(every)


def test_where_and_how_it_ran_is_no_difference(runs, tmp_path, write_run):
    shutil.copytree(runs, tmp_path / "clock")
    write_run(tmp_path, "ntil", 7, 0.9, words=["engine.threads=2", "engine.workers=0", "engine.accumulation=2"])
    assert differences(read_runs(tmp_path / "clock")) == {}


def test_what_failed_does_not_stand_in_the_way(runs, tmp_path, write_run):
    shutil.copytree(runs, tmp_path / "clock")
    tried = write_run(tmp_path, "ntil", 1, 0.9, words=["optim.lr=1.0"])
    tried.metrics.unlink()
    tried.error.write_text("it broke")
    (report,) = analyse(read_runs(tmp_path / "clock"), {}, draws=50)
    assert report.refused is None
    assert report.missing == ()
    assert next(line for line in report.lines if line.loss == "ntil").against["exact"].seeds == 3


def test_a_loss_with_two_settings_is_two_losses(runs, tmp_path, write_run, capsys):
    shutil.copytree(runs, tmp_path / "clock")
    for seed in range(3):
        write_run(tmp_path, "ntil", seed, 0.3, words=["loss.lam=3.0"])
    expected = [("clock", "llava_nano", "ntil", seed) for seed in range(3)]
    (report,) = analyse(read_runs(tmp_path / "clock"), {}, expected, draws=100)
    means = {line.loss: mean for line in report.lines if (mean := line.mean("exact")) is not None}
    assert sorted(means) == ["ce", "ntil lam=0.3", "ntil lam=3"]
    assert report.missing == ()
    assert means["ntil lam=0.3"] > 0.8
    assert means["ntil lam=3"] < 0.4
    cell = next((tmp_path / "clock").glob("*/llava_nano"))
    assert ntil(["compare", str(cell / "ce"), str(cell / "ntil")]) == 2
    assert "several losses (ntil lam=0.3, ntil lam=3)" in capsys.readouterr().err


def test_compare_two_folders(runs, capsys):
    cell = next(runs.glob("*/llava_nano"))
    assert ntil(["compare", str(cell / "ce"), str(cell / "ntil")]) == 0
    assert "ntil is better than ce in exact" in capsys.readouterr().out
    assert ntil(["compare", str(cell), str(cell / "ntil")]) == 2
    assert "several losses" in capsys.readouterr().err


def _changed(run, change):
    records = change([json.loads(line) for line in run.predictions.read_text().splitlines()])
    run.predictions.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.mark.parametrize(
    "change",
    [
        lambda records: records[:-1],
        lambda records: [{**r, "id": f"other-{r['id']}"} for r in records],
        lambda records: [{**r, "answer": "00:00"} for r in records],
    ],
    ids=["fewer", "other rows", "other answers"],
)
@pytest.mark.parametrize("every_seed", [True, False])
def test_other_examples_are_no_comparison(runs, tmp_path, change, every_seed):
    shutil.copytree(runs, tmp_path / "clock")
    for run in [run for run in read_runs(tmp_path / "clock") if run.loss == "ntil"][: 3 if every_seed else 1]:
        _changed(run.folder, change)
    (report,) = analyse(read_runs(tmp_path / "clock"), {}, draws=50)
    assert report.refused is not None
    assert "of other examples or answers" in report.refused


def test_a_refused_comparison_shows_nothing_beside_each_other(runs, tmp_path, capsys):
    shutil.copytree(runs, tmp_path / "clock")
    for run in read_runs(tmp_path / "clock"):
        if run.loss == "ntil":
            _changed(run.folder, lambda records: records[:-1])
    cell = next((tmp_path / "clock").glob("*/llava_nano"))
    assert ntil(["compare", str(cell / "ce"), str(cell / "ntil")]) == 2
    assert "of other examples or answers" in capsys.readouterr().err
    assert main([f"runs={tmp_path}/clock", "examples=4"]) == 0
    page = (tmp_path / "clock/report/report.html").read_text()
    assert 'class="example"' not in page
    assert "No test examples side by side" in page
    assert "exact (no comparison)" in (tmp_path / "clock/report/table.md").read_text()


def test_other_data_is_no_comparison(runs, tmp_path):
    """A file that the config names, and that was edited between two runs."""
    shutil.copytree(runs, tmp_path / "clock")
    for run in read_runs(tmp_path / "clock"):
        prints = {"train": {"rows": 8, "fingerprint": f"of {run.loss}"}, "test": {"rows": 80, "fingerprint": "one"}}
        (run.folder.path / "data.json").write_text(json.dumps(prints))
    (report,) = analyse(read_runs(tmp_path / "clock"), {}, draws=50)
    assert report.refused == "the runs differ outside loss and seed: data.train: of ce, of ntil"


def test_other_weights_to_start_from_are_no_comparison(runs, tmp_path):
    """A folder that the config names, and whose weights were replaced between two runs."""
    shutil.copytree(runs, tmp_path / "clock")
    every = read_runs(tmp_path / "clock")
    for number, run in enumerate(every[:4]):  # the others have recorded nothing
        files = {"model.safetensors": {"size": 9, "sha256": run.loss}, "README.md": {"size": 9, "sha256": str(number)}}
        run.folder.inputs.write_text(json.dumps({"model.checkpoint": files}))
    assert [*differences(every)] == ["inputs.model.checkpoint"]
    assert differences([run for run in every if run.loss == "ce"]) == {}  # a README makes no other training
    (report,) = analyse(every, {}, draws=50)
    assert "the runs differ outside loss and seed: inputs.model.checkpoint: " in (report.refused or "")


def test_answers_read_by_another_protocol_are_no_comparison(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "clock")
    for run in read_runs(tmp_path / "clock"):
        if run.loss == "ntil":
            run.folder.write_metrics(run.metrics, Clock.protocol + 1)
    (report,) = analyse(read_runs(tmp_path / "clock"), {}, draws=50)
    assert report.refused == "the runs differ outside loss and seed: task.protocol: 3, 4"


def test_a_metric_that_is_no_number_in_one_seed_does_not_stop_a_report(runs, tmp_path, write_run):
    shutil.copytree(runs, tmp_path / "clock")
    folder = read_runs(tmp_path / "clock")[0].folder
    metrics = json.loads(folder.metrics.read_text())
    folder.metrics.write_text(json.dumps(metrics | {"exact": float("inf")}))
    (report,) = analyse(read_runs(tmp_path / "clock"), {}, draws=50)
    ce = next(line for line in report.lines if line.loss == "ce")
    assert [str(ce.deviation("exact")), str(ce.mean("exact"))] == ["nan", "inf"]


def test_predictions_that_are_gone_cost_their_cell_alone(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "clock")
    (tmp_path / "clock").rename(tmp_path / "gone")
    for run in read_runs(tmp_path / "gone")[:1]:
        run.folder.predictions.unlink()
    (cell,) = cells(read_runs(tmp_path / "gone"))
    assert "predictions.jsonl: there is no such file" in build_gallery(cell, "exact", 4).missing
    assert error_histograms(cell) is not None


def test_rows_that_a_model_can_not_use_leave_the_examples_of_others(runs, tmp_path):
    """Their predictions are fewer than the rows of the split."""
    shutil.copytree(runs, tmp_path / "clock")
    for run in read_runs(tmp_path / "clock"):
        _changed(run.folder, lambda records: records[3:])
    gallery = build_gallery(cells(read_runs(tmp_path / "clock"))[0], "exact", 6)
    assert not gallery.missing
    rows = {str(row["id"]): row for row in read_runs(tmp_path / "clock")[0].built_task.rows("test")}
    assert len(gallery.examples) == 6
    for example in gallery.examples:
        assert example.answer == f"{rows[example.id]['hour']:02d}:{rows[example.id]['minute']:02d}"


def test_rows_that_are_gone_are_said(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "clock")
    for run in read_runs(tmp_path / "clock"):
        _changed(run.folder, lambda records: [{**r, "id": f"gone-{r['id']}"} for r in records])
    found = build_gallery(cells(read_runs(tmp_path / "clock"))[0], "exact", 4)
    assert not found.examples
    assert "there is no row gone-" in found.missing


def test_a_start_that_is_not_here_does_not_stop_a_report(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    shutil.copytree(runs, tmp_path / "clock")
    run = read_runs(tmp_path / "clock")[0]
    elsewhere = Run(run.folder, with_model(run.config, checkpoint="not/here"))
    with pytest.raises(ConfigError, match="not/here"):
        Components.build(elsewhere.config)
    assert not run.folder.model.exists()
    assert elsewhere.built_task.metric == "exact"
    (first,) = build_gallery(cells([elsewhere])[0], "exact", 1).examples
    assert first.texts.keys() == {"ce"}


def test_the_papers_figure_is_beside_the_mean_of_our_tasks():
    def cell(task, values):
        runs = [
            SimpleNamespace(task=task, model="llava15_7b", loss="ce", seed=s, done=True, metrics={"acc_0.5": v})
            for s, v in enumerate(values)
        ]
        of_task = Cell(task, "llava15_7b", tuple(runs))  # type: ignore[arg-type]  # no folders behind these runs
        return CellReport(of_task, "ce", (Line("ce", (0, 1), {}),), (), None, "acc_0.5", ("acc_0.5",))

    table = paper.load("grounding")
    assert table is not None
    reports = [cell("refcoco", [0.9, 0.8]), cell("refcocog", [0.1, 0.2, 0.7])]
    made = paper_table(table, table.metrics["acc_0.5"], reports, "full")
    row = next(row for row in made.rows if "llava15_7b" in row)
    # Of seeds 0 and 1, finished on both: 0.5 and 0.5.
    assert row[-3:].count("0.5000 ± 0.0000") == 1
    assert "mean over refcoco, refcocog" in made.title
    missing = CellReport(Cell("refcoco_plus", "llava15_7b", ()), None, (), (), None, "")
    row = next(
        r for r in paper_table(table, table.metrics["acc_0.5"], [*reports, missing], "full").rows if "llava15_7b" in r
    )
    assert "0.5000 ± 0.0000" not in row
    assert "missing" in row


@pytest.mark.slow
def test_what_is_missing_is_of_the_scale_that_was_run(runs, monkeypatch):
    """Also of tables that the paper has none of, and where the devices of a full run aren't here."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    run = read_runs(runs)[0]
    there = [Run(run.folder, with_model(run.config, name="qwen2_vl_2b"))]
    found = _expected("losses", there, runs)
    assert {key[1] for key in found} == {"qwen2_vl_2b"}
    assert len(found) == 51


def test_an_evaluation_again_says_on_what(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "clock")
    run = read_runs(tmp_path / "clock")[0]
    again = RunFolder(run.folder.path / "evaluations" / "abc")
    again.freeze(replace(run.config, evaluation=replace(run.config.evaluation, split="validation")))
    again.metrics.write_text(run.folder.metrics.read_text())
    (again.path.parent / "killed-before-it-began").mkdir()
    (again.path.parent / ".DS_Store").write_bytes(b"")
    (row,) = evaluations([run])
    assert row["run"] == "ce seed 0 evaluation.split=validation"


def test_rows_say_which_run_they_are_of(runs):
    run = read_runs(runs)[0]
    other = Run(run.folder, with_model(run.config, name="yi_vl_nano"))
    assert labels([run]) == ["ce seed 0"]
    assert labels([run, other]) == ["llava_nano ce seed 0", "yi_vl_nano ce seed 0"]


def test_nothing_there_is_one_line(tmp_path, runs):
    for words in (["runs=" + str(tmp_path)], ["experiment=clok", f"runs={runs.parent}"], [], ["what=1"]):
        with pytest.raises(ConfigError):
            main(words)


def test_latex_escapes():
    text = Table("a_b", ["x%", "y"], ["l", "r"], [["<loc0001>", "1 ± 2"]]).latex()
    assert r"a\_b" in text
    assert r"x\%" in text
    assert r"$<$loc0001$>$" in text
    assert r"1 $\pm$ 2" in text


def test_the_papers_figures(shared):
    """Every published number of the notes stands in our tables, and nothing else does."""
    notes = (shared / "docs" / "paper.md").read_text().split("## Known: the loss")[0]
    published = sorted(float(x) for x in re.findall(r"(?<=\| )\d+\.\d+(?= \|)", notes))
    ours = []
    for name in paper.available():
        table = paper.load(name)
        assert table is not None
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
    assert signed_errors({"answer": "[-5]", "text": "[\u22125]"}) == [0]  # a minus sign that is no hyphen


def test_of_one_number_the_error_is_that_of_what_was_scored(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    task = build_task(compose(["task=arithmetic", "task.source.rows={train:4,validation:2,test:2}"]))
    row = {**task.rows("test")[0], "answer": "1234"}
    assert signed_errors(task.record("1,234", row)) == [0]
    assert signed_errors(task.record("\u22124", row)) == [-1238]
    assert signed_errors(task.record("no idea", row)) == []


def test_metrics_of_a_run_are_read_once(runs):
    run = Run.read(RunFolder(find_runs(runs)[0].path))
    assert {"task_protocol": Clock.protocol, **run.metrics} == json.loads(run.folder.metrics.read_text())
    assert run.metrics is run.metrics
