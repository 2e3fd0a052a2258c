r"""Reading of numbers: strictly one plain number, or all quantities anywhere in a text.

One grammar for every task whose answers are numbers. A quantity is read with all that belongs to it, or not at all:
half of a fraction or the exponent of a unit is no number.

| form | examples |
|---|---|
| digits | `12`, `.5`, `1,234.50`, `1 234`, `1'234`, `1,00,000`, `1.234.567,5`, full-width and Arabic digits (`٣٫٥`) |
| sign | `-5`, `−5`, `–5`, `= - 5`, `minus 5`, `negative five` (after a number a minus is a subtraction) |
| currency, percent | `$1,234.50`, `-$5`, `Rs.500`, `€5`, `$5k`, `5%` (which is 5) |
| fraction | `1/2`, `1 1/2`, `½`, `1½`, `\frac{1}{2}`, `1\dfrac12`, `3 and a half`, `two thirds` |
| power | `1.5e3`, `1.5 × 10^3`, `2^{10}`, `10³`, `10**3` |
| factor | `2√3`, `\frac{\sqrt{3}}{2}`, `3π/4`, `5 million`, `two dozen` |
| words | `thirty one`, `two hundred and five`, `three point five` |

No quantities: `1/0`, dates, digits inside a word (`x1`, `H2O`), exponents and indices (`cm^2`, `a_1`), divisors of what
isn't a number (`x/2`). Where the parts can't be read together none of them is read: sums and other products (`2+√3`,
`(√5-1)/2`, `5 × 3`), ranges (`3-5`), `±5`, a decimal comma alone (`3,5`, which may be two numbers), broken
groups (`1,23`, `1.2.3`), unknowns (`3x`), names (`12b`), two units (`2 hours 30 minutes`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from decimal import Context, Decimal, localcontext

from tasks.answers.characters import ascii_variants
from tasks.answers.failure import ParseFailure
from tasks.answers.number_words import number_words

LONGEST = 40  # digits of a number, before and after the point together
_STRICT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_EXACT = Context(prec=34, traps=[])  # overflow and division by zero give values that aren't finite
_PI = Decimal("3.141592653589793238462643383279503")

_NUMERAL = re.compile(
    r"(?:(?P<groups>[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])|[1-9][0-9]?(?:,[0-9]{2}){1,19},[0-9]{3}(?![0-9])"
    r"|(?<![0-9][ '])[0-9]{1,3}(?>(?: [0-9]{3})+|(?:'[0-9]{3})+)(?![0-9]|[ ,'][0-9]))"
    r"|[0-9]{1,3}(?:_[0-9]{3})+(?![0-9_])"
    r"|(?P<points>(?:[0-9]{1,3}(?:(?:\.[0-9]{3}){2,13}(?:,[0-9]+)?|\.[0-9]{3},[0-9]{1,2})"
    r"|(?<![0-9] )[0-9]{1,3}(?>(?: [0-9]{3})+),[0-9]{1,2})(?![0-9.,]| [0-9]))"
    r"|[0-9]+)(?(points)|(?:\.[0-9]+)?)(?:[eE][+-]?[0-9]{1,3}(?![0-9]))?"
    r"|\.[0-9]+(?:[eE][+-]?[0-9]{1,3}(?![0-9]))?"
)
_VULGAR = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
_START = re.compile(rf"[0-9]|(?<![\w.)\]}}])\.[0-9]|\\[dtc]?frac(?![a-z])|\\?sqrt(?![a-z])|√|π|[{_VULGAR}]")
_FRACTION_AFTER = re.compile(rf"(?: and)? ?(?=\\[dtc]?frac|[{_VULGAR}])|(?: and)? (?=[0-9]{{1,9}} ?/ ?[0-9])")
_FACTOR = re.compile(r"\s*(?:[×*·]\s?)?(?=\\?sqrt(?![a-z])|√|π)")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_POWER = re.compile(r"(?:\^|\*\*(?=[0-9-])) ?(?:\{ ?([+-]?[0-9]+) ?\}|([+-]?[0-9]+))|([⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_UNREADABLE_POWER = re.compile(r"\^ ?(?:\{[^{}]*\}|\([^()]*\)|[A-Za-z])")
_TEN = re.compile(r" ?(?:×|\*|x|·) ?(?=10(?:\^|\*\*|[⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹]))")
_DIVIDED = re.compile(r"(?: ?/ ?|:)(?=[0-9√π]|\\sqrt)")
_TIME = re.compile(r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?(?![0-9])")
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "bn": 9, "lakh": 5, "crore": 7}
_SCALE = re.compile(rf"[ -]?({'|'.join(_SCALES)}|dozen)s?\b", re.IGNORECASE)
_LARGE_UNIT = re.compile(r" ?([百千万萬亿億])")
_LARGE_UNITS = {"百": 2, "千": 3, "万": 4, "萬": 4, "亿": 8, "億": 8}
_SHORT_SCALE = re.compile(r" ?(bn|mn)\b|(k|m|b)\b", re.IGNORECASE)
_SHORT_SCALES = {"k": 3, "m": 6, "b": 9, "bn": 9, "mn": 6}
_AND_A_PART = re.compile(r" and (?P<count>a|one|two|three)[ -](?P<part>half|third|quarter|fifth)s?\b", re.IGNORECASE)
_COUNTS = {"a": 1, "one": 1, "two": 2, "three": 3}
_PARTS = {
    "half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9,
    "tenth": 10, "hundredth": 100, "thousandth": 1000,
}  # fmt: skip
# Halves and quarters may be of games and coins.
_TENTHS = re.compile(rf"[ -]({'|'.join(p for p in _PARTS if p not in ('half', 'quarter'))})s\b", re.IGNORECASE)
_CURRENCY = r"(?:\b(?:Rs\.?|US|USD|EUR|GBP|INR|PKR|RMB|CNY|AUD|CAD|HKD|JPY|CHF)|(?:\bUS)?[$€£¥₹])"
_PAID = re.compile(rf"{_CURRENCY} ?-?$", re.IGNORECASE)
_SIGN = re.compile(
    rf"(?:(?<![\w.)\]}}%°])-|(?<=[=(:])\s*-\s|\b(?P<word>minus|negative)\s+)(?:{_CURRENCY} ?)?$|{_CURRENCY}-$",
    re.IGNORECASE,
)
_SUBTRACTION = re.compile(
    r"(?:[\w)\]%°]*[0-9)\]%°π]|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|teen|ty))\s*$"
)
_INSIDE = re.compile(
    r"(?:[A-Za-z]|[A-Za-z)\]}]/|(?:\^|(?<!_)_)\{?-?|[0-9]\s?/\s?|[0-9)π]\(-?|\}\{|[∛∜]|(?:±|\+/-) ?\(?"
    r"|(?<![A-Za-z])[xyzn] ?[-+*×÷] ?\(?|\\(?:overline|dot|bar)\{?"
    r"|(?<![A-Za-z])(?:sin|cos|tan|cot|log|ln|exp|lim)(?:_\{?[0-9a-z]{1,3}\}?)? ?[({]?-?|\\binom\{)$"
)
# What makes a number a term of an expression, a range or a date, of which it is only a part: no such term is an answer.
_OPERAND = r"(?=-?(?:\.?[0-9]|[√π]|\\?sqrt(?![a-z])|\\[dtc]?frac))"
_JOINT = re.compile(
    r"(?:\.{1,3}|[,'_])(?=[0-9])"
    rf"|[%°]?\)*(?: ?(?:[+×*÷±/]|\+/-) ?|[-^~—]|\*\*| [-~:] |x(?=[0-9])| x "
    rf"| (?:minus|plus|times|out of|divided by) )\(*(?:[$€£¥₹] ?)?{_OPERAND}"
    rf"|\)?\({_OPERAND}"
)
# Letters that make it something else: unknowns (`3x`), names (`12b`, `3D`), scales without a currency (`10K` may be a
# temperature), repeating decimals.
_ATTACHED = re.compile(
    r"(?:[abeinqr]|[xyz]{1,3}|[DKMB])(?![A-Za-z])|C[0-9]|[\u0300-\u036f]|\.?\\(?:overline|dot|bar)(?![a-z])"
    r"|(?: [-+] |[-+*×÷])[xyzn](?![A-Za-z])"
)
_UNITS = (
    (r"hours?|hrs?|h", r"minutes?|mins?|m"), (r"minutes?|mins?|m", r"seconds?|secs?|s"), (r"days?", r"hours?|hrs?|h"),
    (r"weeks?", r"days?"), (r"years?|yrs?", r"months?"), (r"feet|foot|ft\.?|'", r"inch(?:es)?|in|\"|''"),
    (r"dollars?|rupees?|euros?", r"cents?|paise"), (r"pounds?|lbs?", r"ounces?|oz|pence"), (r"kg", r"g"), (r"km", r"m"),
    (r"m|met(?:er|re)s?", r"cm"), (r"degrees?|°", r"minutes?|'"),
)  # fmt: skip
_COMPOUND = re.compile(
    "|".join(rf" ?(?:{large}),? ?(?:and )?[0-9][0-9.]{{0,9}} ?(?:{small})(?![A-Za-z])" for large, small in _UNITS)
)
_MOST_BOXES = 5
_LOOK_BACK = 24  # characters before a number in which its sign and currency are looked for

_PI_AS_WORD = re.compile(r"(?:(?<=[0-9)}])|(?<=[0-9)}] )|(?<![A-Za-z\\])(?=pi/[0-9]))pi(?![A-Za-z])")
# LaTeX that stands around numbers, as plain text.
_LATEX = [
    (re.compile(r"\\(?:text|math|oper)[a-z]*\s*\{([^{}]*)\}|\\(?:mbox|boldsymbol)\s*\{([^{}]*)\}"), r"\1\2"),
    (re.compile(r"\\(?:left|right|displaystyle|!)"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,;: ]|(?<![0-9 ])~|~(?![0-9 ])"), " "),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?"), "°"),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z]) ?"), "×"),
    (re.compile(r"\\div(?![A-Za-z]) ?"), "÷"),
    (re.compile(r"\\pm(?![A-Za-z]) ?"), "±"),
    (re.compile(r"\\pi(?![A-Za-z]) ?"), "π"),
    (re.compile(r"\\(?:nice|s|x)frac(?![a-z])"), r"\\frac"),
    (re.compile(r"\{([^{}\\]*)\\over(?![a-z])([^{}\\]*)\}"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\([%$#&])"), r"\1"),
    (re.compile(r"\\(?![dtc]?frac|sqrt)[A-Za-z]+(?=[0-9.])"), " "),
]


def read_strict(text: str) -> Decimal | ParseFailure:
    """Exactly one plain number: `-12`, `0.5`, `4.0`; no `+`, exponent, thousands separator, leading zero or bare point.

    Whitespace around it is allowed.
    """
    text = text.strip()
    return _number(text) if _STRICT.fullmatch(text) else ParseFailure("no plain number")


def read_lenient(text: str) -> Decimal | ParseFailure:
    r"""The last number in the last `\boxed{}` that has one, else the last number anywhere."""
    for part in [*reversed(boxed(text)), text]:
        values = numbers(part)
        if values:
            return _number(values[-1])
    return ParseFailure("no number anywhere")


def numbers(text: str) -> list[str]:
    """All quantities in a text, as plain decimals in order; those in words only where there are none in digits."""
    return numerals(text) or number_words(ascii_variants(text))


def numerals(text: str) -> list[str]:
    """All quantities with digits in a text, as plain `[-]digits[.digits][e..]`, in order."""
    return [value for value, _, _ in quantities(text)]


def quantities(text: str) -> Iterator[tuple[str, int, int]]:
    """Every quantity with digits as a plain decimal, with where it starts and ends in the plain text."""
    text, at = plain(text), 0
    while start := _START.search(text, at):
        with localcontext(_EXACT):
            value, at = _quantity(text, start.start())
        if value is not None:
            yield value, start.start(), at


def boxed(text: str) -> list[str]:
    r"""The contents of the last `\boxed{}` and `\fbox{}`, in order, braces within them balanced."""
    starts = [match.end() - 1 for match in re.finditer(r"\\f?box(?:ed)?\s*\{", text)]
    return [_braced(text, start)[0] for start in starts[-_MOST_BOXES:]]


def plain(text: str) -> str:
    """The text in ASCII digits, signs and blanks, without the LaTeX commands that stand around numbers."""
    text = ascii_variants(text)
    if "\\" in text or "{,}" in text or "~" in text:
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
    return _PI_AS_WORD.sub("π", text)


def _quantity(text: str, start: int) -> tuple[str | None, int]:
    """The quantity that starts there as a plain decimal, None if it is none or part of one, and where it ends."""
    numeral = _NUMERAL.match(text, start)
    value, end = _mixed(text, start, depth=0)
    before = max(0, start - _LOOK_BACK)
    paid = _PAID.search(text, before, start)
    if value is not None and (short := _SHORT_SCALE.match(text, end)) and (paid or short[0] == "k"):
        value, end = value.scaleb(_SHORT_SCALES[(short[1] or short[2]).lower()]), short.end()
    expression_end = _expression_end(text, end)
    if expression_end > end or (not paid and _INSIDE.search(text, before, start)):
        return None, expression_end
    if value is None or not value.is_finite():
        return None, end
    negative = _is_negative(text, start)
    if numeral and numeral.end() == end:
        return "-" * negative + _digits(numeral), end
    return _written(value.copy_negate() if negative else value), end


def _expression_end(text: str, end: int) -> int:
    """Where the expression ends of which a quantity is the first term; the quantity's own end if it is no term."""
    while joint := _JOINT.match(text, end):
        start = joint.end() + (text[joint.end()] == "-")
        end = _mixed(text, start, depth=0)[1]
    following = _COMPOUND.match(text, end) or _ATTACHED.match(text, end)
    return following.end() if following else end


