"""Several real processes: the same weights, losses and predictions as one, and what happens when one of them dies.

`python tests/e2e/test_ranks.py <folder>` prints the table of docs/runs.md.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ntil.runs.checkpoints import complete_checkpoints
from ntil.runs.folder import RunFolder
from tests.support.command_line import ntil
from tests.support.forked import FORKED_RUN, finish, freeze, start

LOSSES = ("ce", "ntil", "ntl_was", "value_emd")
SPREADS = {"1 x 8": [], "2 x 4": ["engine.processes=2"], "2 x 2 x 2": ["engine.processes=2", "engine.accumulation=2"]}
ENGINES = {
    "torch": ["engine=local"],
    "ZeRO-0": ["engine=zero2", "engine.zero_stage=0"],
    "ZeRO-1": ["engine=zero1"],
    "ZeRO-2": ["engine=zero2"],
    "ZeRO-3": ["engine=zero3"],
}
TOLERANCE = 1e-5


def run(place: Path, loss: str, engine: str, spread: str) -> RunFolder:
    runs = place / f"{engine}-{spread}".replace(" ", "")
    made = freeze([f"loss={loss}", f"runs={runs}", "optim.steps=20", *ENGINES[engine], *SPREADS[spread]])
    codes = finish(made)
    assert not any(codes), (codes, made.error.read_text() if made.error.exists() else "")
    return made


def compare(one: RunFolder, other: RunFolder) -> tuple[float, float, float]:
    """Largest difference of weights, of weights without a gradient, and of the logged loss and its components.

    The bias of attention's keys shifts all scores of a query alike, which softmax doesn't see: its gradient is rounding
    noise, which Adam scales up to steps of full size. It changes no output.
    """
    first, second = (load_file(r.model / "model.safetensors") for r in (one, other))
    assert first.keys() == second.keys()
    apart = {name: (first[name] - second[name]).abs().max().item() for name in first}
    free = {name for name in apart if name.endswith("k_proj.bias")}
    logs = [[r for r in it.read_history() if "loss" in r] for it in (one, other)]
    assert [len(log) for log in logs] == [20, 20]
    keys = [k for k in logs[0][0] if k == "loss" or k.startswith("loss/")]
    curve = max(abs(a[k] - b[k]) for a, b in zip(*logs, strict=True) for k in keys)
    return max(v for n, v in apart.items() if n not in free), max(apart[n] for n in free), curve


# Each engine, each loss; the table of docs/runs.md has all of them together.
CASES = [
    *(("torch", "2 x 4", loss) for loss in ("ntil", "value_emd")),
    *(("torch", "2 x 2 x 2", loss) for loss in ("ce", "ntl_was")),
    *(("ZeRO-2", "2 x 2 x 2", loss) for loss in ("ntil", "value_emd")),
    ("ZeRO-3", "2 x 4", "value_emd"),
    ("ZeRO-3", "2 x 2 x 2", "ntil"),
    *((f"ZeRO-{stage}", "2 x 4", "ntil") for stage in (0, 1)),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def alone(place):
    found: dict[str, RunFolder] = {}

    def get(loss: str) -> RunFolder:
        if loss not in found:
            found[loss] = run(place, loss, "torch", "1 x 8")
        return found[loss]

    return get


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "spread", "loss"), CASES)
def test_the_result_is_the_same_however_it_is_spread(place, alone, engine, spread, loss):
    one, spread_out = alone(loss), run(place, loss, engine, spread)
    weights, free, curve = compare(one, spread_out)
    assert weights < TOLERANCE
    assert curve < TOLERANCE
    assert free < 1e-4
    # 26 test rows in batches of 4: seven batches over two ranks, so one rank has no last one.
    assert spread_out.predictions.read_text() == one.predictions.read_text()
    for metrics in (spread_out.read_metrics(), one.read_metrics()):
        assert metrics.pop("train_seconds") > 0
        assert metrics["examples"] == 26


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "ZeRO-3"])
def test_validation_during_training_is_shared_out(place, engine):
    """Of five rows two ranks get three and two; with one row, one rank has none. ZeRO-3's ranks must meet anyway."""
    words = ["loss=value_emd", "optim.steps=4", "evaluation.every_steps=2", "evaluation.batch_size=2", *ENGINES[engine]]
    for rows in (5, 1):
        words_here = [*words, f"evaluation.validation_rows={rows}"]
        made = [freeze([*words_here, f"runs={place}/v{rows}-{engine}-{n}", f"engine.processes={n}"]) for n in (1, 2)]
        for it in made:
            assert not any(finish(it)), it.error.read_text()
        one, two = ([r for r in it.read_history() if "eval_ce" in r] for it in made)
        assert [r["step"] for r in two] == [2, 4]
        for a, b in zip(one, two, strict=True):
            assert b["eval_examples"] == rows
            assert {k for k in a if k.startswith("eval_")} == {k for k in b if k.startswith("eval_")}
            assert all(b[k] == pytest.approx(a[k], abs=1e-5) for k in a if k.startswith("eval_"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "tolerance"),
    [
        (["engine=local", "engine.gradient_checkpointing=true"], 1e-5),
        (["engine=zero3_offload"], 1e-5),
        (["engine=zero3", "engine.dtype=bfloat16", "engine.processes=2"], 0.2),
        (["engine=local", "engine.dtype=bfloat16"], 0.2),
    ],
)
def test_options_change_how_and_not_what(place, words, tolerance):
    curves = []
    name = "-".join(words).replace("=", "")
    for number, engine in enumerate((["engine=local"], words)):
        made = freeze(["loss=ntil", "optim.steps=6", f"runs={place}/option{number}-{name}", *engine])
        assert not any(finish(made)), made.error.read_text()
        curves.append([r["loss"] for r in made.read_history() if "loss" in r])
    assert len(curves[0]) == 6
    assert curves[1] == pytest.approx(curves[0], abs=tolerance)


