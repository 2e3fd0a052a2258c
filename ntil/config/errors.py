"""Errors in a configuration: one sentence with the remedy."""

from __future__ import annotations

import difflib
import errno
import re
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
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""


def value_error(text: str, key: str | None = None) -> str | None:
    """What OmegaConf says of a value that its schema doesn't take, in one sentence; None if it is about something else.

    Args:
        text: its message, whose `full_key` is the key where `key` isn't given.
    """
    full = re.search(r"full_key: (\S+)", text)
    name = key or (full[1] if full else None)
    if name is None:
        return None
    if value := re.search(r"Value '(.*)' of type '\w+' could not be converted to (\w+)", text, re.S) or re.search(
        r"Value '(.*)' is not a valid (\w+)", text, re.S
    ):
        kind = {"str": "text", "bool": "true or false"}.get(value[2].lower(), value[2].lower())
        return f"{name}={value[1]}: must be {kind}" if " " in kind else f"{name}={value[1]}: must be of type {kind}"
    if re.search(r"Key '.*' not in '\w+'", text):
        return f"no key {name!r}"
    if re.search(r"field '.*' is not Optional", text):
        return f"{name}=null: must have a value"
    if other := re.search(r"Cannot (?:convert|assign|merge) '?([\w.]+)'? to|Invalid type assigned: (\w+)", text):
        return f"{name}: a {other[1] or other[2]} is no value of this key"
    return None


def system_error(error: OSError) -> str:
    """A refusal of the operating system in one sentence, with the file that it is about."""
    file = error.filename2 or error.filename
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space, then run the same command again"
    else:
        remedy = "name another path, or correct what lies there and who may read and write it"
    return f"{f'{file}: ' if file is not None else ''}{reason}; {remedy}"
