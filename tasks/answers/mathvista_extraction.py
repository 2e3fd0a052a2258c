r"""Extraction of the answer from a free response by rules, where MathVista uses a language model.

`extract` gives an option letter, a number or a list as text, or None where no rule finds any; the official
normalisation (`tasks.metrics.mathvista`) takes it from there. Typographic variants (full-width brackets, dashes) are
read as ASCII. A response that goes on with another `Question:` is read from the last on, as the official extraction
does. The rules, the first that fires:

* multiple choice: the response is a choice; the last `\boxed{}` that holds a letter or a choice; the letter after the
  last `answer is` or the like; a letter alone on the last line; a letter with its choice as the first line (`(B)
  40`); nothing, where the end says that the question can't be answered or that no choice fits; the letter after the
  last word like `option`, but for `not A`; a letter chosen, called correct or ending a line (`So it is B.`); the last
  letter in brackets; a letter that opens the response (`B. 40 is the sum`); the last choice named in the last sentence
  that names any; the one choice whose words the first sentence has, inflected (`frogs`); where the choices are yes and
  no, or true and false, whether the first sentence says what the question asks; where all choices hold numbers, the
  choice that equals the response's number, or that number, which the official normalisation takes for the nearest
  choice.
* integer and float: the response is a number; the last `\boxed{}`; the number that follows the last `answer is`; the
  last number in bold; nothing, where the end says that the question can't be answered; in the last sentence that holds
  a number the one after its last `=`, `is`, `are` and the like, else its last, the question's own conditions aside
  (`lower than 0.50`); without digits, a number in words.
* list: the last `[...]` of numbers.

Numbers are read by `tasks.answers.numbers`: a fraction, a power or a number with its thousands is one number. A program
in place of an answer (it ends in `print(...)`) has an answer only when it is run, which is not done: None. How often
these rules agree with the official extraction by GPT-4 is in docs/tasks.md.
"""

from __future__ import annotations

import re
import string
from abc import ABC, abstractmethod
from collections.abc import Sequence

from data.common.rows import Row
from tasks.answers.characters import ascii_variants
from tasks.answers.number_words import number_words
from tasks.answers.numbers import boxed, numbers, numerals, plain, quantities

