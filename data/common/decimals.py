"""Decimal numbers as text."""

from __future__ import annotations

from decimal import Decimal


def plain(value: Decimal) -> str:
    """Shortest text without an exponent: 0.5, -3, 1200, and 0 for -0.0."""
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