def _is_negative(text: str, start: int) -> bool:
    sign = _SIGN.search(text, max(0, start - _LOOK_BACK), start)
    if sign is None:
        return False
    return not (sign["word"] and _SUBTRACTION.search(text, max(0, sign.start() - _LOOK_BACK), sign.start()))


def _mixed(text: str, at: int, depth: int) -> tuple[Decimal | None, int]:
    """A product, perhaps with a fraction added to it (`1 1/2`) or divided by another, and a scale (`million`)."""
    value, end = _product(text, at, depth)
    integer = value is not None and text[at:end].isdigit()
    part = _FRACTION_AFTER.match(text, end) if integer else None
    if part and value is not None:
        fraction, stop = _ratio(text, part.end(), depth)
        if fraction is None or 0 < fraction < 1:
            return (None if fraction is None else value + fraction), stop
    value, end = _ratio(text, at, depth)
    if value is not None and (half := _AND_A_PART.match(text, end)):
        value += Decimal(_COUNTS[half["count"].lower()]) / _PARTS[half["part"].lower()]
        end = half.end()
    if value is not None and (scale := _SCALE.match(text, end)):
        word = scale[1].lower()
        value, end = value * 12 if word == "dozen" else value.scaleb(_SCALES[word]), scale.end()
    elif value is not None and (large := _LARGE_UNIT.match(text, end)):
        value, end = value.scaleb(_LARGE_UNITS[large[1]]), large.end()
    elif value is not None and (part := _TENTHS.match(text, end)):
        value, end = value / _PARTS[part[1].lower()], part.end()
    return value, end


