"""Precisions, attentions, ZeRO stages, ranks and torch.compile: the losses of torch alone, in their time and memory.

Each is rehearsed as `ntil rehearse` does it, with real processes, an interruption and a resume.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.gpu_check.check import Context, Result
from data.common.errors import UserError
from ntil.components import Components
from ntil.config.schema import RunConfig
from ntil.console import Table, gigabytes
from ntil.estimates.memory import memory_need
from ntil.preflight import compose_checked, rank_count
from ntil.rehearsal.perform import Outcome, perform
from ntil.rehearsal.prepare import longest_rows, rehearsal_config
from ntil.rehearsal.projection import step_seconds
from ntil.runs.folder import folder_of

STEPS = 5
TOLERANCE = 2e-2  # relative, of losses in bfloat16 whose sums run in another order
REFERENCE = "torch alone"


@dataclass(frozen=True)
class Case:
    """Overrides of one row of the table. needs: an installed package. ranks: None for one on every GPU."""

    name: str
    words: tuple[str, ...]
    ranks: int | None = 1
    needs: str | None = None


CASES = (
    Case(REFERENCE, ("engine=local",)),
    Case("torch alone, float32 steps", ("engine=local", "model.dtype=float32", "engine.dtype=float32")),
    Case("eager attention", ("engine=local", "model.attn_implementation=eager")),
    Case("flash attention", ("engine=local", "model.attn_implementation=flash_attention_2"), needs="flash_attn"),
    Case("torch.compile", ("engine=local", "engine.compile=true")),
    Case("gradient checkpointing", ("engine=local", "engine.gradient_checkpointing=true")),
    Case("ZeRO-2", ("engine=zero2",)),
    Case("ZeRO-3", ("engine=zero3",)),
    Case("torch alone, all GPUs", ("engine=local",), None),
    Case("ZeRO-2, all GPUs", ("engine=zero2",), None),
    Case("ZeRO-3, all GPUs", ("engine=zero3",), None),
)


def run(context: Context, cases: tuple[Case, ...] = CASES, rehearse: Callable[..., Outcome] = perform) -> Result:
    """Rehearse every case, and compare its losses with those of the first."""
    rows: list[list[str]] = []
    skipped: list[str] = []
    reference: list[float] = []
    for case in cases:
        ranks = context.gpus if case.ranks is None else case.ranks
        if case.needs is not None and find_spec(case.needs) is None:
            skipped.append(f"{case.name}: skipped, {case.needs} isn't installed")
            continue
        if case.ranks is None and context.gpus == 1:
            skipped.append(f"{case.name}: skipped, there is one GPU")
            continue
        folder = context.folder / case.name
        try:
            config = _config(context, case, ranks, folder)
            outcome = rehearse(config, longest_rows(config, Components.build(config), STEPS), folder)
            losses = _losses(config)
            reference = reference or losses
            cells = _cells(config, outcome, losses, reference)
        except UserError as error:  # as where the estimate doesn't fit this GPU
            cells = [str(error), "", "", "", ""]
        rows.append([case.name, str(ranks), *cells])
        print("  ".join(rows[-1]), flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    columns = ["engine", "ranks", "losses", "step s", "peak GB", "estimated GB", "of it measured"]
    table = Table("engines", columns, ["l", "r", "l", "r", "r", "r", "r"], rows)
    passed = all(row[2].startswith("equal") for row in rows)
    lines = [
        f"losses of {STEPS} steps, one of them after a resume, within {TOLERANCE:g} of those of {REFERENCE}; "
        "estimated: ntil.estimates, for the training",
        *skipped,
    ]
    return Result("Engines", passed, lines, [table])


def _config(context: Context, case: Case, ranks: int, folder: Path) -> RunConfig:
    device = f"engine.device={'cpu' if context.device == 'cpu' else 'cuda'}"
    overrides = [*context.words, *case.words, f"engine.processes={ranks}", device]
    return rehearsal_config(compose_checked(overrides), folder / "runs", STEPS, cache_features=False)


def _losses(config: RunConfig) -> list[float]:
    return [record["loss"] for record in folder_of(config).read_history() if "loss" in record]


def _cells(config: RunConfig, outcome: Outcome, losses: list[float], reference: list[float]) -> list[str]:
    if outcome.failure is not None:
        return [outcome.failure, "", "", "", ""]
    apart = max(abs(a - b) / abs(b) for a, b in zip(losses, reference, strict=True))
    verdict = f"equal ({apart:.0e})" if apart <= TOLERANCE else f"DIFFER ({apart:.0e})"
    memories = [m.memory for measures in outcome.measures.values() for m in measures if m.phase == "step"]
    peak = max(memory.host if memory.gpu is None else memory.gpu for memory in memories)
    need = memory_need(config, rank_count(config.engine))
    estimate = 0 if need is None else need.training
    return [verdict, f"{step_seconds(outcome):.3g}", gigabytes(peak), gigabytes(estimate), f"{estimate / peak:.0%}"]