LONGEST = 10_000  # characters; of a longer response the end is read
_CUE = re.compile(r"\b(?:answers?|options?|choices?)\b|答案|选", re.IGNORECASE)
_LETTER = re.compile(r"(?<![A-Za-z0-9'])(?:\(([A-Za-z])\)|\(?([A-Z])\)?)(?![A-Za-z0-9'])")
_SMALL_LETTER = re.compile(r"\(?([a-z])(?:\)|\s*[.:]|\s*$)")
_BRACKETED = re.compile(r"(?<![A-Za-z0-9])\(([A-Za-z])\)")
_STRONG = re.compile(
    r"\b(?:answer|option|choice)s?(?: letter)?(?: to [^.\n]{1,60}?)? (?:is|would be)\b:?|\banswer:|答案[是为:]*|选",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\b(?:cannot|can't|can not|unable|impossible|sorry|"
    r"not (?:possible|provided?|enough|listed|in the (?:given )?(?:choices|options)|determinable|specified))\b",
    re.IGNORECASE,
)
_UNINFORMED = re.compile(
    r"\b(?:(?:does|do|did) not|doesn't|don't) (?:\w+ )?(?:provide|contain|give|specify|include|mention|state|indicate|"
    r"offer|have (?:enough|access|any|sufficient)|make sense)\b|\bno (?:\w+ )?(?:information|data|details|context)\b|"
    r"\b(?:more|additional|further) (?:information|context|details|data)\b|\bunclear\b|\bincomplete\b|"
    r"\bplease provide\b|\binsufficient\b|\bnot (?:provided|enough|sufficient|clear|given|specified|available)\b",
    re.IGNORECASE,
)
_NO_CHOICE = re.compile(
    r"\bnone of the (?:given |provided |available |answer )*(?:options?|choices)|"
    r"\bnot (?:one of|among|(?:available |an option |listed )?in) the (?:(?:given|provided|available) )*"
    r"(?:options?|choices)|"
    r"\b(?:mistake|error) in the (?:question|problem|options?|choices)|\bno correct (?:answer|option|choice)|"
    r"\b(?:this )?(?:option|answer|value) is not (?:available|an option)|选项都不|不在选项中|选项有误",
    re.IGNORECASE,
)
_OPENING = re.compile(r"\(?([A-Z])\)?(?:[.:)]|\s*$)")
_ALONE = re.compile(r"[(\[]?([A-Za-z])[)\]]?(?:[.:)]|\s*$)")
_CHOSEN = re.compile(
    r"(?:\b[Ii] (?:choose|pick|select)|\bI'd go with)\s+\(?([A-Z])\b"
    r"|(?:^|\bso,? |\btherefore,? |\bthus,? )\(?([A-Z])\)? is (?:the )?(?:correct|right)"
    # A letter that ends the line; not A, which is an article, too.
    r"|\b(?:[Ii]t is|[Ii]t's|[Tt]hat is|[Tt]hat's|[Tt]herefore|[Tt]hus|[Hh]ence|[Ss]o|[Cc]hoose),?"
    r" \(?([B-Z])\)?[.!]?\s*$",
    re.MULTILINE,
)
_DENIED = re.compile(r"\b(?:not|isn't|never)(?: (?:the )?(?:option|choice|answer))? ?\(?$", re.IGNORECASE)
_BOLD = re.compile(r"\*\*([^*\n]{1,40})\*\*")
_PROGRAM = re.compile(r"(?:^|\n) *print\([^\n]*\)\s*$")
_LIST = re.compile(r"\[[-+0-9., eE]*\]")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|[。\n]+")
_LINK = re.compile(
    r"=|≈|:|\b(?:is|are|was|were|be|equals?|has|have|had|left|total|approximately|about)\b", re.IGNORECASE
)
_CONDITION = re.compile(r"\b(?:than|at least|at most|exactly|over|under|above|below|equal to|up to)\s*$", re.IGNORECASE)
_HYPOTHESIS = re.compile(r"(?:^|[.!?\n]\s*)(?:if|whether)\b[^.!?\n]*$", re.IGNORECASE)
_CONCLUSION = re.compile(r"\b(?:therefore|thus|so|total)\b", re.IGNORECASE)
_NEXT_QUESTION = re.compile(r"\n\s*Question\s*:", re.IGNORECASE)
_FREE_ANSWER = re.compile(r"\banswer(?: to [^.\n]{1,60}?)? is:?\s+([^.\n]{1,60})", re.IGNORECASE)
_TRUTHS = ({"yes", "no"}, {"true", "false"})
_NEGATION = re.compile(r"\b(?:not|no|never|none|neither|isn't|aren't|doesn't|don't|wasn't)\b", re.IGNORECASE)
_OPPOSITES = [
    ("more", "fewer"), ("more", "less"), ("greater", "less"), ("greater", "fewer"), ("larger", "smaller"),
    ("bigger", "smaller"), ("higher", "lower"), ("maximum", "minimum"), ("highest", "lowest"), ("odd", "even"),
    ("increasing", "decreasing"), ("left", "right"), ("taller", "shorter"), ("longer", "shorter"), ("older", "younger"),
]  # fmt: skip


class Extractor(ABC):
    """Extractor of the answer from a free response; a subclass may use a language model in place of rules.

    `row` has question, prompt, choices, question_type, answer_type, precision and unit, and the answer, which an
    extractor must not use. It returns the extracted answer, or None.
    """

    @abstractmethod
    def __call__(self, response: str, row: Row) -> str | None: ...


class RuleExtractor(Extractor):
    """Extractor by the rules of the module's docstring."""

    def __call__(self, response: str, row: Row) -> str | None:
        return extract(response, row)


def extract(response: str, row: Row) -> str | None:
    """Apply the rules of the module's docstring. Never raises, whatever the text."""
    text = ascii_variants(response[-LONGEST:].replace("</s>", "")).strip()
    if _PROGRAM.search(text):
        return None
    multiple = row["question_type"] == "multi_choice"
    *_, last = _NEXT_QUESTION.split(text)
    if last != text and (answer := _free_answer(last) if multiple else None):
        return answer
    if multiple:
        return _letter(text, row["choices"], row["question"])
    if row["answer_type"] in ("integer", "float"):
        return _number(text, row["question"])
    if row["answer_type"] == "list":
        lists = _LIST.findall(text)
        return lists[-1] if lists else None
    return response[-LONGEST:].replace("</s>", "").strip() or None


def last_sentence(response: str) -> str:
    """The last sentence of a response, empty for an empty one."""
    sentences = [s for s in _SENTENCE.split(response[-LONGEST:].strip()) if s]
    return sentences[-1] if sentences else ""


def _free_answer(text: str) -> str | None:
    """The answer to a question that the model asked itself: any letter, else the words or the number of its answer."""
    letter = _after(text, _STRONG, string.ascii_uppercase)
    if letter:
        return letter
    answers = _FREE_ANSWER.findall(text)
    if answers:
        return str(answers[-1])
    _, marker, solution = text.rpartition("Solution:")
    if not marker:
        solution = text.partition("\n")[2]
    return _number(solution, "") if marker or _CONCLUSION.search(solution) else None


def _letter(text: str, choices: Sequence[str], question: str) -> str | None:
    letters = [chr(ord("A") + index) for index in range(len(choices))]
    letter = _exact(text, choices, letters) or _in_box(text, choices, letters) or _after(text, _STRONG, letters)
    lines = text.splitlines() or [""]
    alone = _ALONE.fullmatch(lines[-1].strip(" *#"))
    letter = letter or (alone[1].upper() if alone and alone[1].upper() in letters else None)
    letter = letter or _written_out(lines[0], choices, letters)
    if letter or _refuses(text):
        return letter
    letter = (
        _after(text, _CUE, letters) or _chosen(text, letters) or _in_brackets(text, letters) or _opening(text, letters)
    )
    if letter:
        return letter
    sentences = _SENTENCE.split(text)
    for sentence in reversed(sentences):
        matching = _named(sentence, choices)
        if matching:
            return letters[matching[-1]]
    return (
        _inflected(sentences[0], choices, letters)
        or _polarity(sentences[0], choices, question)
        or _by_value(text, choices, letters)
    )


def _exact(text: str, choices: Sequence[str], letters: Sequence[str]) -> str | None:
    plain_text = text.lower().rstrip(".")
    matching = [
        i for i, choice in enumerate(choices) if ascii_variants(choice).strip().lower() in (plain_text, text.lower())
    ]
    return letters[matching[0]] if matching else None


def _written_out(line: str, choices: Sequence[str], letters: Sequence[str]) -> str | None:
    """The letter of a line that is a letter with its choice: `(B) 40`."""
    for letter, choice in zip(letters, choices, strict=True):
        word = re.escape(ascii_variants(choice).strip())
        if re.fullmatch(rf"\W*{letter}\W+{word}\W*", line.strip(), re.IGNORECASE):
            return letter
    return None


def _chosen(text: str, letters: Sequence[str]) -> str | None:
    read = [next(filter(None, groups)) for groups in _CHOSEN.findall(text)]
    return next((letter for letter in reversed(read) if letter in letters), None)


def _in_box(text: str, choices: Sequence[str], letters: Sequence[str]) -> str | None:
    for part in reversed(boxed(text)):
        inner = plain(part).strip(" .*")
        alone = re.fullmatch(r"\(?([A-Za-z])\)?", inner)
        if alone and alone[1].upper() in letters:
            return alone[1].upper()
        opening = _in_brackets(inner, letters) or _opening(inner, letters) or _exact(inner, choices, letters)
        named = _named(inner, choices)
        answer = opening or (letters[named[-1]] if named else _by_value(inner, choices, letters))
        if answer:
            return answer
    return None


def _refuses(text: str) -> bool:
    sentences = [s for s in _SENTENCE.split(text) if s]
    unknown = any(pattern.search(s) for s in sentences[-1:] for pattern in (_REFUSAL, _UNINFORMED))
    return unknown or any(_NO_CHOICE.search(s) for s in sentences[-2:])


def _after(text: str, cues: re.Pattern[str], letters: Sequence[str]) -> str | None:
    """First letter after the last cue that has one in the same sentence, within 60 characters."""
    for cue in reversed(list(cues.finditer(text))):
        if _HYPOTHESIS.search(text, max(0, cue.start() - 200), cue.start()):
            continue
        near = _SENTENCE.split(text[cue.end() : cue.end() + 60].lstrip(" :\n*"))[0]
        matches = [m for m in _LETTER.finditer(near) if not (_is_article(near, m) or _DENIED.search(near[: m.start()]))]
        read = [letter for m in matches if (letter := (m[1] or m[2]).upper()) in letters]
        small = _SMALL_LETTER.match(near)
        if not read and small and small[1].upper() in letters:
            read = [small[1].upper()]
        if read:
            return read[0]
    return None


def _is_article(text: str, match: re.Match[str]) -> bool:
    """Whether the match is an article, as in `A triangle`: a capital A without brackets before a word."""
    return match[0] == "A" and re.match(r"\s+[a-z]", text[match.end() :]) is not None


def _in_brackets(text: str, letters: Sequence[str]) -> str | None:
    bracketed = [letter.upper() for letter in _BRACKETED.findall(text) if letter.upper() in letters]
    return bracketed[-1] if bracketed else None


def _opening(text: str, letters: Sequence[str]) -> str | None:
    match = _OPENING.match(text)
    return match[1] if match and match[1] in letters else None


def _named(text: str, choices: Sequence[str]) -> list[int]:
    """Indices of the choices that a text names, in order; a choice inside a longer named one doesn't count."""
    spans = []
    for index, choice in enumerate(choices):
        word = re.escape(ascii_variants(choice).strip())
        if word:
            pattern = rf"(?<![\w√.])(?<![0-9}}]/){word}(?![\w√]|\.[0-9]|(?<=[0-9])/[0-9])"
            spans += [(m.start(), m.end(), index) for m in re.finditer(pattern, text, re.IGNORECASE)]
    longest: list[tuple[int, int, int]] = []
    end = -1
    for span in sorted(spans, key=lambda s: (s[0], -s[1])):
        if span[1] > end or (longest and span[:2] == longest[-1][:2]):
            longest.append(span)
            end = span[1]
    return [index for _, _, index in sorted(longest)]


def _inflected(sentence: str, choices: Sequence[str], letters: Sequence[str]) -> str | None:
    """The one choice of which a sentence has all the words, whatever their endings."""
    words = {_stem(word) for word in re.findall(r"[a-z]+", sentence.lower())}
    matching = []
    for letter, choice in zip(letters, choices, strict=True):
        stems = {_stem(word) for word in re.findall(r"[a-z]+", choice.lower())} - {
            "it",
            "would",
            "will",
            "the",
            "of",
            "a",
        }
        if stems and not re.search(r"[0-9]", choice) and max(map(len, stems)) > 3 and stems <= words:
            matching.append(letter)
    return matching[0] if len(matching) == 1 else None


def _stem(word: str) -> str:
    for ending in ("ping", "ped", "ing", "es", "ed", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)] + ("p" if ending.startswith("p") else "")
    return word