def _ratio(text: str, at: int, depth: int) -> tuple[Decimal | None, int]:
    """A product, perhaps divided by another: `3/4`, `3:4`. Times and dates are none."""
    if time := _TIME.match(text, at):
        return None, time.end()
    value, end = _product(text, at, depth)
    terms = 1
    while (slash := _DIVIDED.match(text, end)) and terms < 10:
        divisor, end = _product(text, slash.end(), depth)
        value = None if value is None or divisor is None else value / divisor
        terms += 1
    return (value if terms <= 2 else None), end  # three are a date


def _product(text: str, at: int, depth: int) -> tuple[Decimal | None, int]:
    value, end = _factor(text, at, depth)
    for _ in range(3):
        following = _FACTOR.match(text, end) or _TEN.match(text, end)
        if following is None:
            break
        factor, end = _factor(text, following.end(), depth)
        value = None if value is None or factor is None else value * factor
    return value, end


def _factor(text: str, at: int, depth: int) -> tuple[Decimal | None, int]:
    """A number, fraction, root or pi with its exponent."""
    value, end = _atom(text, at, depth)
    if power := _POWER.match(text, end):
        exponent = int((power[1] or power[2] or power[3].translate(_SUPERSCRIPTS))[:8])
        return (None if value is None or abs(exponent) > 99 else value**exponent), power.end()
    if power := _UNREADABLE_POWER.match(text, end):
        return None, power.end()
    return value, end


