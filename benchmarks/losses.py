"""Time and memory of every loss from hidden states to gradients, output matrix included, against named peers.

    python -m benchmarks.losses                       # the three shapes of the table in docs/losses.md, minutes
    python -m benchmarks.losses --shapes 8,640,32000 --losses ce,ntil --rounds 3
    python -m benchmarks.losses --device cuda --dtype bfloat16

20 supervised positions a row, as grounding has. Rows of a table are timed in turns, `--rounds` times round, and the
median counts; ratios compare within one run only. A step is forward and backward; finding the numbers in the labels
counts into ours. Memory is what one step adds at its peak. Peers: plain cross-entropy over all positions (what
`labels=` costs without slicing), TRL's fused head, PyPI ntloss joined to cross-entropy, and the released algorithm as
a Python loop; the last two take the batch in two parts where it would not fit into `--room`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.released_loop import released_loop
from ntil import NumberSpans, NumberVocab
from ntil.config.build import build, locate
from ntil.config.compose import choices, compose

SUPERVISED = 20
DIGIT_IDS = list(range(15, 25))
SHAPES = ["8,640,32000", "8,384,152064", "8,384,257216"]
PLAIN, FUSED, NTLOSS, LOOP = "cross_entropy, all positions", "TRL fused head", "ntloss NTL-WAS", "released, Python loop"
OURS = ["ce", *[name for name in choices("loss") if name != "ce"]]  # those on boxes are left out, see `methods`


class Head(nn.Module):
    """Hidden states and an output matrix, with as much of a Hugging Face model as TRL's fused head looks at."""

    def __init__(self, batch: int, length: int, vocabulary: int, hidden: int, device: str, dtype: torch.dtype) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.lm_head = nn.Linear(hidden, vocabulary, bias=False, device=device, dtype=dtype)
        weight = torch.randn(vocabulary, hidden, generator=generator) / hidden**0.5
        self.lm_head.weight.data.copy_(weight)
        states = torch.randn(batch, length, hidden, generator=generator)
        self.states = nn.Parameter(states.to(device, dtype))
        answers = torch.tensor(DIGIT_IDS)[torch.randint(10, (batch, SUPERVISED), generator=generator)]
        answers[:, 3::4] = 7  # three digits and a separator
        labels = torch.full((batch, length), -100)
        labels[:, -SUPERVISED:] = answers
        self.labels = labels.to(device)
        text = SimpleNamespace()
        self.config = SimpleNamespace(get_text_config=lambda: text)

    def logits(self) -> Tensor:
        return self.lm_head(self.states).float()

    def base_model(self, **_: object) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.states)

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def forward(self, **_: object) -> SimpleNamespace:
        raise NotImplementedError("only its parts are called")


def methods(head: Head, losses: list[str], peers: bool, room: float) -> dict[str, Callable[[], Tensor]]:
    """Name -> a function that computes the loss of `head` (labels aligned as Hugging Face's: t predicts t + 1)."""
    shifted = F.pad(head.labels[:, 1:], (0, 1), value=-100)
    found: dict[str, Callable[[], Tensor]] = {}
    if peers:
        found[PLAIN] = lambda: F.cross_entropy(head.logits().flatten(0, 1), shifted.flatten())
        found[FUSED] = _fused(head)
        # Both of these hold five tensors of the logits' size at their peak.
        gib = 5 * 4 * head.labels.numel() * head.lm_head.out_features / 2**30
        parts = 1 if gib <= room else 2
        suffix = "" if parts == 1 else f", batch in {parts} parts"
        found[NTLOSS + suffix] = _in_parts(head, shifted, parts, _ntloss(head))
        found[LOOP + suffix] = _in_parts(head, shifted, parts, lambda z, y: released_loop(z, y, DIGIT_IDS)[0])
    vocab = NumberVocab(DIGIT_IDS, point_ids=[8], minus_ids=[9])
    for name in losses:
        if not locate(compose([f"loss={name}"]).loss.target, "loss").needs_shapes:  # the labels are no boxes
            found[name] = _ours(name, head, shifted, vocab)
    return found


