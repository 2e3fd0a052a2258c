"""Comparison of a server's answers with this process's own greedy ones, before they are believed.

Engines differ (vllm-project/vllm#1069, #2008): other kernels and batches change the last bits of logits, other
templates and picture processors far more. Rows are compared by their text without blanks at the ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data.common.counts import counted
from ntil.config.answering import ServerConfig
from ntil.config.errors import ConfigError


@dataclass(frozen=True)
class Parity:
    """Rows that were compared, how many of them were equal, and the first of the others: its id and both texts."""

    rows: int
    equal: int
    first: tuple[str, str, str] | None

    @classmethod
    def of(cls, ids: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> Parity:
        """Compare answers row by row."""
        differing = [one for one in zip(ids, ours, theirs, strict=True) if one[1].strip() != one[2].strip()]
        return cls(len(ids), len(ids) - len(differing), differing[0] if differing else None)

    def __str__(self) -> str:
        line = f"parity: {self.equal} of {counted(self.rows, 'answer')} equal, {self.rows - self.equal} unequal"
        if self.first is None:
            return line
        name, ours, theirs = self.first
        return f"{line}; the first, row {name}: {ours.strip()!r} here, {theirs.strip()!r} there"

    def check(self, config: ServerConfig) -> None:
        """Refuse answers of which too few are equal.

        Raises:
            ConfigError: the share of equal ones is below `evaluation.server.parity_least`, and that isn't accepted.
        """
        if config.accept_parity or self.equal >= config.parity_least * self.rows:
            return
        raise ConfigError(
            f"{self}; evaluation.server.parity_least={config.parity_least:g} asks for more. Serve the exported model "
            "with its own template and dtype, or take the answers with evaluation.server.accept_parity=true"
        )

    @property
    def metrics(self) -> dict[str, float]:
        """What metrics.json says of it."""
        return {"parity_rows": float(self.rows), "parity_equal": float(self.equal)}