@pytest.mark.slow
def test_without_deepspeed_a_run_goes_on_with_other_ranks_and_with_it_that_is_refused(place):
    for engine in ("local", "zero2"):
        words = ["loss=ce", "optim.steps=40", "save_every=5", f"engine={engine}", f"runs={place}/elastic"]
        made = freeze(words)
        (process,) = start(made)
        while not complete_checkpoints(made.checkpoints):
            assert process.is_alive()
        process.terminate()
        process.join()
        assert process.exitcode == 130
        more = command(place, *words, "optim.steps=40", "engine.processes=2")
        assert more.returncode == (0 if engine == "local" else 2), more.stderr[-1000:]
        told = "resumed from checkpoint-" in more.stdout
        assert told if engine == "local" else "holds ZeRO's shares of 1 rank(s)" in more.stderr


DYING = """
import os
from ntil.losses import CE

class Dying(CE):
    def __init__(self, vocab, smoothing: float = 0.0, dies: bool = True):
        super().__init__(vocab, smoothing=smoothing)
        self.dies, self.calls = dies, 0

    def parts(self, *args, **kwargs):
        self.calls += 1
        if self.dies and self.calls == 3 and os.environ["RANK"] == "1":
            raise ArithmeticError("rank one can't go on")
        return super().parts(*args, **kwargs)
"""


def command(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(place), str(Path(__file__).parents[2])])
    flags = [w for w in words if w.startswith("-")]
    overrides = [w for w in words if not w.startswith("-")]
    own = {"PYTHONPATH": paths, "NTIL_PACKAGES": "dying"}
    return ntil(place, "train", *flags, *FORKED_RUN, "optim.steps=6", *overrides, timeout=300, **own)


@pytest.mark.slow
def test_a_rank_that_dies_speaks_last_and_the_sweep_goes_on(place):
    (place / "dying.py").write_text(DYING)
    words = ["engine=local", "engine.processes=2", "loss=ce", "loss.target=dying:Dying"]
    single = command(place, *words, "runs=single")
    assert single.returncode == 1
    last = single.stderr.rstrip().splitlines()
    assert last[-1] == "ArithmeticError: rank one can't go on"
    assert single.stderr.count("Traceback") == 1
    assert "rank 1 of 2" in single.stderr
    sweep = command(place, "-m", *words, "+loss.dies=true,false", "runs=sweep")
    assert sweep.returncode == 1
    assert "1 of 2 runs failed" in sweep.stderr
    assert sweep.stderr.rstrip().endswith("ArithmeticError: rank one can't go on")
    assert len(list(place.glob("sweep/**/metrics.json"))) == 1


@pytest.mark.slow
def test_deepspeeds_launcher_starts_the_ranks_of_a_hostfile(place):
    (place / "hosts").write_text("localhost slots=2\n")
    done = command(place, "engine=zero2", "loss=ntil", "engine.hostfile=hosts", "runs=hosts_run")
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list(place.glob("hosts_run/**/metrics.json"))) == 1
    assert len(list(place.glob("hosts_run/**/logs/rank1.log"))) == 1


def table(place: Path) -> None:
    print("| loss | engine | ranks x accumulation x batch | weights | key biases | losses |\n|---|---|---|---|---|---|")
    for loss in LOSSES:
        one = run(place, loss, "torch", "1 x 8")
        for engine, spread in itertools.product(ENGINES, SPREADS):
            if (engine, spread) != ("torch", "1 x 8"):
                weights, free, curve = compare(one, run(place, loss, engine, spread))
                print(f"| {loss} | {engine} | {spread} | {weights:.1e} | {free:.1e} | {curve:.1e} |", flush=True)


if __name__ == "__main__":
    table(Path(sys.argv[1]))
