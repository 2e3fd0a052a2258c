"""`ntil export run=<folder> to=<folder> [merge=true]`: a finished run as a plain Hugging Face folder with a card.

All runs below `run` are exported at once where `to` keeps them apart: {task}, {model}, {loss} and {seed} in it are
filled in, as in 'to=starts/{task}/{model}'. Folders that are there already are left as they are, so that the same
command goes on after more runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Template

from ntil.config import ConfigError
from ntil.runs import RunFolder, find
from ntil.session import Session, saved_model

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

Train split as of the run: {{ data }}. The prompt is `{{ prompt }}`, an answer `{{ answer }}`.

## Configuration

```yaml
{{ config }}```
"""
)


def main(words: list[str]) -> int:
    """
    Raises:
        ConfigError: run= or to= missing, an unfinished run, a target that exists or that two runs would share.
    """
    keys = dict(word.partition("=")[::2] for word in words)
    root, target, merge = keys.pop("run", None), keys.pop("to", None), keys.pop("merge", "true")
    if root is None or target is None or keys or merge not in ("true", "false"):
        raise ConfigError("ntil export needs run=<finished run> to=<new folder>, and takes merge=true|false")
    found = targets(find(root) or [RunFolder(root)], target)
    unfinished = [run for run in found if not run.done]
    if unfinished:
        raise ConfigError(_not_finished(unfinished[0]))
    for run, to in found.items():
        # With one folder a run, those of an earlier call are done.
        if len(found) > 1 and to.exists():
            print(f"{to}: exists, left as it is")
            continue
        folder = export(run, to, merge == "true")
        print(f"{folder}: load it with from_pretrained({str(folder)!r})")
    return 0


def targets(runs: Sequence[RunFolder], pattern: str) -> dict[RunFolder, Path]:
    """Where each run goes, known before anything is written.

    Raises:
        ConfigError: `pattern` names something else than task, model, loss and seed, or two runs have one target.
    """
    found: dict[RunFolder, Path] = {}
    for run in runs:
        config = run.config() if run.config_file.exists() else {}
        names = {group: config[group]["name"] for group in ("task", "model", "loss") if group in config}
        try:
            to = Path(pattern.format(**names, seed=config.get("seed")))
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(f"to={pattern}: takes {{task}}, {{model}}, {{loss}} and {{seed}}, not {error}") from error
        if to in found.values():
            raise ConfigError(
                f"to={pattern} is {to} for several of the {len(runs)} runs; write 'to=.../{{task}}/{{model}}'"
            )
        found[run] = to
    return found


def export(run: RunFolder, target: Path, merge: bool = True) -> Path:
    """Write the model, its tokenizer and processor, and README.md; whole or not at all.

    Args:
        merge: fold a LoRA adapter into its base model; else the adapter alone is exported.
    """
    if not run.done:
        raise ConfigError(_not_finished(run))
    if target.exists():
        raise ConfigError(f"{target} exists; name a new folder")
    session = Session.build(run.config())
    adapter = (run.model / "adapter_config.json").exists()
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        if adapter and merge:
            session.family.save(saved_model(session, run.model).merge_and_unload(), partial)
        else:
            shutil.copytree(run.model, partial)
        (partial / "README.md").write_text(card(run, session, adapter and not merge))
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _not_finished(run: RunFolder) -> str:
    return f"{run.path}: the run is not finished; `ntil status {run.path}` says where it is"


def card(run: RunFolder, session: Session, adapter: bool) -> str:
    """The model card: what was trained, on what, how it scored, and the whole config."""
    from ntil import __version__

    config, metrics = run.config(), run.read_metrics()
    row = session.task.rows("train")[0]
    shown = {k: v for k, v in metrics.items() if isinstance(v, int | float) and not k.startswith("lenient_")}
    return CARD.render(
        adapter=adapter,
        base=config["model"].get("checkpoint"),
        version=__version__,
        steps=config["optim"]["steps"],
        rows=config["optim"]["batch_size"],
        seed=config["seed"],
        split=config["evaluation"]["split"],
        examples=int(shown.pop("examples", 0)),
        metrics=shown,
        data=_data(run),
        prompt=session.task.prompt(row),
        answer=session.task.answer(row),
        config=yaml.safe_dump(config, sort_keys=False),
        **{group: config[group]["name"] for group in ("model", "task", "loss")},
    )


def _data(run: RunFolder) -> str:
    file = run.path / "data.json"
    known: dict[str, Any] = yaml.safe_load(file.read_text()) if file.exists() else {}
    train = known.get("train")
    if isinstance(train, str):  # as earlier versions kept it
        return f"{known['rows']:,} rows, fingerprint {train} (of 64 of them)"
    return f"{train['rows']:,} rows, fingerprint {train['fingerprint']}" if train else "not recorded"
