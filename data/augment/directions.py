"""Words that say where something is in a picture, and so are false after it was mirrored or cropped.

English, and `left` and `right` of a few other languages; what a text says in another way isn't seen.
"""

from __future__ import annotations

import re

_SIDES = (
    r"(?:left|right)(?:most|ward|wards|hand|side|er|y)?|lefties|righties|east(?:ern)?|west(?:ern)?"
    r"|(?:east|west)bound|(?:anti|counter)?-?clockwise"
    r"|(?:\d+|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)[ -]?o['’‘´` ]?clock"
    r"|links|linke[nrms]?|rechts|rechte[nrms]?|gauche|droite?|izquierd[ao]|derech[ao]|sinistr[ao]|destr[ao]|esquerd[ao]|direit[ao]"
    r"|слева|справа|левее|правее|влево|вправо|лев(?:ый|ая|ое|ого|ой|ом|ую)|прав(?:ый|ая|ое|ого|ой|ом|ую)"
)
_PLACES = (
    r"top(?:most)?|bottom(?:most)?|upper(?:most)?|lower(?:most)?|middle|cent(?:er|re|ral)|corner|edge|border|margin"
    r"|north(?:ern)?|south(?:ern)?|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last|\d+(?:st|nd|rd|th)"
    r"|half|quarter|far|farthest|furthest"
)
MIRRORED = re.compile(rf"\b(?:{_SIDES})\b|[左右]", re.IGNORECASE)
PLACED = re.compile(rf"\b(?:{_SIDES}|{_PLACES})\b|[左右上下中]", re.IGNORECASE)


def word_of_side(text: str) -> str | None:
    """The first word that a mirror makes false: left, right and their like."""
    match = MIRRORED.search(text)
    return match[0] if match else None


def word_of_place(text: str) -> str | None:
    """The first word that a crop may make false: a side, or a place in the picture or in an order."""
    match = PLACED.search(text)
    return match[0] if match else None
