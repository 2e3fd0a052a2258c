"""Errors in a configuration: one sentence with the remedy."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable

from data.common.errors import UserError


class ConfigError(UserError):
    """The configuration can't be run as it stands."""


def quoted(word: str) -> str:
    """A `key=value` word as it must be typed into a shell for Hydra's grammar to read any value as a text."""
    key, _, value = word.partition("=")
    quotes = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    text = (value[1:-1] if quotes else value).replace("\\", "\\\\").replace('"', '\\"')
    return shlex.quote(f'{key}="{text}"')


def nearest(name: str, candidates: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the known names when nothing is near."""
    names = sorted(candidates)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}"
