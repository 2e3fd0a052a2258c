"""`ntil models [name ...] [gpus=8] [rank=16] [--json]`: each model's size, digits, coordinates and memory.

Parameters are counted on the meta device, from the checkpoint's own config where it is on this machine, else from
published.yaml. Memory is DeepSpeed's estimate of weights, gradients and optimizer states per GPU in 16-bit training
(2 + 18 bytes per parameter, partitioned as the stage says); activations come on top. Adapters: frozen weights take 2
bytes each, partitioned by stage 3 only, and the estimate is that of the trainable parameters alone. DeepSpeed has no
estimator for stage 1: there its stage 2 figure has the gradients' 6 bytes whole. Torch alone counts as stage 0, of
whose 20 bytes it takes 18: float32 weights, gradients and two moments, and autocast's 16-bit copies.
"""

from __future__ import annotations

import inspect
import json
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from ntil.compose import CONF
from ntil.config import ConfigError, TuningConfig, build, locate, nearest, typed
from ntil.models.base import Family
from ntil.models.checkpoint import CheckpointError, is_path
from ntil.tokenizers import keeps_digits_apart
from ntil.tuning import Parts, tune

PUBLISHED = Path(__file__).parent / "models" / "published.yaml"


def main(words: list[str]) -> int:
    """
    Raises:
        ConfigError: a model or key that isn't there.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)
    settings = {"gpus": 8, "rank": 16}
    names = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in settings and value.isdigit() and int(value) > 0:
            settings[key] = int(value)
        elif equals:
            raise ConfigError(f"ntil models: {word} is none of gpus=N and rank=N, N at least 1")
        elif word != "--json":
            names.append(word)
    there = sorted(p.stem for p in (CONF / "model").glob("*.yaml"))
    for name in names:
        if name not in there:
            raise ConfigError(f"model={name}: no such config{nearest(name, there)}")
    found = [describe(name, **settings) for name in names or there]
    if "--json" in words:
        print(json.dumps(found, indent=1))
    else:
        Console(width=max(Console().width, 124)).print(table(found, **settings))
    return 0


def describe(name: str, gpus: int = 8, rank: int = 16) -> dict[str, Any]:
    """What is known of one config of conf/model; sizes in parameters, memory in bytes per GPU and ZeRO stage."""
    spec = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())
    known = _Known.of(spec)
    state = known.state
    try:
        known = known.opened()
    except CheckpointError as error:
        state = f"unreadable: {error}"
    kind, family, facts = known.kind, known.family, known.facts
    coords = family.coords if family else spec.get("coords") or _default(kind, "coords")
    digits = keeps_digits_apart(family.tokenizer) if family else facts and facts["digits"]
    found: dict[str, Any] = {
        "model": name,
        "family": kind.__name__,
        "checkpoint": spec.get("checkpoint"),
        "cached": state,
        "digits": digits,
        "coords": coords,
        "source": "config" if family else "published" if facts else None,
    }
    if not known.sized:
        return found
    full = known.skeleton()
    parts = {part: size for part, (size, _) in Parts(known.owner).counts(full).items()}
    every, moving = known.tuned_sizes(known.skeleton(), TuningConfig(mode="lora", rank=rank))
    largest, total = largest_layer(full), sum(parts.values())
    return found | {
        "parameters": total,
        "parts": parts,
        "lora_trainable": moving,
        "memory_full": [estimate(stage, total, 0, largest, gpus) for stage in range(4)],
        "memory_lora": [estimate(stage, moving, every - moving, largest, gpus) for stage in range(4)],
    }


def needed(config: dict[str, Any]) -> int | None:
    """Bytes per rank for the weights, gradients and optimizer states of a run's config; None for an unknown model.

    The estimate of the whole module, with the run's own ZeRO stage, ranks on a host and tuning.
    """
    run, known = typed(config), _Known.of(config["model"]).opened()
    if not known.sized:
        return None
    whole = known.skeleton()
    largest = largest_layer(whole)
    every, moving = known.tuned_sizes(whole, run.tuning)
    return estimate(run.engine.zero or 0, moving, every - moving, largest, run.engine.gpus, run.engine.offload)


def estimate(stage: int, trainable: int, kept: int, largest: int, gpus: int, offload: bool = False) -> int:
    """Bytes per GPU for `trainable` parameters beside `kept` frozen ones on one host of `gpus`.

    offload: optimizer states and weights lie in CPU memory; stage 3 only.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed would warn that it found no GPU; only its formulas run
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as stage3
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs as stage2

    if stage == 3:
        whole = stage3(trainable, largest, num_gpus_per_node=gpus, cpu_offload=offload, cpu_offload_params=offload)[1]
        return whole + (0 if offload else 2 * kept // gpus)
    shared = stage2(trainable, num_gpus_per_node=gpus if stage else 1, cpu_offload=False)[1]
    if stage == 1:
        shared += 6 * trainable - 6 * trainable // gpus
    return shared + 2 * kept


def largest_layer(model: torch.nn.Module) -> int:
    """As DeepSpeed counts it: most parameters that one module holds itself."""
    return max(sum(p.numel() for p in module.parameters(recurse=False)) for module in model.modules())


def cached(checkpoint: str | None) -> str:
    """`from scratch`, `folder`, `yes`, `partly` (weights are missing) or `no`, by looking at this machine only."""
    from huggingface_hub import try_to_load_from_cache

    if checkpoint is None:
        return "from scratch"
    if Path(checkpoint).expanduser().is_dir():
        return "folder"

    if is_path(checkpoint):
        return "no"

    def there(name: str) -> str | None:
        found = try_to_load_from_cache(checkpoint, name)
        return found if isinstance(found, str) else None

    if not there("config.json"):
        return "no"
    for stem in ("model.safetensors", "pytorch_model.bin"):
        index = there(f"{stem}.index.json")
        shards = set(json.loads(Path(index).read_text())["weight_map"].values()) if index else {stem}
        if all(map(there, shards)):
            return "yes"
    return "partly"


def table(found: list[dict[str, Any]], gpus: int, rank: int) -> Table:
    title = f"GB per GPU for weights, gradients and optimizer states on {gpus} GPUs, ZeRO 0 / 1 / 2 / 3"
    shown = Table("model", box=None, pad_edge=False, caption=title, caption_justify="left")
    for name in ("parameters", "cached", "digits", "coords", "full", f"LoRA rank {rank}", "trains"):
        shown.add_column(name, justify="right" if name in ("parameters", "trains") else "left")
    for model in found:
        digits = {True: "one each", False: "merged", None: "?"}[model["digits"]]
        memory = [_gigabytes(model.get(f"memory_{kind}")) for kind in ("full", "lora")]
        sizes = [_count(model.get(key)) for key in ("parameters", "lora_trainable")]
        shown.add_row(model["model"], sizes[0], model["cached"], digits, str(model["coords"]), *memory, sizes[1])
    return shown


class _Parts:
    """A family's class attributes, for a checkpoint that can't be opened here."""

    def __init__(self, kind: type[Family]) -> None:
        self.parts, self.lora_targets, self.lora_trainable = kind.parts, kind.lora_targets, kind.lora_trainable
        self.__name__ = kind.__name__


@dataclass(frozen=True)
class _Known:
    """What this machine knows of a model's config: published facts, and once `opened` the family if it is here.

    state: of the checkpoint, as `cached` says.
    """

    spec: dict[str, Any]
    kind: type[Family]
    state: str
    facts: dict[str, Any] | None
    family: Any = None

    @classmethod
    def of(cls, spec: dict[str, Any]) -> _Known:
        facts = yaml.safe_load(PUBLISHED.read_text()).get(spec["name"])
        return cls(spec, locate(spec["target"]), cached(spec.get("checkpoint")), facts)

    def opened(self) -> _Known:
        """
        Raises:
            CheckpointError: the checkpoint is here and can't be read.
        """
        return self if self.state in ("no", "partly") else replace(self, family=build("model", self.spec))

    @property
    def sized(self) -> bool:
        """Whether there is enough to build a `skeleton` of."""
        return self.family is not None or self.facts is not None

    @property
    def owner(self) -> Any:
        return self.family or _Parts(self.kind)

    def tuned_sizes(self, model: Any, tuning: TuningConfig) -> tuple[int, int]:
        """(all, trainable) parameters under `tuning`, which changes `model`."""
        counts = Parts(self.owner).counts(tune(model, self.owner, tuning)).values()
        every, moving = (sum(column) for column in zip(*counts, strict=True))
        return every, moving

    def skeleton(self) -> Any:
        """The model without weights."""
        with torch.device("meta"):
            if self.spec.get("checkpoint") is None:
                return self.family.load()
            if self.facts:
                model = locate(self.facts["class"])
                return model(self.family.config if self.family else model.config_class(**self.facts["config"]))
            import transformers

            config = self.family.config
            named = getattr(self.family, "model_class", None) or getattr(transformers, config.architectures[0])
            return named(config)


def _default(kind: type[Family], name: str) -> Any:
    taken = inspect.signature(kind).parameters.get(name)
    return taken.default if taken else getattr(kind, name)


def _gigabytes(stages: list[int] | None) -> str:
    if stages is None:
        return "?"
    return "< 0.1" if max(stages) < 5e7 else " / ".join(map(gigabytes, stages))


def gigabytes(size: int) -> str:
    return "< 0.1" if size < 5e7 else f"{size / 1e9:.0f}" if size >= 9.95e9 else f"{size / 1e9:.1f}"


def _count(number: int | None) -> str:
    if number is None:
        return "?"
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.2f} M"
