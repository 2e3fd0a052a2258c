"""MathVista's official scoring on its own stored outputs, and its odd cases."""

import gzip
import json
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.mathvista.testmini import MathVistaRelease
from tasks.mathvista import MathVista
from tasks.metrics.mathvista import normalize, verdict

# After the scores were published, a grade was renamed and 54 skills were relabelled.
RENAMED = {"daily life": "not applicable"}


@pytest.fixture(scope="module")
def outputs(shared):
    with gzip.open(shared / "assets/data/mathvista/official_outputs.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def problems(shared):
    return json.loads((shared / "assets/data/mathvista/testmini.json").read_text())


def test_every_stored_prediction_and_verdict_comes_out(outputs, problems):
    names = ("choices", "question_type", "answer_type", "precision")
    assert len(outputs) >= 12_000
    wrong = [
        (line["model"], line["pid"])
        for line in outputs
        if verdict(line["extraction"], problems[line["pid"]]) != line["current_code_true_false"]
        or normalize(line["extraction"], *(problems[line["pid"]][n] for n in names)) != line["current_code_prediction"]
    ]
    assert not wrong, wrong[:10]


def test_published_scores_come_out_by_every_key(outputs, problems, shared):
    """Through the task's own groups, for the runs whose stored verdicts are those of the current code."""
    published = json.loads((shared / "assets/data/mathvista/official_scores.json").read_text())
    runs = defaultdict(list)
    for line in outputs:
        runs[line["model"]].append(line)
    task, compared = MathVista(MathVistaRelease(test="unused.json")), 0
    for model, lines in runs.items():
        if any(bool(line["stored_true_false"]) != line["current_code_true_false"] for line in lines):
            continue
        records = []
        for line in lines:
            problem = problems[line["pid"]]
            score = {"accuracy": float(verdict(line["extraction"], problem))}
            row = {**problem, **problem["metadata"]}
            records.append({"scores": score, "lenient": score, "failure": None, "groups": task.groups(row)})
        metrics = task.summarize(records)
        for key, groups in published[model].items():
            if key == "skills":
                continue
            for name, scores in {"": groups}.items() if key == "average" else groups.items():
                prefix = "" if key == "average" else f"{key}/{RENAMED.get(name, name)}/"
                assert metrics[f"{prefix}examples"] == scores["total"], (model, prefix)
                correct = round(metrics[f"{prefix}official_accuracy"] * scores["total"])
                assert correct == scores["correct"], (model, prefix)
                compared += 1
    assert compared >= 612


CHOICES = ["10", "20", "B", "a long one"]


@pytest.mark.parametrize(
    ("extraction", "prediction"),
    [
        ("A", "10"),
        (" (b) 20", "20"),
        ("(Z)", "B"),  # no such option: the nearest text to "Z", the first of those at distance 1
        ("b", "B"),  # a small letter alone is no option
        ("", "B"),  # nothing is nearest to the shortest
        (None, "10"),  # "None" is compared as a text, and is as far from all short ones
        (20, "20"),
        ("answer: 20", "20"),
        ("the long one", "a long one"),
    ],
)
def test_choices(extraction, prediction):
    assert normalize(extraction, CHOICES, "multi_choice", "text", None) == prediction


@pytest.mark.parametrize(
    ("extraction", "integer", "two_places"),
    [
        ("12", "12", "12.0"),
        (" 12.9 ", "12", "12.9"),
        ("-0.004", "0", "-0.0"),
        ("2.675", "2", "2.67"),  # as Python's round has it
        ("1e3", "1000", "1000.0"),
        ("1_0", "10", "10.0"),
        ("nan", None, "nan"),
        ("inf", None, "inf"),
        ("1,000", None, None),
        ("5 cm", None, None),
        ("", None, None),
        (None, None, None),
        ([1], None, None),
        (float("nan"), None, "nan"),
    ],
)
def test_numbers(extraction, integer, two_places):
    assert normalize(extraction, None, "free_form", "integer", None) == integer
    for precision in (2, 2.0):  # parquet has it as a float
        assert normalize(extraction, None, "free_form", "float", precision) == two_places


def test_lists_and_texts_stay_as_they_are():
    assert normalize("[1, 2]", None, "free_form", "list", None) == "[1, 2]"
    assert normalize([1, 2], None, "free_form", "list", None) == "[1, 2]"
    assert normalize(" x ", None, "free_form", "text", None) == " x "
    with pytest.raises(ValueError, match="no choices"):
        normalize("A", None, "multi_choice", "text", None)
    assert not verdict(
        "3",
        {"choices": None, "question_type": "free_form", "answer_type": "float"} | {"precision": None, "answer": "3.0"},
    )


ANYTHING = st.none() | st.text() | st.integers() | st.floats() | st.lists(st.integers(), max_size=2)


@settings(max_examples=500)
@given(ANYTHING, st.lists(st.text(min_size=1), min_size=2, max_size=6, unique=True))
def test_nothing_crashes(extraction, choices):
    assert normalize(extraction, choices, "multi_choice", "text", None) in choices
    for form in ("integer", "float", "list"):
        assert isinstance(normalize(extraction, None, "free_form", form, 1), str | None)
