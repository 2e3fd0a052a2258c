"""Show one example, token by token, as the loss sees it.

    ntil show task=clock loss=ntil [row=0 split=train]
    ntil show task=refcoco packing=pictures

row: its number in the split. split: of the task's. All else overrides the configuration of a run. With packing, the
sequence follows in which the row shares its picture with others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.common.counts import counted
from data.common.rows import undecoded
from ntil.commands.options import parse_options, split_options
from ntil.components import Components
from ntil.config.errors import ConfigError
from ntil.config.schema import PackingConfig
from ntil.losses import StepInfo
from ntil.numbers.spans import NumberSpans
from ntil.packing.collator import PackedCollator
from ntil.packing.rows import SharedPictures
from ntil.packing.table import packed_table
from ntil.preflight import compose_checked

MOST_ORTHOGONAL = 2048  # ids of a vocabulary: of a real one a square matrix has gigabytes
NEAR, SHOWN = 500, 3  # rows looked through on either side for the same picture, and shown in a sequence


@dataclass
class ShowOptions:
    """Options of `ntil show`: index of the row and name of its split."""

    row: int = 0
    split: str = "train"


def main(arguments: list[str]) -> int:
    """Run `ntil show`; the exit code.

    Raises:
        UserError: an override that can't be composed, or a row that isn't there.
    """
    words, overrides = split_options(ShowOptions, arguments)
    options = parse_options("show", ShowOptions, words)
    config = compose_checked(overrides)
    components = Components.build(config)
    task, collator = components.task, components.collator
    rows = task.rows(options.split)
    if not 0 <= options.row < len(rows):
        raise ConfigError(f"row={options.row}: {options.split} has the rows 0..{len(rows) - 1}")
    row = rows[options.row]
    batch = collator([row])
    encoded = collator.encode(row, task.answer(row))
    spans: NumberSpans = batch["spans"]
    values = [f"{v:g}" for v, used in zip(spans.value.tolist(), spans.is_number.tolist(), strict=True) if used]
    share = spans.is_digit.float().mean().item()
    console = Console()
    console.print(f"row      {escape(str(row['id']))}")
    for name, part in task.by_member(rows).items() if task.members else ():
        console.print(f"         {name}: {counted(len(part), 'row', form=',')} of {options.split}")
    prompt = escape(repr(task.prompt(row)))
    console.print(f"prompt   {prompt}, {counted(len(encoded.prompt_ids), 'token')} with the picture's")
    wrapped = escape(repr(components.family.template(task.prompt(row), row.get("image") is not None)))
    console.print(f"in full  {wrapped}")
    console.print(f"answer   {escape(repr(task.answer(row)))}")
    console.print(token_table(components, batch))
    console.print(f"numbers  {', '.join(values) or 'none'} (number_style={components.loss.number_style})")
    console.print(f"coverage {share:.0%} of the {counted(len(encoded.answer_ids), 'supervised token')} are digits")
    console.print(f"guessing {uniform_costs(components, batch)} (all tokens equally likely)", soft_wrap=True)
    if config.packing.shares_tokens:
        _print_packed(console, components, config.packing, rows, options.row)
    return 0


def _print_packed(console: Console, components: Components, packing: PackingConfig, rows: Dataset, chosen: int) -> None:
    """Print the row in one sequence with its neighbours on the same picture."""
    near = range(max(0, chosen - NEAR), min(len(rows), chosen + NEAR))
    stored, picture_key = undecoded(rows), components.task.picture_key
    key = picture_key(stored[chosen])
    # Rows without a picture share a beginning of their texts with any others.
    same = [index for index in near if index != chosen and picture_key(stored[index]) == key]
    taken = [chosen, *same[: SHOWN - 1]]
    batch = PackedCollator(components.collator, packing)(SharedPictures(rows, components.task).__getitems__(taken))
    alone = components.collator([rows[index] for index in taken])["tokens"]
    if "segments" not in batch:
        console.print(f"packed   nothing is shared with the {2 * NEAR} rows around")
        return
    console.print(packed_table(components.family, batch))
    console.print(f"tokens   {batch['tokens']} for {counted(len(taken), 'row')}, {alone} without packing")


def uniform_costs(components: Components, batch: dict[str, Any]) -> str:
    """Components of the loss as text, when all tokens are equally likely."""
    size = len(components.family.tokenizer)
    logits = torch.zeros(len(batch["targets"]), size)
    embeddings = _unlike_embeddings(size) if components.loss.uses_embeddings else None
    info = StepInfo(output_embeddings=embeddings)
    costs = components.loss(logits, batch["targets"], batch["spans"], info).components
    return "  ".join(f"{name} {value.item():.3g}" for name, value in costs.items())


def _unlike_embeddings(size: int) -> torch.Tensor:
    """Embeddings [size, D] of which no two are alike: orthogonal, or in a large vocabulary nearly so."""
    if size <= MOST_ORTHOGONAL:
        return torch.eye(size)
    return torch.randn(size, MOST_ORTHOGONAL // 16, generator=torch.Generator().manual_seed(0))


def token_table(components: Components, batch: dict[str, Any]) -> Table:
    """Table with a line per supervised token: text, id, and of a digit its value, number, place and weight in the loss.

    A loss without number terms sees tokens only; one that does not weigh places has no column for it.
    """
    spans: NumberSpans = batch["spans"]
    loss = components.loss
    weights = loss.position_weights(spans)
    table = Table(title=f"what {type(loss).__name__} sees", title_justify="left")
    columns = ["token", "id"]
    if loss.needs_numbers:
        columns += [
            "digit",
            "number",
            "place from the left",
            "of",
            "worth",
            *weights,
        ]
    for column in columns:
        table.add_column(column, justify="left" if column == "token" else "right")
    for i, token in enumerate(batch["targets"].tolist()):
        cells = [""] * (len(columns) - 2)
        if loss.needs_numbers and spans.is_digit[i]:
            number = int(spans.number[i])
            places = (int(spans.place[i]) + 1, int(spans.length[i]))
            cells = [str(int(spans.digit[i])), f"{spans.value[number]:g}", *map(str, places), f"{spans.scale[i]:g}"]
            cells += [f"{weight[i]:.3g}" for weight in weights.values()]
        text = components.family.tokenizer.convert_ids_to_tokens(token)
        table.add_row(escape(str(text)), str(token), *cells)
    return table
