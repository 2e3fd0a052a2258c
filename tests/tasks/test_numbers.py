"""Quantities in free text are read with all that belongs to them, or not at all."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.answers.failure import ParseFailure
from tasks.answers.number_words import word_value
from tasks.answers.numbers import boxed, numbers, read_lenient, read_strict

QUANTITIES = {
    "0.5": [
        "1/2",
        r"\frac{1}{2}",
        r"\dfrac12",
        r"$\tfrac{1}{2}$",
        "½",
        "1⁄2",
        "a half",
        "one half",
        "one-half",
        r"{1 \over 2}",
        r"\nicefrac{1}{2}",
        "1 : 2".replace(" ", ""),
    ],
    "1.5": ["1 1/2", r"1\frac{1}{2}", "1½", "1 and a half", "one and a half", "3/2", "9:6"],
    "-0.5": [
        "-1/2",
        r"-\frac{1}{2}",
        r"\boxed{-\dfrac{1}{2}}",
        r"-\frac12",
        r"\frac{-1}{2}",
        r"= - \frac12",
        "minus 1/2",
        "minus one half",
    ],
    "31": [
        "thirty one",
        "Thirty-one.",
        "31st",
        r"\boxed{31\text{ cm}}",
        r"\boxed{31} apples in 2 bags",
        "31%",
        "31 cm^2",
    ],
    "205": ["two hundred and five", "two hundred five apples", "٣ or 205"],
    "1234": [
        "1 234",
        "1,234",
        "1\u2009234",
        "1\u202f234",
        "1'234",
        "1_234",
        "1{,}234",
        r"1\,234",
        "1,234.",
        "１，２３４",
    ],
    "1234567": ["1,234,567", "1 234 567", "1.234.567", "12,34,567"],
    "1234.5": ["$1,234.50", r"\$1,234.5", "1.234,5 €".replace(",5", ",50"), "1 234,5", "€1,234.5", "Rs.1,234.5"],
    "500": ["Rs.500", "Rs. 500", "Rs500", "₹500", "USD 500", "US$500", "£500", "5 hundred", "five hundred"],
    "-5": [
        "-5",
        "–5",
        "−5",
        "－５",
        "x = - 5",
        "minus 5",
        "negative 5",
        "minus five",
        "-$5",
        "$-5",
        "(-5)",
        "-5°",
        r"-5^\circ",
    ],
    "5": [
        "ten minus five",
        "5 m2",
        "H2O at 5",
        "x^2 = 5",
        "a_1 = 5",
        r"x \approx5",
        "A:5",
    ],
    "1500": [
        "1.5e3",
        "1.5k",
        r"1.5\cdot10^3",
        r"1.5\times10^{3}",
        "1.5 × 10^3",
        r"1.5 \times 10^{3}",
        "1.5*10**3",
        "1.5 x 10³",
        "1.5 thousand",
        "$1.5k",
    ],
    "1200000": ["1.2 million", "$1.2 million", "$1.2M", "$1.2 mn", "120万"],
    "8": ["2^3", "2^{3}", "2³", "2**3", "16/2", "eight"],
    "3.4641": ["2√3", r"2\sqrt{3}", "2sqrt(3)", "2*sqrt(3)", r"2 \times \sqrt{3}"],
    "12.566": ["4π", "4 pi", "4pi", r"4 \pi\text{ cm}^2"],
    "0.7854": ["π/4", "pi/4", r"\frac{\pi}{4}", r"\pi/4"],
    "0.8660": [r"\frac{\sqrt{3}}{2}", "√3/2"],
    "0.6667": ["two thirds", "two-thirds", "2 thirds", "2/3"],
    "24": ["two dozen", "twenty four"],
    "99999": ["ninety-nine thousand nine hundred and ninety-nine"],
    "3.75": ["3 3/4", "3 and 3/4", "3 and three quarters", "three and three quarters", "three point seven five"],
}


@pytest.mark.parametrize(("value", "text"), [(value, text) for value, texts in QUANTITIES.items() for text in texts])
def test_a_quantity_is_read_whole(value, text):
    for answer in (text, f"So it is {text}" if "=" not in text else text):
        number = read_lenient(answer)
        assert isinstance(number, Decimal), answer
        assert float(number) == pytest.approx(float(value), rel=1e-4), answer


@pytest.mark.parametrize(
    "text",
    ["1/0", "12/25/2020", "10:30", "x/2", "cm^2", "H2O", "2^{x}", r"\frac{a}{2}", "twenty-first", "a two-digit one-way",
     "no one", "thousands of", "३", "", "1e999", "9" * 41, "twenty third",
     # terms, ranges, broken groups
     "(√5-1)/2", "(sqrt5-1)/2", r"\frac{\sqrt{5}-1}{2}", "2+3", r"2 + 3\sqrt{5}", "x = 2 + √3", "3x + 2", "5 × 3",
     "2π + 1", "1/(2+3)", "(1)/(2)", "2(3)", "(-2)^2", "2^0.5", r"\sqrt[3]{8}", "∛8", "sin 30°",
     r"\log_{2} 8", r"\binom{5}{2}",
     "10-5", "10 – 5", "10 minus 5", "3-5", "3–5", "3~5", "3...5", "$3-$5", "2023-05-06", "42 out of 100", "3 : 4",
     "±5", r"\pm 5", "1,23", "3,5", "0,123", "1,2345", "1,23,45", "12,345,67", "1.2.3", "v1.2.3",
     "1.234.56", "192.168.1.1",
     r"0.\overline{3}", "0.3\u0305", "1.2e3.4", "1e", "0x1F", "5x", "5x^2", r"\frac{1}{2}x", "12b", "3D", "10K",
     "2 hours 30 minutes", "5 ft 7 in", "5'7\"", "half a dozen"],
)  # fmt: skip
def test_a_part_of_something_else_is_no_number(text):
    assert isinstance(read_lenient(text), ParseFailure)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("12*3=36", ["36"]),
        ("5 ± 0.2", []),
        ("4 -5", ["4", "-5"]),
        (r"-\frac{1}{-2}", ["0.5"]),
        ("3 4", ["3", "4"]),
        ("100 200 30", ["100", "200", "30"]),
        ("1, 2, 3", ["1", "2", "3"]),
        ("nine or ten", ["9", "10"]),
        ("two three", ["2", "3"]),
        ("5 apples and three pears", ["5"]),
        ("0E0E0", ["0E0"]),
    ],
)
def test_numbers_that_only_stand_beside_one_another_are_several(text, values):
    assert numbers(text) == values


PIECES = st.sampled_from(
    [
        *r"0123456789 .,'_/:^-+*({[]})$€%°π√½²",
        r"\frac",
        r"\sqrt",
        r"\boxed{",
        "e9",
        " and a half",
        "one",
        "hundred",
        "minus ",
    ]
)


@given(st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=40))
def test_no_text_crashes_and_every_number_is_a_finite_decimal(text):
    for value in numbers(text):
        assert Decimal(value).is_finite()
    read_lenient(text)
    boxed(text)


@given(st.decimals(-(10**15), 10**15, places=3) | st.integers(-(10**20), 10**20).map(Decimal))
def test_what_is_read_strictly_is_read_leniently_with_the_same_value(value):
    text = f"{value:f}"
    assert read_lenient(text) == read_strict(text) == value
    assert read_lenient(f"{value:,f}") == value


@given(st.integers(0, 99), st.integers(0, 9), st.integers(0, 99))
def test_words_say_the_number_that_they_are_made_of(thousands, hundreds, rest):
    names = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    ones = [*names.split(), "seventeen", "eighteen", "nineteen"]
    tens = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

    def below_hundred(n):
        return ones[n] if n < 20 else tens[n // 10 - 2] + (f"-{ones[n % 10]}" if n % 10 else "")

    parts = [f"{below_hundred(thousands)} thousand"] * bool(thousands) + [f"{ones[hundreds]} hundred"] * bool(hundreds)
    parts += [("and " if parts else "") + below_hundred(rest)] * bool(rest or not parts)
    value = 1000 * thousands + 100 * hundreds + rest
    assert word_value(" ".join(parts)) == value
    assert numbers(f"There are {' '.join(parts)} of them") == [str(value)]


@pytest.mark.parametrize(
    "text",
    [
        "1,1" * 30000,
        "1.111" * 20000,
        "1 234 " * 5000,
        r"\frac{" * 5000,
        "100 200 " * 4000,
        r"\boxed{" * 3000,
        "√" * 9000,
    ],
)
def test_long_texts_are_read_in_time(text):
    read_lenient(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("٣٫٥", ["3.5"]),
        ("۱۲۳", ["123"]),
        ("١٬٢٣٤٫٥", ["1234.5"]),
        ("= -٤٢.", ["-42"]),
        ("١/٢", ["0.5"]),
        (r"\boxed{٤٢}", ["42"]),
    ],
)
def test_arabic_and_persian_digits_are_read(text, values):
    assert numbers(text) == values
    assert read_lenient(text) == Decimal(values[-1])
    assert isinstance(read_strict(text), ParseFailure)
