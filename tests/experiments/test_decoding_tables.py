"""Decodings beside the generated answers in reports and summaries."""

from experiments.analysis import CellReport, Line
from experiments.cells import Cell
from experiments.render.decodings import decoding_tables
from ntil.commands.summary import metrics_rows

METRICS = {
    "examples": 4.0,
    "exact": 0.5,
    "a/exact": 0.25,
    "decoding/median/exact": 0.75,
    "decoding/median/a/exact": 0.7,
    "decoding/sampled/exact": 0.4,
    "decoding/covered": 0.99,
}


def test_a_column_for_every_decoding():
    values = {key: [value, value] for key, value in METRICS.items()}
    lines = (Line("ce", (0, 1), values), Line("ntil", (0,), {"exact": [0.6]}))
    report = CellReport(Cell("clock", "llava_nano", ()), "ce", lines, (), None, "exact", ("exact", "deviation"))
    (table,) = decoding_tables(report)
    assert table.title == "clock, llava_nano: exact by decoding"
    assert table.columns == ["loss", "as generated", "median", "sampled"]
    assert [row[0] for row in table.rows] == ["ce", "ntil"]
    assert [cell.partition(" ")[0] for cell in table.rows[0][1:]] == ["0.5000", "0.7500", "0.4000"]
    assert table.rows[1][1:] == ["0.6", "-", "-"]


def test_without_decodings_there_is_no_table():
    report = CellReport(
        Cell("clock", "llava_nano", ()), "ce", (Line("ce", (0,), {"exact": [1.0]}),), (), None, "exact", ("exact",)
    )
    assert decoding_tables(report) == []


def test_the_summary_has_a_run_for_every_decoding():
    rows = metrics_rows("ntil seed 0", METRICS)
    assert rows == [
        {"run": "ntil seed 0", "examples": 4, "exact": 0.5},
        {"run": "ntil seed 0, median", "exact": 0.75},
        {"run": "ntil seed 0, sampled", "exact": 0.4},
    ]
