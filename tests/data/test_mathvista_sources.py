"""MathVista's release in both layouts, training sources in theirs, and one clear error for whatever is broken."""

import io
import json
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from data.common.errors import InvalidData, RowErrors
from data.mathvista.testmini import MathVistaRelease
from data.mathvista.visual_math import LicenceError, load
from tasks.mathvista import MathVista, query

METADATA = {"task": "t", "context": "c", "grade": "g", "language": "english", "source": "s", "category": "x"}
PROBLEM: dict[str, Any] = {
    "pid": "7", "question": "How long?", "image": "images/7.jpg", "choices": None, "unit": "cm", "precision": 1,
    "answer": "2.5", "question_type": "free_form", "answer_type": "float",
    "metadata": {**METADATA, "split": "testmini", "skills": ["a", "b"]},
}  # fmt: skip
CHOICE = PROBLEM | {
    "pid": "8", "choices": ["Yes", "No"], "unit": None, "precision": None, "answer": "No",
    "question_type": "multi_choice", "answer_type": "text",
}  # fmt: skip
FLOAT = {"question_type": "free_form", "answer_type": "float", "answer": "1.5", "choices": None}


def picture(path=None):
    image = Image.new("RGB", (20, 10), "white")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return buffer.getvalue()


@pytest.fixture
def release(tmp_path):
    picture(tmp_path / "images/7.jpg")
    (tmp_path / "testmini.json").write_text(json.dumps({"7": PROBLEM, "8": CHOICE}))
    (tmp_path / "query.json").write_text(json.dumps({"7": "Prompt seven", "8": "Prompt eight", "9": "Prompt nine"}))
    return tmp_path


def test_json_and_parquet_give_the_same_rows(release):
    held = {"bytes": picture(), "path": "7.jpg"}
    hub = [{**p, "decoded_image": held, "query": "q", "precision": p["precision"] and float(p["precision"])}
           for p in (PROBLEM, CHOICE)]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(hub), release / "testmini-00000-of-00001.parquet")
    first = MathVista(MathVistaRelease(test=str(release / "testmini.json")))
    second = MathVista(MathVistaRelease(test=str(release / "testmini-*.parquet")))
    one, two = list(first.rows("test")), list(second.rows("testmini"))
    assert [{**row, "image": 0} for row in one] == [{**row, "image": 0} for row in two]
    assert [row["image"].size for row in two] == [(20, 10)] * 2
    assert [first.answer(row) for row in one] == ["2.5", "B"]
    assert one[0]["precision"] == 1
    assert one[0]["skills"] == ["a", "b"]
    assert first.prompt(one[0]) == query(PROBLEM)


def test_prompts_from_the_release(release):
    task = MathVista(MathVistaRelease(test=str(release / "testmini.json"), queries=str(release / "query.json")))
    assert [task.prompt(row) for row in task.rows("test")] == ["Prompt seven", "Prompt eight"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "images/9.jpg"}, r"problem 8, field image: .*9.jpg does not exist"),
        ({"choices": ["Yes"]}, "problem 8, field choices: 'No' is none of"),
        ({"choices": None}, "problem 8, field choices"),
        ({"answer": ""}, "problem 8, field answer: .*whose answers are public"),
        ({"question_type": "free_form", "answer_type": "float", "answer": "1.5"}, "field precision: None"),
        ({"question_type": "free_form", "answer_type": "integer"}, "field answer: 'No' is no number"),
        ({"question_type": "essay"}, "field question_type: 'essay'"),
        ({"question": " "}, "field question"),
        ({"pid": "7"}, "problem 8, field id: '7' was already used"),
        ({"pid": None}, "problem 8, field pid"),
        ({"pid": ["8"]}, "problem 8, field pid"),
        ({"choices": ["Yes", None]}, "field choices, 1: None is no text"),
        ({"choices": "Yes, No"}, "field choices: 'Yes, No' is no list"),
        ({"choices": ["No", "\ud800"]}, "field choices, 1: is no Unicode text"),
        ({"precision": "two"}, "field precision: 'two' is no whole number"),
        ({"precision": 1.5}, "field precision: 1.5"),
        ({"precision": -1}, "field precision: -1 decimals"),
        (FLOAT | {"precision": float("nan")}, "field precision: nan for a float answer"),
        (FLOAT | {"precision": float("inf")}, "field precision: inf"),
        (FLOAT | {"precision": 1e300}, "field precision"),
        ({"question_type": ["multi_choice"]}, "field question_type"),
        ({"answer_type": {}}, "field question_type"),
        ({"question": 5}, "field question: 5 is no text"),
        ({"answer": float("nan")}, "field answer: nan is no text"),
        ({"unit": 3}, "field unit: 3 is no text"),
        ({"metadata": "context: table"}, "field metadata: 'context: table' is no object"),
        ({"metadata": {**METADATA, "skills": "algebra"}}, "field skills: 'algebra' is no list"),
        ({"metadata": {**METADATA, "skills": [None]}}, "field metadata, skills"),
        ({"metadata": {**METADATA, "grade": 5}}, "field grade: 5 is no text"),
        ({"metadata": {**METADATA, "task": "\udfff"}}, "field task: is no Unicode text"),
        ({"question_type": "free_form", "answer_type": "integer", "answer": "2.5"}, "'2.5' is no integer"),
    ],
)
def test_broken_problems_are_named_or_skipped(release, change, message):
    file = release / "testmini.json"
    file.write_text(json.dumps({"7": PROBLEM, "8": CHOICE | change}))
    with pytest.raises(InvalidData, match=message):
        MathVista(MathVistaRelease(test=str(file))).rows("test")
    task = MathVista(MathVistaRelease(test=str(file), on_error="skip"))
    assert task.rows("test")["id"] == ["7"]
    assert len(task.skipped) == 1


