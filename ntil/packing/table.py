"""A packed micro-batch as a table to read: every token, whose it is, where it stands and what it sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from rich.markup import escape
from rich.table import Table

from ntil.models.base import Family
from ntil.packing.masks import visible


def packed_table(family: Family, batch: dict[str, Any]) -> Table:
    """A line for each token of a packed batch; tokens that stand for a picture are one line.

    Args:
        batch: of `PackedCollator`, with rows that share a beginning.
    """
    table = Table(title="packed", title_justify="left")
    for name in ("sequence", "place", "token", "whose", "position", "sees"):
        table.add_column(name, justify="left" if name in ("token", "whose", "sees") else "right")
    owners = _owners(batch)
    seen = visible(batch["segments"])[:, 0]
    for sequence, segments in enumerate(batch["segments"][:, 0].tolist()):
        ids = batch["input_ids"][sequence].tolist()
        tokens = family.tokenizer.convert_ids_to_tokens(ids)
        for places in _lines(tokens, segments, family.image_token):
            first, last = places[0], places[-1]
            text = escape(str(tokens[first])) + (f" x {len(places)}" if len(places) > 1 else "")
            table.add_row(
                str(sequence),
                _span(first, last),
                text,
                escape(owners[sequence, segments[first]]),
                _positions(batch["position_ids"], sequence, first, last),
                ", ".join(_runs(seen[sequence, last].tolist())),
                end_section=last + 1 < len(segments) and segments[last + 1] != segments[first],
            )
    return table


def _lines(tokens: Sequence[str], segments: Sequence[int], image: str | None) -> Iterator[list[int]]:
    """Places of each line: one token, or those of a picture; places where nothing is are left out."""
    places = [i for i, segment in enumerate(segments) if segment >= 0]
    for is_image, run in groupby(places, key=lambda i: image is not None and tokens[i] == image):
        if is_image:
            yield list(run)
        else:
            yield from ([place] for place in run)


def _owners(batch: dict[str, Any]) -> dict[tuple[int, int], str]:
    """(sequence, segment) -> the row that it belongs to, or that several share it."""
    segments = batch["segments"]
    width = segments.shape[-1]
    owners, sharing = {}, dict[tuple[int, int], int]()
    first_of = dict(zip(reversed(batch["spans"].sample.tolist()), reversed(batch["positions"].tolist()), strict=True))
    for row, name in enumerate(batch["ids"]):
        sequence, place = divmod(first_of[row], width)
        own_segment, shared = segments[sequence, :, place].tolist()
        owners[sequence, own_segment] = name
        if shared != own_segment:
            sharing[sequence, shared] = sharing.get((sequence, shared), 0) + 1
    return {**owners, **{key: f"shared by {count} rows" for key, count in sharing.items()}}


def _positions(position_ids: Any, sequence: int, first: int, last: int) -> str:
    """Positions of a line, on several axes one beside the other where they differ."""
    rows = position_ids[None] if position_ids.dim() == 2 else position_ids
    axes = [(int(p[sequence, first : last + 1].min()), int(p[sequence, first : last + 1].max())) for p in rows]
    return " ".join(_span(*axis) for axis in (axes if len(set(axes)) > 1 else axes[:1]))


def _runs(seen: Sequence[bool]) -> Iterator[str]:
    """Places that are seen, as `0-18`."""
    for is_seen, run in groupby(range(len(seen)), key=lambda i: seen[i]):
        if is_seen:
            places = list(run)
            yield _span(places[0], places[-1])


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
