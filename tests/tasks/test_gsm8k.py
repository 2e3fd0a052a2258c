"""GSM8K's format read, taught and read back; broken lines named. The problems here are our own."""

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.common.errors import InvalidData
from data.gsm8k import GSM8KFiles
from tasks.base import ParseFailure
from tasks.gsm8k import GSM8K

LINES = [
    {
        "question": "A crate holds 12 jars. How many jars do 5 crates hold?",
        "answer": "5 crates hold 5*12 = <<5*12=60>>60 jars.\n#### 60",
    },
    {
        "question": "Rent is $950 a month. What is it for 2 years?",
        "answer": "2*12=<<2*12=24>>24\n24*950=<<24*950=22800>>22800\n#### 22,800",
    },
    {"question": "It was 3 degrees and fell by 8. What is it now?", "answer": "3-8=<<3-8=-5>>-5\n#### -5"},
    {"question": "Half of 7?", "answer": "7/2=<<7/2=3.50>>3.5\n#### 3.50"},
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def test_final_number_only(file):
    task = GSM8K(GSM8KFiles({"train": str(file), "test": str(file)}, holdout=1))
    rows = task.rows("test")
    assert [task.answer(row) for row in rows] == ["60", "22800", "-5", "3.5"]
    assert [task.prompt(row) for row in rows] == [line["question"] for line in LINES]
    assert [row["level"] for row in rows] == [0, 1, 0, 0]
    assert len(task.rows("train")) == 3
    assert task.rows("validation")["id"] == ["train-4"]
    assert not set(task.rows("train")["id"]) & set(task.rows("validation")["id"])
    assert isinstance(task.parse("#### 60", rows[0]), ParseFailure)
    assert task.parse_lenient("so it is $22,800.", rows[1]) == 22800


def test_reasoning_with_and_without_the_calculator(file):
    task = GSM8K(GSM8KFiles({"test": str(file)}), reasoning=True)
    row = task.rows("test")[0]
    assert task.answer(row) == "5 crates hold 5*12 = 60 jars.\n#### 60"
    kept = GSM8K(GSM8KFiles({"test": str(file)}, calculator=True), reasoning=True)
    assert kept.answer(kept.rows("test")[0]) == LINES[0]["answer"]
    for text, value in (
        ("x\n#### 60", 60),
        ("#### 1,234.50", Decimal("1234.5")),
        ("#### 7\n#### 8", 7),
        ("####-5.", -5),
    ):
        assert task.parse(text, row) == value, text
    for text in ("60", "#### sixty", "#### 1,23", "", "### 60", "#### x\n#### 60"):
        assert isinstance(task.parse(text, row), ParseFailure), text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("#### 60\nI used 5 crates.", 60),
        ("#### $22,800 in 2 years", 22800),
        ("#### x\n#### 60", 60),
        ("60 jars, so \\boxed{60} for 5 crates", 60),
        ("sixty jars", 60),
    ],
)
@pytest.mark.parametrize("reasoning", [False, True])
def test_lenient_readings(text, value, reasoning):
    assert GSM8K(GSM8KFiles({}), reasoning=reasoning).parse_lenient(text, ROW) == value


@pytest.mark.parametrize("reasoning", [False, True])
def test_the_taught_answer_reads_as_right(file, reasoning):
    task = GSM8K(GSM8KFiles({"test": str(file)}), reasoning=reasoning)
    summary = task.summarize(task.record(task.answer(row), row) for row in task.rows("test"))
    assert summary["exact"] == summary["lenient_exact"] == 1
    assert summary["parse_failure_rate"] == 0


ROW = {"id": "r", "question": "q", "solution": "s", "answer": "42", "level": 0}


@settings(max_examples=500)
@given(st.text() | st.from_regex(r"[a-z \n]{0,5}#### ?[-0-9.,]{0,8}[a-z0-9#\n ]{0,8}"))
def test_no_text_crashes_or_scores_above_what_it_says(text):
    for reasoning in (False, True):
        record = GSM8K(GSM8KFiles({}), reasoning=reasoning).record(text, ROW)
        after = text.partition("####")[2] if reasoning else text
        assert record["lenient"]["exact"] >= record["scores"]["exact"]
        if record["scores"]["exact"]:
            assert after.strip().replace(",", "").lstrip("0").startswith("42")
        if "42" not in text.replace(",", ""):
            assert record["scores"]["exact"] == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "q", "answer": "no number\\n#### many"}', r"line 2, field answer: .*#### <number>"),
        ('{"question": "q", "answer": "1.2.3\\n#### 1.2.3"}', r"line 2, field answer"),
        ('{"question": "q"}', r"line 2, field answer: is missing; found question"),
        ('{"question": 3, "answer": "#### 1"}', r"line 2, field question: 3 is no text"),
        ('{"question": "q", "answer": ', r"line 2: not JSON"),
    ],
)
def test_broken_lines_are_named_or_skipped(tmp_path, line, message):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(LINES[0]) + "\n" + line + "\n")
    with pytest.raises(InvalidData, match=message):
        GSM8K(GSM8KFiles({"test": str(path)})).rows("test")
    if "not JSON" not in message:
        task = GSM8K(GSM8KFiles({"test": str(path)}, on_error="skip"))
        assert len(task.rows("test")) == 1
        assert len(task.skipped) == 1


def test_missing_files_and_keys():
    with pytest.raises(ValueError, match=r"set task\.source\.files\.train"):
        GSM8K(GSM8KFiles({})).rows("validation")
    with pytest.raises(InvalidData, match="no such file"):
        GSM8K(GSM8KFiles({"test": "nowhere.jsonl"})).rows("test")
    with pytest.raises(ValueError, match=r"task\.question"):
        GSM8K(GSM8KFiles({}), question="?")
