"""Time and memory of every loss from hidden states to gradients, output matrix included, against named peers.

    python -m benchmarks.losses                       # the three shapes of the table in docs/losses.md, minutes
    python -m benchmarks.losses --shapes 8,640,32000 --losses ce,ntil --rounds 3
    python -m benchmarks.losses --device cuda --dtype bfloat16

20 supervised positions a row, as grounding has. Rows of a table are timed in turns, `--rounds` times round, and the
median counts; ratios compare within one run only. `step` is forward and backward; memory is what a fresh process grows
by in one step (on a GPU: the allocator's peak). Peers: plain cross-entropy over all positions (what `labels=` costs
without slicing), TRL's fused head, PyPI ntloss joined to cross-entropy, and the released algorithm as a Python loop.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.released_loop import released_loop
from ntil import NumberSpans, NumberVocab
from ntil.config import build

SUPERVISED = 20
DIGIT_IDS = list(range(15, 25))
SHAPES = ["8,640,32000", "8,384,152064", "8,384,257216"]
PLAIN, FUSED, NTLOSS, LOOP = "cross_entropy, all positions", "TRL fused head", "ntloss NTL-WAS", "released, Python loop"
LOSSES = sorted(p.stem for p in (Path(__file__).parents[1] / "conf/loss").glob("*.yaml"))
OURS = ["ce", *[name for name in LOSSES if name != "ce"]]


class Head(nn.Module):
    """Hidden states and an output matrix, with as much of a Hugging Face model as TRL's fused head looks at."""

    def __init__(self, batch: int, length: int, vocabulary: int, hidden: int, device: str, dtype: torch.dtype) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.lm_head = nn.Linear(hidden, vocabulary, bias=False)
        weight = torch.randn(vocabulary, hidden, generator=generator) / hidden**0.5
        self.lm_head.weight = nn.Parameter(weight.to(device, dtype))
        states = torch.randn(batch, length, hidden, generator=generator)
        self.states = nn.Parameter(states.to(device, dtype))
        answers = torch.tensor(DIGIT_IDS)[torch.randint(10, (batch, SUPERVISED), generator=generator)]
        answers[:, 3::4] = 7  # three digits and a separator
        labels = torch.full((batch, length), -100)
        labels[:, -SUPERVISED:] = answers
        self.labels = labels.to(device)
        text = SimpleNamespace()
        self.config = SimpleNamespace(get_text_config=lambda: text)

    def base_model(self, **_: object) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.states)

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def forward(self) -> None:
        raise NotImplementedError("only its parts are called")


def methods(head: Head, losses: list[str], peers: bool) -> dict[str, Callable[[], Tensor]]:
    """Name -> a function that computes the loss of `head` (labels aligned as Hugging Face's: t predicts t + 1)."""
    shifted = F.pad(head.labels[:, 1:], (0, 1), value=-100)
    found: dict[str, Callable[[], Tensor]] = {}

    def all_logits() -> Tensor:
        return head.lm_head(head.states)

    if peers:
        found[PLAIN] = lambda: F.cross_entropy(all_logits().flatten(0, 1).float(), shifted.flatten())
        found[FUSED] = _fused(head)
        found[NTLOSS] = _ntloss(all_logits, shifted)
        found[LOOP] = lambda: released_loop(all_logits().float(), shifted, DIGIT_IDS)[0]
    vocab = NumberVocab(DIGIT_IDS, point_ids=[8], minus_ids=[9])
    for name in losses:
        found[name] = _ours(name, head, shifted, vocab)
    return found


def _ours(name: str, head: Head, labels: Tensor, vocab: NumberVocab) -> Callable[[], Tensor]:
    spec = yaml.safe_load((Path(__file__).parents[1] / f"conf/loss/{name}.yaml").read_text())
    loss = build("loss", spec, vocab=vocab, embeddings=head.lm_head.weight).to(labels.device)
    keep = (labels != -100).flatten()
    positions, targets = keep.nonzero()[:, 0], labels.flatten()[keep]
    answers = targets.reshape(len(labels), -1)

    def step() -> Tensor:
        states = head.states.flatten(0, 1).index_select(0, positions)
        spans = NumberSpans.find(answers, vocab, loss.number_style)
        return loss(head.lm_head(states), targets, spans).total

    return step


