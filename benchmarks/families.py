"""Model x check, by really doing each: `python -m benchmarks.families [names...]` from the project's root.

Every full-scale config is pointed at a tiny checkpoint in its release's layout with its real tokenizer, as
`vision_checkpoints` and `text_checkpoints` write it. `ids` runs the family's own tests against its processor or chat
template. The columns of tuning modes say how many of the parameters that were free to move under ZeRO-2 did, in 3 steps
without weight decay; `+n`: others moved too.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks import text_checkpoints, vision_checkpoints
from ntil.config.compose import CONF

TESTS = Path(__file__).resolve().parents[1] / "tests" / "models"
SHARED = Path(os.environ.get("NTIL_SHARED", "../shared"))
COLUMNS = ("loads", "ids", "logits, max. error", "batched", "full", "lora", "frozen vision", "coverage")
STEPS = {"full": "tuning=full", "lora": "tuning=lora", "frozen vision": "tuning=freeze_vision"}


def main(names: list[str]) -> None:
    for key, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1")):
        os.environ.setdefault(key, value)
    os.environ.setdefault("MASTER_PORT", "29511")
    shown = Table("model", *COLUMNS, box=None, pad_edge=False)
    with tempfile.TemporaryDirectory() as place:
        os.environ["NTIL_CACHE"] = str(Path(place) / "cache")
        for name in names or [*vision_checkpoints.NAMES, *text_checkpoints.NAMES]:
            pictures = name in vision_checkpoints.NAMES
            writer = vision_checkpoints if pictures else text_checkpoints
            folder = writer.write(name, SHARED, Path(place) / name)
            task = "clock" if pictures else "arithmetic"
            words = [f"model={name}", f"model.checkpoint={folder}", "model.dtype=float32", f"task={task}", "loss=ntil"]
            found = row(words, name, pictures)
            shown.add_row(name, *(found[column] for column in COLUMNS))
            print(name, found, file=sys.stderr, flush=True)
    Console(width=140).print(shown)


def row(words: list[str], name: str, pictures: bool) -> dict[str, str]:
    from benchmarks.family_checks import batched_is_single, moved, supervised_logits_error
    from ntil.components import Components
    from ntil.preflight import compose_checked

    rows = ["task.source.rows={train:8,validation:2,test:2}"]
    components = Components.build(compose_checked([*words, *rows, "curriculum=none"]))
    model = components.family.load().eval()
    split = components.task.rows("train")
    some = [split[i] for i in range(5)]
    found = {
        "loads": f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M",
        "ids": same_ids(name, pictures),
        "logits, max. error": f"{supervised_logits_error(components, model, some):.0e}",
        "batched": "equal" if batched_is_single(components, model, some) else "DIFFERS",
        "coverage": f"{components.coverage(some):.0%}",
    }
    for column, tuning in STEPS.items():
        if tuning == "tuning=freeze_vision" and not pictures:
            found[column] = "-"
            continue
        step: Any = moved([*words, *rows, tuning, "engine=zero2", "engine.device=cpu"])
        free, changed = set(step["free"]), set(step["moved"])
        extra = f" +{len(changed - free)}" if changed - free else ""
        found[column] = f"{len(changed & free)} of {len(free)}{extra}"
    return found


def same_ids(name: str, pictures: bool) -> str:
    """The verdict of the tests that compare prompt and answer with the family's own processor."""
    wanted = f"ids_are and {name}"
    if pictures:
        module = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())["target"].partition(":")[0]
        wanted = f"test_{module.rpartition('.')[2]}_is and (own_processor or own_way or chat_template)"
    quiet = ["-q", "--no-header", "--no-summary", "-p", "no:cacheprovider"]
    # In a process of its own: pytest refuses plugins whose packages are imported already.
    code = subprocess.run([sys.executable, "-m", "pytest", *quiet, str(TESTS), "-k", wanted], check=False).returncode
    return {0: "equal", 5: "no test"}.get(code, "DIFFER")


if __name__ == "__main__":
    main(sys.argv[1:])