def _in_parts(head: Head, labels: Tensor, parts: int, loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], Tensor]:
    """The loss of the whole batch, or of its parts one after the other, each with its own backward."""

    def step() -> Tensor:
        totals = []
        for states, targets in zip(head.states.chunk(parts), labels.chunk(parts), strict=True):
            total = loss(head.lm_head(states).float(), targets) / parts
            if parts > 1:
                total.backward()
                total = total.detach().requires_grad_()
            totals.append(total)
        return torch.stack(totals).sum()

    return step


def _ours(name: str, head: Head, labels: Tensor, vocab: NumberVocab) -> Callable[[], Tensor]:
    loss = build("loss", compose([f"loss={name}"]).loss, vocab=vocab, embeddings=head.lm_head.weight).to(labels.device)
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

    add_fused_lm_head(head)  # type: ignore[arg-type]  # `Head` has the parts it looks at

    def step() -> Tensor:
        log_probs = head.forward(labels=head.labels, fused_lm_head=True).log_probs
        return -log_probs.sum() / (head.labels[:, 1:] != -100).sum()

    return step


def _ntloss(head: Head) -> Callable[[Tensor, Tensor], Tensor]:
    from ntloss import NTLoss

    vocabulary = head.lm_head.out_features

    class Tokenizer:
        def get_vocab(self) -> dict[str, int]:
            named = {str(digit): i for digit, i in enumerate(DIGIT_IDS)}
            return named | {f"<{i}>": i for i in range(vocabulary) if i not in DIGIT_IDS}

        def add_tokens(self, tokens: list[str]) -> int:
            return 0

        def __len__(self) -> int:
            return vocabulary

    loss = NTLoss(Tokenizer(), vocab_size=vocabulary, reweigh=False)  # type: ignore[arg-type]  # the parts it calls
    return lambda logits, labels: F.cross_entropy(logits.flatten(0, 1), labels.flatten()) + 0.3 * loss(logits, labels)


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


class Peak:
    """Peak memory of a step in GiB beside what was there before: the allocator's on a GPU, the process's on Linux."""

    def __init__(self, head: Head) -> None:
        self.on_gpu = head.states.is_cuda

    def __enter__(self) -> Peak:
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew at what is resident now
            self.before = _resident("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        after = torch.cuda.max_memory_allocated() if self.on_gpu else _resident("VmHWM")
        self.gib = (after - self.before) / 2**30


def _resident(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def build_head(shape: str, options: argparse.Namespace) -> Head:
    batch, length, vocabulary = map(int, shape.split(","))
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[options.dtype]
    return Head(batch, length, vocabulary, options.hidden, options.device, dtype)


def table(shape: str, options: argparse.Namespace) -> None:
    head = build_head(shape, options)
    steps = methods(head, options.losses, not options.no_peers, options.room)
    peers = [name for name in steps if name not in options.losses]
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    gib: dict[str, float] = {}
    for name in tqdm(steps, desc=f"[{shape}] warm-up and memory", file=sys.stderr):
        with Peak(head) as peak:
            run(steps[name], head)
        gib[name] = peak.gib
        head.zero_grad(set_to_none=True)
    turns = [n for i in range(options.rounds) for n in steps if n not in peers or i < options.peer_rounds]
    for name in tqdm(turns, desc=f"[{shape}]", file=sys.stderr):
        seconds[name].append(run(steps[name], head))
    median = {name: statistics.median(times) for name, times in seconds.items()}
    plain, loop = (next((v for n, v in median.items() if n.startswith(k)), None) for k in (PLAIN, LOOP))
    rounds = f"median of {options.rounds}" + (f" ({options.peer_rounds} for peers)" if peers else "")
    print(f"\n[{shape}], hidden {options.hidden}, {options.dtype} on {options.device}, {rounds}\n")
    print("| | step, ms | / all positions | / our ce | loop / it | memory, GiB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, value in median.items():
        against = [_ratio(value, plain), _ratio(value, median.get("ce")), _ratio(loop, value)]
        print(f"| {name} | {1000 * value:.0f} | {' | '.join(against)} | {max(gib[name], 0):.2f} |", flush=True)


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
    parser.add_argument("--peer-rounds", type=int, default=2, help="of the slow peers")
    parser.add_argument("--room", type=float, default=12, help="GiB that a peer's step may take; else the batch is cut")
    options = parser.parse_args()
    for shape in options.shapes:
        table(shape, options)


if __name__ == "__main__":
    main()