def _atom(text: str, at: int, depth: int) -> tuple[Decimal | None, int]:
    if numeral := _NUMERAL.match(text, at):
        return Decimal(_digits(numeral)), numeral.end()
    if text[at] == "π":
        return _PI, at + 1
    if text[at] in _VULGAR:
        numerator, _, denominator = unicodedata.normalize("NFKD", text[at]).partition("\N{FRACTION SLASH}")
        return Decimal(numerator) / Decimal(denominator), at + 1
    if root := re.compile(r"\\?sqrt|√").match(text, at):
        if text[root.end() : root.end() + 1] == "[":  # another root than the square root
            return None, _argument(text, text.find("]", root.end()) + 1 or len(text), depth)[1]
        under, end = _argument(text, root.end(), depth)
        return (under.sqrt() if under is not None and under >= 0 else None), end
    fraction = re.compile(r"\\[dtc]?frac").match(text, at)
    numerator_value, middle = _argument(text, fraction.end() if fraction else at + 1, depth)
    denominator_value, end = _argument(text, middle, depth)
    if numerator_value is None or denominator_value is None:
        return None, end
    return numerator_value / denominator_value, end


def _argument(text: str, at: int, depth: int) -> tuple[Decimal | None, int]:
    """The argument of a LaTeX command: in braces or brackets all of it is one quantity; else it is a single digit."""
    at += len(text[at:]) - len(text[at:].lstrip(" ")) if text[at : at + 1] == " " else 0
    if text[at : at + 1] in ("{", "("):
        inner, end = _braced(text, at)
        inner = inner.strip()
        negative = inner.startswith("-")
        inner = inner[negative:].strip()
        if depth >= 3 or not _START.match(inner):
            return None, end
        value, stop = _mixed(inner, 0, depth + 1)
        if value is None or inner[stop:].strip():
            return None, end
        return (-value if negative else value), end
    if text[at - 1 : at] == "√" and (numeral := _NUMERAL.match(text, at)):
        return Decimal(_digits(numeral)), numeral.end()
    digit = re.compile(r"[0-9]").match(text, at)
    return (Decimal(digit[0]), at + 1) if digit else (None, at)


def _braced(text: str, at: int) -> tuple[str, int]:
    """What the bracket at that place holds, and where it ends; an open one holds what is left."""
    opening, closing, depth = text[at], "}" if text[at] == "{" else ")", 0
    for match in re.compile(rf"[{re.escape(opening + closing)}]").finditer(text, at):
        depth += 1 if match[0] == opening else -1
        if depth == 0:
            return text[at + 1 : match.start()], match.end()
    return text[at + 1 :], len(text)


def _digits(numeral: re.Match[str]) -> str:
    text = numeral[0]
    if numeral["points"]:
        return re.sub(r"[. ]", "", text).replace(",", ".")
    return re.sub(r"[, '_]", "", text)


def _written(value: Decimal) -> str:
    short = value.normalize(_EXACT)
    return f"{short:f}" if abs(short.adjusted()) <= LONGEST else str(short)


def _number(text: str) -> Decimal | ParseFailure:
    if sum(c.isdigit() for c in text) > LONGEST:
        return ParseFailure(f"a number of more than {LONGEST} digits")
    value = Decimal(text)
    return value if value == 0 or abs(value.adjusted()) <= LONGEST else ParseFailure("a number out of range")