def _polarity(sentence: str, choices: Sequence[str], question: str) -> str | None:
    """Yes or no as a letter, by whether a sentence says what the question asks, or its opposite, or denies it."""
    plain_choices = [choice.strip().lower() for choice in choices]
    statement = re.search(r"[a-z]{2}", sentence, re.IGNORECASE) and not _UNINFORMED.search(sentence)
    if set(plain_choices) not in _TRUTHS or not statement or _REFUSAL.search(sentence):
        return None
    stated, asked = (set(re.findall(r"[a-z]+", part.lower())) for part in (sentence, question))
    if not any(len(word) > 3 for word in stated & asked):  # the sentence is about something else
        return None
    turned = any(
        (a in asked and b in stated and a not in stated) or (b in asked and a in stated and b not in stated)
        for a, b in _OPPOSITES
        if not {a, b} <= asked
    )
    denied = bool(_NEGATION.search(sentence)) != bool(_NEGATION.search(question))
    answer = {"yes", "true"} if turned == denied else {"no", "false"}
    return chr(ord("A") + next(i for i, choice in enumerate(plain_choices) if choice in answer))


def _by_value(text: str, choices: Sequence[str], letters: Sequence[str]) -> str | None:
    """The choice that equals the text's number, else that number; None unless all choices hold numbers."""
    values = [numerals(choice) for choice in choices]
    number = _number(text, "") if all(values) else None
    if number is None:
        return None
    equal = [letter for letter, value in zip(letters, values, strict=True) if float(value[-1]) == float(number)]
    return equal[0] if equal else number


