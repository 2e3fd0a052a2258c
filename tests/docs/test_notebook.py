"""The notebook of the demo runs as it stands, in a minute, and is stored without outputs."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs/notebooks/demo.ipynb"


def test_no_output_is_stored():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def text_of(cell):
    streams = [output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell["outputs"]]
    return "".join(streams)


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="the docs extra installs nbclient")
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}})
    client.execute()
    losses, parts, _, _, scores, verdict = (text_of(cell) for cell in notebook.cells if cell["cell_type"] == "code")
    # What the text says of the numbers: cross-entropy doesn't tell them apart, EMD tells digits, the others places.
    rows = {line.split()[0]: line.split() for line in losses.splitlines()}
    ce, emd, ntil, value = ({number: float(row[at]) for number, row in rows.items()} for at in (2, 4, 6, 8))
    assert ce["401"] == ce["900"]
    assert emd["409"] > emd["401"] == emd["500"]
    assert ntil["500"] > ntil["401"]
    assert value["900"] > value["500"] > value["409"] > value["401"]
    assert "'aux'" in parts
    assert {line.split()[0] for line in scores.splitlines()} == {"ce", "value_emd"}
    assert "95 %" in verdict