@pytest.mark.parametrize(
    "change",
    [{"precision": "1"}, {"precision": "1.0"}, {"precision": 1.0}, {"metadata": None}, {"unit": float("nan")}],
)
def test_numbers_as_text_and_nothing_are_read(release, change):
    (release / "testmini.json").write_text(json.dumps({"7": PROBLEM | change}), encoding="utf-8-sig")
    (row,) = MathVista(MathVistaRelease(test=str(release / "testmini.json"))).rows("test")
    assert row["precision"] == 1


def test_a_precision_that_is_not_needed_may_be_nan(release):
    (release / "testmini.json").write_text(json.dumps({"8": CHOICE | {"precision": float("nan"), "image": "7.jpg"}}))
    picture(release / "7.jpg")
    (row,) = MathVista(MathVistaRelease(test=str(release / "testmini.json"))).rows("test")
    assert row["precision"] is None


def test_a_problem_that_the_file_has_twice_is_refused(release):
    text = json.dumps({"7": PROBLEM, "8": CHOICE}).replace('"8": {', '"7": {')
    (release / "testmini.json").write_text(text)
    with pytest.raises(InvalidData, match=r"testmini\.json: .*'7' is there twice"):
        MathVista(MathVistaRelease(test=str(release / "testmini.json"), on_error="skip")).rows("test")


def test_a_problem_that_is_no_object_is_a_row(release):
    (release / "testmini.json").write_text(json.dumps({"6": "no", "7": PROBLEM}))
    task = MathVista(MathVistaRelease(test=str(release / "testmini.json"), on_error="skip"))
    assert task.rows("test")["id"] == ["7"]
    assert len(task.skipped) == 1


def test_broken_files(release):
    for name, content, message in (
        ("gone.json", None, "no such file"),
        ("half.json", '{"7": {', "not JSON"),
        ("list.json", "[]", "no object of pid"),
        ("none.json", "{}", "the split is empty"),
        (
            "field.json",
            json.dumps({"7": {k: v for k, v in PROBLEM.items() if k != "unit"}}),
            "field unit: the field is",
        ),
        ("half.parquet", "PAR1", "no whole parquet"),
    ):
        if content is not None:
            (release / name).write_text(content)
        with pytest.raises(InvalidData, match=message):
            MathVista(MathVistaRelease(test=str(release / name))).rows("test")
    (release / "images/7.jpg").write_bytes((release / "images/7.jpg").read_bytes()[:200])
    with pytest.raises(InvalidData, match=r"problem 7, field image: .*broken or truncated"):
        MathVista(MathVistaRelease(test=str(release / "testmini.json"))).rows("test")


def talk(question, answer, name="a.png", **more):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"image": name, "conversations": turns, **more}


TRAIN = [
    talk("<image>\nHint: letter\nQuestion: Which?\nChoices:\n(A) red\n(B) blue", "The answer is B", id="x1"),
    talk("<image>\nQuestion: How much?", "First 3 + 4 = 7. The answer is 7.50."),
    talk("<image>\nWho?", "The answer is Ann"),
    {"image": "a.png", "question": "Sum?", "answer": "12"},
    {"imgname": "a.png", "query": "Difference?", "label": ["-3"]},
    {"image": "a.png", "question": "Which?", "answer": "blue", "choices": ["red", "blue"]},
    {"image": "a.png", "question": "Which?", "answer": "(A) red", "choices": ["red", "blue"]},
]


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_training_layouts(tmp_path, form):
    picture(tmp_path / "a.png")
    file = tmp_path / f"train.{form}"
    text = json.dumps(TRAIN) if form == "json" else "".join(json.dumps(item) + "\n" for item in TRAIN)
    file.write_text(text)
    task = MathVista(MathVistaRelease(test="unused.json", train=str(file), validation=0))
    rows = list(task.rows("train"))
    assert [task.answer(row) for row in rows] == ["B", "7.50", "Ann", "12", "-3", "B", "A"]
    kinds = ["text", "float", "text", "integer", "integer", "text", "text"]
    assert [row["answer_type"] for row in rows] == kinds
    assert [row["answer"] for row in rows] == ["blue", "7.5", "Ann", "12", "-3", "blue", "red"]
    assert task.prompt(rows[0]) == "Hint: letter\nQuestion: Which?\nChoices:\n(A) red\n(B) blue"
    assert task.prompt(rows[3]).endswith("at the end.\nQuestion: Sum?")
    for row in rows:
        record = task.record(task.answer(row), row)
        assert record["failure"] is None, row
        assert record["scores"]["accuracy"] == 1, row


