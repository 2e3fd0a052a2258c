"""MathVista's prompts, readings and metrics; extraction by rules; training refused; the rendered twin."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.mathvista.rendered import RenderedFigures
from data.mathvista.testmini import MathVistaRelease
from ntil.commands.data import check
from ntil.config.build import build
from ntil.config.schema import Component
from tasks.answers.mathvista_extraction import Extractor, extract
from tasks.base import ParseFailure
from tasks.mathvista import MathVista, query, strict

TASK = MathVista(MathVistaRelease(test="unused.json"))


def problem(answer="3", form="integer", choices=(), precision=None, **more):
    kind = "multi_choice" if choices else "free_form"
    return {
        "id": "1", "question": "How many?", "prompt": None, "choices": list(choices), "unit": None,
        "precision": precision, "answer": answer, "target": None, "question_type": kind, "answer_type": form,
        "task": "t", "context": "c", "grade": None, "language": None, "source": None, "category": None,
        "skills": ["s", "u"], **more,
    }  # fmt: skip


CHOICE = problem("40", "text", ("22", "40", "44", "48"))
YES = problem("Yes", "text", ("Yes", "No"))
FLOAT = problem("1.2", "float", precision=1)
LIST = problem("[1, 2]", "list")
INTEGER = problem()
FROGS = problem("Frogs", "text", ("Deer", "Frogs", "Wolf"))
ASKED = problem("Yes", "text", ("Yes", "No"), question="Is the bed larger than the kitten?")
HALVES = problem("1/2", "text", (r"\frac{1}{2}", r"\frac{1}{4}", "2", "4"))
BELOW = problem(question="How many algorithms have an accuracy lower than 8?")
EVERY = (CHOICE, YES, FLOAT, LIST, INTEGER)


def test_prompts_equal_the_official_queries(shared):
    folder = shared / "assets/data/mathvista"
    problems = json.loads((folder / "testmini.json").read_text())
    queries = json.loads((folder / "query.json").read_text())
    different = [pid for pid, item in problems.items() if query(item) != queries[pid]]
    assert len(problems) == 1000
    assert not different, different[:5]


def test_prompts_without_hint_and_with_more_decimals_than_official_ones():
    assert query(CHOICE, hint=False) == "How many?\nChoices:\n(A) 22\n(B) 40\n(C) 44\n(D) 48"
    assert query(problem(unit="years"), hint=False) == "How many? (Unit: years)"
    asked = query(problem("1.234", "float", precision=3))
    assert (
        "a floating-point number with 3 decimal places and provide the final value, e.g., 1.235, 1.346, 1.457," in asked
    )


@pytest.mark.parametrize("row", EVERY)
def test_the_answer_itself_reads_as_right(row):
    record = TASK.record(TASK.answer(row), row)
    assert record["failure"] is None
    assert record["scores"] == record["lenient"] == {"accuracy": 1.0, "relative_error": 0.0}


@pytest.mark.parametrize(
    ("row", "good", "bad"),
    [
        (CHOICE, ["B", "(B)", " B\n", "40"], ["b", "E", "B.", "(B) 40", "40.0", "", "41"]),
        (INTEGER, ["3", "-3"], ["3.0", "3 cm", "+3", "03", "three", ""]),
        (FLOAT, ["1.2", "1", "1.24"], ["1,2", "1.2 m", "nan", ".5", ""]),
        (LIST, ["[1, 2]", "[]"], ["1, 2", "[[1]]", "so [1, 2]", ""]),
    ],
)
def test_strict_reading(row, good, bad):
    for text in good:
        assert not isinstance(TASK.parse(text, row), ParseFailure), text
    for text in bad:
        assert isinstance(TASK.parse(text, row), ParseFailure), text


@pytest.mark.parametrize(
    ("row", "response", "extraction"),
    [
        (CHOICE, "The perimeter is 40 meters.\n\nSo the answer is (B).", "B"),
        (CHOICE, "The answer is (B). Choice (C) is incorrect because 44 is too long.", "B"),
        (CHOICE, "(A) is 22, too small. (D) is 48, too large.\nThe correct option letter is **C**", "C"),
        (CHOICE, "B. 40 is the sum", "B"),
        (CHOICE, "It adds up.\n\nD", "D"),
        (CHOICE, "We get 13 + 9 = 22 and so 44 in all.", "C"),
        (CHOICE, "It is 41", "41"),
        (CHOICE, "The question cannot be answered.", None),
        (CHOICE, "", None),
        (CHOICE, "(b)", "B"),
        (CHOICE, "\uff08B\uff09", "B"),
        (CHOICE, "the answer is b.", "B"),
        (CHOICE, r"Hence \boxed{B}, since f(a) = 1.", "B"),
        (CHOICE, r"\boxed{\text{(B)}}", "B"),
        (CHOICE, "(B) 40\n\nExplanation: (A) is too small.", "B"),
        (CHOICE, "[B]", "B"),
        (CHOICE, "#### B", "B"),
        (CHOICE, "I choose B.", "B"),
        (CHOICE, "B is the correct answer.", "B"),
        (HALVES, "1/2", "A"),
        (HALVES, "the answer is 1/4", "B"),
        (INTEGER, "1.2.3", None),
        (INTEGER, "3-5", None),
        (FLOAT, "(\u221a5-1)/2", None),
        (CHOICE, r"\boxed{40}", "B"),
        (CHOICE, "so x = 40.0", "B"),
        (CHOICE, "x = 50, but none of the given options match, so there is a mistake in the question; 40?", None),
        (CHOICE, "If it is a square, the answer is (A). Without the picture it is impossible to tell.", None),
        (CHOICE, "The answer is B.\n\nQuestion: 3 + 4?\nSolution: 3 + 4 = 7", "7"),
        (FROGS, "Without grasshoppers the animal that lacks food is the frog.", "B"),
        (ASKED, "The bed is larger than the kitten.", "A"),
        (ASKED, "The bed is not larger than the kitten.", "B"),
        (ASKED, "The bed is smaller than the kitten.", "B"),
        (ASKED, "The image does not show whether the bed is larger; more information is needed.", None),
        (INTEGER, "1/2", "0.5"),
        (INTEGER, r"x = \frac{1}{2}", "0.5"),
        (INTEGER, "I count thirty one", "31"),
        (INTEGER, "Rs.500", "500"),
        (INTEGER, "\u20135", "-5"),
        (INTEGER, "minus 5", "-5"),
        (INTEGER, "1 234", "1234"),
        (BELOW, "There are three algorithms with an accuracy lower than 8.", "3"),
        (BELOW, "So 4 algorithms are lower than 8", "4"),
        (YES, "Yes, it is.", "A"),
        (YES, "It is cut in half.", None),
        (INTEGER, "There are 10 - 2 - 3 = 5 objects left.", "5"),
        (INTEGER, "So the answer is 5. Ask me 2 more.", "5"),
        (INTEGER, "the total is **1,200** g; I used 3 cups", "1200"),
        (INTEGER, "I count two birds", "2"),
        (INTEGER, "x = \\boxed{7} since 3 + 4", "7"),
        (INTEGER, "I can't tell.", None),
        (FLOAT, "d = 0.11 m.\n\nTherefore, it is 1.24 meters.", "1.24"),
        (LIST, "first [2], then [1, 2].", "[1, 2]"),
        (CHOICE, "I think it's B.", "B"),
        (CHOICE, "Therefore, it is (B)!", "B"),
        (CHOICE, "So B.", "B"),
        (CHOICE, "I would choose B", "B"),
        (CHOICE, "The answer is not A, but B.", "B"),
        (CHOICE, "The answer isn't A; it's B.", "B"),
        (CHOICE, "It is a line from A", None),
        (INTEGER, "a = 3\nprint(a)", None),
    ],
)
def test_extraction_by_rules(row, response, extraction):
    assert extract(response, row) == extraction


LIKE_ANSWERS = r"(the answer is |option )?\(?[A-E]?\)?[ .:]?[-0-9.,\[\] ]{0,8}( is|=)? ?[0-9]{0,3}"
RESPONSES = st.text() | st.from_regex(LIKE_ANSWERS)


@settings(max_examples=600)
@given(RESPONSES, st.sampled_from(EVERY))
def test_no_response_crashes_or_scores_above_what_it_says(text, row):
    record = TASK.record(text, row)
    for scores in (record["scores"], record["lenient"]):
        assert scores["accuracy"] in (0, 1)
        assert 0 <= scores["relative_error"] <= 1
        assert scores["accuracy"] == 0 or scores["relative_error"] == 0
    said = text.strip()
    if record["scores"]["accuracy"]:
        letter = TASK.answer(row)
        # Whatever is right strictly is the answer and nothing else ...
        number = row["answer_type"] in ("integer", "float")
        same = number and round(float(said), row["precision"] or 0) == float(row["answer"])
        assert said in (letter, f"({letter})", row["answer"]) or same
        # ... and right by the official protocol too.
        assert record["lenient"]["accuracy"]
    if record["lenient"]["accuracy"] and row["question_type"] == "free_form":
        assert any(c.isdigit() for c in text) or any(word in text.lower() for word in ("three", "pi", "π"))
    if not said:
        assert record["failure"] is not None
        assert record["lenient"]["accuracy"] == 0


def test_a_response_without_an_answer_means_the_nearest_choice_in_a_figure_of_its_own():
    texts = ["B", "It cannot be told, perhaps near 40", "I cannot tell."]
    summary = TASK.summarize(TASK.record(text, CHOICE) for text in texts)
    assert summary["official_accuracy"] == pytest.approx(1 / 3)
    assert summary["official_accuracy_nearest"] >= summary["official_accuracy"]
    assert summary["task/t/official_accuracy_nearest"] == summary["official_accuracy_nearest"]
    nothing = TASK.record("no idea", INTEGER)
    assert nothing["nearest"] == 0
    without = [{k: v for k, v in TASK.record("B", CHOICE).items() if k != "nearest"}]
    assert "official_accuracy_nearest" not in TASK.summarize(without)


def test_metrics_by_group_and_failures():
    texts = ["3", "The answer is 3.", "4", "nothing"]
    summary = TASK.summarize(TASK.record(text, INTEGER) for text in texts)
    assert summary["accuracy"] == 0.25
    assert summary["official_accuracy"] == summary["lenient_accuracy"] == 0.5
    assert summary["parse_failure_rate"] == 0.5
    assert summary["relative_error"] == pytest.approx((0 + 1 + 1 / 3 + 1) / 4)
    for group in ("task/t", "context/c", "skills/s", "skills/u", "question_type/free_form", "answer_type/integer"):
        assert summary[f"{group}/official_accuracy"] == 0.5
        assert summary[f"{group}/examples"] == 4
    assert not any(key.startswith("grade/") for key in summary)


class AlwaysThree(Extractor):
    def __call__(self, response, row):
        return "3" if "?" in response else None


def made(**options):
    return build("task", Component("mathvista", "tasks.mathvista:MathVista", options))


RELEASE = {"target": "data.mathvista.testmini:MathVistaRelease", "test": "unused.json"}


def test_another_extractor_is_used_only_when_named_and_declared(monkeypatch):
    named = {"source": RELEASE, "extractor": f"{__name__}:AlwaysThree"}
    with pytest.raises(ValueError, match="declared with NTIL_PACKAGES="):
        made(**named)
    monkeypatch.setenv("NTIL_PACKAGES", __name__.partition(".")[0])
    own = made(**named)
    assert own.record("?", INTEGER)["lenient"]["accuracy"] == 1
    assert own.record("It is 3", INTEGER)["lenient"]["accuracy"] == 0
    assert TASK.record("?", INTEGER)["lenient"]["accuracy"] == 0


def test_training_on_mathvista_is_refused_by_name(shared, tmp_path):
    testmini = shared / "assets/data/mathvista/testmini.json"
    with pytest.raises(ValueError, match=r"licence prohibits training on it; set task\.source\.train"):
        MathVista(MathVistaRelease(test=str(testmini))).rows("train")
    with pytest.raises(ValueError, match="this is MathVista, and its licence prohibits"):
        MathVista(MathVistaRelease(test=str(testmini), train=str(testmini))).rows("train")
    disguised = tmp_path / "mine.json"
    disguised.write_text(json.dumps(list(json.loads(testmini.read_text()).values())[:3]))
    for split in ("train", "validation"):
        with pytest.raises(ValueError, match="this is MathVista, and its licence prohibits"):
            MathVista(MathVistaRelease(test=str(testmini), train=str(disguised))).rows(split)


def test_the_real_problems_with_pictures_at_hand(shared):
    folder = shared / "assets/data/mathvista"
    task = MathVista(MathVistaRelease(test=str(folder / "testmini.json"), on_error="skip"))
    rows = task.rows("test")
    assert len(rows) == len(list((folder / "images").iterdir())) == 6
    assert len(task.skipped) == 994
    own = [task.prompt(row) for row in rows]
    stored = MathVista(
        MathVistaRelease(test=str(folder / "testmini.json"), queries=str(folder / "query.json"), on_error="skip")
    )
    assert [stored.prompt(row) for row in stored.rows("testmini")] == own
    for row in rows:
        assert task.record(task.answer(row), row)["scores"]["accuracy"] == 1
        assert task.draw(row, strict(task.answer(row), row)).width == 240


def test_the_rendered_twin_is_good_data(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    for difficulty in ("plain", "rich"):
        task = MathVista(RenderedFigures({"train": 150}, difficulty=difficulty), hint=False, max_new_tokens=8)
        (report,) = check(task, ["train"])
        assert report.good, report.lines()
        assert report.rows == 150, report.lines()
        hinted = MathVista(RenderedFigures({"train": 150}, difficulty=difficulty))
        assert all(hinted.prompt(row).startswith("Hint: Please answer") for row in task.rows("train"))


def test_a_source_that_is_none_is_named_with_its_key():
    with pytest.raises(ValueError, match=r"task\.source\.target=.*'Hub'"):
        made(source={"target": "data.mathvista.testmini:Hub"})


def test_wrong_options_name_the_key():
    with pytest.raises(ValueError, match=r"set task\.source\.test="):
        made(source={"target": RELEASE["target"]})
    with pytest.raises(ValueError, match=r"set task\.source\.rows\.train"):
        MathVista(RenderedFigures({})).rows("train")
    with pytest.raises(ValueError, match="splits test"):
        TASK.rows("dev")
