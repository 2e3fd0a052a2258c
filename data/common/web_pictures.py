"""Pictures by web address, which are fetched only where a source's `allow_urls` asks for it.

What comes back must be a picture of at most `MOST_BYTES`, within `TIMEOUT` seconds a reading of the connection and
`SLOWEST` in all; nothing else of it is looked at, and redirections lead to web addresses alone.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from data.common.errors import InvalidData, short

MOST_BYTES = 32 << 20
TIMEOUT, SLOWEST = 20.0, 120.0  # seconds
PIECE = 1 << 16
WEB = ("http://", "https://")
_ALLOWED: ContextVar[bool] = ContextVar("_ALLOWED", default=False)


@contextmanager
def web_pictures(allowed: bool | None) -> Iterator[None]:
    """Let pictures be fetched within the block, or not."""
    token = _ALLOWED.set(bool(allowed))
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def is_web_address(value: Any) -> bool:
    """Whether a value is a text that begins as a web address does."""
    return isinstance(value, str) and value.strip().lower().startswith(WEB)


def fetched(address: str, where: str, field: str) -> bytes:
    """What a web address gives.

    Raises:
        InvalidData: addresses aren't to be fetched, the server refuses, or what it sends is too large or too slow.
    """
    address = address.strip()
    if not _ALLOWED.get():
        problem = f"{short(address)} is a web address"
        remedy = "fetch the pictures and give their paths, or set task.source.allow_urls=true to have them fetched"
        raise InvalidData(where, field, problem, remedy)
    remedy = "correct the address, or drop the row"
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "ntil", "Accept": "image/*"})
        with urllib.request.build_opener(_WebOnly).open(request, timeout=TIMEOUT) as answer:
            return _content(answer)
    except (OSError, ValueError, HTTPException) as error:  # URLError and time-outs are OSErrors
        raise InvalidData(where, field, f"{short(address)} can't be fetched ({error})", remedy) from error


def _content(answer: Any) -> bytes:
    pieces, size, started = [], 0, time.monotonic()
    while piece := answer.read1(PIECE):
        size += len(piece)
        if size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES >> 20} MB")
        if time.monotonic() - started > SLOWEST:
            raise ValueError(f"not there after {SLOWEST:.0f} seconds")
        pieces.append(piece)
    return b"".join(pieces)


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Redirections to http and https alone; the library's handler follows ftp, too."""

    def redirect_request(self, request: Any, *args: Any) -> Any:
        if urlsplit(args[-1]).scheme not in ("http", "https"):
            raise ValueError(f"redirected to {short(args[-1])}")
        return super().redirect_request(request, *args)
