"""Check on this machine's GPUs what only they show, and write one Markdown file.

    python -m benchmarks.gpu_check docs/gpu.md                 all checks, at 2B parameters with random weights
    python -m benchmarks.gpu_check docs/gpu.md --only losses,syncs

`make gpu-check` calls it. Without a GPU nothing is done, and the exit code is 0. A check that fails with an error is
reported as failed, and the others go on; the exit code is 1 if one failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.gpu_check import engines, losses, peers, step_profile, syncs, throughput
from benchmarks.gpu_check.check import Check, Context, Result
from benchmarks.gpu_check.report import markdown, verdict
from data.common.files import write_text
from ntil.config.compose import compose
from ntil.rehearsal.weights import write_random

CHECKS: dict[str, Check] = {
    "losses": losses.run,
    "syncs": syncs.run,
    "engines": engines.run,
    "peers": peers.run,
    "throughput": throughput.run,
    "profile": step_profile.run,
}
MODEL = "qwen2_vl_2b"
# 256 picture tokens a row, as at the lower bound of the model's own pixels; rows are drawn.
WORDS = (
    f"model={MODEL}",
    "task=grounding_nano",
    "task.source.size=448",
    "task.source.rows={train:512,validation:32,test:32}",
    "curriculum=none",
    "tracker=none",
    "optim.batch_size=8",
    "optim.lr=1e-5",
    "evaluation.batch_size=8",
    "evaluation.validation_rows=8",
    "engine.gradient_checkpointing=false",
    "engine.processes=1",
)


def main(arguments: Sequence[str]) -> int:
    """Run the checks; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(CHECKS))
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("gpu-check: there is no GPU here, so nothing was checked")
        return 0
    with tempfile.TemporaryDirectory(dir=options.file.absolute().parent, prefix=".gpu-check-") as folder:
        checkpoint = Path(folder) / "checkpoint"
        write_random(compose([f"model={MODEL}"]).model, checkpoint)
        overrides = (*WORDS, f"model.checkpoint={checkpoint}")
        context = Context("cuda", overrides, Path(folder), torch.cuda.device_count())
        results: list[Result] = []
        for result in results_of({name: CHECKS[name] for name in options.only}, context):
            results.append(result)
            # After each, so that a check that is cut short takes none of the earlier ones with it.
            write_text(options.file, markdown(results, "cuda", f"python -m benchmarks.gpu_check {' '.join(arguments)}"))
    return 1 if any(result.passed is False for result in results) else 0


def results_of(checks: Mapping[str, Check], context: Context) -> Iterator[Result]:
    """Results of the checks as they end, each in a folder of its own; an error is a check that failed."""
    for name, check in checks.items():
        print(f"{name} ...", flush=True)
        folder = context.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            result = check(Context(context.device, context.words, folder, context.gpus, context.steps))
        except Exception as error:
            traceback.print_exc()
            result = Result(name, False, [f"{type(error).__name__}: {error}"])
        print(f"{name}: {verdict(result)}", flush=True)
        yield result
        if context.device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
