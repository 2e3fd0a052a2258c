"""Rehearse a run or a sweep before it takes a night: will it die of memory, of disk, of a typo?

    ntil rehearse model=qwen2_vl_2b task=refcoco tuning=lora
    ntil rehearse -m experiment=grounding scale=full
    ntil rehearse -m experiment=grounding scale=full weights=random data=drawn     before anything is downloaded

The words are those of `ntil train`. Every job is composed and checked; then, for each distinct model, task, engine
and tuning, the real worker, ranks and data run in a temporary folder, on the longest rows: a few steps, an interruption
with its checkpoint, a resume, one batch of validation, the saved model, one batch of the test, an export. Other losses
of the sweep train one step each. All files are removed at the end.

steps: how many, 3 or more. weights: real, or random (the published sizes, nothing is downloaded). data: real, or drawn
(where a data set isn't here its task's renderer takes its place), in pictures of size=640 pixels. tokenizer: a folder
with the model's tokenizer, for weights=random. losses: all, or first. keep: a new folder, where everything stays.
to: a file for the report in Markdown.

Exit code 0: the sweep won't die of these; 1: it would, and the sentence says of what.
"""

from __future__ import annotations

from dataclasses import dataclass

from ntil.commands.options import parse_options, split_options
from ntil.config.compose import report_errors
from ntil.config.errors import ConfigError, nearest
from ntil.rehearsal.prepare import FEWEST_STEPS
from ntil.rehearsal.sweep import Settings, rehearse

CHOICES = {"weights": ("real", "random"), "data": ("real", "drawn"), "losses": ("all", "first")}


@dataclass
class RehearseOptions:
    """Options of `ntil rehearse`, see the module's docstring."""

    steps: int = FEWEST_STEPS
    weights: str = "real"
    data: str = "real"
    size: int = 640
    tokenizer: str | None = None
    losses: str = "all"
    keep: str | None = None
    to: str | None = None


def main(arguments: list[str]) -> int:
    """Run `ntil rehearse`; 0, or 1 for all that would end the sweep."""
    return 1 if report_errors(lambda: _rehearse(arguments), arguments) else 0


def _rehearse(arguments: list[str]) -> int:
    words, overrides = split_options(RehearseOptions, arguments)
    options = parse_options("rehearse", RehearseOptions, words)
    for name, values in CHOICES.items():
        value = getattr(options, name)
        if value not in values:
            raise ConfigError(f"ntil rehearse: {name}={value} must be {' or '.join(values)}{nearest(value, values)}")
    if options.steps < FEWEST_STEPS:
        raise ConfigError(f"ntil rehearse: steps={options.steps} must be {FEWEST_STEPS} or more")
    return rehearse(
        overrides,
        Settings(
            steps=options.steps,
            random_weights=options.weights == "random",
            drawn_data=options.data == "drawn",
            picture_size=options.size,
            tokenizer=options.tokenizer,
            all_losses=options.losses == "all",
            keep=options.keep,
            report=options.to,
        ),
    )
