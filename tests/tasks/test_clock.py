"""Clock metrics against their definitions, and parsers against any text."""

import pytest
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


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("10:08:30", (10, 8)),
        ("10\uff1a08", (10, 8)),
        ("10h08", (10, 8)),
        ("It is 25:10, no, 10:08.", (10, 8)),
        ("3.5 cm, so 10:08", (10, 8)),
        ('{"hour": 10, "minute": 8}', (10, 8)),
        ('{"minutes": "08", "hours": "10"}', (10, 8)),
        ("hour: 10, minute: 8", (10, 8)),
        ("10 hours and 8 minutes", (10, 8)),
        ("The hour is 10 and the minute is 8.", (10, 8)),
        ("10 o'clock", (10, 0)),
        ("ten o\u2019clock", (10, 0)),
        ("10 p.m.", (10, 0)),
        ("half past ten", (10, 30)),
        ("a quarter past 10", (10, 15)),
        ("quarter to 3", (2, 45)),
        ("quarter to one", (12, 45)),
        ("twenty-five to four", (3, 35)),
        ("8 minutes past ten", (10, 8)),
        ("ten thirty", (10, 30)),
        ("three oh five", (3, 5)),
        ("noon", (12, 0)),
        ("10\u70b908\u5206", (10, 8)),
        ("10\u70b9\u534a", (10, 30)),
        ("10\u70b9\u4e09\u523b", (10, 45)),
        ("10 Uhr 08", (10, 8)),
        ("١٠:٠٨", (10, 8)),
        ("pi is 3.14, version 2.10, it is 10:08", (10, 8)),
        ("The clock shows 3.14", (3, 14)),
        ("3.14 pm", (3, 14)),
        ("22.08", (10, 8)),
        ("**Hour:** 10\n**Minute:** 8", (10, 8)),
        ('{"h": 10, "m": 8}', (10, 8)),
        ("10 hrs 8 mins", (10, 8)),
        ("ten hours and eight minutes", (10, 8)),
        ("2208 hours", (10, 8)),
        ("22h", (10, 0)),
        ("ten p.m.", (10, 0)),
        ("half-past ten", (10, 30)),
        ("quarter til 10", (9, 45)),
        ("5 mins to 10", (9, 55)),
        ("ten to twelve, I think", (11, 50)),
    ],
)
def test_times_in_many_forms(text: str, time: tuple[int, int]) -> None:
    assert TASK.parse_lenient(text, {}) == Time(*time)


@pytest.mark.parametrize(
    "text",
    ["3.5", "25:10", "25:10:08", "12:60", "1.10.3", "10", "ten", "two to three", "2 to 3 apples", "ten eight", "half",
     "3.14", "pi is 3.14", "1.25 inches", "12.50 $", "$10.08", "1:2:3", "20 to 30",
     "ten to twelve people", "5 to 10 cm",
     "10\u70b9\u5341\u5206",
     "\u5dee5\u520610\u70b9", "2.5h", "10 hours"],
)  # fmt: skip
def test_what_is_no_time(text: str) -> None:
    assert isinstance(TASK.parse_lenient(text, {}), ParseFailure)


def test_summary_counts_failures() -> None:
    times = [Time(1, 0), Time(2, 30), Time(3, 3)]
    summary = TASK.summarize(TASK.record(text, row(t)) for text, t in zip(("01:00", "02:31", "no"), times, strict=True))
    assert summary["examples"] == 3
    assert summary["parse_failure_rate"] == 1 / 3
    assert summary["exact"] == 1 / 3
    assert summary["within_1"] == 2 / 3
    assert summary["deviation"] == (0 + 1 + 360) / 3