def _number(text: str, question: str) -> str | None:
    try:
        float(text)
        return text
    except ValueError:
        pass
    for part in reversed(boxed(text)):
        if values := numbers(part):
            return values[-1]
    for pattern in (r"answer[^.\n]{0,40}?(?:\bis\b|:|=)", r"答案"):
        for cue in reversed(list(re.finditer(pattern, text, re.IGNORECASE))):
            sentence = _SENTENCE.split(text[cue.end() : cue.end() + 200].lstrip())[0]
            if numerals(sentence):
                return _of_sentence(sentence, question)
    for part in reversed(_BOLD.findall(text)):
        if values := numerals(part):
            return values[-1]
    if _refuses(text):
        return None
    for sentence in reversed(_SENTENCE.split(text)):
        if numerals(sentence):
            return _of_sentence(sentence, question)
    words = number_words(text)
    return words[-1] if words else None


def _of_sentence(sentence: str, question: str) -> str:
    """The number after the last link word that has one, else the last; conditions that the question sets aside."""
    sentence = plain(sentence)
    asked = set(numerals(question))
    values = list(quantities(sentence))
    answers = [v for v in values if not (v[0] in asked and _CONDITION.search(sentence, max(0, v[1] - 12), v[1]))]
    if not answers:
        words = number_words(sentence)
        return words[0] if words else values[-1][0]
    for link in reversed(list(_LINK.finditer(sentence))):
        after = [value for value, start, _ in answers if start >= link.end()]
        if after:
            return after[0]
    return answers[-1][0]
