"""Export finished runs as plain Hugging Face folders with a model card.

    ntil export run=<folder> to=<folder> [merge=true]

    ntil export run=runs/demo/clock/llava_nano/ntil/seed0-1f3a to=exported       one finished run
    ntil export run=runs/starts 'to=starts/{task}/{model}'                       all below a folder

run: the run, or a folder of runs. to: a new folder; {task}, {model}, {loss} and {seed} in it are filled in, and must
keep several runs apart. Folders that are there already are left as they are, so that the same command goes on after
more runs. merge: fold a LoRA adapter into its base (true), or export the adapter alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from jinja2 import Template
from omegaconf import MISSING

from data.common.errors import UserError
from data.common.files import replacing
from ntil import __version__
from ntil.commands.options import parse_options
from ntil.components import Components
from ntil.config.build import locate
from ntil.config.errors import ConfigError
from ntil.config.schema import RunConfig
from ntil.losses import NumberLoss
from ntil.models.saving import check_saved, load_saved
from ntil.runs.data_fingerprint import described
from ntil.runs.folder import RunFolder, find_runs
from ntil.runs.run import Run, build_from_saved

CARD = Template(
    """\
---
library_name: {{ "peft" if adapter else "transformers" }}
{%- if base %}
base_model: {{ base }}
{%- endif %}
tags: [ntil, number-loss, {{ loss }}]
---

# {{ model }} on {{ task }}, trained with {{ loss }}

{{ "A LoRA adapter" if adapter else "Weights" }} trained by ntil {{ version }}: {{ steps }} steps of {{ rows }} rows,
seed {{ seed }}, {{ "from " + base if base else "from scratch" }}.

## Metrics

On the split `{{ split }}` ({{ examples }} examples), greedy generation:

| metric | value |
| --- | ---: |
{% for name, value in metrics.items() -%}
| {{ name }} | {{ "%.4g" | format(value) }} |
{% endfor %}
## Data

Train split as of the run: {{ data }}.{% if prompt %} The prompt is `{{ prompt }}`.{% endif %}
An answer is `{{ answer }}`.

## Configuration

```yaml
{{ config }}```
"""
)


SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja", ".md")  # of what a model, tokenizer, processor saves


@dataclass
class ExportOptions:
    """Options of `ntil export`; `to` may hold {task}, {model}, {loss} and {seed}."""

    run: str = MISSING
    to: str = MISSING
    merge: bool = True


def main(arguments: list[str]) -> int:
    """Run `ntil export`; the exit code. Nothing is written unless every run is finished.

    Raises:
        UserError: run= or to= missing, an unfinished run, a target that exists or that two runs would share.
    """
    options = parse_options("export", ExportOptions, arguments)
    target_of = targets(find_runs(options.run) or [RunFolder(options.run)], options.to)
    for folder in target_of:
        if not folder.done:
            raise ConfigError(_not_finished(folder))
    for folder, target in target_of.items():
        # Of several targets, existing ones are from an earlier call.
        if len(target_of) > 1 and target.exists():
            print(f"{target}: exists, left as it is")
            continue
        export(folder, target, options.merge)
        print(f"{target}: load it with from_pretrained({str(target)!r})")
    return 0


def targets(folders: Sequence[RunFolder], pattern: str) -> dict[RunFolder, Path]:
    """Target folder of every run, so that conflicts are found before anything is written.

    Raises:
        ConfigError: `pattern` names something else than task, model, loss and seed, or two runs have one target.
    """
    target_of: dict[RunFolder, Path] = {}
    for folder in folders:
        try:
            target = Path(pattern.format(**_names(folder))).expanduser()
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(f"to={pattern}: takes {{task}}, {{model}}, {{loss}} and {{seed}}, not {error}") from error
        if target in target_of.values():
            raise ConfigError(
                f"to={pattern} is {target} for several of the {len(folders)} runs; write 'to=.../{{task}}/{{model}}'"
            )
        target_of[folder] = target
    return target_of


def _names(folder: RunFolder) -> dict[str, str]:
    if not folder.config_file.exists():
        return {}
    config = folder.config()
    names = {group: getattr(config, group).name for group in ("task", "model", "loss")}
    return {**names, "seed": str(config.seed)}


def export(folder: RunFolder, target: Path, merge: bool = True) -> Path:
    """Write the model, its tokenizer and processor, and README.md, atomically.

    Args:
        merge: fold a LoRA adapter into its base model; else the adapter alone is exported.
    """
    if not folder.done:
        raise ConfigError(_not_finished(folder))
    if target.exists():
        raise ConfigError(f"{target} exists; name a new folder")
    check_exportable(folder.config())
    check_saved(folder.model)
    components = build_from_saved(folder, folder.config(), Components.build)
    adapter = (folder.model / "adapter_config.json").exists()
    with replacing(target) as partial:
        if adapter and merge:
            merged = load_saved(components.family, folder.model).merge_and_unload()
            components.family.save(merged, partial)
        else:
            _check_files(folder.model)
            shutil.copytree(folder.model, partial)
        (partial / "README.md").write_text(card(folder, components, adapter and not merge))
    return target


def check_exportable(config: RunConfig) -> None:
    """Check that the exported model alone would answer as the run's does.

    Raises:
        ConfigError: its answers are read, and whoever loads it would have it generate.
    """
    loss: type[NumberLoss] = locate(config.loss.target, "loss")
    if loss.reads_numbers:
        raise ConfigError(
            f"loss={config.loss.name}: its answers are read by a regression head, which nobody who loads the exported "
            "model would do; evaluate it here with ntil eval"
        )


def _check_files(model: Path) -> None:
    """Check that the folder holds weights and settings alone: no pickles, code or links to other files."""
    for path in model.rglob("*"):
        if path.is_symlink() or (path.is_file() and path.suffix not in SUFFIXES):
            raise ConfigError(f"{path}: a run saves no such file beside its weights; remove it to export the rest")


def _not_finished(folder: RunFolder) -> str:
    return f"{folder.path}: the run is not finished; `ntil status {folder.path}` says where it is"


def _example(folder: RunFolder, components: Components) -> tuple[str | None, str]:
    """Prompt and answer of a row; where the data aren't here the first answer that was tested, without its prompt."""
    task = components.task
    try:
        row = task.rows("train")[0]
        return task.prompt(row), task.answer(row)
    except (UserError, OSError):
        return None, next((record["answer"] for record in folder.read_predictions()), "")


def card(folder: RunFolder, components: Components, adapter: bool) -> str:
    """Model card in Markdown: training, metrics, data and the whole config."""
    config, metrics = folder.config(), folder.read_metrics()
    prompt, answer = _example(folder, components)
    scores = {k: v for k, v in metrics.items() if isinstance(v, int | float) and not k.startswith("lenient_")}
    return CARD.render(
        adapter=adapter,
        base=config.model.options.get("checkpoint"),
        version=__version__,
        steps=Run(folder, config).steps,
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