def _fused(head: Head) -> Callable[[], Tensor]:
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(head)

    def step() -> Tensor:
        log_probs = head.forward(labels=head.labels, fused_lm_head=True).log_probs
        return -log_probs.sum() / (head.labels[:, 1:] != -100).sum()

    return step


def _ntloss(all_logits: Callable[[], Tensor], labels: Tensor) -> Callable[[], Tensor]:
    from ntloss import NTLoss

    vocabulary = all_logits().shape[-1]
    names = [f"<{i}>" if i not in DIGIT_IDS else str(DIGIT_IDS.index(i)) for i in range(vocabulary)]
    tokenizer = SimpleNamespace(get_vocab=lambda: {name: i for i, name in enumerate(names)}, __len__=lambda: vocabulary)
    loss = NTLoss(tokenizer, vocab_size=vocabulary, reweigh=False)

    def step() -> Tensor:
        logits = all_logits().float()
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten()) + 0.3 * loss(logits, labels)

    return step


def run(step: Callable[[], Tensor], head: Head) -> float:
    """Seconds of one forward and backward."""
    head.zero_grad(set_to_none=True)
    _synchronize(head)
    started = time.perf_counter()
    step().backward()
    _synchronize(head)
    return time.perf_counter() - started


def _synchronize(head: Head) -> None:
    if head.states.is_cuda:
        torch.cuda.synchronize()


def memory(name: str, options: argparse.Namespace) -> float:
    """Peak GiB of one step of `name`, beside parameters and inputs, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.losses", "--memory-of", name, "--shapes", options.shapes[0]]
    command += ["--hidden", str(options.hidden), "--device", options.device, "--dtype", options.dtype]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])["gib"]


def _print_memory(name: str, options: argparse.Namespace) -> None:
    warm_up = build_head("2,32,64", options)
    peers = name not in OURS
    step = methods(warm_up, [] if peers else [name], peers)[name]
    run(step, warm_up)
    head = build_head(options.shapes[0], options)
    step = methods(head, [] if peers else [name], False)[name] if not peers else _one_peer(name, head)
    on_gpu = head.states.is_cuda
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    run(step, head)
    after = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"gib": (after - before) / 2**30}))


def _one_peer(name: str, head: Head) -> Callable[[], Tensor]:
    shifted = F.pad(head.labels[:, 1:], (0, 1), value=-100)
    if name == FUSED:
        return _fused(head)
    if name == NTLOSS:
        with torch.no_grad():
            small = head.lm_head(head.states[:1, :1])
        built = _ntloss(lambda: small, shifted)
        del small
        loss = built.__closure__  # the loss object is built from the vocabulary's size alone
        assert loss is not None
    return methods(head, [], True)[name]


def build_head(shape: str, options: argparse.Namespace) -> Head:
    batch, length, vocabulary = map(int, shape.split(","))
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[options.dtype]
    return Head(batch, length, vocabulary, options.hidden, options.device, dtype)


def table(shape: str, options: argparse.Namespace) -> None:
    head = build_head(shape, options)
    steps = methods(head, options.losses, not options.no_peers)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        run(step, head)
    for name in tqdm(list(steps) * options.rounds, desc=f"[{shape}]", file=sys.stderr):
        seconds[name].append(run(steps[name], head))
    options = argparse.Namespace(**{**vars(options), "shapes": [shape]})
    gib = {n: memory(n, options) for n in tqdm(steps, desc="memory", file=sys.stderr)} if options.memory else {}
    median = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"\n[{shape}], hidden {options.hidden}, {options.dtype} on {options.device}, median of {options.rounds}\n")
    print("| | step, ms | / all positions | / our ce | loop / it | memory, GiB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, value in median.items():
        against = [_ratio(value, median.get(PLAIN)), _ratio(value, median.get("ce")), _ratio(median.get(LOOP), value)]
        room = f"{gib[name]:.2f}" if name in gib else ""
        print(f"| {name} | {1000 * value:.0f} | {' | '.join(against)} | {room} |", flush=True)


def _ratio(value: float | None, base: float | None) -> str:
    return f"{value / base:.3f}" if value and base else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="batch,length,vocabulary")
    parser.add_argument("--losses", type=lambda s: s.split(","), default=OURS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--no-peers", action="store_true", help="our losses only")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help="one process per row")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        _print_memory(options.memory_of, options)
        return
    for shape in options.shapes:
        table(shape, options)


if __name__ == "__main__":
    main()
