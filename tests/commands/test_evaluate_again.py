"""`ntil eval` of a finished run: other decodings, and answers from a stand-in server on the loopback."""

import shutil
from pathlib import Path

import pytest

from ntil.commands.evaluate import main
from ntil.components import Components
from ntil.config.errors import ConfigError
from ntil.evaluation.generate import generate
from ntil.models.saving import load_saved
from ntil.runs.folder import RunFolder, find_runs
from ntil.runs.run import build_from_saved
from tests.support.openai_server import StandIn, serving

ARCHIVE = Path(__file__).parents[1] / "golden" / "runs_of_format_1.zip"


@pytest.fixture
def run(tmp_path, monkeypatch):
    shutil.unpack_archive(ARCHIVE, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    folders = find_runs(tmp_path / "runs" / "finished" / "clock" / "llava_nano" / "ntil")
    folders[0].freeze(folders[0].config())
    return folders[0]


@pytest.fixture
def serve(monkeypatch):
    with serving(monkeypatch) as start:
        yield start


def evaluated(run: RunFolder) -> list[RunFolder]:
    return [RunFolder(path) for path in sorted(run.evaluations.iterdir())]


def test_decodings_stand_beside_the_runs_own_answers(run, capsys):
    assert main([f"run={run.path}", "processes=1", "evaluation.decoding=[median,bayes]"]) == 0
    (again,) = evaluated(run)
    metrics = again.read_metrics()
    assert metrics["exact"] == run.read_metrics()["exact"]
    assert {"decoding/median/exact", "decoding/bayes/deviation", "decoding/as_generated"} <= set(metrics)
    assert "\n  median: exact " in capsys.readouterr().out


def test_an_evaluation_that_fails_leaves_no_earlier_metrics_beside_its_predictions(run, monkeypatch):
    words = [f"run={run.path}", "processes=1"]
    assert main(words) == 0
    (results,) = evaluated(run)

    def fails(*arguments, **options):
        raise MemoryError("killed")

    monkeypatch.setattr(RunFolder, "write_metrics", fails)
    with pytest.raises(MemoryError):
        main(words)
    assert results.predictions.exists()
    assert not results.done


def test_a_server_answers_in_place_of_the_run(run, serve, capsys):
    components = build_from_saved(run, run.config(), Components.build)
    model = load_saved(components.family, run.model).eval()
    stand_in = StandIn(model, components.collator)
    words = [f"run={run.path}", "evaluation.backend=openai", f"evaluation.server.url={serve(stand_in)}"]
    words += ["evaluation.server.model=ours", "evaluation.server.parity_rows=3"]
    assert main(words) == 0
    assert "parity: 3 of 3 answers equal, 0 unequal" in capsys.readouterr().out
    (again,) = evaluated(run)
    assert again.read_metrics().items() >= {"parity_rows": 3.0, "parity_equal": 3.0}.items()
    rows = list(components.task.rows("test"))
    texts = [text.strip() for text in generate(model, components.collator, rows)]
    assert [record["text"] for record in again.read_predictions()] == texts
    stand_in.change = lambda text: "12:34"
    with pytest.raises(ConfigError, match=r"0 of \d+ answers equal"):
        main([*words, "evaluation.split=validation"])
