"""Model card of an exported run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Template

from data.common.errors import UserError
from data.common.files import check_size_on_disk
from ntil import __version__
from ntil.components import Components
from ntil.config.schema import RunConfig
from ntil.models.packaged import PREFIX, licences
from ntil.models.pretrained import is_path
from ntil.runs.data_fingerprint import described
from ntil.runs.folder import RunFolder, read_json
from ntil.runs.metric_names import is_lenient
from ntil.runs.run import Run

CARD = Template(
    """\
---
library_name: {{ "peft" if adapter else "transformers" }}
{%- if licence %}
license: {{ licence }}
{%- endif %}
{%- if hub_base %}
base_model: {{ hub_base }}
{%- endif %}
tags: [ntil, number-loss, {{ loss }}]
---

# {{ model }} on {{ task }}, trained with {{ loss }}

{{ "A LoRA adapter" if adapter else "Weights" }} trained by ntil {{ version }}: {{ steps }} steps of {{ rows }} rows,
seed {{ seed }}, {{ "from " + base if base else "from scratch" }}.{{ saved }}

## Metrics

On the split `{{ split }}` ({{ examples }} examples), {{ generation }}:

| metric | value |
| --- | ---: |
{% for name, value in metrics.items() -%}
| {{ name }} | {{ "%.4g" | format(value) }} |
{% endfor %}
{%- if report %}
## Beside other losses

From the report of the run's experiment:

{{ report }}
{%- endif %}
## Licence

{{ licence_note }}

## Data

Train split as of the run: {{ data }}.{% if prompt %} The prompt is `{{ prompt }}`.{% endif %}
An answer is `{{ answer }}`.

## Configuration

```yaml
{{ config }}```
"""
)
LARGEST = 1 << 20  # bytes of another card, or of a report, that are read


def card(folder: RunFolder, components: Components, adapter: bool) -> str:
    """Model card in Markdown: training, metrics, the report's rows, licence, data and all of the config."""
    config, metrics = folder.config(), folder.read_metrics()
    prompt, answer = _example(folder, components)
    scores = {k: v for k, v in metrics.items() if isinstance(v, int | float) and not is_lenient(k)}
    base = config.model.options.get("checkpoint")
    licence = licence_of(base) if base else None
    return CARD.render(
        adapter=adapter,
        base=base,
        hub_base=base if base and not _is_local(base) else None,
        licence=licence,
        licence_note=licence_note(base, licence),
        generation="greedy generation" if config.evaluation.generation.greedy else "beam search",
        report=report_rows(folder, config.task.name, config.model.name, config.loss.name),
        version=__version__,
        steps=Run(folder, config).trained_steps or Run(folder, config).steps,
        saved=saved_weights(folder, config),
        rows=config.optim.batch_size,
        seed=config.seed,
        split=config.evaluation.split,
        examples=int(scores.pop("examples", 0)),
        metrics=scores,
        data=described(folder.data),
        prompt=prompt,
        answer=answer,
        config=yaml.safe_dump(config.to_dict(), sort_keys=False),
        model=config.model.name,
        task=config.task.name,
        loss=config.loss.name,
    )


def saved_weights(folder: RunFolder, config: RunConfig) -> str:
    """Sentences on which weights these are, where they aren't those after the planned number of steps."""
    trained, planned = read_json(folder.trained), Run(folder, config).steps
    best, sentences = trained.get("best", {}), []
    if trained.get("stopped_early"):
        sentences.append(f"The training ended early, of {planned} steps.")
    if trained.get("tested") == "best":
        value = f"{trained['metric']} {best['value']:.4g}"
        sentences.append(f"The weights are those of the best validation ({value}), at step {best['step']}.")
    if config.optim.ema is not None:
        sentences.append(f"They are the moving average of the weights over the steps (decay {config.optim.ema:g}).")
    return "".join(f" {sentence}" for sentence in sentences)


def _example(folder: RunFolder, components: Components) -> tuple[str | None, str]:
    """Prompt and answer of a row; where the data aren't here the first answer that was tested, without its prompt."""
    task = components.task
    try:
        row = task.rows("train")[0]
        return task.prompt(row), task.answer(row)
    except (UserError, OSError):
        return None, next((record["answer"] for record in folder.read_predictions()), "")


def _is_local(checkpoint: str) -> bool:
    """Whether the weights are no repository's of the hub."""
    return checkpoint.startswith(PREFIX) or is_path(checkpoint) or Path(checkpoint).expanduser().exists()


def licence_of(checkpoint: str) -> str | None:
    """The licence that the card beside local weights names; None where there is none, or nothing is here to read."""
    file = Path(checkpoint).expanduser() / "README.md"
    if not file.is_file():
        return None
    check_size_on_disk(file, LARGEST)
    front = re.match(r"---\n(.*?)\n---", file.read_text(errors="replace"), re.DOTALL)
    try:
        metadata: Any = yaml.safe_load(front[1]) if front else None
    except yaml.YAMLError:
        return None
    licence = metadata.get("license") if isinstance(metadata, dict) else None
    return licence if isinstance(licence, str) and re.fullmatch(r"[\w.+-]{1,64}", licence) else None


def licence_note(base: str | None, licence: str | None) -> str:
    """What holds for the weights, as far as it is known here."""
    if base is None:
        return "Trained from scratch: no other model's licence holds for these weights. That of the training data does."
    if base.startswith(PREFIX):
        of_files = "; ".join(licences(base))
        return f"The licences of the weights that it was made from hold ({of_files}), and that of the data."
    if licence:
        return f"The base model's card names `{licence}`, which holds for these weights too; so does that of the data."
    return (
        f"The licence of the base model, {base}, holds for these weights too: see its card. So does that of the data."
    )


def report_rows(folder: RunFolder, task: str, model: str, loss: str) -> str:
    """Tables of this task and model from the experiment's newest report: the lines of this loss and of two others.

    These are the untrained model, if there is one, and the loss that others are compared with, which the column of
    differences names; where there is no such column it is the first line's. Empty without a report.
    """
    files = [parent / "report" / "table.md" for parent in folder.path.resolve().parents[:5]]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return ""
    check_size_on_disk(file, LARGEST)
    tables = []
    for section in re.split(r"^## ", file.read_text(errors="replace"), flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        lines = [line for line in text.splitlines() if line.startswith("|")]
        if not title.startswith(f"{task}, {model}:") or len(lines) < 3:
            continue
        names = [_first_cell(line) for line in lines[2:]]
        base = re.search(r"\| difference to (.+?) \[95 %\]", lines[0])
        others = {"untrained", base[1] if base else names[0]}
        rows = [line for line, name in zip(lines[2:], names, strict=True) if name in others or _is_of(name, loss)]
        if any(_is_of(name, loss) for name in names):
            tables.append("\n".join([f"**{title.strip()}**", "", *lines[:2], *rows, ""]))
    return "\n".join(tables)


def _is_of(name: str, loss: str) -> bool:
    """Whether a line is of the loss, or of one of the settings that a report names apart (`ntil lam=0.3`)."""
    return name == loss or re.fullmatch(rf"{re.escape(loss)}( \S+=\S+)+", name) is not None


def _first_cell(line: str) -> str:
    return line.strip("|").partition("|")[0].strip()
