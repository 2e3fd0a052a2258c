"""`ntil show task=clock loss=ntil [row=0 split=train]`: one example, token by token, with what the loss sees in it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ntil.compose import compose
from ntil.config import ConfigError
from ntil.losses import NumberLoss
from ntil.numbers import NumberSpans
from ntil.session import Session

OWN = {"row": "0", "split": "train"}


def show(words: list[str]) -> int:
    """
    Raises:
        ConfigError: an override that can't be composed, or a row that isn't there.
    """
    own = OWN | {k: v for k, _, v in (w.partition("=") for w in words) if k in OWN}
    config = compose([w for w in words if w.partition("=")[0] not in OWN])
    session = Session.build(config)
    rows = session.task.rows(own["split"])
    if not own["row"].isdigit() or int(own["row"]) >= len(rows):
        raise ConfigError(f"row={own['row']}: {own['split']} has the rows 0..{len(rows) - 1}")
    row = rows[int(own["row"])]
    batch = session.collator([row])
    encoded = session.collator.encode(row, session.task.answer(row))
    console = Console()
    console.print(f"row      {escape(str(row['id']))}")
    prompt = escape(repr(session.task.prompt(row)))
    console.print(f"prompt   {prompt}, {len(encoded.prompt_ids)} tokens with the picture's")
    console.print(f"answer   {escape(repr(session.task.answer(row)))}")
    console.print(token_table(session, batch))
    spans: NumberSpans = batch["spans"]
    values = [f"{v:g}" for v, real in zip(spans.value.tolist(), spans.is_number.tolist(), strict=True) if real]
    console.print(f"numbers  {', '.join(values) or 'none'} (number_style={session.loss.number_style})")
    share = spans.is_digit.float().mean().item()
    console.print(f"coverage {share:.0%} of the {len(encoded.answer_ids)} supervised tokens are digits")
    console.print(f"guessing {uniform_costs(session, batch)} (all tokens equally likely)", soft_wrap=True)
    return 0


def uniform_costs(session: Session, batch: dict[str, Any]) -> str:
    """The loss's components where every token is as likely as any other: what a model without a clue pays."""
    size = len(session.family.tokenizer)
    logits = torch.zeros(len(batch["targets"]), size)
    # Losses that compare embeddings get ones that are all at right angles.
    session.loss.bind(SimpleNamespace(get_output_embeddings=lambda: SimpleNamespace(weight=torch.eye(size))))
    components = session.loss(logits, batch["targets"], batch["spans"]).components
    return "  ".join(f"{name} {value.item():.3g}" for name, value in components.items())


def token_table(session: Session, batch: dict[str, Any]) -> Table:
    """One line per supervised token: its text, id, and as a digit its value, number, place and weight in the loss.

    A loss without number terms sees tokens only; one that does not weigh places has no column for it.
    """
    spans: NumberSpans = batch["spans"]
    weight = session.loss.position_weight(spans)
    weighs = type(session.loss).position_weight is not NumberLoss.position_weight
    table = Table(title=f"what {type(session.loss).__name__} sees", title_justify="left")
    columns = ["token", "id"]
    if session.loss.on_numbers:
        columns += ["digit", "number", "place from the left", "of", "worth", *(["weight"] if weighs else [])]
    for column in columns:
        table.add_column(column, justify="left" if column == "token" else "right")
    for i, token in enumerate(batch["targets"].tolist()):
        seen = [""] * (len(columns) - 2)
        if session.loss.on_numbers and spans.is_digit[i]:
            number = int(spans.number[i])
            places = (int(spans.place[i]) + 1, int(spans.length[i]))
            seen = [str(int(spans.digit[i])), f"{spans.value[number]:g}", *map(str, places), f"{spans.scale[i]:g}"]
            seen += [f"{weight[i]:.3g}"] if weighs else []
        text = session.family.tokenizer.convert_ids_to_tokens(token)
        table.add_row(escape(str(text)), str(token), *seen)
    return table