HINT = "<image>\nFirst perform reasoning, then finally select the question from the choices in the following format: "
GEO = f"{HINT}Answer: xxx.\nQuestion:Angle BAD is 40 degrees; how large is angle BCD?\nChoices:\n"
ANGLES = ["40°", "60°", "90°", "140°"]
COLON = GEO + "A:40°\nB:60°\nC:90°\nD:140°"


@pytest.mark.parametrize(
    ("question", "answer", "target", "choices"),
    [
        # Geo170K (G-LLaVA): the solution, then the letter twice.
        (COLON, "The angles add up to 180°. So the answer is D.\nAnswer:D", "D", ANGLES),
        (COLON, "Angle BAD is 40°. Therefore, the answer is option D.\nAnswer: D", "D", ANGLES),
        (COLON, "Answer:D", "D", ANGLES),
        (COLON, "Is the answer is A? No, the answer is D", "D", ANGLES),
        (COLON, "The answer is D: 140°", "D", ANGLES),
        (COLON, "The answer is 140°.", "D", ANGLES),
        # LLaVA-OneVision's copy of it; a choice may occur twice.
        (GEO + "A: 4.0\nB: 12.0\nC: 8.0\nD: 4.0", "Answer:D", "D", ["4.0", "12.0", "8.0", "4.0"]),
        (GEO + "A. 40°\nB. 60°\nC. 90°\nD. 140°", "Answer:D", "D", ANGLES),
        (GEO + "(A) 40° (B) 60° (C) 90° (D) 140°", "Answer:D", "D", ANGLES),
        # MathV360K, with the letters of the choices in an order of their own; a hint after them.
        ("<image>\nWhich?\nChoices:\n(A) B\n(B) A", "The answer is B", "B", ["B", "A"]),
        (
            "<image>\nWhich?\nChoices:\n(A) a\n  longer\n(B) b\nAnswer now.",
            "The answer is A",
            "A",
            ["a\n  longer", "b"],
        ),
        ("<image>\nAngles:\nA: 40\nB: 60\nHow large is C?", "The answer is 80", "80", []),
        ("<image>\nWhich point?", "The answer is D.", "D", []),
    ],
)
@pytest.mark.parametrize("names", [None, ("question", "answer"), ("query", "label"), ("problem", "solution")])
def test_choices_that_a_question_lists(tmp_path, question, answer, target, choices, names):
    picture(tmp_path / "a.png")
    row = {"image": "a.png", **dict(zip(names or (), (question, answer), strict=False)), "choices": []}
    (tmp_path / "train.json").write_text(json.dumps([row if names else talk(question, answer)]))
    (row,) = load(tmp_path / "train.json", "train", 0, None, RowErrors())
    assert (row["target"], row["choices"]) == (target, choices)
    assert row["question_type"] == ("multi_choice" if choices else "free_form")
    assert not choices or row["answer"] == choices[ord(target) - ord("A")]
    task = MathVista(MathVistaRelease(test="unused.json"))
    assert not choices or task.prompt(row) == question.removeprefix("<image>").strip()
    assert task.answer(row) == target


@pytest.mark.parametrize(
    ("answer", "target", "kind"),
    [
        ("<answer> 145° </answer>", "145°", "text"),
        (["7"], "7", "integer"),
        (0.1, "0.1", "float"),
        (12, "12", "integer"),
        (1e-7, "0.0000001", "text"),
        ("9" * 250, "9" * 250, "integer"),
        ("[2014, 2016]", "[2014, 2016]", "text"),
        ("Answer: Yes", "Yes", "text"),
    ],
)
def test_answers_as_other_data_sets_write_them(tmp_path, answer, target, kind):
    picture(tmp_path / "a.png")
    (tmp_path / "train.json").write_text(json.dumps([{"image": "a.png", "question": "Q", "answer": answer}]))
    (row,) = load(tmp_path / "train.json", "train", 0, None, RowErrors())
    assert (row["target"], row["answer_type"]) == (target, kind)


