r"""Extraction of the answer from a free response by rules, where MathVista uses a language model.

`extract` gives an option letter, a number or a list as text, or None where no rule finds any; the official
normalisation (`tasks.metrics.mathvista`) takes it from there. The rules, the first that fires:

* multiple choice: the response is a choice; the letter after the last `answer is` or the like; a letter alone on the
  last line; nothing, where the last sentence says that the question can't be answered; the letter after the last word
  like `option`; the last letter in brackets; a letter that opens the response (`B. 40`); the last choice named in the
  last sentence that names any; where all choices hold numbers, the response's number, which the official normalisation
  takes for the nearest choice.
* integer and float: the response is a number; the last `\boxed{}`; the number that follows the last `answer is`; the
  last number in bold; in the last sentence that holds a number the one after its last `=`, `is`, `are` and the like,
  else its last; without digits, a number word up to twenty.
* list: the last `[...]` of numbers.

A program in place of an answer (it ends in `print(...)`) has an answer only when it is run, which is not done: None.
How often these rules agree with the official extraction by GPT-4 is in docs/tasks.md.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

from data.common.rows import Row
from tasks.answers.numbers import numbers

LONGEST = 10_000  # characters; of a longer response the end is read
_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
)
_NUMBER_WORDS = {word: str(value) for value, word in enumerate([*_WORDS.split(), "eighteen", "nineteen", "twenty"])}
_NUMBER_WORD = re.compile(rf"\b(?:{'|'.join(_NUMBER_WORDS)})\b", re.IGNORECASE)
_CUE = re.compile(r"\b(?:answers?|options?|choices?)\b|答案|选", re.IGNORECASE)
_LETTER = re.compile(r"(?<![A-Za-z0-9'])\(?([A-Z])\)?(?![A-Za-z0-9'])")
_BRACKETED = re.compile(r"\(([A-Z])\)")
_STRONG = re.compile(
    r"\b(?:answer|option|choice)s?(?: letter)?(?: to [^.\n]{1,60}?)? (?:is|would be)\b:?|\banswer:|答案[是为:：]*|选",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\b(?:cannot|can't|can not|unable|impossible|sorry|"
    r"not (?:possible|provided|enough|listed|in the (?:choices|options)))\b",
    re.IGNORECASE,
)
_OPENING = re.compile(r"\(?([A-Z])\)?(?:[.:)]|\s*$)")
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_BOLD = re.compile(r"\*\*([^*\n]{1,40})\*\*")
_PROGRAM = re.compile(r"(?:^|\n) *print\([^\n]*\)\s*$")
_LIST = re.compile(r"\[[-+0-9., eE]*\]")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|[。\n]+")
_LINK = re.compile(
    r"=|≈|:|\b(?:is|are|was|were|be|equals?|has|have|had|left|total|approximately|about)\b", re.IGNORECASE
)


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
    text = response[-LONGEST:].replace("</s>", "").strip()
    if _PROGRAM.search(text):
        return None
    if row["question_type"] == "multi_choice":
        return _letter(text, row["choices"])
    if row["answer_type"] in ("integer", "float"):
        return _number(text)
    if row["answer_type"] == "list":
        lists = _LIST.findall(text)
        return lists[-1] if lists else None
    return text or None


def _letter(text: str, choices: Sequence[str]) -> str | None:
    letters = [chr(ord("A") + index) for index in range(len(choices))]
    exact = [letters[i] for i, choice in enumerate(choices) if choice.strip().lower() == text.lower().rstrip(".")]
    if exact:
        return exact[0]
    lines = text.splitlines() or [""]
    alone = _OPENING.fullmatch(lines[-1].strip(" *"))
    letter = _after(text, _STRONG, letters) or (alone[1] if alone and alone[1] in letters else None)
    if letter or _refuses(text):
        return letter
    letter = _after(text, _CUE, letters) or _in_brackets(text, letters) or _opening(text, letters)
    if letter:
        return letter
    for sentence in reversed(_SENTENCE.split(text)):
        matching = _named(sentence, choices)
        if matching:
            return letters[matching[-1]]
    return _number(text) if all(numbers(choice) for choice in choices) else None


def _refuses(text: str) -> bool:
    sentences = [s for s in _SENTENCE.split(text) if s]
    return bool(sentences) and _REFUSAL.search(sentences[-1]) is not None


def _after(text: str, cues: re.Pattern[str], letters: Sequence[str]) -> str | None:
    """First letter after the last cue that has one in the same sentence, within 60 characters."""
    for cue in reversed(list(cues.finditer(text))):
        near = _SENTENCE.split(text[cue.end() : cue.end() + 60].lstrip(" :\n*"))[0]
        matches = [m[1] for m in _LETTER.finditer(near) if m[1] in letters and not _is_article(near, m)]
        if matches:
            return matches[0]
    return None


def _is_article(text: str, match: re.Match[str]) -> bool:
    """Whether the match is an article, as in `A triangle`: a capital A without brackets before a word."""
    return match[0] == "A" and re.match(r"\s+[a-z]", text[match.end() :]) is not None


def _in_brackets(text: str, letters: Sequence[str]) -> str | None:
    bracketed = [letter for letter in _BRACKETED.findall(text) if letter in letters]
    return bracketed[-1] if bracketed else None


def _opening(text: str, letters: Sequence[str]) -> str | None:
    match = _OPENING.match(text)
    return match[1] if match and match[1] in letters else None


def _named(text: str, choices: Sequence[str]) -> list[int]:
    """Indices of the choices that a text names, in order; a choice inside a longer named one doesn't count."""
    spans = []
    for index, choice in enumerate(choices):
        word = re.escape(choice.strip())
        if word:
            pattern = rf"(?<![\w√.]){word}(?![\w√]|\.[0-9])"
            spans += [(m.start(), m.end(), index) for m in re.finditer(pattern, text, re.IGNORECASE)]
    longest = [s for s in spans if not any(o[0] <= s[0] and s[1] <= o[1] and o[1] - o[0] > s[1] - s[0] for o in spans)]
    return [index for _, _, index in sorted(longest)]


def _number(text: str) -> str | None:
    try:
        float(text)
        return text
    except ValueError:
        pass
    for part in reversed(_BOXED.findall(text)):
        if numbers(part):
            return numbers(part)[-1]
    for pattern in (r"answer[^.\n]{0,40}?(?:\bis\b|:|=)", r"答案"):
        for cue in reversed(list(re.finditer(pattern, text, re.IGNORECASE))):
            sentence = _SENTENCE.split(text[cue.end() : cue.end() + 200].lstrip())[0]
            if numbers(sentence):
                return _of_sentence(sentence)
    for part in reversed(_BOLD.findall(text)):
        if numbers(part):
            return numbers(part)[-1]
    for sentence in reversed(_SENTENCE.split(text)):
        if numbers(sentence):
            return _of_sentence(sentence)
    words = _NUMBER_WORD.findall(text)
    return _NUMBER_WORDS[words[-1].lower()] if words else None


def _of_sentence(sentence: str) -> str:
    """The number after the last link word that has one, else the last."""
    for link in reversed(list(_LINK.finditer(sentence))):
        after = numbers(sentence[link.end() :])
        if after:
            return after[0]
    return numbers(sentence)[-1]
