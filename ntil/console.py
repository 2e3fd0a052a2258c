"""Tables, durations and sizes as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table as RichTable

Align = Literal["l", "r"]
WIDTH = 160  # of tables where there is no terminal


@dataclass(frozen=True)
class Table:
    """Columns with their alignment, and rows of plain text."""

    title: str
    columns: list[str]
    align: list[Align]
    rows: list[list[str]]

    def markdown(self) -> str:
        rule = ["---:" if a == "r" else "---" for a in self.align]
        lines = [self.columns, rule, *self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def latex(self) -> str:
        rows = [" & ".join(map(_escaped, row)) + r" \\" for row in self.rows]
        head = " & ".join(map(_escaped, self.columns)) + r" \\"
        lines = [
            r"\begin{table}",
            rf"\caption{{{_escaped(self.title)}}}",
            rf"\begin{{tabular}}{{{''.join(self.align)}}}",
            r"\toprule",
            head,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def print(self) -> None:
        table = RichTable(title=self.title, title_justify="left")
        for column, align in zip(self.columns, self.align, strict=True):
            table.add_column(column, justify="left" if align == "l" else "right")
        for row in self.rows:
            table.add_row(*row)
        console().print(table)


def epochs(count: float) -> str:
    """`1 epoch`, `1.06 epochs`."""
    shown = f"{count:.3g}"
    return f"{shown} epoch" if shown == "1" else f"{shown} epochs"


def first_left(columns: Sequence[str]) -> list[Align]:
    """Alignment of columns: the first to the left, all others to the right."""
    return ["l", *["r"] * (len(columns) - 1)]  # type: ignore[list-item]


def console(width: int = WIDTH) -> Console:
    """Console on stdout, `width` characters wide if it is no terminal."""
    return Console(width=None if Console().is_terminal else width)


def duration(seconds: float) -> str:
    """Seconds as `12 s`, `3 min`, `5 h 20 min`, `2 d 3 h`."""
    total = max(0, round(seconds))
    if total < 60:
        return f"{total} s"
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if hours < 1:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if days < 1 else f"{days} d {hours % 24} h"


def gigabytes(size: int) -> str:
    """Bytes in gigabytes: `< 0.1`, `3.4`, `41`."""
    return "< 0.1" if size < 5e7 else f"{size / 1e9:.0f}" if size >= 9.95e9 else f"{size / 1e9:.1f}"


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$"}
    special |= {"<": r"$<$", ">": r"$>$", "$": r"\$", "✓": r"$\checkmark$", "✗": r"$\times$"}
    return "".join(special.get(c, c) for c in text)