def test_a_letter_of_no_listed_choice_is_refused_in_every_layout(tmp_path):
    picture(tmp_path / "a.png")
    row = {"image": "a.png", "question": "Which?\nChoices:\n(A) red\n(B) blue", "answer": "Z"}
    (tmp_path / "train.json").write_text(json.dumps([row]))
    with pytest.raises(InvalidData, match="row 0, field answer: 'Z' is the letter of none of 2 choices"):
        load(tmp_path / "train.json", "train", 0, None, RowErrors())


def test_one_picture_under_two_paths_is_in_one_split(tmp_path):
    names = [f"{number}.png" for number in range(30)]
    for name in names:
        picture(tmp_path / name)
    items = [{"image": prefix + name, "question": "Q", "answer": "1"} for name in names for prefix in ("", "./", ".//")]
    (tmp_path / "train.json").write_text(json.dumps(items))
    held_out = load(tmp_path / "train.json", "validation", 25, None, RowErrors())
    assert len(held_out) % 3 == 0


def test_validation_shares_no_picture_with_train(tmp_path):
    for number in range(40):
        picture(tmp_path / f"{number}.png")
    items = [talk("<image>\nHow many?", str(turn), f"{number}.png") for number in range(40) for turn in range(2)]
    (tmp_path / "train.json").write_text(json.dumps(items))
    task = MathVista(MathVistaRelease(test="unused.json", train=str(tmp_path / "train.json"), validation=25))
    parts = {split: task.rows(split) for split in ("train", "validation")}
    names = {s: {row["image"].filename for row in rows} for s, rows in parts.items()}
    assert sum(map(len, parts.values())) == 80
    assert all(len(n) > 3 for n in names.values())
    assert not names["train"] & names["validation"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"image": "a.png", "question": "Q", "answer": ""}, "row 0, field answer"),
        ({"image": "a.png", "question": "Q"}, "row 0, field answer: none of answer, label"),
        ({"question": "Q", "answer": "1"}, "row 0, field image"),
        ({"image": "b.png", "question": "Q", "answer": "1"}, "row 0, field image: .*does not exist"),
        ({"image": 3, "question": "Q", "answer": "1"}, "row 0, field image: 3 is neither"),
        ({"image": "a.png", "conversations": [{"from": "human", "value": "Q"}]}, "row 0, field conversations"),
        ({"image": "a.png", "conversations": "no"}, "row 0, field conversations"),
        (talk("Q", None), "row 0, field conversations: a value is no text"),
        ({"image": "a.png", "question": "Q", "answer": "1", "choices": [1]}, "row 0, field choices"),
        ({"image": "a.png", "question": "Q", "answer": float("nan")}, "row 0, field answer: nan is no number"),
        ({"image": "a.png", "question": "Q", "answer": None}, "row 0, field answer: None is no answer"),
        ({"image": "a.png", "question": "Q", "answer": ["1", "2"]}, "row 0, field answer"),
        ({"image": "a.png", "question": "Q", "answer": "9" * 400}, "row 0, field answer: .* is no number"),
        ({"image": "a.png", "question": None, "answer": "1"}, "row 0, field question"),
        ({"image": "\ud800", "question": "Q", "answer": "1"}, "row 0, field image: is no Unicode text"),
        ({"image": "a.png", "question": "Q", "answer": "1", "id": [1]}, "row 0, field id"),
        ({"image": "a.png", "question": "Q", "answer": "C", "choices": ["red", "blue"]}, "letter of none of 2 choices"),
        ({"image": "a.png", "question": "Q", "answer": "(A) blue", "choices": ["red", "blue"]}, "words of another"),
        ({"image": "a.png", "conversations": [*talk("Q", "1")["conversations"], "x"]}, "row 0, field conversations"),
        (talk(COLON, "Answer:E"), "row 0, field answer: 'E' is the letter of none of 4 choices"),
    ],
)
def test_broken_training_rows_are_named(tmp_path, item, message):
    picture(tmp_path / "a.png")
    (tmp_path / "train.json").write_text(json.dumps([item, TRAIN[1]]))
    with pytest.raises(InvalidData, match=message):
        load(tmp_path / "train.json", "train", 0, None, RowErrors())
    skipping = RowErrors("skip")
    assert len(load(tmp_path / "train.json", "train", 0, None, skipping)) == 1
    assert len(skipping.skipped) == 1


def test_mathvista_is_no_training_set(tmp_path):
    picture(tmp_path / "images/7.jpg")
    for name, content in (("MathVista.json", TRAIN), ("mine.json", [PROBLEM])):
        (tmp_path / name).write_text(json.dumps(content))
        with pytest.raises(LicenceError, match="prohibits using it as a training set"):
            load(tmp_path / name, "train", 0, None, RowErrors("skip"))
