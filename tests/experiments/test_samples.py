"""`ntil compare --samples`: anybody's outputs on a task, in three formats, with the statistics of runs."""

import json

import pytest

from experiments.compare import main
from ntil.components import build_task
from ntil.config.compose import compose
from ntil.config.errors import ConfigError

WORDS = ["task=clock", "task.source.rows={train:8,validation:4,test:80}"]


@pytest.fixture
def answers(rows, tmp_path):
    """Writes a file of answers in a format: right ones at a rate."""

    def write(name, form, right, rows=rows):
        lines = []
        for i, row in enumerate(rows):
            text = f"{row['hour']:02d}:{row['minute']:02d}" if i % 10 < right * 10 else "12:59"
            plain = {"id": row["id"], "prediction": text}
            harness = {"doc_id": i, "doc": {"id": row["id"]}, "resps": [["x"]], "filtered_resps": [text]}
            lines.append({"plain": plain, "harness": harness}[form])
        file = tmp_path / name
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return file

    return write


@pytest.fixture
def rows(runs):
    return list(build_task(compose(WORDS)).rows("test").remove_columns("image"))


def test_formats_of_others(answers, capsys):
    base, better = answers("a.jsonl", "plain", 0.2), answers("b.jsonl", "harness", 0.9)
    assert main(["--samples", str(base), str(better), *WORDS]) == 0
    printed = capsys.readouterr().out
    assert "clock, test: 80 rows" in printed
    exact = next(line for line in printed.splitlines() if "exact" in line)
    assert "0.2" in exact
    assert "0.9" in exact
    assert "better" in exact
    deviation = next(line for line in printed.splitlines() if "deviation" in line)
    assert "better" in deviation, "less is better"


def test_the_verdict_of_runs(runs, capsys):
    """Predictions of runs, as files, seed by seed: the figures of `ntil compare` on their folders."""
    folders = [sorted(runs.glob(f"clock/*/{loss}/*/predictions.jsonl")) for loss in ("ce", "ntil")]
    assert [len(side) for side in folders] == [3, 3]
    files = [",".join(map(str, side)) for side in folders]
    assert main(["--samples", *files, *WORDS]) == 0
    of_files = capsys.readouterr().out
    assert main([str(folders[0][0].parent.parent), str(folders[1][0].parent.parent)]) == 0
    of_runs = capsys.readouterr().out
    shown = next(line for line in of_runs.splitlines() if "better" in line and "[+" in line)
    interval = shown[shown.index("+") : shown.index("]") + 1]
    assert interval in of_files


@pytest.mark.parametrize("form", ["exported", "run"])
def test_a_mixture_is_compared_task_by_task(runs, tmp_path, capsys, form):
    """Ids as they are exported, or as a run of a mixture writes them."""
    words = ["task=[clock,arithmetic]", "model=qwen25_nano"]
    words = [
        *words,
        *(f"task.tasks.{name}.source.rows={{train:8,validation:4,test:20}}" for name in ("clock", "arithmetic")),
    ]
    task = build_task(compose(words))
    sides = []
    for right in (0.2, 0.9):
        lines = []
        for i, row in enumerate(task.rows("test")):
            text = task.answer(row) if i % 10 < right * 10 else "12:59"
            member, _, inner = row["id"].partition(":")
            plain = {"id": row["id"], "prediction": text}
            lines.append(plain if form == "exported" else {**task.record(text, row), "id": inner, "task": member})
        sides.append(tmp_path / f"{right}.jsonl")
        sides[-1].write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["--samples", *map(str, sides), *words]) == 0
    printed = capsys.readouterr().out
    assert "clock, test: 20 rows" in printed
    assert "arithmetic, test: 20 rows" in printed
    of_both = [line for line in printed.splitlines() if line.strip().startswith(("exact", "│ exact"))]
    assert len(of_both) == 2
    assert all("0.2" in line and "0.9" in line for line in of_both)


def test_refusals(answers, rows, tmp_path):
    whole = answers("whole.jsonl", "plain", 0.5)
    part, twice = answers("part.jsonl", "plain", 0.5, rows[:70]), answers("twice.jsonl", "plain", 0.5, [*rows, rows[0]])
    others = answers("others.jsonl", "plain", 0.5, [{**rows[0], "id": "elsewhere"}])
    broken, noted, empty = tmp_path / "broken.jsonl", tmp_path / "noted.jsonl", tmp_path / "empty.jsonl"
    broken.write_text(json.dumps({"id": rows[0]["id"], "output": "03:00"}) + "\n")
    noted.write_text(json.dumps({"id": rows[0]["id"], "answer": "25:00", "text": "03:00"}) + "\n")
    empty.write_text("")
    unnamed = tmp_path / "unnamed.jsonl"
    unnamed.write_text(json.dumps({"doc_id": 0, "doc": {"question": "?"}, "filtered_resps": ["1"]}) + "\n")
    cases = [
        ([part], "lacks 10 of 80 rows of test (first: "),
        ([twice], "line 81: row '"),
        ([others], "the split has no row 'elsewhere'"),
        ([broken], "line 1: no id with a text"),
        ([noted], "has the answer '25:00', in this split it is"),
        ([unnamed], "its `doc` has no `id`"),
        ([empty], "no answer there"),
        ([tmp_path / "nowhere.jsonl"], "there is no such file"),
        ([], "needs two files"),
        ([f"{whole},{whole}"], "1 and 2 files: seeds are paired"),
    ]
    for files, message in cases:
        with pytest.raises(ConfigError) as caught:
            main(["--samples", str(whole), *map(str, files), *WORDS])
        assert message in str(caught.value)
    assert main(["--samples", str(whole), str(part), *WORDS, "partial=true"]) == 0
