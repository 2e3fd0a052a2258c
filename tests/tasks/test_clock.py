"""Clock metrics against their definitions, and parsers against any text."""

from hypothesis import given
from hypothesis import strategies as st

from data.clock.rendered import RenderedClocks
from tasks.base import ParseFailure
from tasks.clock import DIAL, Clock, Time

TASK = Clock(RenderedClocks(rows={}))
TIMES = st.builds(Time, st.integers(1, 12), st.integers(0, 59))


def row(time: Time) -> dict:
    return {"id": "r", "hour": time.hour, "minute": time.minute}


@given(TIMES)
def test_the_taught_answer_reads_as_right(time: Time) -> None:
    record = TASK.record(TASK.answer(row(time)), row(time))
    assert record["failure"] is None
    assert record["scores"] == record["lenient"]
    assert record["scores"]["exact"] == record["scores"]["within_1"] == 1
    assert record["scores"]["deviation"] == record["scores"]["deviation_unwrapped"] == 0


@given(TIMES, TIMES)
def test_deviation_is_the_shortest_walk_round_the_dial(true: Time, read: Time) -> None:
    scores = TASK.score(read, row(true))
    steps = next(n for n in range(DIAL) if read.minutes in ((true.minutes + n) % DIAL, (true.minutes - n) % DIAL))
    assert scores["deviation"] == steps
    assert scores["within_1"] == (steps <= 1)
    assert scores["exact"] == (true == read)
    assert scores["hour"] == (true.hour == read.hour)
    assert scores["minute"] == (true.minute == read.minute)


def test_twelve_is_next_to_one_on_the_circle_only() -> None:
    scores = TASK.score(Time(12, 59), row(Time(1, 0)))
    assert (scores["deviation"], scores["deviation_unwrapped"]) == (1, 1)
    scores = TASK.score(Time(11, 59), row(Time(12, 0)))
    assert (scores["deviation"], scores["deviation_unwrapped"]) == (1, 719)


@given(st.text() | st.from_regex(r"[0-9:. h]{0,8}"), TIMES)
def test_no_text_crashes_a_parser_or_scores_above_what_it_says(text: str, time: Time) -> None:
    record = TASK.record(text, row(time))
    right = text.strip() == str(time)
    assert (record["scores"]["exact"] == 1) == right
    if record["failure"] is not None:
        assert record["scores"]["deviation"] == 360
        assert record["scores"]["deviation_unwrapped"] == 719
    assert record["lenient"]["exact"] >= record["scores"]["exact"]


def test_strict_and_lenient_readings() -> None:
    for text in ("1:05", "13:05", "12:60", "00:10", "10:08 pm", "", "ten past ten", "٠١:٠٥"):
        assert isinstance(TASK.parse(text, {}), ParseFailure), text
    assert TASK.parse(" 10:08\n", {}) == Time(10, 8)
    assert TASK.parse_lenient("It is 10:08 pm.", {}) == Time(10, 8)
    assert TASK.parse_lenient("22.08", {}) == Time(10, 8)
    assert TASK.parse_lenient("00:10", {}) == Time(12, 10)
    assert isinstance(TASK.parse_lenient("25:10", {}), ParseFailure)


def test_summary_counts_failures() -> None:
    times = [Time(1, 0), Time(2, 30), Time(3, 3)]
    summary = TASK.summarize(TASK.record(text, row(t)) for text, t in zip(("01:00", "02:31", "no"), times, strict=True))
    assert summary["examples"] == 3
    assert summary["parse_failure_rate"] == 1 / 3
    assert summary["exact"] == 1 / 3
    assert summary["within_1"] == 2 / 3
    assert summary["deviation"] == (0 + 1 + 360) / 3
